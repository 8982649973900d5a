"""Experiment files: found by name, expanded along `base:`, split into stages, checked; every value keeps its origin.

An experiment is either plain (a LightningCLI configuration: model, data, trainer) or has `stages:`, a list of

    {name, verb: fit|validate|test|predict|command, experiment: NAME or command: NAME, overrides: {...}}

A top-level key that is a stage's name changes that stage (`generator: {trainer: {max_steps: 5}}`), which is also how
the command line says it: `--generator.trainer.max_steps 5`. A child's `stages:` replaces its parent's, and what the
parent says of stages that are no longer listed is dropped. No torch here: an unknown key is told in a fraction of a
second.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ...registry import ROOT, UserError, did_you_mean, nearest, read_index
from .key_check import check_root, check_stage, expand_names
from .settings import Leaf, Path_, Settings, parse_value, read_yaml, short_path
from .signatures import has_method

EXPERIMENTS = ROOT / "experiments"
META_KEYS = ("base", "title", "paper", "published", "headline", "estimate", "sources", "stages")
LIGHTNING_VERBS = ("fit", "validate", "test", "predict")
LIGHTNING_KEYS = ("seed_everything", "trainer", "model", "data", "ckpt_path", "runner", "rllib")
MAX_SEED = 2**32 - 1  # what numpy takes
_BARE = re.compile(r"(\w+(\.\w+)+|seed_everything|model|data|trainer)=")
STAGE_KEYS = ("name", "verb", "experiment", "command", "overrides")


@dataclass(frozen=True)
class Stage:
    """One step of an experiment: a Lightning verb with its configuration, or a command with its arguments."""

    name: str
    verb: str
    settings: Settings
    command: str | None = None

    def digest(self, seed: int) -> str:
        """sha256 over verb, command and every resolved value, with the run's seed for `${seed}` (not for `${run_dir}`):
        a stage that does not name the seed is the same in runs of several.
        """
        content = json.dumps([self.verb, self.command, self.settings.to_dict()], sort_keys=True, default=str)
        content = content.replace('"${seed}"', str(seed)).replace("${seed}", str(seed))
        return hashlib.sha256(content.encode()).hexdigest()


@dataclass(frozen=True)
class Experiment:
    """A resolved experiment: what it says of itself, and its stages in order."""

    name: str
    file: Path
    meta: dict[str, Any]
    seed: int
    stages: tuple[Stage, ...]

    def digest(self) -> str:
        """sha256 over the seed and all stages: two runs with the same digest do the same work."""
        return hashlib.sha256(
            "".join([str(self.seed), *(s.name + s.digest(self.seed) for s in self.stages)]).encode()
        ).hexdigest()


def names() -> list[str]:
    """Names of all experiments that come with the package, `base/` (parents only) and `sweeps/` left out."""
    found = (f.relative_to(EXPERIMENTS).with_suffix("").as_posix() for f in sorted(EXPERIMENTS.rglob("*.yaml")))
    return [n for n in found if not n.startswith(("base/", "sweeps/"))]


def _parents() -> list[str]:
    return [f"base/{f.stem}" for f in sorted((EXPERIMENTS / "base").glob("*.yaml"))]


def find(name: str, asked_by: str = "", beside: Path | None = None) -> Path:
    """File of an experiment, by its name under experiments/ or by a path to any YAML file: from where one stands, or
    from `beside`, the folder of the file that names it.

    Raises:
        UserError: if there is none; with the nearest names.
    """
    if len(name) > 200:
        raise UserError(
            f"{asked_by}no experiment has a name of {len(name)} letters\nfulgurite list experiments   shows all"
        )
    path = Path(os.path.expanduser(name))
    if path.suffix in (".yaml", ".yml"):
        for place in (beside / path, path) if beside else (path,):
            if place.is_file():
                return place.resolve()
        folder = (beside / path if beside else path).parent
        stems = {f.stem: f.name for f in sorted(folder.glob("*.y*ml"))}
        near = [stems[n] for n in nearest(path.stem, list(stems))]
        hint = (
            f"Did you mean {' or '.join(repr(n) for n in near)}?" if near else "Give a path to a YAML file, or a name."
        )
        raise UserError(f"{asked_by}no such file: {name}\n{hint}\nfulgurite list experiments   shows the names")
    file = EXPERIMENTS / f"{name}.yaml"
    if name and file.is_file() and file.resolve().is_relative_to(EXPERIMENTS):
        return file
    hint = did_you_mean(name, names() if not asked_by else [*names(), *_parents()], end="\n")
    raise UserError(f"{asked_by}no experiment named '{name}'\n{hint}fulgurite list experiments   shows all")


def chain(file: Path, _below: tuple[Path, ...] = (), _asked_by: str = "") -> list[Path]:
    """The file and its `base:` parents, parents first, each once.

    Raises:
        UserError: if a parent is missing or the parents form a circle.
    """
    if file in _below:
        circle = " -> ".join(short_path(f) for f in [*_below[_below.index(file) :], file])
        raise UserError(f"{_asked_by}`base:` goes round in a circle:\n{circle}\nTake one of these `base:` lines out.")
    base = read_yaml(file).get(("base",))
    if base is None or base.value is None:
        return [file]
    parents = base.value if isinstance(base.value, list) else [base.value]
    order: list[Path] = []
    for place, parent in enumerate(parents):
        asked_by = f"{base.inner.get((place,), base.origin)}: "
        if not isinstance(parent, str):
            raise UserError(
                f"{asked_by}`base:` is a name or a list of names, not {parent!r}\n"
                "fulgurite list experiments   shows the names"
            )
        found = find(parent, asked_by, file.parent)
        order += [f for f in chain(found, (*_below, file), asked_by) if f not in order]
    return [*order, file]


def parse_flags(arguments: Sequence[str]) -> list[tuple[Path_, Leaf]]:
    """`--a.b 1 --c=x` as leaves whose origin is the flag; also `a.b=1` and `{"a.b": 1}`, which W&B's agent writes for
    `${args_no_hyphens}` and `${args_json}`.

    Raises:
        UserError: for anything that is no `--key value`.
    """
    layer: list[tuple[Path_, Leaf]] = []
    rest = list(arguments)
    while rest:
        flag = rest.pop(0)
        if flag.startswith("{") and isinstance(several := parse_value(flag), dict):
            layer += _flatten(several, lambda path: f"--{'.'.join(path)}")
            continue
        if _BARE.match(flag):
            flag = f"--{flag}"
        if not flag.startswith("--") or len(flag) == 2:
            raise UserError(f"'{flag}' is no setting\nA setting is written --key value, such as --trainer.max_steps 5.")
        key, equals, value = flag[2:].partition("=")
        if not equals:
            if not rest or (rest[0].startswith("--") and len(rest[0]) > 2):
                raise UserError(f"--{key} needs a value\nWrite --{key} VALUE (true or false for a switch).")
            value = rest.pop(0)
        parsed = parse_value(value)
        path = tuple(key.split("."))
        if isinstance(parsed, dict) and parsed:
            layer += [((*path, *p), leaf) for p, leaf in _flatten(parsed, _always(f"--{key}"))]
        else:
            layer.append((path, Leaf(parsed, f"--{key}")))
    return layer


def resolve(name: str, flags: Iterable[tuple[Path_, Leaf]] = (), files: Iterable[Path] = ()) -> Experiment:
    """Everything about one experiment: parents, then the file, then `files` (left to right), then the flags.

    Raises:
        UserError: for an unknown name or key, a file that can't be read, a circle of parents.
    """
    file = find(name)
    root = Settings()
    for layer in [*chain(file), *files]:
        leaves = {p: leaf for p, leaf in read_yaml(layer).items() if p != ("base",)}
        _leave_out(root, leaves.get(("stages",)))
        root.merge(leaves.items())
    root.merge(flags)
    own = file.relative_to(EXPERIMENTS).with_suffix("").as_posix() if file.is_relative_to(EXPERIMENTS) else file.stem
    seed = root.get("seed_everything", default=0)
    where = f"{root.origin('seed_everything')}: seed_everything is a whole number"
    if isinstance(seed, bool) or not isinstance(seed, int):
        raise UserError(f"{where}, not {seed!r}")
    if not 0 <= seed <= MAX_SEED:
        raise UserError(f"{where} from 0 to {MAX_SEED}, not {seed}"[:200])
    stages = _staged(root, file) if root.get("stages") is not None else _plain(root, own)
    for stage in stages:
        if stage.verb in LIGHTNING_VERBS and ("seed_everything",) not in stage.settings.leaves:
            leaf = root.leaves.get(("seed_everything",), Leaf(seed, "fulgurite's default"))
            stage.settings.set(("seed_everything",), leaf)
        check_stage(stage.verb, stage.command, stage.settings, LIGHTNING_KEYS)
    return Experiment(own, file, _meta(root), seed, tuple(stages))


def _leave_out(root: Settings, stages: Leaf | None) -> None:
    """Before a layer's list of stages replaces another: the stages that it leaves out take their settings with them."""

    def names_of(listed: Any) -> set[str]:
        items = [item for item in listed if isinstance(item, dict)] if isinstance(listed, list) else []
        return {item["name"] for item in items if isinstance(item.get("name"), str)}

    if stages is not None:
        gone = names_of(root.get("stages")) - names_of(stages.value)
        root.leaves = {p: leaf for p, leaf in root.leaves.items() if p[0] not in gone}


