"""`fulgurite paro quality`: what plans cost a GameCraft model, in films of twelve actions beside dense ones.

Axis legend: S start, N film, T frame, C colour, H W picture.
"""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.console import Console

from ...datamodules.files import write_json
from ...registry import COMMANDS, UserError

if TYPE_CHECKING:
    import torch
    from torch import Tensor

    from ...kernels.paro.plan import Plan
    from ..gamecraft.evaluation.chunks import DiffusionModel
    from .fidelity import Fidelity
    from .film_sets import FilmSet

FLOOR, REAL, DENSE, SEED = "floor", "real", "dense", "seed"
ALL = "all"  # a target: every block is kept


@dataclass(frozen=True)
class Setting:
    """One row of the table: how the attention of its films is computed.

    Attributes:
        kind: `real` (the engine's answers), `dense`, `floor` (dense by other kernels), `seed` (dense with other noise),
            or the arm that chose the plan's orders.
        target: density, such as `d0.3`; `all` keeps all blocks; empty where there is no plan.
        numbers: of the products; for `seed` its number.
        plan: the plan.
        digest: sha256 of the plan's file.
    """

    kind: str
    target: str = ""
    numbers: str = ""
    plan: Plan | None = None
    digest: str = ""

    @property
    def key(self) -> str:
        """As part of a metric's name, such as `paro_d0.3_int8`."""
        return "_".join(part for part in (self.kind, self.target, self.numbers) if part)


@COMMANDS.register("paro quality", paper="2506.16054")
def quality(
    transformer: Path, vae: Path, data: Path, plans: Path, captures: Path, out: Path, idm: Path | None = None,
    densities: list[float] = [0.5, 0.3, 0.2],  # noqa: B006  (jsonargparse shows it; never changed)
    arms: list[str] = ["paro", "none", "random", "single"],  # noqa: B006
    precisions: list[str] = ["bf16", "int8", "int4"],  # noqa: B006
    num_starts: int = 4, num_pictures: int = 0, num_seeds: int = 3, num_steps: int = 8, batch_size: int = 24,
    seed: int = 0,
) -> None:  # fmt: skip
    """Compare films under plans with dense ones of the same noise; goes on where it stopped.

    Every film is one chunk of 33 frames after a recorded clip, sampled without guidance; every start has twelve, one
    for each action. With `num_pictures` they are single pictures, made from captions alone. Rows are printed as they
    come and kept in cells.json, for the same weights, judge, data and dense films; others begin anew.

    Args:
        transformer: folder of the trained transformer, `<stage>/transformer`.
        vae: folder of the autoencoder.
        data: folder of the data set, with its counterfactual folder (for pictures, its test folder).
        plans: folder of the plans, `<arm>-d<density>.safetensors`.
        captures: folder of the captures; its films of the split `test` give the recall.
        out: folder for results.json and the picture.
        idm: folder of the inverse-dynamics network, the judge of actions; not needed for pictures.
        densities: of the plans.
        arms: of the plans; the first is compared with the others.
        precisions: numbers of the products (those of the backend `paro`).
        num_starts: starts, twelve films each.
        num_pictures: single pictures; 0 makes films.
        num_seeds: further seeds of dense films; with the first they span the range of a lossless change.
        num_steps: Euler steps a chunk; the captures' own number.
        batch_size: films sampled at once.
        seed: of the draw of starts and the noise.

    Raises:
        UserError: if a folder does not hold what it has to, or films have no judge.
    """
    import torch

    from .chunk_subject import open_model
    from .film_sets import films_of_actions, single_pictures
    from .quality_report import draw, report

    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    model = open_model(transformer, vae, device, num_steps, pictures=bool(num_pictures))
    if num_pictures:
        films = single_pictures(data, num_pictures, seed, device)
    elif idm is None:
        raise UserError("films of twelve actions need a judge\nName the inverse-dynamics network: --idm FOLDER")
    else:
        films = films_of_actions(data, idm, num_starts, seed, device)
    settings = list_settings(plans, arms, [f"d{d:g}" for d in densities], precisions, num_seeds, films.real is not None)
    log = CellLog(out / "cells.json")
    log.require(
        schema_version=2, transformer=_digest(transformer.glob("*.safetensors")), vae=_digest(vae.rglob("*")),
        idm=_digest(idm.rglob("*") if idm else []), data=_digest(films.folder.rglob("*")), films=films.names, seed=seed,
        steps=num_steps, batch_size=batch_size, device=_name(device),
    )  # fmt: skip
    recall = held_out_recall(settings, captures, device, log)
    measured = measure(model, films, settings, log, batch_size, seed)
    computed = {s.key: _computed_by(s, model) for s in settings}
    about = f"{films.about} {num_steps} Euler steps."
    found = report(settings, measured, recall, computed, films.prefix, films.title, about)
    draw(settings, measured, out / "quality.png")
    write_json(out / "results.json", {"schema_version": 1, **found, "figures": ["quality.png"]})


