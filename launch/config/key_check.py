"""Names and keys of a stage, checked from source text before torch is imported; with the line and the nearest names."""

from __future__ import annotations

import os
import re
import sys
from typing import Any

from ...registry import UserError, did_you_mean, find_source, nearest, plugin_packages, read_index
from .settings import Leaf, Settings
from .signatures import Parameter, is_a, names_in, parameters

TRAINER = "lightning.pytorch.Trainer"
ALLOWED_PACKAGES = ("fulgurite", "torch", "lightning", "torchmetrics", "transformers", "peft", "diffusers")
ALLOW_VARIABLE = "FULGURITE_ALLOW_IMPORTS"
INJECTED = ("build", "run")
RLLIB = "fulgurite.launch.rllib.settings.RllibSettings"
RUNNERS = ("lightning", "rllib")
_SIMPLE: dict[str, Any] = {"int": int, "float": (int, float), "bool": bool, "str": str, "None": type(None)}
_KINDS = {"model": "models", "data": "datamodules"}
_BASES = {"models": "LightningModule", "datamodules": "LightningDataModule"}
_WORDS = {"int": "int", "float": "number", "bool": "true or false", "str": "text", "None": "null", "Optional": "null"}
_HOMES = (
    "torch.optim",
    "torch.optim.lr_scheduler",
    "torch.nn",
    "lightning.pytorch.callbacks",
    "lightning.pytorch.loggers",
)


def allowed_packages() -> list[str]:
    """Top-level packages whose classes a YAML file may name: ours, the libraries', the plug-ins', and the user's own
    list in the environment variable FULGURITE_ALLOW_IMPORTS (comma-separated).
    """
    return [*ALLOWED_PACKAGES, *plugin_packages(), *user_packages()]


def user_packages() -> list[str]:
    """The packages that FULGURITE_ALLOW_IMPORTS names, comma-separated."""
    return [p.strip() for p in os.environ.get(ALLOW_VARIABLE, "").split(",") if p.strip()]


def expand_names(settings: Settings) -> None:
    """Replace registered short names in `model` and `data` by dotted paths, and drop init_args that a newly chosen
    class does not take (a child may choose another class than its base). `model: hello` is `model.class_path: hello`.

    Raises:
        UserError: for a name that is neither registered nor dotted, or not on the allowlist.
    """
    for part in _KINDS:
        if isinstance(settings.get(part), str):
            settings.leaves[part, "class_path"] = settings.leaves.pop((part,))
    for path, leaf in list(settings.leaves.items()):
        if path[-1] == "class_path" and isinstance(leaf.value, str):
            dotted = _dotted(leaf.value, leaf.origin, _KINDS.get(path[0]) if len(path) == 2 else None)
            settings.leaves[path] = Leaf(dotted, leaf.origin, leaf.replaced)
            if any(value not in (leaf.value, dotted) for value in _values_before(leaf)):
                _drop_foreign(settings, path[:-1], dotted)


def _values_before(leaf: Leaf) -> list[Any]:
    """What stood in a leaf's place, in the file's parent, and in that one's parent, and so on."""
    return [leaf.replaced.value, *_values_before(leaf.replaced)] if leaf.replaced else []


def _drop_foreign(settings: Settings, path: tuple[str, ...], dotted: str) -> None:
    known = parameters(dotted)
    chosen_at = settings.leaves[(*path, "class_path")].origin
    for other in [p for p in settings.leaves if p[: len(path) + 1] == (*path, "init_args")]:
        origin, key = settings.leaves[other].origin, other[len(path) + 1]
        if known is not None and key not in known and origin.partition(":")[0] != chosen_at.partition(":")[0]:
            del settings.leaves[other]
            name = dotted.rpartition(".")[2]
            print(f"note: '{key}' ({origin}) is left out: {name} ({chosen_at}) does not take it", file=sys.stderr)


def _dotted(name: str, origin: str, kind: str | None) -> str:
    registered = read_index().of(kind) if kind else {}
    if name in registered:
        return registered[name].path
    if "." not in name:
        raise UserError(f"{origin}: {_no_such_name(name, kind)}")
    package = name.partition(".")[0]
    if package not in allowed_packages():
        raise UserError(
            f"{origin}: '{name}' is not on the import allowlist\n"
            f"Experiments may name classes of {', '.join(ALLOWED_PACKAGES)} and of installed plug-ins.\n"
            f"If you trust this file: {ALLOW_VARIABLE}={package} fulgurite …"
        )
    if find_source(package) is None:
        raise UserError(f"{origin}: '{name}': package '{package}' is not installed\npip install {package}")
    _check_exists(name, origin, kind)
    if kind and is_a(name, _BASES[kind]) is False:
        raise UserError(f"{origin}: {name} is no {_BASES[kind]}\nfulgurite list {kind}   shows the registered ones")
    return name