def _meta(root: Settings) -> dict[str, Any]:
    """What the experiment says of itself, checked: the report and the results table are made of it.

    Raises:
        UserError: for a value of the wrong kind.
    """

    def numbers(value: Any) -> bool:
        return isinstance(value, dict) and all(type(v) in (int, float) for v in value.values())

    def texts(value: Any) -> bool:
        return isinstance(value, list) and all(isinstance(v, str) for v in value)

    kinds: dict[str, tuple[Callable[[Any], bool], str]] = {
        "title": (lambda v: isinstance(v, str) and v.isprintable(), "a line of text"),
        "paper": (lambda v: isinstance(v, str), "an arXiv id in quotes"),
        "published": (numbers, "a mapping of names to numbers"),
        "headline": (lambda v: texts(v) and bool(v), "a list of metrics' names"),
        "estimate": (numbers, "a mapping of minutes, memory_gb and disk_gb to numbers"),
        "sources": (texts, "a list of names"),
    }
    meta = {k: root.get(k) for k in META_KEYS}
    for key, (fits, kind) in kinds.items():
        if meta[key] is not None and not fits(meta[key]):
            raise UserError(f"{root.origin(key)}: `{key}:` is {kind}, not {meta[key]!r}"[:300])
    return meta


def _plain(root: Settings, name: str) -> list[Stage]:
    """fit, then test with the last checkpoint if the model has a test_step."""
    own = Settings()
    own.leaves = {p: leaf for p, leaf in root.leaves.items() if p[0] not in META_KEYS}
    check_root(own, (*LIGHTNING_KEYS, *META_KEYS))
    expand_names(own)
    model = own.get("model", "class_path")
    if model is None:
        raise UserError(
            f"{name}: no `model:` and no `stages:`\n"
            "An experiment needs one of the two.\n"
            "fulgurite explain hello   shows a small one"
        )
    stages = [Stage("fit", "fit", own)]
    if has_method(model, "test_step"):
        test = Settings(dict(own.leaves))
        test.set(("ckpt_path",), Leaf("${run_dir}/fit/checkpoints/last.ckpt", "the fit before it"))
        stages.append(Stage("test", "test", test))
    return stages


