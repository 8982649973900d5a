"""Registered commands as command-line programs: options from type hints and docstrings, `build` and `run` handed in.

A command may ask for `build` (an experiment's model, datamodule and trainer) and `run` (run an experiment): the rooms
below launch/ never import it.
"""

from __future__ import annotations

import contextlib
import inspect
import itertools
import typing
from collections.abc import Callable
from pathlib import Path
from typing import Any, NoReturn

import jsonargparse

from ..registry import COMMANDS, UserError, did_you_mean
from .config.key_check import INJECTED
from .config.refusals import shorten


class _Parser(jsonargparse.ArgumentParser):
    def error(self, message: str, ex: Exception | None = None) -> NoReturn:
        if 'Parser key "' in message:
            raise UserError(f"{shorten(message, None)}\n{self.prog} --help   shows the options")
        known = [o.lstrip("-") for action in self._actions for o in action.option_strings if o.startswith("--")]
        words = [w.lstrip("-").partition("=")[0] for w in message.split() if w.startswith("--")]
        hint = did_you_mean(words[0], known, show="--{}".format) if "nrecognized" in message and words else ""
        text = "\n".join(line.strip(" -") for line in message.splitlines() if "NoneType" not in line)
        lines = [line[:240] for line in text.splitlines() if line][:3]
        raise UserError("\n".join([*lines, *([hint] if hint else []), f"{self.prog} --help   shows the options"]))


def run_command(name: str, arguments: list[str]) -> int:
    """Parse `arguments` for a registered command and call it; returns its exit status (None counts as 0).

    Arguments without a default may stand first, without their names.

    Raises:
        UserError: for an unknown option, a value that does not fit its type hint, or an artifact that can't be had.
    """
    function = _with_types(COMMANDS[name])
    parser = _Parser(prog=f"fulgurite {name}", description=(inspect.getdoc(function) or "").partition("\n\n")[0])
    parser.add_function_arguments(function, skip={n for n in INJECTED if n in inspect.signature(function).parameters})
    values = parser.instantiate(parser.parse_args(_named(function, arguments)))
    outcome = function(**_injected(function), **_downloaded(values.as_dict()))
    return int(outcome or 0)


def _with_types(function: Callable[..., Any]) -> Callable[..., Any]:
    """The function with its annotations worked out. Else jsonargparse would import all that its module names under
    `if TYPE_CHECKING`, which is torch, most of the time.
    """
    with contextlib.suppress(NameError):  # a name that is imported for type checkers alone
        function.__annotations__ = typing.get_type_hints(function)
    return function


def _named(function: Callable[..., Any], arguments: list[str]) -> list[str]:
    """Words before the first option stand for the parameters without a default, in their order: `ingest film.mp4`."""
    needed = [p.name for p in inspect.signature(function).parameters.values() if p.default is p.empty]
    words = itertools.takewhile(lambda word: not word.startswith("-"), arguments)
    named = [part for name, word in zip((n for n in needed if n not in INJECTED), words, strict=False)
             for part in (f"--{name}", word)]  # fmt: skip
    return [*named, *arguments[len(named) // 2 :]]


def _downloaded(values: dict[str, Any]) -> dict[str, Any]:
    """The values with local paths in the place of W&B artifacts (`artifact:…` where a path is asked for)."""
    from .wandb import ARTIFACT, local_path

    return {
        k: local_path(v.as_posix()) if isinstance(v, Path) and v.as_posix().startswith(ARTIFACT) else v
        for k, v in values.items()
    }


def call_command(name: str, values: dict[str, Any]) -> Any:
    """Call a registered command with values from a YAML file, converted by its type hints."""
    function = _with_types(COMMANDS[name])
    parser = _Parser(prog=f"fulgurite {name}")
    parser.add_function_arguments(function, skip={n for n in INJECTED if n in inspect.signature(function).parameters})
    parsed = parser.instantiate(parser.parse_object(values))
    return function(**_injected(function), **parsed.as_dict())


def _injected(function: Callable[..., Any]) -> dict[str, Any]:
    wanted = [n for n in INJECTED if n in inspect.signature(function).parameters]
    if not wanted:
        return {}
    from . import python_api

    return {n: getattr(python_api, n) for n in wanted}