def _no_such_name(name: str, kind: str | None) -> str:
    other = next((k for k in _BASES if k != kind and kind and name in read_index().of(k)), None)
    if other:
        return (
            f"'{name}' is a {other.removesuffix('s')}, not a {(kind or '').removesuffix('s')}\n"
            f"fulgurite list {kind}   shows the {kind}"
        )
    if kind is None:
        near = [f"{home}.{n}" for home in _HOMES for n in nearest(name, sorted(names_in(home) or ()), 1)]
        near.sort(key=lambda n: n.rpartition(".")[2] != name)
        hint = f"\nDid you mean {' or '.join(repr(n) for n in near[:2])}?" if near else ""
        return (
            f"'{name}' is no dotted path of a class{hint}\n"
            "A class inside `model` or `data` is named by its full path, such as torch.optim.AdamW."
        )
    choices = list(read_index().of(kind))
    hint = did_you_mean(name, choices, f"Registered: {', '.join(choices)}.")
    return f"no {kind.removesuffix('s')} named '{name}'\n{hint}\nfulgurite list {kind}   shows all"


def _check_exists(name: str, origin: str, kind: str | None) -> None:
    """Raise if a module along the path, by its source text, has no such part."""
    parts = name.split(".")
    for cut in range(len(parts) - 1, 0, -1):
        module = ".".join(parts[:cut])
        if find_source(module) is None:
            continue
        known = names_in(module)
        if known is not None and parts[cut] not in known:
            hint = did_you_mean(parts[cut], sorted(known), show=f"'{module}.{{}}'".format)
            command = f"fulgurite list {kind}   shows the registered names" if kind else ""
            raise UserError("\n".join(filter(None, [f"{origin}: {module} has no '{parts[cut]}'", hint, command])))
        return


def shows(dotted: str) -> str:
    """The command that shows a class's arguments, by its short name if it has one."""
    names = [e.name for e in read_index().entries if e.path == dotted]
    name = "trainer" if dotted == TRAINER else names[0] if names else dotted
    return f"fulgurite info {name}   shows its arguments"


def check_root(settings: Settings, root_keys: tuple[str, ...]) -> None:
    """Check a stage's top-level keys, and that `model` and `data` are classes.

    Raises:
        UserError: for the first that is wrong.
    """
    for key in dict.fromkeys(path[0] for path, _ in settings):
        if key not in root_keys:
            hint = did_you_mean(key, list(root_keys), f"Known here: {', '.join(root_keys)}.")
            raise UserError(
                f"{settings.origin(key)}: unknown key '{key}'\n"
                f"{hint}\n"
                "fulgurite explain hello   shows a whole experiment"
            )
    for part, kind in _KINDS.items():
        leaf = settings.leaves.get((part,))
        if leaf is not None and isinstance(leaf.value, str):  # `model: hello`, with no class below it
            settings.set((part, "class_path"), Leaf(leaf.value, leaf.origin, leaf.replaced))
        elif settings.get(part) is not None and not isinstance(settings.get(part, "class_path"), str):
            raise UserError(
                f"{settings.origin(part)}: `{part}:` has no class_path\n"
                f"Write `{part}: {{class_path: NAME, init_args: …}}`.\nfulgurite list {kind}   shows the names"
            )


def check_stage(verb: str, command: str | None, settings: Settings, root_keys: tuple[str, ...]) -> None:
    """Check every key of one stage.

    Raises:
        UserError: for the first unknown key, wrong simple type or missing argument: file and line (or flag), the
            nearest names, the command that shows the choices.
    """
    if verb == "command":
        entry = read_index().of("commands")[command or ""]
        known = {k: p for k, p in (parameters(entry.path) or {}).items() if k not in INJECTED}
        _check_keys(settings, (), known, f"command '{command}'", f"fulgurite {command} --help   shows its options")
        _check_required(settings, (), known, f"command '{command}'", f"fulgurite {command} --help   shows its options")
        return
    check_root(settings, root_keys)
    _check_runner(verb, settings)
    trainer = parameters(TRAINER)
    if trainer:
        _check_keys(settings, ("trainer",), trainer, "Trainer", shows(TRAINER))
    for path, leaf in list(settings.leaves.items()):
        if path[-1] == "class_path":
            _check_class(settings, path[:-1], leaf.value)
        elif isinstance(leaf.value, list):
            _check_list(leaf, ".".join(path))