def _staged(root: Settings, file: Path) -> list[Stage]:
    origin = root.origin("stages")
    listed = root.get("stages")
    if (
        not isinstance(listed, list)
        or not listed
        or not all(isinstance(item, dict) and isinstance(item.get("name"), str) for item in listed)
        or not all(isinstance(item.get("command", ""), str) and len(item["name"]) < 100 for item in listed)
    ):
        raise UserError(
            f"{origin}: `stages:` is a list of {{name, verb, experiment or command, overrides}}\n"
            "fulgurite explain dnd/tiny   shows a staged experiment"
        )
    stage_names = [item["name"] for item in listed]
    for key in dict.fromkeys(path[0] for path, _ in root):
        if key not in (*META_KEYS, "seed_everything", *stage_names):
            raise UserError(_unknown_key(root.origin(key), key, [*stage_names, *META_KEYS, "seed_everything"]))
    if len(set(stage_names)) < len(stage_names):
        raise UserError(f"{origin}: two stages have the same name\nStage names are folder names: each must be its own.")
    lines = root.leaves["stages",].inner
    own = [{p[1:]: line for p, line in lines.items() if p[0] == place} for place in range(len(listed))]
    seed = root.leaves.get(("seed_everything",))
    return [_stage(i, seed, root.under(i["name"]), at, origin, file) for i, at in zip(listed, own, strict=True)]


