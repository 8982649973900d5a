"""`fulgurite results`: docs/results.md, made from the records that were published under docs/records/."""

from __future__ import annotations

import json
from itertools import groupby
from pathlib import Path
from typing import Any

from ...datamodules.files import atomic_write, write_json
from ...registry import ROOT, UserError
from ..stages.estimate import duration
from ..stages.past_runs import find_run
from ..stages.run_folder import DEFAULT_ROOT
from ..stages.seeds import metric_table
from .record import of_the_test, telling
from .report import table

DOCS = ROOT / "docs"
SCHEMA_VERSION = 1
NEEDED = (
    "experiment",
    "title",
    "paper",
    "published",
    "command",
    "status",
    "created",
    "seconds",
    "metrics",
    "git",
    "machine",
    "versions",
)
HEAD = """\
# Results

Made by `fulgurite results` from the records in `docs/records/`; change those, not this file. The fields are told in
[record.md](record.md). A paper's own numbers come from other models, data and budgets: a landmark, no comparison."""


def publish(root: Path, run: str) -> Path:
    """Copy the record of a finished run, or a `--seeds` summary, into docs/records/.

    Args:
        root: folder of the run folders.
        run: run folder or the id at the end of its name; or `seeds-<digest>`, with or without its folder and `.json`.

    Returns:
        The copy.

    Raises:
        UserError: if there is no such run, it is unfinished, or this is no clone of the repository.
    """
    docs = _docs()
    source = _summary(root, run) or find_run(root or DEFAULT_ROOT, run).path / "record.json"
    record = _read(source)
    if record["status"] != "done":
        raise UserError(
            f"{source}: {record['status']}, not done\nOnly a finished run is published; run it again to go on."
        )
    short = source.stem.partition("-")[2] if "seeds" in record else source.parent.name.rpartition("-")[2]
    name = f"{record['experiment'].replace('/', '-')}--{record['created'][:10]}-{short}.json"
    write_json(docs / "records" / name, record)
    return docs / "records" / name


def write_results() -> Path:
    """Write docs/results.md from every record; the same records give the same file.

    Raises:
        UserError: if a record can't be read or has another schema; names the file. Or if this is no clone.
    """
    docs = _docs()
    records = [(file.name, _read(file)) for file in sorted((docs / "records").glob("*.json"))]
    records.sort(key=lambda item: (item[1]["experiment"], item[1]["created"], item[0]))
    parts = [HEAD]
    if records:
        parts.append(_overview(records))
    else:
        parts.append("No record has been published yet: `fulgurite results --publish RUN` adds a finished run's.")
    for paper, group in groupby(records, key=lambda item: item[1]["experiment"].partition("/")[0]):
        found = list(group)
        arxiv = next((f" (arXiv {r['paper']})" for _, r in found if r["paper"]), "")
        parts += [f"## {paper}{arxiv}", *(_section(name, record) for name, record in found)]
    with atomic_write(docs / "results.md") as temporary:
        temporary.write_text("\n\n".join(parts) + "\n", encoding="utf-8")
    return docs / "results.md"


def _docs() -> Path:
    if not DOCS.is_dir():
        raise UserError(
            f"results belong to a clone of the repository, and {ROOT} is an installed copy\n"
            "Clone fulgurite and run the command there; `fulgurite runs show RUN` shows a run's own report."
        )
    return DOCS


def _summary(root: Path, run: str) -> Path | None:
    stem = Path(run).name.removesuffix(".json")
    found = [
        f
        for f in sorted(root.rglob("seeds-*.json"))
        if f.stem == stem and str(f.with_suffix("")).endswith(run.removesuffix(".json"))
    ]
    if len(found) > 1:
        raise UserError(f"{len(found)} summaries are named '{run}'\nSay which: " + ", ".join(map(str, found[:3])))
    return found[0] if found else None


def _read(file: Path) -> dict[str, Any]:
    try:
        record = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise UserError(f"{file}: not a readable record: {error}\nPublish the run again, or delete the file.") from None
    version = record.get("schema_version") if isinstance(record, dict) else None
    if version != SCHEMA_VERSION:
        raise UserError(
            f"{file}: a record of schema {version}, this version reads {SCHEMA_VERSION}\n"
            "Publish the run again, or delete the file."
        )
    missing = [key for key in NEEDED if key not in record]
    if missing:
        raise UserError(f"{file}: the record lacks {', '.join(missing)}\nPublish the run again, or delete the file.")
    return dict(record)


def _overview(records: list[tuple[str, dict[str, Any]]]) -> str:
    rows = []
    for name, r in records:
        ours = ", ".join(f"{k.removeprefix('test/')} {_value(v)}" for k, v in telling(r).items())
        rows.append(
            [
                f"`{r['experiment']}`",
                ours,
                _seeds(r),
                f"{r['seconds'] / 60:.1f}",
                _processor(r),
                r["created"][:10],
                _code(r),
                f"[record](records/{name})",
            ]
        )
    return table(["experiment", "ours", "seeds", "minutes", "machine", "date", "code", ""], rows)


def _section(name: str, r: dict[str, Any]) -> str:
    parts = [f"### `{r['experiment']}`, {r['created'][:10]}: {r['title'] or r['experiment']}"]
    if r["command"]:
        parts.append(f"    {r['command']}")
    m = r["machine"]
    parts.append(
        f"Seeds {_seeds(r)}; {duration(r['seconds'])} on {_processor(r)} ({m['memory_gb']} GB), Python {m['python']}, "
        f"{_code(r)}; [record](records/{name})."
    )
    ours = _shown(r)
    if "seeds" in r:
        parts.append("**Ours**, over seeds\n\n" + metric_table(ours))
    else:
        parts.append(
            "**Ours**, one seed: no spread known\n\n"
            + table(["metric", "value"], [[k, _value(v)] for k, v in ours.items()])
        )
    tables = r.get("tables") or [
        {**t, "title": f"{s['name']}: {t['title']}"} for s in r.get("stages", []) for t in s["tables"]
    ]
    for item in tables:
        note = f"\n\n{item['note']}" if item.get("note") else ""
        parts.append(f"**{item['title']}**\n\n{table(item['columns'], item['rows'])}{note}")
    parts += [line for s in r.get("stages", []) for line in s["statements"]]
    if r["published"]:
        parts.append(
            "**The paper's numbers**\n\n" + table(["what", "value"], [[k, v] for k, v in r["published"].items()])
        )
    return "\n\n".join(parts)


def _shown(r: dict[str, Any]) -> dict[str, Any]:
    """The test's metrics, or all where nothing was tested."""
    return dict(sorted((of_the_test(r["metrics"]) or r["metrics"]).items()))


def _value(value: Any) -> str:
    if isinstance(value, dict):
        mean, std = value["mean"], value["std"]
        return "not finite" if mean is None else f"{mean:.4g}" + (f" ± {std:.2g}" if std is not None else "")
    return "not finite" if value is None else f"{value:.4g}"


def _seeds(r: dict[str, Any]) -> str:
    return ", ".join(map(str, r.get("seeds") or [r.get("seed")]))


def _processor(r: dict[str, Any]) -> str:
    m = r["machine"]
    return ", ".join(m["gpus"]) or f"{m['cpu']}, {m['cores']} cores"


def _code(r: dict[str, Any]) -> str:
    git = r["git"]
    if not git:
        return "no git checkout"
    changed = git["changed_files"]
    return f"commit {git['commit'][:12]}" + (f" and **uncommitted code** ({changed} changed files)" if changed else "")