def list_settings(
    plans: Path,
    arms: Sequence[str],
    targets: Sequence[str],
    precisions: Sequence[str],
    num_seeds: int,
    with_real: bool = True,
) -> list[Setting]:
    """All rows, in the order in which they are measured; those that others are compared with come first.

    Raises:
        UserError: for a plan that can't be read.
    """
    from ...kernels.paro.plan import Plan
    from .planning import without_masks

    opened: dict[tuple[str, str], tuple[Plan, str]] = {}
    for target in targets:
        for arm in arms:
            file = plans / f"{arm}-{target}.safetensors"
            opened[arm, target] = (Plan.load(file), _digest([file]))
    if not opened:
        raise UserError("nothing to compare: name at least one density and one arm")
    plan, digest = opened[arms[0], targets[0]]
    whole = without_masks(plan)
    rows = [Setting(REAL)] if with_real else []
    rows += [Setting(DENSE), Setting(FLOOR, ALL, "bf16", whole, digest)]
    rows += [Setting(SEED, numbers=str(number)) for number in range(1, num_seeds + 1)]
    rows += [Setting(arms[0], ALL, p, whole, digest) for p in precisions if p not in ("bf16", "float")]
    rows += [
        Setting(arm, target, numbers, *opened[arm, target])
        for numbers in precisions
        for target in targets
        for arm in arms
    ]
    return rows


def held_out_recall(
    settings: Sequence[Setting], captures: Path, device: torch.device, log: CellLog
) -> dict[str, float]:
    """Share of the attention that each plan keeps of captures that chose nothing, by `<arm>_<target>`.

    Raises:
        UserError: if there are no captures, or of other weights than a plan's.
    """
    import torch

    from ...datamodules.paro.captures import CaptureStore
    from .planning import recall_on

    store = CaptureStore(captures)
    found: dict[str, float] = {}
    for setting in settings:
        key = f"{setting.kind}_{setting.target}"
        if setting.plan is None or setting.target == ALL or key in found:
            continue
        if setting.plan.meta.model_hash != store.meta.model_hash:
            raise UserError(f"{captures}: captures of other weights than the plans'\nMake the plans again from them.")
        kept = log.get(f"recall/{key}", setting.digest)
        if kept is None:
            rows = []
            for layer in range(store.meta.num_layers):
                handles = store.select(layer, "test")
                given = [(store.timestep(h), partial(store.load, h, device)) for h in handles]
                rows.append(recall_on(setting.plan, layer, given)[1])
            kept = float(torch.stack(rows).mean())
            log.put(f"recall/{key}", setting.digest, kept)
        found[key] = kept
    return found


