"""Which metrics an experiment has, told before anything starts: by its headline, its modules' source text, and earlier
runs. No torch here.
"""

from __future__ import annotations

import ast
import fnmatch
import json
import re
from collections.abc import Iterable, Iterator
from pathlib import Path

from ...registry import ROOT, UserError, did_you_mean, read_index
from ..config.experiment import Experiment, Stage
from ..config.signatures import lineage, locate
from ..records.record import read_record
from ..stages.run_folder import all_runs

_LOGS = ("self.log", "self.log_dict")
_METRIC = re.compile(r"[\w*]+(/[\w* ]+)+")


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
        for written in _logged(stage):
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


def _logged(stage: Stage) -> Iterator[str]:
    """What a stage's module or command may log, by the source text, with `*` for each part made while running: the
    names in calls of `self.log`, and keys of mappings such as those that `results()` gives (`test/psnr/*`).
    """
    if stage.verb == "command":
        command = read_index().of("commands").get(str(stage.command))
        found = [d for d in [locate(command.path)] if d] if command else []
    else:
        found = lineage(str(stage.settings.get("model", "class_path")))
    for definition in found:
        if definition.module.startswith(("lightning.", "torch.")):
            continue
        for node in ast.walk(ast.parse(definition.file.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Call) and ast.unparse(node.func) in _LOGS:
                yield from _names(node.args[:1])
            elif isinstance(node, ast.Dict):
                yield from (n for n in _names(node.keys) if _METRIC.fullmatch(n))
            elif isinstance(node, ast.DictComp):
                yield from (n for n in _names([node.key]) if _METRIC.fullmatch(n))


def _names(keys: Iterable[ast.expr | None]) -> Iterator[str]:
    for key in keys:
        if isinstance(key, ast.Constant) and isinstance(key.value, str):
            yield key.value
        elif isinstance(key, ast.JoinedStr):
            yield "".join(str(p.value) if isinstance(p, ast.Constant) else "*" for p in key.values)
