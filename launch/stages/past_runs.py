"""`fulgurite runs`: past runs listed, shown, compared, cleaned."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout
from rich.console import Console

from ...registry import UserError, did_you_mean
from ..records.record import of_the_test, read_record, read_resolved, stage_metrics, telling
from ..records.tables import print_table
from .estimate import duration, took
from .run_folder import RunFolder, all_runs

console = Console(highlight=False, soft_wrap=True)


def print_outcome(run_dir: Path) -> int:
    """Say how a run ended and where its report lies; returns the exit status (0, or 75 if time ran out)."""
    record = read_record(run_dir)
    shown = of_the_test(record["metrics"]) or record["metrics"]
    print_table([(key, _number(value)) for key, value in sorted(shown.items())[:20]])
    known = list(record["metrics"])
    for name in record.get("headline") or () if record["status"] == "done" else ():
        if name not in known:
            hint = did_you_mean(str(name), known)
            console.print(f"`headline:` names '{name}', which is no metric of this run. {hint}".rstrip(), markup=False)
    console.print(f"{record['status']} in {took(record['stages'])}; report: {run_dir / 'report.md'}")
    return 0 if record["status"] == "done" else 75


def print_runs(root: Path) -> None:
    """One line a run, newest last; then a sentence for each damaged record."""
    found, rows, damaged = list(all_runs(root)), [], []
    for run in found:
        seconds = sum(s["seconds"] for s in run.state["stages"].values())
        shown: dict[str, Any] = {}
        if (run.path / "record.json").exists():  # one that was killed at its very beginning has none
            try:
                record = read_record(run.path)
                shown = telling(record) if of_the_test(record["metrics"]) else {}
            except UserError as error:
                damaged.append(str(error).partition("\n")[0])
        test = [f"{k.removeprefix('test/')} {_number(v)}" for k, v in shown.items()]
        name, seed = str(run.path.relative_to(root)), str(run.state["seed"])
        rows.append((name, _status(run), duration(seconds), seed, ", ".join(test[:3])))
    if found:
        print_table(rows, header=("run", "status", "took", "seed", "metrics"))
    else:
        console.print(f"no runs in {root}")
    for text in damaged:
        console.print(text, markup=False)


def show(root: Path, chosen: list[str]) -> None:
    """Print a run's report (the newest run's, if none is named); how far it is, while it runs or if it was killed."""
    run = find_run(root, chosen[0]) if chosen else next(iter(reversed(list(all_runs(root)))), None)
    if run is None:
        raise UserError(f"no runs in {root}\nfulgurite run hello   makes one")
    if (run.path / "report.md").is_file() and read_record(run.path)["status"] != "running":
        print((run.path / "report.md").read_text(encoding="utf-8"))
        return
    console.print(f"{run.path}: {_status(run)}; the report is written when the run ends")
    rows = [(n, s["state"], duration(s["seconds"])) for n, s in run.state["stages"].items()]
    print_table(rows, header=("stage", "state", "took"))
    for name in run.state["stages"]:
        print_table([(f"{name}: {k}", _number(v)) for k, v in sorted(stage_metrics(run.path / name).items())])


def compare(root: Path, chosen: list[str]) -> None:
    """Print the settings and metrics in which two runs differ.

    Raises:
        UserError: unless two runs are named.
    """
    if len(chosen) != 2:
        raise UserError("compare takes two runs\nfulgurite runs compare RUN RUN\nfulgurite runs list   shows them")
    a, b = (find_run(root, name) for name in chosen)
    left, right = _settings(a), _settings(b)
    different = [k for k in sorted(left.keys() | right.keys()) if left.get(k) != right.get(k)]
    rows = [(k, str(left.get(k, "–")), str(right.get(k, "–"))) for k in different]
    old, new = read_record(a.path)["metrics"], read_record(b.path)["metrics"]
    metrics = sorted(old.keys() | new.keys())
    rows += [(k, *(_number(m[k]) if k in m else "–" for m in (old, new))) for k in metrics]
    print_table(rows, header=("", a.path.name, b.path.name))


def clean(root: Path, chosen: list[str]) -> None:
    """Delete the named runs, or those that did not end well and that nobody works on."""
    for run in [find_run(root, n) for n in chosen] or [r for r in all_runs(root) if not r.finished]:
        try:
            with FileLock(run.path / ".lock").acquire(timeout=0):
                shutil.rmtree(run.path, ignore_errors=True)
                console.print(f"deleted {run.path}")
        except Timeout:
            console.print(f"{run.path} is running, left alone")


def find_run(root: Path, name: str) -> RunFolder:
    """A run by its folder, the last parts of that (`hello/20260102-030405-ab12`), or the id after its last dash.

    Raises:
        UserError: if none or several fit.
    """
    parts = Path(name).parts
    fits = [
        r
        for r in all_runs(root)
        if (parts and (r.path.parts[-len(parts) :] == parts or r.path.resolve() == Path(name).resolve()))
        or name == r.path.name.rpartition("-")[2]
    ]
    if len(fits) != 1:
        what = "no run" if not fits else f"{len(fits)} runs"
        raise UserError(f"{what} in {root} named '{name}'\nfulgurite runs list   shows them")
    return fits[0]


def _status(run: RunFolder) -> str:
    if run.finished:
        return "done"
    if run.is_locked():
        return "running"
    state = next((s["state"] for s in run.state["stages"].values() if s["state"] != "done"), "?")
    return {"running": "killed", "pending": "stopped"}.get(state, str(state))  # stopped between two stages


def _number(value: Any) -> str:
    return "not finite" if value is None else f"{value:.4g}" if isinstance(value, int | float) else str(value)


def _settings(run: RunFolder) -> dict[str, Any]:
    """A run's settings by `<stage>.<dotted key>`."""
    flat: dict[str, Any] = {}

    def walk(tree: dict[str, Any], prefix: str) -> None:
        for key, value in tree.items():
            walk(value, f"{prefix}{key}.") if isinstance(value, dict) else flat.__setitem__(prefix + key, value)

    for name, settings in read_resolved(run.path).items():
        walk(settings, f"{name}.")
    return flat