def measure(
    model: DiffusionModel, films: FilmSet, settings: Sequence[Setting], log: CellLog, batch_size: int, seed: int
) -> dict[str, Fidelity]:
    """Make the films of every setting that the log lacks, and measure them."""
    import torch

    from ...kernels.adapters.serve import serve
    from ...kernels.api import make_backend
    from ..gamecraft.evaluation.chunks import answer
    from .fidelity import Fidelity

    console = Console(stderr=True, highlight=False, soft_wrap=True)

    def play(setting: Setting) -> Tensor:
        if setting.kind == REAL:
            assert films.real is not None
            return films.real
        request = films.request(seed + (int(setting.numbers) if setting.kind == SEED else 0))
        if setting.plan is None:
            return answer(model, request, batch_size)
        backend = make_backend("paro", plan=setting.plan, precision=setting.numbers)
        with serve(model.transformer, backend), torch.no_grad():
            return answer(model, request, batch_size)

    dense_NTCHW = play(Setting(DENSE))
    log.require(dense_films=hashlib.sha256(dense_NTCHW.cpu().numpy().tobytes()).hexdigest())
    judge = films.judge(dense_NTCHW)
    found: dict[str, Fidelity] = {}
    for number, setting in enumerate(settings, 1):
        kept = log.get(setting.key, setting.digest)
        if kept is not None:
            found[setting.key] = Fidelity.from_json(kept)
            continue
        begun = time.monotonic()
        made_NTCHW = dense_NTCHW if setting.kind == DENSE else play(setting)
        found[setting.key] = fidelity = judge(made_NTCHW)
        log.put(setting.key, setting.digest, fidelity.as_json())
        seconds = time.monotonic() - begun
        console.print(f"{number} of {len(settings)}, {setting.key}: {fidelity}; {seconds:.1f} s")
    return found


class CellLog:
    """What was measured so far, in a file, for a command that is cut off.

    Args:
        file: JSON.

    Raises:
        UserError: if the file can't be read.
    """

    def __init__(self, file: Path) -> None:
        self._file = file
        self._given: dict[str, Any] = {}
        self._cells: dict[str, dict[str, Any]] = {}
        if file.is_file():
            try:
                found = json.loads(file.read_text(encoding="utf-8"))
                self._given, self._cells = dict(found["given"]), dict(found["cells"])
            except (OSError, ValueError, KeyError, TypeError) as error:
                raise UserError(f"{file}: can't be read: {error}\nDelete it; its rows are measured again.") from None

    def require(self, **given: Any) -> None:
        """What all cells depend on. Where it differs from what was kept, all begin anew, with a sentence."""
        differ = [name for name, value in given.items() if self._given.get(name, value) != value]
        if differ:
            names = ", ".join(name.replace("_", " ") for name in differ)
            console = Console(stderr=True, highlight=False, soft_wrap=True)
            console.print(f"{self._file}: its rows are of other {names}; all are measured again", markup=False)
            self._given, self._cells = {}, {}
        self._given |= given

    def get(self, key: str, digest: str) -> Any:
        """A cell's content, None if it is not there or of another plan."""
        cell = self._cells.get(key)
        return cell["content"] if cell is not None and cell["digest"] == digest else None

    def put(self, key: str, digest: str, content: Any) -> None:
        """Keep a cell."""
        self._cells[key] = {"digest": digest, "content": content}
        write_json(self._file, {"given": self._given, "cells": self._cells})


def _computed_by(setting: Setting, model: DiffusionModel) -> str:
    from ...kernels.api import make_backend
    from ...kernels.paro.backend import ParoAttention

    if setting.kind == REAL:
        return ""
    if setting.plan is None:
        return "sdpa"
    backend = make_backend("paro", plan=setting.plan, precision=setting.numbers)
    assert isinstance(backend, ParoAttention)
    network = model.transformer
    return backend.computed_by(network.device, network.dtype, network.config.attention_head_dim)


def _digest(paths: Iterable[Path]) -> str:
    """sha256 over the sha256 of each file, in the order of their paths; folders among them are passed over."""
    seen = hashlib.sha256()
    for path in sorted(paths):
        if path.is_file():
            with path.open("rb") as file:
                seen.update(hashlib.file_digest(file, "sha256").digest())
    return seen.hexdigest()


def _name(device: torch.device) -> str:
    import torch

    return torch.cuda.get_device_name(device) if device.type == "cuda" else device.type
