"""Which metrics an experiment has, told before anything starts: by its headline, its modules' source text, and earlier
runs. No torch here.
"""

from __future__ import annotations

import ast
import fnmatch
import json
from collections.abc import Iterator
from pathlib import Path

from ...registry import ROOT, UserError, did_you_mean
from ..config.experiment import Experiment
from ..config.signatures import lineage
from ..records.record import read_record
from ..stages.run_folder import all_runs

_LOGS = ("self.log", "self.log_dict")


def check_metric(name: str, experiment: Experiment, root: Path) -> None:
    """Check that a run of an experiment will have a metric, as far as that can be known.

    Args:
        name: the metric; `<stage>/<metric>` where several stages have it.
        experiment: resolved.
        root: of the run folders; earlier runs of the experiment know metrics that no source text shows.

    Raises:
        UserError: if nothing tells of it; with the metrics that are known.
    """
    known, patterns = known_metrics(experiment, root)
    if name in known or any(fnmatch.fnmatchcase(name, p) for p in patterns):
        return
    hint = did_you_mean(name, sorted(known), end="\n")
    listed = ", ".join([*sorted(known), *sorted(patterns)]) or "none"
    raise UserError(
        f"{experiment.name} is not known to have the metric '{name}'\n{hint}Known: {listed}"[:600]
        + f"\nIf it has it all the same, run it once; then it is known: fulgurite run {experiment.name}"
    )


def known_metrics(experiment: Experiment, root: Path) -> tuple[set[str], set[str]]:
    """Names of metrics, and patterns of those whose names are made while running (`val/psnr_*`)."""
    known = set(experiment.meta.get("headline") or [])
    patterns: set[str] = set()
    for stage in experiment.stages:
        for written in _logged(str(stage.settings.get("model", "class_path"))) if stage.verb != "command" else ():
            ways = {written, f"{stage.name}/{written}"} if experiment.meta.get("stages") else {written}
            if "*" not in written:
                known |= ways
            elif written.strip("*/"):  # one that is all made while running would fit everything
                patterns |= ways
    for run in reversed(list(all_runs(root / experiment.name))):
        if (run.path / "record.json").is_file() and run.finished:
            known |= set(read_record(run.path)["metrics"])
            break
    for file in (ROOT / "docs" / "records").glob("*.json"):
        record = json.loads(file.read_text(encoding="utf-8"))
        if record.get("experiment") == experiment.name:
            known |= set(record["metrics"])
    return known, patterns


def _logged(dotted: str) -> Iterator[str]:
    """What a module's class and its bases log, by the source text, with `*` for each part made while running."""
    for definition in lineage(dotted):
        if not definition.module.startswith(("lightning.", "torch.")):
            for node in ast.walk(definition.node):
                if isinstance(node, ast.Call) and ast.unparse(node.func) in _LOGS:
                    yield from _names(node)


def _names(call: ast.Call) -> Iterator[str]:
    if not call.args:
        return
    first = call.args[0]
    keys = first.keys if isinstance(first, ast.Dict) else [first.key] if isinstance(first, ast.DictComp) else [first]
    for key in keys:
        if isinstance(key, ast.Constant) and isinstance(key.value, str):
            yield key.value
        elif isinstance(key, ast.JoinedStr):
            yield "".join(str(p.value) if isinstance(p, ast.Constant) else "*" for p in key.values)
