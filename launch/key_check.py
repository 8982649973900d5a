"""Names and keys of a stage, checked from source text before torch is imported; with the line and the nearest names."""

from __future__ import annotations

import os
import re
from typing import Any

from ..registry import UserError, find_source, nearest, plugin_packages, read_index
from .settings import Leaf, Settings
from .signatures import Parameter, locate, parameters

TRAINER = "lightning.pytorch.Trainer"
ALLOWED_PACKAGES = ("fulgurite", "torch", "lightning", "torchmetrics", "transformers", "peft", "diffusers")
ALLOW_VARIABLE = "FULGURITE_ALLOW_IMPORTS"
INJECTED = ("build", "run")
_SIMPLE = {"int": int, "float": (int, float), "bool": bool, "str": str, "None": type(None)}
_KINDS = {"model": "models", "data": "datamodules"}


def allowed_packages() -> list[str]:
    """Top-level packages whose classes a YAML file may name: ours, the libraries', the plug-ins', and the user's own
    list in the environment variable FULGURITE_ALLOW_IMPORTS (comma-separated)."""
    extra = [p.strip() for p in os.environ.get(ALLOW_VARIABLE, "").split(",") if p.strip()]
    return [*ALLOWED_PACKAGES, *plugin_packages(), *extra]


def expand_names(settings: Settings) -> None:
    """Replace registered short names in `model` and `data` by dotted paths, and drop init_args that a newly chosen
    class does not take (a child may choose another class than its base).

    Raises:
        UserError: for a name that is neither registered nor dotted, or not on the allowlist.
    """
    for path, leaf in list(settings.leaves.items()):
        if path[-1] == "class_path" and isinstance(leaf.value, str):
            dotted = _dotted(leaf.value, leaf.origin, _KINDS.get(path[0]) if len(path) == 2 else None)
            settings.leaves[path] = Leaf(dotted, leaf.origin, leaf.replaced)
            if leaf.replaced and leaf.replaced.value not in (leaf.value, dotted):
                _drop_foreign(settings, path[:-1], dotted)


def _drop_foreign(settings: Settings, path: tuple[str, ...], dotted: str) -> None:
    known = parameters(dotted)
    chosen_at = settings.leaves[(*path, "class_path")].origin
    for other in [p for p in settings.leaves if p[: len(path) + 1] == (*path, "init_args")]:
        if known is not None and other[len(path) + 1] not in known and settings.leaves[other].origin != chosen_at:
            if settings.leaves[other].origin.partition(":")[0] != chosen_at.partition(":")[0]:
                del settings.leaves[other]


def _dotted(name: str, origin: str, kind: str | None) -> str:
    if kind and name in read_index().of(kind):
        return read_index().of(kind)[name].path
    if "." not in name:
        choices = list(read_index().of(kind or "models"))
        near = nearest(name, choices)
        hint = f"Did you mean {' or '.join(repr(n) for n in near)}?" if near else f"Registered: {', '.join(choices)}."
        raise UserError(
            f"{origin}: no {(kind or 'class').removesuffix('s')} named '{name}'\n{hint}\nfulgurite list {kind or 'models'}   shows all"
        )
    package = name.partition(".")[0]
    if package not in allowed_packages():
        raise UserError(
            f"{origin}: '{name}' is not on the import allowlist\n"
            f"Experiments may name classes of {', '.join(ALLOWED_PACKAGES)} and of installed plug-ins.\n"
            f"If you trust this file: {ALLOW_VARIABLE}={package} fulgurite …"
        )
    module, _, leaf = name.rpartition(".")
    file = find_source(module)
    found = locate(name)
    if found is None and file is not None and file.suffix == ".py" and package == "fulgurite":
        raise UserError(
            f"{origin}: {module} has no class '{leaf}'\nfulgurite list {kind or 'models'}   shows the registered ones"
        )
    if file is None and find_source(package) is None:
        raise UserError(f"{origin}: package '{package}' is not installed\npip install {package}")
    return name


