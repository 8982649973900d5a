"""What jsonargparse, Lightning and torch say against a configuration, in at most six lines with file and line."""

from __future__ import annotations

import contextlib
import pickle
import re
import traceback
from collections.abc import Iterator

from omegaconf.errors import OmegaConfBaseException

from ...registry import UserError, did_you_mean, nearest
from .key_check import TRAINER, shows
from .settings import Settings
from .signatures import parameters

ROOT_KEYS = ("trainer", "model", "data", "seed_everything", "ckpt_path", "config")
_NOISE = re.compile(
    r"Does not validate against|Subtypes:|Errors:|Given value|Parser key|Expected a path but|"
    r"Subclass types expect|a class path|a dict |"
    r"Expected a <class 'NoneType'>|Problem with given class_path|Not a valid subclass of \w+$"
)

_FORMS = {"list": "[a, b]", "dict": "{a: b, c: d}"}


class RefusedConfig(Exception):
    """jsonargparse's own message; parsers nest, so only the outermost is made short."""


@contextlib.contextmanager
def refusals(settings: Settings | None) -> Iterator[None]:
    """Turn refusals of a configuration into UserErrors; `settings` gives each key's origin, if known. A mistake in the
    code of a model is none: its traceback is left alone.

    Raises:
        UserError: for a value of the wrong type, a setting that Lightning refuses, a checkpoint that does not fit.
    """
    from lightning.fabric.utilities.exceptions import MisconfigurationException  # commands come here without Lightning

    try:
        yield
    except RefusedConfig as error:
        raise UserError(shorten(str(error), settings)) from None
    except OmegaConfBaseException as error:
        raise UserError(_interpolation(error, settings)) from None
    except MisconfigurationException as error:
        raise UserError(f"Lightning can't run these settings: {_first(error)}\n{shows(TRAINER)}") from None
    except (pickle.UnpicklingError, EOFError) as error:
        raise UserError(
            f"the checkpoint can't be read: {_first(error)}\nIt is damaged, or holds more than tensors and numbers."
        ) from None
    except (ValueError, FileNotFoundError, RuntimeError) as error:
        text = _first(error)
        raised_in = traceback.extract_tb(error.__traceback__)[-1].filename.replace("\\", "/")
        if "in loading state_dict" in text or "PytorchStreamReader" in text:
            details = [line.strip() for line in str(error).splitlines()[1:3]]
            raise UserError(
                "\n".join(["the checkpoint does not fit this model: " + text, *(d[:200] for d in details)])
            ) from None
        if isinstance(error, ValueError) and (refused := _constructor(error)):
            raise UserError(
                f"{refused.__name__}: {_root_text(error)}\n{shows(f'{refused.__module__}.{refused.__qualname__}')}"
            ) from error
        if "/lightning/" not in raised_in or isinstance(error, RuntimeError):
            raise
        raise UserError(f"Lightning can't run these settings: {text}\n{shows(TRAINER)}") from None


def _constructor(error: BaseException) -> type | None:
    """The class whose constructor refused its arguments while jsonargparse built it, or None."""
    while error.__cause__ is not None:
        error = error.__cause__
    frames = [frame for frame, _ in traceback.walk_tb(error.__traceback__)]
    building = [n for n, frame in enumerate(frames) if frame.f_code.co_name == "default_class_instantiator"]
    built = frames[building[-1] + 1].f_locals.get("self") if building and building[-1] + 1 < len(frames) else None
    return type(built) if built is not None else None


def _root_text(error: BaseException) -> str:
    while error.__cause__ is not None:
        error = error.__cause__
    return _first(error)


def _first(error: BaseException) -> str:
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return lines[0][:300].rstrip() if lines else type(error).__name__


def _interpolation(error: OmegaConfBaseException, settings: Settings | None) -> str:
    path = tuple((error.full_key or "").split("."))
    origin = settings.origin(*path) + ": " if settings and settings.origin(*path) != "?" else ""
    return (
        f"{origin}'{'.'.join(path)}': {_first(error)}\n"
        f"Write ${{a.b}} with the full path of another key, ${{seed}} or ${{run_dir}}."
    )


