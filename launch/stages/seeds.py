"""`fulgurite run --seeds 0,1,2`: one run a seed, then mean, spread and range of every metric.

Each seed is a run of its own, so a cut-off series goes on where it stopped and finished seeds are skipped.
"""

from __future__ import annotations

import hashlib
import statistics
import time
from collections.abc import Iterable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from rich.console import Console

from ...datamodules.files import atomic_write, write_json
from ..config.experiment import Experiment, resolve
from ..config.settings import Leaf, Path_
from ..records.record import read_record
from ..records.report import table
from .estimate import duration
from .run_folder import RunFolder, now
from .runner import RunOptions, run_experiment

SCHEMA_VERSION = 1
LEVEL = 0.95
OUT_OF_TIME = 75
console = Console(stderr=True, highlight=False, soft_wrap=True)


def run_seeds(
    name: str, flags: Sequence[tuple[Path_, Leaf]], files: Iterable[Path], seeds: Sequence[int], options: RunOptions
) -> int:
    """Run an experiment once for each seed, then write and print the summary.

    Args:
        name: the experiment.
        flags: settings of the command line.
        files: further settings files.
        seeds: each becomes `seed_everything`.
        options: as for one run; `max_time_s` counts over all seeds.

    Returns:
        0, or 75 if the time ran out before the last seed was done.

    Raises:
        UserError: as for one run.
    """
    layers = list(files)
    experiments = [resolve(name, [*flags, (("seed_everything",), Leaf(s, "--seeds"))], layers) for s in seeds]
    stop_at = time.time() + options.max_time_s if options.max_time_s else None
    runs: list[RunFolder] = []
    for place, experiment in enumerate(experiments, start=1):
        left = stop_at - time.time() if stop_at else None
        if left is not None and left <= 0:
            break
        console.rule(f"seed {experiment.seed} ({place} of {len(seeds)})", align="left")
        run = run_experiment(experiment, replace(options, max_time_s=left))
        if not run.finished:
            break
        runs.append(run)
    if len(runs) < len(seeds):
        console.print(f"out of time with {len(runs)} of {len(seeds)} seeds done; run the same command again to go on")
        return OUT_OF_TIME
    file = write_summary(experiments[0], runs, options)
    Console(highlight=False, soft_wrap=True).print(file.with_suffix(".md").read_text(encoding="utf-8"), markup=False)
    return 0


def write_summary(experiment: Experiment, runs: Sequence[RunFolder], options: RunOptions) -> Path:
    """Write `<root>/<experiment>/seeds-<digest>.json` and the same for people beside it, as `.md`.

    Returns:
        The JSON file.
    """
    records = [read_record(r.path) for r in runs]
    digest = hashlib.sha256("".join(r["digest"] for r in records).encode()).hexdigest()
    last = records[-1]
    summary = {
        "schema_version": SCHEMA_VERSION,
        **{key: last.get(key) for key in ("experiment", "title", "paper", "published", "headline")},
        "command": options.command,
        "status": "done",
        "seeds": [r["seed"] for r in records],
        "runs": [
            {"seed": record["seed"], "folder": run.path.relative_to(options.root).as_posix()}
            | {key: record[key] for key in ("digest", "created", "seconds", "git")}
            for run, record in zip(runs, records, strict=True)
        ],
        "digest": digest,
        "created": last["created"],
        "written": now(),
        "seconds": sum(r["seconds"] for r in records),
        "metrics": {key: _metric(key, records) for key in sorted({k for r in records for k in r["metrics"]})},
        "tables": _tables(records),
        "git": max((r["git"] for r in records), key=lambda g: -1 if g is None else g["changed_files"]),
        "machine": last["machine"],
        "versions": last["versions"],
    }
    file = options.root / experiment.name / f"seeds-{digest[:8]}.json"
    write_json(file, summary)
    with atomic_write(file.with_suffix(".md")) as temporary:
        temporary.write_text(_text(summary), encoding="utf-8")
    return file


def interval(values: Sequence[float]) -> tuple[float, float]:
    """Student's 95 % interval of the mean of at least two values. It takes them for draws of a normal distribution, and
    may reach beyond what the metric can be, such as below 0 for an accuracy: people are shown the values' range.
    """
    from scipy.special import stdtrit

    half = stdtrit(len(values) - 1, 0.5 + LEVEL / 2) * statistics.stdev(values) / len(values) ** 0.5
    mean = statistics.fmean(values)
    return mean - half, mean + half


def metric_table(metrics: dict[str, Any]) -> str:
    """Mean, sample standard deviation, lowest and highest seed's value, and count of each metric, as Markdown."""
    rows = [[k, m["mean"], m["std"], _range(m["values"]), m["n"], m["note"]] for k, m in metrics.items()]
    return table(["metric", "mean", "std over seeds", "lowest to highest seed", "seeds", ""], rows)


def _range(values: Sequence[float | None]) -> str | None:
    given = [v for v in values if v is not None]
    return f"{min(given):.4g} to {max(given):.4g}" if len(given) > 1 else None


def _metric(key: str, records: list[dict[str, Any]]) -> dict[str, Any]:
    values = [r["metrics"].get(key) for r in records]
    notes = [
        f"{'not finite' if key in r['metrics'] else 'missing'} in seed {r['seed']}"
        for r, value in zip(records, values, strict=True)
        if value is None
    ]
    given = [v for v in values if v is not None]
    several = len(given) > 1
    if several and len(set(given)) == 1:
        notes.append("the same in every seed")
    low, high = interval(given) if several else (None, None)
    return {
        "mean": statistics.fmean(given) if given else None,
        "std": statistics.stdev(given) if several else None,
        "low": low,
        "high": high,
        "n": len(given),
        "values": values,
        "note": "; ".join(notes),
    }


def _tables(records: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """The stages' tables with `mean ± std` in each cell of numbers; one whose shape depends on the seed is left out."""
    found = []
    for number, stage in enumerate(records[0]["stages"]):
        for place, first in enumerate(stage["tables"]):
            same = [t[place] for r in records if len(t := r["stages"][number]["tables"]) > place]
            shapes = {(t["title"], tuple(t["columns"]), tuple(len(row) for row in t["rows"])) for t in same}
            if len(shapes) == 1 and len(same) == len(records):
                rows = [
                    [_cell(list(cells)) for cells in zip(*rows, strict=True)]
                    for rows in zip(*(t["rows"] for t in same), strict=True)
                ]
                found.append({**first, "title": f"{stage['name']}: {first['title']}", "rows": rows})
    return found


def _cell(values: list[Any]) -> Any:
    if all(isinstance(v, int | float) and not isinstance(v, bool) for v in values) and len(set(values)) > 1:
        return f"{statistics.fmean(values):.4g} ± {statistics.stdev(values):.2g}"
    return values[0] if len(set(map(str, values))) == 1 else " / ".join(map(str, values))


def _text(summary: dict[str, Any]) -> str:
    seeds = ", ".join(map(str, summary["seeds"]))
    parts = [f"# {summary['title'] or summary['experiment']}, seeds {seeds}", metric_table(summary["metrics"])]
    for item in summary["tables"]:
        parts.append(f"**{item['title']}** (mean ± std over seeds)\n\n{table(item['columns'], item['rows'])}")
    runs = [[r["seed"], f"`{r['folder']}`", duration(r["seconds"])] for r in summary["runs"]]
    return "\n\n".join([*parts, table(["seed", "run", "took"], runs)]) + "\n"