def _check_runner(verb: str, settings: Settings) -> None:
    """`runner: rllib` goes with a fit, and `rllib:` with it."""
    runner = settings.get("runner", default="lightning")
    if runner not in RUNNERS:
        hint = did_you_mean(str(runner), list(RUNNERS), end=" ")
        raise UserError(
            f"{settings.origin('runner')}: no runner {runner!r}\n{hint}Runners are {' and '.join(RUNNERS)}."
        )
    if settings.get("rllib") is not None and not isinstance(settings.get("rllib"), dict):
        raise UserError(f"{settings.origin('rllib')}: `rllib:` is a mapping of settings\n{shows(RLLIB)}")
    _check_keys(settings, ("rllib",), parameters(RLLIB) or {}, "rllib", shows(RLLIB))
    if runner == "rllib" and verb != "fit":
        raise UserError(f"{settings.origin('runner')}: RLlib only fits; to {verb}, leave `runner: rllib` out")
    for key in ("trainer", "ckpt_path") if runner == "rllib" else ():
        if settings.get(key):
            raise UserError(
                f"{settings.origin(key)}: `{key}` is Lightning's, and RLlib trains this stage\n"
                f"Leave it out and write `rllib:`, or leave `runner: rllib` out.\n{shows(RLLIB)}"
            )


def _check_class(settings: Settings, path: tuple[str, ...], dotted: str) -> None:
    arguments = (*path, "init_args")
    given = settings.get(*arguments)
    if given is not None and not isinstance(given, dict):
        raise UserError(
            f"{settings.origin(*arguments)}: init_args is a mapping of arguments, not {given!r}\n{shows(dotted)}"
        )
    known = parameters(dotted)
    if known is None:
        return
    name = dotted.rpartition(".")[2]
    _check_keys(settings, arguments, known, name, shows(dotted))
    if path in (("model",), ("data",)):
        _check_required(settings, arguments, known, name, shows(dotted))


def _check_list(leaf: Leaf, where: str) -> None:
    for place, item in enumerate(leaf.value):
        if isinstance(item, dict) and isinstance(item.get("class_path"), str):
            dotted = _dotted(item["class_path"], leaf.inner.get((place, "class_path"), leaf.origin), None)
            given = item.get("init_args") or {}
            lines = (
                {k: leaf.inner.get((place, "init_args", k), leaf.origin) for k in given}
                if isinstance(given, dict)
                else {}
            )
            inner = Settings({("init_args", str(k)): Leaf(given[k], line) for k, line in lines.items()})
            known = parameters(dotted)
            if known is not None:
                _check_keys(inner, ("init_args",), known, f"{dotted.rpartition('.')[2]} (in {where})", shows(dotted))


def _check_keys(
    settings: Settings, path: tuple[str, ...], known: dict[str, Parameter], owner: str, command: str
) -> None:
    for key in settings.under(*path).keys() if path else settings.keys():
        origin = settings.origin(*path, key)
        if key not in known:
            hint = did_you_mean(key, list(known), f"It takes {', '.join(list(known)[:12])}.")
            raise UserError(f"{origin}: {owner} has no argument '{key}'\n{hint}\n{command}")
        value = settings.get(*path, key)
        if not _fits(value, known[key].annotation):
            raise UserError(f"{origin}: {owner}: '{key}' is {_say(known[key].annotation)}, not {value!r}\n{command}")


def _say(annotation: str) -> str:
    words = dict.fromkeys(_WORDS[n] for n in re.findall(r"\w+", annotation) if n in _WORDS)
    return " or ".join(sorted(words, key=lambda w: w == "null"))


def _check_required(
    settings: Settings, path: tuple[str, ...], known: dict[str, Parameter], owner: str, command: str
) -> None:
    given = settings.under(*path).keys() if path else settings.keys()
    for name, parameter in known.items():
        if parameter.default is None and name not in given:
            where = ".".join((*path, name))
            kind = f" ({parameter.annotation})" if parameter.annotation else ""
            raise UserError(
                f"{owner} needs '{name}'{kind}\nSet {where} in the YAML, or --{where} on the command line.\n{command}"
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