def _stage(
    item: dict[str, Any], seed: Leaf | None, changes: Settings, lines: dict[Any, str], origin: str, file: Path
) -> Stage:
    """One stage: its experiment, then the whole's seed, then its overrides, then the changes under its name. `lines`
    says where each part of `item` was set (`("overrides", "model")` -> `file:line`).
    """

    def at(*key: str) -> str:
        return lines.get(key, lines.get(("name",), origin))

    name = item["name"]
    for key in item:
        if key not in STAGE_KEYS:
            raise UserError(_unknown_key(at(key), key, list(STAGE_KEYS)))
    if not re.fullmatch(r"[\w-]+", name):
        raise UserError(
            f"{at('name')}: '{name}' can't name a stage\nIt becomes a folder's name: letters, digits, _ and - only."
        )
    verb, command = item.get("verb", "command" if "command" in item else "fit"), item.get("command")
    if verb not in (*LIGHTNING_VERBS, "command"):
        hint = did_you_mean(str(verb), [*LIGHTNING_VERBS, "command"], end=" ")
        raise UserError(
            f"{at('verb')}: stage '{name}': no verb '{verb}'\n{hint}Verbs are {', '.join(LIGHTNING_VERBS)}, command."
        )
    if (verb == "command") != bool(command):
        raise UserError(
            f"{at('verb')}: stage '{name}': verb command goes with `command:`, the others with `experiment:`"
        )
    if command and command not in read_index().of("commands"):
        hint = did_you_mean(str(command), list(read_index().of("commands")), end="\n")
        raise UserError(f"{at('command')}: no command named '{command}'\n{hint}fulgurite list commands   shows all")
    settings = Settings()
    if item.get("experiment"):
        for layer in chain(find(str(item["experiment"]), f"{at('experiment')}: ", file.parent)):
            settings.merge((p, leaf) for p, leaf in read_yaml(layer).items() if p[0] not in META_KEYS)
    if seed is not None and verb != "command":
        settings.set(("seed_everything",), seed)
    overrides = item.get("overrides") or {}
    if not isinstance(overrides, dict):
        raise UserError(f"{at('overrides')}: stage '{name}': `overrides:` is a mapping of settings, not {overrides!r}")
    settings.merge(_flatten(overrides, lambda path: at("overrides", *path)))
    settings.merge(changes)
    if verb != "command":
        check_root(settings, LIGHTNING_KEYS)
        expand_names(settings)
        if settings.get("model", "class_path") is None:
            raise UserError(
                f"{at('name')}: stage '{name}' has no model\n"
                "Give it `experiment: NAME`, or a `model:` in its `overrides:`.\n"
                "fulgurite list experiments   shows the names"
            )
    return Stage(name, verb, settings, command)


def _flatten(
    tree: dict[Any, Any], origin: Callable[[tuple[str, ...]], str], above: Path_ = ()
) -> list[tuple[Path_, Leaf]]:
    """Leaves of a nested mapping; `origin` tells where the value at a path (of written keys) was set."""
    layer: list[tuple[Path_, Leaf]] = []
    for key, value in tree.items():
        path, written = tuple(str(key).split(".")), (*above, str(key))
        if isinstance(value, dict) and value:
            layer += [((*path, *p), leaf) for p, leaf in _flatten(value, origin, written)]
        else:
            layer.append((path, Leaf(value, origin(written))))
    return layer


def _always(origin: str) -> Callable[[tuple[str, ...]], str]:
    return lambda _: origin


def _unknown_key(origin: str, key: str, choices: list[str]) -> str:
    hint = did_you_mean(key, choices, f"Known here: {', '.join(choices)}.")
    return f"{origin}: unknown key '{key}'\n{hint}\nfulgurite explain dnd/tiny   shows a whole staged experiment"
