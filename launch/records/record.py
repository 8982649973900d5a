"""record.json: what a run was, on what it ran, and what came out; also of a run that failed."""

from __future__ import annotations

import collections
import functools
import importlib.metadata
import json
import math
import os
import platform
import subprocess
import sys
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any

from ...datamodules.files import write_json
from ...registry import ROOT, UserError
from ..config.experiment import Experiment
from ..stages.estimate import memory_gb
from ..stages.run_folder import RunFolder, now
from .notes import read_notes
from .redaction import redact

SCHEMA_VERSION = 1
_ANEW = "The same `fulgurite run` command as before writes it anew."
LIBRARIES = ("fulgurite", "torch", "lightning", "torchmetrics", "transformers", "peft", "numpy", "jsonargparse")


def write_record(
    run: RunFolder, experiment: Experiment, command: str, error: BaseException | None, running: bool = False
) -> None:
    """Write record.json (launch/record.schema.json, docs/record.md) from the run's state, its stages' metrics and
    results, and the surroundings; `running` for the one that stands there until the run ends.
    """
    stages = []
    for stage in experiment.stages:
        entry, folder = run.stage(stage.name), run.path / stage.name
        found = stage_metrics(folder)
        told = {k: stage_results(folder).get(k, []) for k in ("tables", "statements")}
        entry = {k: v for k, v in entry.items() if k != "files"}  # they can be thousands
        stages.append(
            {"name": stage.name, "verb": stage.verb, "command": stage.command, **entry, "metrics": found, **told}
        )
    record = {
        "schema_version": SCHEMA_VERSION,
        "experiment": experiment.name,
        "title": experiment.meta.get("title"),
        "paper": experiment.meta.get("paper"),
        "published": experiment.meta.get("published"),
        "headline": experiment.meta.get("headline"),
        "command": command,
        "status": "done" if run.finished else "running" if running else "failed" if error else "stopped",
        "error": None if running else _error(error, stages),
        "seed": experiment.seed,
        "digest": run.state["digest"],
        "created": run.state["created"],
        "written": now(),
        "seconds": sum(s["seconds"] for s in stages),
        "stages": stages,
        "metrics": _metrics({s["name"]: s["metrics"] for s in stages}),
        "git": git_state(),
        "machine": machine(gpus=not running),
        "versions": versions(),
    }
    write_json(run.path / "record.json", redact(finite(record)))


def write_resolved(run: RunFolder, experiment: Experiment) -> None:
    """Write resolved.json: verb, command and resolved settings of each stage."""
    resolved = {
        s.name: {"verb": s.verb, "command": s.command, "settings": s.settings.to_dict()} for s in experiment.stages
    }
    content = {"schema_version": 1, "experiment": experiment.name, "stages": resolved}
    write_json(run.path / "resolved.json", redact(content))


def read_record(run_dir: Path) -> dict[str, Any]:
    """The record of a run.

    Raises:
        UserError: if record.json is missing or damaged; names it.
    """
    record = _read(run_dir / "record.json")
    numbers = record.get("metrics")
    stages = record.get("stages")
    if (
        not (isinstance(numbers, dict) and all(v is None or type(v) in (int, float) for v in numbers.values()))
        or not (isinstance(stages, list) and all(isinstance(s, dict) and "seconds" in s for s in stages))
        or not isinstance(record.get("headline") or [], list)
        or not record.keys() >= {"status", "seed", "digest"}
    ):
        raise UserError(f"{run_dir / 'record.json'}: no whole record\n{_ANEW}")
    return record


def read_resolved(run_dir: Path) -> dict[str, dict[str, Any]]:
    """The resolved settings of a run's stages, by their names.

    Raises:
        UserError: if resolved.json is missing or damaged; names it.
    """
    found = _read(run_dir / "resolved.json").get("stages")
    stages: dict[str, Any] = found if isinstance(found, dict) else {}
    settings = {
        name: stage["settings"]
        for name, stage in stages.items()
        if isinstance(stage, dict) and isinstance(stage.get("settings"), dict)
    }
    if not settings or settings.keys() != stages.keys():
        raise UserError(f"{run_dir / 'resolved.json'}: no settings of stages in it\n{_ANEW}")
    return settings


def is_readable(read: Callable[[Path], Any], run_dir: Path) -> bool:
    """Whether `read_record` or `read_resolved` finds its file whole."""
    try:
        read(run_dir)
    except UserError:
        return False
    return True


