"""A W&B sweep file over an experiment: read, checked, and told apart by its digest. No torch here.

The file is W&B's own, so `wandb sweep FILE` and `wandb agent ID` take it too:

    program: hello                                  the experiment, by name or path
    command: ["${env}", fulgurite, run, "${program}", -c, "${args_json_file}"]
    method: grid                                    or random, bayes
    metric: {name: val/accuracy, goal: maximize}
    parameters:
      model.width: {values: [4, 8, 16]}             any setting of the experiment

Words of the command after the experiment (`--trainer.max_epochs 2`, `-c FILE`) belong to every trial.
"""

from __future__ import annotations

import hashlib
import json
import math
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ...registry import UserError, did_you_mean
from ..config.experiment import EXPERIMENTS, find, names
from ..config.settings import Settings, parse_value, read_yaml, short_path
from .parameters import Parameter, read_parameters

KEYS = (
    "program", "command", "method", "metric", "parameters", "early_terminate", "run_cap", "name", "description",
    "project", "entity",
)  # fmt: skip
METHODS = ("grid", "random", "bayes")
GOALS = ("minimize", "maximize")
DEFAULT_COMMAND = ["${env}", "fulgurite", "run", "${program}", "-c", "${args_json_file}"]
EARLY_KEYS = ("type", "min_iter", "max_iter", "s", "eta", "strict")
_SEE = "experiments/sweeps/hello.yaml   is a whole one"


@dataclass(frozen=True)
class EarlyStop:
    """Hyperband as W&B has it: at each rung only the best 1/eta of those that came so far go on.

    Attributes:
        min_iter: first rung, in values of the metric.
        eta: factor from rung to rung.
        num_rungs: rungs, or None for as many as a trial reaches.
    """

    min_iter: int
    eta: float
    num_rungs: int | None


@dataclass(frozen=True)
class Sweep:
    """A sweep file, read.

    Attributes:
        file: where it lies.
        content: the file as W&B takes it, with its command.
        experiment: name or path of the experiment.
        fixed: words of the command that belong to every trial.
        method: grid, random or bayes.
        metric: the metric to optimise; None for a grid or random search that only lists its trials.
        maximize: whether more is better.
        parameters: what varies.
        early: when trials are cut off, if at all.
        run_cap: most trials.
    """

    file: Path
    content: dict[str, Any]
    experiment: str
    fixed: tuple[str, ...]
    method: str
    metric: str | None
    maximize: bool
    parameters: tuple[Parameter, ...]
    early: EarlyStop | None
    run_cap: int | None

    @property
    def name(self) -> str:
        """The sweep's name, fit for a folder."""
        return re.sub(r"[^\w.-]+", "-", str(self.content.get("name") or self.file.stem)).strip("-.") or "sweep"

    @property
    def project(self) -> str:
        """W&B's project."""
        return str(self.content.get("project") or "fulgurite")

    def digest(self) -> str:
        """sha256 of what decides the trials."""
        kept = {k: v for k, v in self.content.items() if k not in ("name", "description", "project", "entity")}
        return hashlib.sha256(json.dumps(kept, sort_keys=True, default=str).encode()).hexdigest()


def find_sweep(name: str) -> Path:
    """A sweep file by its path, or by its name under experiments/sweeps/.

    Raises:
        UserError: if there is none; with the nearest names.
    """
    shipped = {f.stem: f for f in sorted((EXPERIMENTS / "sweeps").glob("*.yaml"))}
    if Path(name).is_file():
        return Path(name).resolve()
    stem = name.removeprefix("sweeps/")
    if stem in shipped:
        return shipped[stem]
    hint = did_you_mean(stem, list(shipped), f"There are {', '.join(shipped)}, and any file of yours by its path.")
    raise UserError(f"no sweep '{name}'\n{hint}")


def read_sweep(file: Path) -> Sweep:
    """Read and check a sweep file; the experiment and the settings are checked later, with each trial.

    Raises:
        UserError: for an unknown key or value; names file and line.
    """
    lines = Settings(read_yaml(file))
    content = parse_value(file.read_text(encoding="utf-8"))
    if not isinstance(content, dict):
        raise UserError(f"{short_path(file)}: no sweep in it\n{_SEE}")

    def where(*path: str) -> str:
        origin = lines.origin(*(part for key in path for part in key.split(".")))
        return origin if origin != "?" else short_path(file)

    for key in content:
        if key not in KEYS:
            hint = did_you_mean(str(key), list(KEYS), f"Known here: {', '.join(KEYS)}.")
            raise UserError(f"{where(str(key))}: unknown key '{key}' of a sweep\n{hint}\n{_SEE}")
    method = content.get("method")
    if method not in METHODS:
        raise UserError(f"{where('method')}: `method:` is one of {', '.join(METHODS)}, not {method!r}\n{_SEE}")
    experiment, fixed = _experiment(content, file, where)
    metric, maximize = _metric(content, where)
    if method == "bayes" and metric is None:
        raise UserError(
            f"{where('method')}: bayes needs a `metric:` to improve\nmetric: {{name: val/loss, goal: minimize}}"
        )
    parameters = read_parameters(content.get("parameters"), lambda path: where("parameters", *path))
    if method == "grid":
        for parameter in parameters:
            if parameter.values is None:
                raise UserError(
                    f"{where('parameters', parameter.name)}: a grid needs values to go through, and "
                    f"'{parameter.name}' has a distribution without steps\nGive it values: […], or take random."
                )
    early = _early(content.get("early_terminate"), where)
    if early and metric is None:
        raise UserError(f"{where('early_terminate')}: `early_terminate:` needs a `metric:` to judge by\n{_SEE}")
    cap = content.get("run_cap")
    if cap is not None and (type(cap) is not int or cap < 1):
        raise UserError(f"{where('run_cap')}: `run_cap:` is the largest number of trials, not {cap!r}")
    if cap is None and method != "grid":
        raise UserError(
            f"{short_path(file)}: a {method} search has no end of its own\nSay how many trials: run_cap: 20"
        )
    whole = {**content, "program": experiment}  # found here: W&B's agent looks from its own folder
    whole.setdefault("command", list(DEFAULT_COMMAND))
    return Sweep(file, whole, experiment, fixed, method, metric, maximize, tuple(parameters), early, cap)