def check_stage(verb: str, command: str | None, settings: Settings, root_keys: tuple[str, ...]) -> None:
    """Check every key of one stage.

    Raises:
        UserError: for the first unknown key, wrong simple type or missing argument: file and line (or flag), the
            nearest names, the command that shows the choices.
    """
    if verb == "command":
        entry = read_index().of("commands")[command or ""]
        known = {k: p for k, p in (parameters(entry.path) or {}).items() if k not in INJECTED}
        _check_keys(settings, (), known, f"command '{command}'", f"fulgurite {command} --help")
        _check_required(settings, (), known, f"command '{command}'", entry.path)
        return
    for key in settings.keys():
        if key not in root_keys:
            near = nearest(key, list(root_keys))
            hint = (
                f"Did you mean {' or '.join(repr(n) for n in near)}?"
                if near
                else f"Known here: {', '.join(root_keys)}."
            )
            raise UserError(f"{settings.origin(key)}: unknown key '{key}'\n{hint}")
    trainer = parameters(TRAINER)
    if trainer:
        _check_keys(settings, ("trainer",), trainer, "Trainer", "fulgurite info trainer")
    for path, leaf in list(settings.leaves.items()):
        if path[-1] == "class_path":
            _check_class(settings, path[:-1], leaf.value)
        elif isinstance(leaf.value, list):
            _check_list(leaf, ".".join(path))
    for part in ("model", "data"):
        if settings.get(part) is not None and settings.get(part, "class_path") is None:
            raise UserError(
                f"{settings.origin(part)}: `{part}:` has no class_path\nWrite `{part}: {{class_path: NAME, init_args: …}}`.\nfulgurite list {_KINDS[part]}   shows the names"
            )


def _check_class(settings: Settings, path: tuple[str, ...], dotted: str) -> None:
    known = parameters(dotted)
    if known is None:
        return
    name = dotted.rpartition(".")[2]
    shows = f"fulgurite info {dotted}   shows its arguments"
    _check_keys(settings, (*path, "init_args"), known, name, shows)
    if path in (("model",), ("data",)):
        _check_required(settings, (*path, "init_args"), known, name, dotted)


def _check_list(leaf: Leaf, where: str) -> None:
    for item in leaf.value:
        if isinstance(item, dict) and isinstance(item.get("class_path"), str):
            dotted = _dotted(item["class_path"], leaf.origin, None)
            inner = Settings({("init_args", k): Leaf(v, leaf.origin) for k, v in (item.get("init_args") or {}).items()})
            known = parameters(dotted)
            if known is not None:
                _check_keys(inner, ("init_args",), known, f"{dotted.rpartition('.')[2]} (in {where})", "")


def _check_keys(settings: Settings, path: tuple[str, ...], known: dict[str, Parameter], owner: str, shows: str) -> None:
    for key in settings.under(*path).keys() if path else settings.keys():
        origin = settings.origin(*path, key)
        if key not in known:
            near = nearest(key, list(known))
            hint = (
                f"Did you mean {' or '.join(repr(n) for n in near)}?"
                if near
                else f"It takes {', '.join(list(known)[:12])}."
            )
            raise UserError("\n".join(filter(None, [f"{origin}: {owner} has no argument '{key}'", hint, shows])))
        value = settings.get(*path, key)
        if not _fits(value, known[key].annotation):
            raise UserError(f"{origin}: {owner}: '{key}' is {known[key].annotation}, not {value!r}")


def _check_required(
    settings: Settings, path: tuple[str, ...], known: dict[str, Parameter], owner: str, dotted: str
) -> None:
    given = settings.under(*path).keys() if path else settings.keys()
    for name, parameter in known.items():
        if parameter.default is None and name not in given:
            where = ".".join((*path, name))
            raise UserError(
                f"{owner} needs '{name}' ({parameter.annotation})\nSet {where} in the YAML, or --{where} on the command line.\nfulgurite info {dotted}   shows its arguments"
            )


def _fits(value: Any, annotation: str) -> bool:
    """Whether a value fits an annotation made of plain types only; True for any other annotation."""
    names = set(re.findall(r"[\w.]+", annotation))
    plain = names - {"Optional", "Union"}
    if not plain or not plain <= set(_SIMPLE) or (isinstance(value, str) and "${" in value):
        return True
    if value is None:
        return "None" in plain or "Optional" in names
    if isinstance(value, bool):
        return "bool" in plain
    return any(isinstance(value, _SIMPLE[n]) for n in plain)
