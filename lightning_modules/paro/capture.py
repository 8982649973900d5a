"""`fulgurite paro capture`: queries and keys of every attention layer, for some films and steps, to disk."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from rich.console import Console

from ...registry import COMMANDS, UserError

if TYPE_CHECKING:
    from torch import Tensor

    from ...datamodules.paro.captures import CaptureStore, Film
    from ...kernels.place import Place
    from .subjects import Subject


@COMMANDS.register("paro capture", paper="2506.16054")
def capture(
    model: Path,
    out: Path,
    prompts: Path | None = None,
    num_bins: int = 4,
    num_steps: int | None = None,
    height: int | None = None,
    width: int | None = None,
    num_frames: int | None = None,
    guidance_scale: float | None = None,
) -> None:
    """Capture what plans are made from; goes on where an earlier call stopped.

    Args:
        model: folder of a pipeline: released GameCraft weights, or one that diffusers saved.
        out: folder for the captures.
        prompts: a prompt a line, or JSON Lines with text, split (calibrate, test), seed, start; default for GameCraft:
            two films for each split.
        num_bins: timestep bins; the first half of the steps shares num_bins - 1, the second half one.
        num_steps: sampling steps; default: the pipeline's.
        height: rows, for a pipeline of diffusers.
        width: columns, likewise.
        num_frames: frames, likewise.
        guidance_scale: likewise.
    """
    import torch

    from .subjects import GameCraftSubject, open_subject, read_films

    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    given = {"height": height, "width": width, "num_frames": num_frames, "guidance_scale": guidance_scale}
    subject = open_subject(model, device, num_steps, {k: v for k, v in given.items() if v is not None})
    if prompts is not None:
        films = read_films(prompts)
    elif isinstance(subject, GameCraftSubject):
        films = subject.films()
    else:
        raise UserError("a pipeline of diffusers needs --prompts FILE, a prompt a line")
    capture_films(subject, films, out, num_bins)


def capture_films(subject: Subject, films: tuple[Film, ...], out: Path, num_bins: int) -> CaptureStore:
    """Capture one step of every bin of every film; films whose captures are all there are not sampled again.

    Raises:
        UserError: if the folder holds captures of something else.
    """
    from ...datamodules.paro.captures import CaptureMeta, CaptureStore, Handle, steps_to_capture
    from ...datamodules.paro.recorder import RecordingAttention
    from ...kernels.adapters.follow import kind_of
    from ...kernels.adapters.serve import serve
    from ...kernels.paro.calibration import bins_of
    from ...kernels.paro.model_hash import model_hash

    screen = Console(stderr=True, highlight=False, soft_wrap=True)
    probe = _Probe()
    with serve(subject.transformer, RecordingAttention(probe.note)):
        subject.run(films[0])
    grid = subject.grid or probe.grid
    if grid is None:
        raise UserError(f"{type(subject.transformer).__name__}: the grid of its tokens is not known")
    edges = bins_of(probe.timesteps, num_bins)
    num_image = 1
    for side in grid:
        num_image *= side
    meta = CaptureMeta(
        type(subject.transformer).__name__, model_hash(subject.transformer), tuple(grid), probe.num_tokens - num_image,
        kind_of(subject.transformer).side or "prefix", probe.num_layers, probe.num_heads, probe.head_dim,
        tuple(probe.timesteps), edges, steps_to_capture(probe.timesteps, edges), films,
    )  # fmt: skip
    store = CaptureStore(out, meta)
    for number, film in enumerate(films):
        missing = set(store.missing(number))
        if not missing:
            continue

        def keep(
            place: Place,
            q: Tensor,
            k: Tensor,
            seen: Tensor | None,
            number: int = number,
            missing: set[Handle] = missing,
        ) -> None:
            if q.shape[1] != meta.layout.num_tokens or (place.grid is not None and place.grid != meta.grid):
                return
            handle = Handle(number, probe.step(place), place.layer)
            if handle in missing:
                store.write(handle, q, k, seen)
                missing.discard(handle)

        with serve(subject.transformer, RecordingAttention(keep)):
            subject.run(film)
        if missing:
            raise UserError(f"film {number} ('{film.text[:60]}') did not reach {len(missing)} of its captures: "
                            "its length or steps differ from the first film's")  # fmt: skip
        screen.print(f"captured film {number + 1} of {len(films)} ({film.split}): {film.text[:60]}")
    return store


class _Probe:
    """Notes what the attention of a film is like, from its last grid on."""

    def __init__(self) -> None:
        self.grid: tuple[int, ...] | None = None
        self.num_tokens = self.num_layers = self.num_heads = self.head_dim = 0
        self.timesteps: list[float] = []

    def note(self, place: Place, q_HND: Tensor, k_HND: Tensor, seen_N: Tensor | None) -> None:
        """Sink of a `RecordingAttention`."""
        if (place.grid, q_HND.shape[1]) != (self.grid, self.num_tokens):
            self.grid, self.num_tokens, self.timesteps = place.grid, q_HND.shape[1], []
        self.num_layers = max(self.num_layers, place.layer + 1)
        self.num_heads, self.head_dim = q_HND.shape[0], q_HND.shape[2]
        value = _value(place)
        if value not in self.timesteps:
            self.timesteps.append(value)

    def step(self, place: Place) -> int:
        """Number of the step that runs."""
        value = _value(place)
        return min(range(len(self.timesteps)), key=lambda i: abs(self.timesteps[i] - value))


def _value(place: Place) -> float:
    assert place.timestep is not None
    return float(place.timestep.flatten()[0])