def _experiment(content: dict[str, Any], file: Path, where: Any) -> tuple[str, tuple[str, ...]]:
    """The experiment that `program:` or the command names, and the command's further words."""
    program, command = content.get("program"), content.get("command")
    words = [str(w) for w in command] if isinstance(command, list) else []
    if command is not None and "run" not in words[:-1]:
        raise UserError(
            f"{where('command')}: the command starts no experiment\n"
            f"Leave `command:` out, or write it as {json.dumps(DEFAULT_COMMAND)}"
        )
    rest = words[words.index("run") + 1 :] if words else ["${program}"]
    named = program if rest[0] == "${program}" else rest[0]
    if not isinstance(named, str):
        raise UserError(f"{where('program')}: `program:` names the experiment, such as   program: hello\n{_SEE}")
    asked_by = f"{where('program' if rest[0] == '${program}' else 'command')}: "
    if named.endswith(".py"):
        raise UserError(
            f"{asked_by}'{named}' is a script, and `fulgurite sweep` runs experiments\n"
            f"Name one ({', '.join(names()[:3])}, …), or leave the script to `wandb sweep`."
        )
    found = find(named, asked_by, file.parent)
    fixed = [w for w in rest[1:] if not (w.startswith("${") and w.endswith("}"))]
    if fixed[-1:] in (["-c"], ["--config"]):  # the macro that followed is the trial's own file
        fixed.pop()
    return (named if found.is_relative_to(EXPERIMENTS) else str(found)), tuple(fixed)


def _metric(content: dict[str, Any], where: Any) -> tuple[str | None, bool]:
    metric = content.get("metric")
    if metric is None:
        return None, False
    if not isinstance(metric, dict) or not isinstance(metric.get("name"), str):
        raise UserError(f"{where('metric')}: write   metric: {{name: val/loss, goal: minimize}}\n{_SEE}")
    goal = metric.get("goal", "minimize")
    if goal not in GOALS:
        raise UserError(f"{where('metric', 'goal')}: `goal:` is minimize or maximize, not {goal!r}")
    return metric["name"], goal == "maximize"


def _early(tree: Any, where: Any) -> EarlyStop | None:
    if tree is None:
        return None
    if not isinstance(tree, dict) or tree.get("type") != "hyperband":
        raise UserError(f"{where('early_terminate')}: `early_terminate:` is {{type: hyperband, min_iter: 3}}\n{_SEE}")
    for key in tree:
        if key not in EARLY_KEYS:
            hint = did_you_mean(str(key), list(EARLY_KEYS), f"Known here: {', '.join(EARLY_KEYS)}.")
            raise UserError(f"{where('early_terminate', str(key))}: unknown key '{key}'\n{hint}")
    if tree.get("strict"):
        raise UserError(
            f"{where('early_terminate', 'strict')}: hyperband's strict form is not had here: trials end at their rung\n"
            "Leave `strict:` out."
        )
    numbers = {k: v for k, v in tree.items() if k in ("min_iter", "max_iter", "s", "eta")}
    eta = numbers.get("eta", 3)
    whole = all(type(v) is int and v > 0 for k, v in numbers.items() if k != "eta")
    if not whole or isinstance(eta, bool) or not isinstance(eta, int | float) or eta <= 1:
        raise UserError(
            f"{where('early_terminate')}: min_iter, max_iter and s are whole numbers above 0, eta is above 1"
        )
    if "min_iter" in numbers:
        return EarlyStop(numbers["min_iter"], eta, None)
    if "max_iter" not in numbers:
        raise UserError(f"{where('early_terminate')}: hyperband needs `min_iter:`, or `max_iter:` and `s:`")
    rungs = numbers.get("s", max(1, math.floor(math.log(numbers["max_iter"], eta))))
    return EarlyStop(max(1, round(numbers["max_iter"] / eta**rungs)), eta, rungs)
