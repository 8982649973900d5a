"""report.md: a run for people: what came out, beside its controls and the paper's numbers, with plots."""

from __future__ import annotations

import json
from collections import defaultdict
from pathlib import Path
from typing import Any

from ...datamodules.files import atomic_write
from ..stages.estimate import duration, took
from .metrics_csv import read_metrics
from .record import stage_results
from .redaction import redact


def write_report(run_dir: Path) -> Path:
    """Write report.md and its plots into a run folder, from record.json and the stages' files."""
    record = json.loads((run_dir / "record.json").read_text(encoding="utf-8"))
    parts = [_head(record)]
    for stage in record["stages"]:
        parts += _stage(run_dir, stage)
    parts.append(_published(record))
    parts.append(_surroundings(record))
    with atomic_write(run_dir / "report.md") as temporary:
        text = redact("\n\n".join(p for p in parts if p) + "\n")
        temporary.write_text(text, encoding="utf-8", errors="backslashreplace")  # a name's bytes that are no text
    return run_dir / "report.md"


def table(columns: list[str], rows: list[list[Any]]) -> str:
    """A Markdown table; numbers get four significant digits, None a dash."""
    lines = ["| " + " | ".join(columns) + " |", "|" + "---|" * len(columns)]
    return "\n".join([*lines, *("| " + " | ".join(_cell(c) for c in row) + " |" for row in rows)])


def _cell(value: Any) -> str:
    if value is None:
        return "–"
    return f"{value:.4g}" if isinstance(value, float) else str(value).replace("|", "\\|")


def _head(record: dict[str, Any]) -> str:
    paper = f" (arXiv {record['paper']})" if record["paper"] else ""
    lines = [f"# {record['title'] or record['experiment']}{paper}", ""]
    lines.append(
        f"`{record['experiment']}`, seed {record['seed']}: **{record['status']}** in "
        f"{took(record['stages'])} ({record['written']})."
    )
    if record["command"]:
        lines += ["", f"    {record['command']}"]
    if record["error"]:
        text = record["error"].strip().splitlines()
        lines += ["", "It ended in an error:", "", *(f"    {line}" for line in text[-12:])]
    return "\n".join(lines)


def _stage(run_dir: Path, stage: dict[str, Any]) -> list[str]:
    name, folder = stage["name"], run_dir / stage["name"]
    again = f", begun {stage['attempts']} times" if stage["attempts"] > 1 else ""
    if stage.get("reused_from"):
        again += f", taken over from run {stage['reused_from']}"
    parts = [f"## {name}: {stage['state']}, {duration(stage['seconds'])}{again}"]
    found = stage_results(folder)
    parts += found.get("statements", [])
    for item in found.get("tables", []):
        text = f"**{item['title']}**\n\n{table(item['columns'], item['rows'])}"
        parts.append(text + (f"\n\n{item['note']}" if item.get("note") else ""))
    parts += [f"![{Path(f).stem}]({name}/{f})" for f in found.get("figures", [])]
    if not found.get("tables") and stage["metrics"]:
        parts.append(
            table(
                ["metric", "last value"],
                [[k, "not finite" if v is None else v] for k, v in sorted(stage["metrics"].items())],
            )
        )
    curves = _curves(folder)
    return [*parts, f"![curves of {name}]({name}/{curves})"] if curves else parts


def _published(record: dict[str, Any]) -> str:
    if not record["published"]:
        return ""
    rows = [[k, v] for k, v in record["published"].items()]
    return (
        "## The paper's numbers\n\n"
        + table(["what", "value"], rows)
        + "\n\nOther models, data and budgets than this run's: a landmark, no comparison."
    )


def _surroundings(record: dict[str, Any]) -> str:
    m, git = record["machine"], record["git"]
    gpu = f", {', '.join(m['gpus'])}" if m["gpus"] else ", no GPU"
    commit = (
        f"commit {git['commit'][:12]}" + (f" with {git['changed_files']} changed files" if git["changed_files"] else "")
        if git
        else "no git checkout"
    )
    libraries = ", ".join(f"{k} {v}" for k, v in record["versions"].items())
    return (
        f"## Where it ran\n\n{m['cpu']}, {m['cores']} cores, {m['memory_gb']} GB{gpu}; "
        f"{m['system']}, Python {m['python']}; {commit}; {libraries}."
    )


def _curves(folder: Path) -> str | None:
    """Plot every metric that has at least three points over the steps; returns the picture's name."""
    series: dict[str, list[tuple[int, float]]] = defaultdict(list)
    for step, _, metric, value in read_metrics(folder / "metrics.csv"):
        series[metric].append((step, value))
    series = {k: v for k, v in series.items() if len(v) >= 3}
    if not series:
        return None
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    groups: dict[str, list[str]] = defaultdict(list)
    for metric in sorted(series):
        groups[metric.rpartition("/")[2]].append(metric)
    columns = min(3, len(groups))
    rows = -(-len(groups) // columns)
    figure, axes = pyplot.subplots(
        rows, columns, figsize=(4.2 * columns, 2.8 * rows), squeeze=False, layout="constrained"
    )
    for axis in axes.flat[len(groups) :]:
        axis.remove()
    for axis, (title, metrics) in zip(axes.flat, groups.items(), strict=False):
        for metric in metrics:
            axis.plot(
                *zip(*series[metric], strict=True),
                label=metric,
                linewidth=1.2,
                marker="." if len(series[metric]) < 30 else "",
            )
        axis.set_title(title, fontsize=9)
        axis.set_xlabel("step", fontsize=8)
        axis.tick_params(labelsize=7)
        axis.grid(alpha=0.3)
        axis.legend(fontsize=7)
    with atomic_write(folder / "curves.png") as temporary:
        figure.savefig(temporary, format="png", dpi=110)
    pyplot.close(figure)
    return "curves.png"