def shorten(message: str, settings: Settings | None) -> str:
    """Jsonargparse's nested message as at most six lines."""
    missing = re.search(r"arguments are required: (.*)", message)
    if missing:
        return (
            f"needed and not given: {missing.group(1)}\n"
            "Name an experiment, or give a file that sets them: -c FILE\n"
            "fulgurite list experiments   shows the names"
        )
    absent = re.search(r"File does not exist: '?([^'\n]+)", message)
    if absent:
        return f"no such file: {absent.group(1)}"
    unknown = re.search(r"nrecognized arguments: (--[\w.]+)", message)
    if unknown:
        return _unknown_option(unknown.group(1)[2:])
    path = _path(re.findall(r"(?:Parser key|Validation failed: Key|key) \"([\w.]+)\"", message), settings)
    short = ".".join(p for p in path if p != "init_args")
    named = settings is not None and (*path, "class_path") in settings.leaves and "correspond to a subclass" in message
    origin = settings.origin(*path, *(["class_path"] if named else [])) if settings and path else "?"
    where = f"{origin}: '{short}'" if origin != "?" else f"--{short}" if short else "the configuration"
    of_trainer = path[:1] == ("trainer",) and len(path) == 2
    owner = TRAINER if of_trainer else settings.get(*_owner(path, settings), "class_path") if settings else None
    command = shows(str(owner)) if owner else ""
    return "\n".join(
        filter(None, [*(f"{where} {text}" if n == 0 else text for n, text in enumerate(_cause(message))), command])
    )


def _cause(message: str) -> list[str]:
    """What is wrong, in the first line after the key's name; then hints."""
    value = re.search(r"(?:Got value|Given value): ([^\n]*)", message)
    got = f", not {value.group(1)[:80]!r}" if value else ""
    choices = [
        c.strip(" '")
        for group in re.findall(r"Expected a typing\.Literal\[([^\]]*)\]", message)
        for c in group.split(",")
    ]
    if choices:
        hint = did_you_mean(value.group(1), choices, show=str) if value else ""
        return [f"is one of {', '.join(dict.fromkeys(choices))}{got}", *([hint] if hint else [])]
    option = re.search(r"Option '([\w.]+)' is not accepted", message)
    if option:
        return [f"has no argument '{option.group(1)}'"]
    kind = re.search(r"Import path (\S+) does not correspond to a subclass of (\w+)", message)
    if kind:
        return [f"is a {kind.group(2)}, which {kind.group(1)} is not"]
    denied = re.search(r"Importing '([\w.]+)' is not allowed", message)
    if denied:
        package = denied.group(1).partition(".")[0]
        return [
            f"names '{denied.group(1)}', which is not on the import allowlist",
            f"If you trust it: FULGURITE_ALLOW_IMPORTS={package} fulgurite …",
        ]
    wanted = [t.rpartition(".")[2] for t in re.findall(r"Expected an? <class '([\w.]+)'>", message) if t != "NoneType"]
    if wanted:
        forms = [f"Write it as '{_FORMS[w]}'." for w in dict.fromkeys(wanted) if w in _FORMS]
        return [f"is {' or '.join(dict.fromkeys(wanted))}{got}", *forms]
    part = re.search(r"Not a valid subclass of (\w+)", message)
    if part:
        return [f"is a {part.group(1)}{got}", "Write {class_path: NAME, init_args: …}."]
    call = re.search(r"expects a function or a callable class: (.*?)\. Got value: (.*)", message)
    if call:
        return [f"is a class or a function: {call.group(1)}"[:300], "Write {class_path: NAME, init_args: …}."]
    lines = [line.strip(" -") for line in message.splitlines() if line.strip(" -")]
    told = [line[:240] for line in lines if not _NOISE.match(line)] or [line[:240] for line in lines]
    return [f"is refused: {told[0]}", *told[1:3]]


def _unknown_option(key: str) -> str:
    head, _, leaf = key.rpartition(".")
    known = list(parameters(TRAINER) or {}) if head == "trainer" else [] if head else list(ROOT_KEYS)
    near = nearest(leaf, known) if known else [f"{n}.{leaf}" for n in nearest(head.partition(".")[0], list(ROOT_KEYS))]
    hint = (
        f"\nDid you mean {' or '.join(f'--{head}.{n}' if head and known else f'--{n}' for n in near)}?" if near else ""
    )
    return (
        f"unknown option --{key}{hint}\n"
        f"{shows(TRAINER) if head == 'trainer' else 'fulgurite fit --help   shows the options'}"
    )


def _path(keys: list[str], settings: Settings | None) -> tuple[str, ...]:
    """The settings' path that a message's nested keys lead to; each is looked for below the one before it."""
    path: tuple[str, ...] = ()
    for key in keys:
        parts = tuple(key.split("."))
        if not path or parts[: len(path)] == path:
            path = parts
            continue
        below = [p for p, _ in settings or () if p[: len(path)] == path and parts[-1] in p[len(path) :]]
        found = min(below, key=len, default=None)
        path = found[: found.index(parts[-1], len(path)) + 1] if found else (*path, *parts)
    return path


def _owner(path: tuple[str, ...], settings: Settings) -> tuple[str, ...]:
    """The nearest class above a path."""
    for cut in range(len(path) - 1, 0, -1):
        if settings.get(*path[:cut], "class_path") is not None:
            return path[:cut]
    return path