def _read(file: Path) -> dict[str, Any]:
    try:
        content = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise UserError(f"{file}: can't be read: {getattr(error, 'strerror', None) or error}\n{_ANEW}") from None
    return content if isinstance(content, dict) else {}


def _error(error: BaseException | None, stages: list[dict[str, Any]]) -> str | None:
    """What ended the run: a mistake's own text, the stage's traceback, or (outside of all stages) the error's own."""
    if isinstance(error, UserError):
        return str(error)
    told = next((str(s["error"]) for s in stages if s.get("error")), None)
    return told or ("".join(traceback.format_exception(error, limit=-8)) if error else None)


def _metrics(stages: dict[str, dict[str, float]]) -> dict[str, float]:
    """All stages' metrics by name; one that several stages have, by `<stage>/<name>`."""
    counts = collections.Counter(name for found in stages.values() for name in found)
    return {
        name if counts[name] == 1 else f"{stage}/{name}": value
        for stage, found in stages.items()
        for name, value in found.items()
    }


def finite(content: Any) -> Any:
    """`content` with None in place of every nan and infinity, which JSON has no words for."""
    if isinstance(content, float):
        return content if math.isfinite(content) else None
    if isinstance(content, dict):
        return {k: finite(v) for k, v in content.items()}
    return [finite(v) for v in content] if isinstance(content, list | tuple) else content


def stage_results(folder: Path) -> dict[str, Any]:
    """A stage's results.json (metrics, tables, statements, figures) with its notes among the statements, or nothing."""
    try:
        found = json.loads((folder / "results.json").read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError):
        found = {}
    if not isinstance(found, dict) or not isinstance(found.get("metrics", {}), dict):
        found = {}
    notes = read_notes(folder)
    return {**found, "statements": [*found.get("statements", []), *notes]} if notes else found


def stage_metrics(folder: Path) -> dict[str, float]:
    """Last logged value of each metric of a stage, and the metrics of its results.json."""
    from .metrics_csv import last_metrics

    return {**last_metrics(folder / "metrics.csv"), **stage_results(folder).get("metrics", {})}


def of_the_test(metrics: dict[str, Any]) -> dict[str, Any]:
    """The test's metrics of a record (`test/…`, or `<stage>/test/…` where several stages tested), in their order."""
    return {k: v for k, v in metrics.items() if k.startswith("test/") or k.partition("/")[2].startswith("test/")}


def telling(record: dict[str, Any], most: int = 4) -> dict[str, Any]:
    """The metrics of a record to show where there is room for a few: those that the experiment names as its `headline`,
    else the first `most` of the test by name, or of all where nothing was tested.
    """
    metrics = record["metrics"]
    named = {k: metrics[k] for k in record.get("headline") or () if k in metrics}
    return named or dict(sorted((of_the_test(metrics) or metrics).items())[:most])


@functools.cache
def git_state() -> dict[str, Any] | None:
    """Commit and whether files differ from it; None where the package lies in no git checkout."""

    def git(*arguments: str) -> str:
        done = subprocess.run(["git", "-C", str(ROOT), *arguments], capture_output=True, text=True, timeout=20)
        return done.stdout.strip() if done.returncode == 0 else ""

    try:
        commit = git("rev-parse", "HEAD") if (ROOT / ".git").exists() else ""
        changed = len(git("status", "--porcelain", "--untracked-files=no").splitlines())
        return {"commit": commit, "changed_files": changed} if commit else None
    except (OSError, subprocess.SubprocessError):
        return None


def machine(gpus: bool = True) -> dict[str, Any]:
    """Processor, cores, memory, GPU and system. Asking for the GPUs starts CUDA in this process, after which it can't
    be forked: a record at the beginning of a run leaves them out.
    """
    cpu = platform.processor() or platform.machine()
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
        cpu = next(line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    except (OSError, StopIteration):
        pass
    torch = sys.modules.get("torch") if gpus else None
    found = [torch.cuda.get_device_name(i) for i in range(torch.cuda.device_count())] if torch else []
    memory = memory_gb()
    return {
        "cpu": cpu,
        "cores": len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count(),
        "memory_gb": round(memory, 1) if memory else None,
        "gpus": found,
        "system": platform.platform(),
        "python": platform.python_version(),
    }


def versions() -> dict[str, str]:
    """Versions of the libraries that decide numbers."""
    found = {}
    for name in LIBRARIES:
        try:
            found[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            continue
    return found
