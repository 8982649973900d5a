"""The command `viki show`: one record as one page, with the kitchen drawn after every step of a plan."""

from __future__ import annotations

import base64
import json
import webbrowser
from collections.abc import Mapping
from html import escape
from pathlib import Path
from typing import Any

from ...datamodules.files import atomic_write
from ...datamodules.viki.board import draw_state
from ...datamodules.viki.checker import check_plan
from ...datamodules.viki.plans import find_answer, literal, steps_of
from ...datamodules.viki.records import Record, read_records
from ...datamodules.viki.state import State
from ...registry import COMMANDS, UserError
from .check import find_record

_STYLE = """
body { font: 15px/1.5 system-ui, sans-serif; max-width: 960px; margin: 24px auto; padding: 0 16px; color: #222; }
h1 { font-size: 20px; } h2 { font-size: 16px; margin: 24px 0 6px; } img { max-width: 100%; margin: 4px 8px 4px 0; }
.ok { color: #1a6b2c; } .bad { color: #a1260d; } .small { color: #666; font-size: 13px; }
svg { max-width: 100%; height: auto; }
pre { white-space: pre-wrap; background: #f4f4f2; padding: 8px; }
"""


@COMMANDS.register("viki show", paper="2506.09049")
def show(
    records: Path, record: str = "0", plan: Path | None = None, out: Path | None = None, strict: bool = False,
    seed: int = 0, browser: bool = False,
) -> None:  # fmt: skip
    """Write one self-contained page about a record: its views, the instruction, a plan step by step, the verdict.

    Args:
        records: parquet file of records, or a folder of such files.
        record: key or number of the record.
        plan: file with an answer to show in the place of the record's own plan.
        out: HTML file; the record's key in the working folder unless given.
        strict: judge by the mended rules; else as the released code does.
        seed: of start areas that the record leaves open.
        browser: open the page.
    """
    found = find_record(read_records(records), record, records)
    answer = found.answer()
    if plan is not None:
        try:
            answer = plan.read_text(encoding="utf-8")
        except (OSError, UnicodeDecodeError) as error:
            raise UserError(f"{plan}: can't be read: {error}") from None
    file = out or Path(f"{found.key}.html")
    with atomic_write(file) as partial:
        partial.write_text(page(found, answer, strict=strict, seed=seed, own=plan is None), encoding="utf-8")
    print(f"{found.key}: {file}")
    if browser:
        webbrowser.open(file.resolve().as_uri())


def page(record: Record, answer: str, *, strict: bool = False, seed: int = 0, own: bool = True) -> str:
    """The HTML of a record with an answer; `own` says that the answer is the record's gold."""
    parts = [f"<h1>{escape(record.instruction)}</h1>", f'<p class="small">{escape(_about(record))}</p>']
    views = record.views or tuple(f"view {i}" for i in range(len(record.images)))
    for view, image in zip(views, record.images, strict=False):
        data = base64.b64encode(image).decode()
        kind = "png" if image.startswith(b"\x89PNG") else "jpeg"
        parts.append(f'<img alt="{escape(view)}" title="{escape(view)}" src="data:image/{kind};base64,{data}">')
    if isinstance(record.ground_truth, Mapping):
        parts += _plan_parts(record.ground_truth, answer, strict, seed, own)
    else:
        parts.append(f"<h2>{'Gold' if own else 'Answer'}</h2><pre>{escape(answer)}</pre>")
    return (
        f'<!doctype html>\n<html lang="en"><head><meta charset="utf-8"><title>{escape(record.key)}</title>'
        f"<style>{_STYLE}</style></head>\n<body>\n" + "\n".join(parts) + "\n</body></html>\n"
    )


def _about(record: Record) -> str:
    words = [record.key, f"level {record.level}"]
    if record.family:
        words.append(f"family {record.family}")
    if isinstance(record.ground_truth, Mapping):
        team = record.problem
        words.append(", ".join(f"{a} {t}" for a, t in zip(team.agents, team.types, strict=True)))
    if record.scene is not None:
        words.append(f"layout {record.scene.layout}, style {record.scene.style}")
    return "; ".join(words)


def _plan_parts(truth: Mapping[str, Any], answer: str, strict: bool, seed: int, own: bool) -> list[str]:
    states: list[State] = []
    verdict = check_plan(truth, answer, strict=strict, seed=seed, watch=states)
    by = "strict rules" if strict else "released rules"
    gold = len(truth["time_steps"])
    length = "" if not verdict.ok else f" in {verdict.num_steps} steps" + (
        f" (the record's plan has {gold})" if not own else ""
    )  # fmt: skip
    mark = "ok" if verdict.ok else "bad"
    code = f"{verdict.code}: " if verdict.code else ""
    parts = [f'<h2>Verdict, {by}</h2><p class="{mark}">{escape(code + verdict.sentence)}{escape(length)}</p>']
    steps = _steps(answer, strict)
    for number, state in enumerate(states):
        says = {robot: command.replace(",", " ") for robot, command in steps[number - 1].items()} if number else {}
        title = "At the start" if not number else f"After step {number}"
        parts.append(f"<h2>{title}</h2>{draw_state(state, says)}")
    rest = steps[max(0, len(states) - 1) :]
    if rest:
        left = json.dumps(rest, indent=1)
        parts.append(f"<h2>Steps that were not carried out</h2><pre>{escape(left)}</pre>")
    return parts


def _steps(answer: str, strict: bool) -> list[dict[str, str]]:
    found = find_answer(answer)
    try:
        data = literal(answer if found is None else found)
    except ValueError:
        return []
    waits = strict and isinstance(data, list | tuple)  # steps without an action count there
    steps = [dict(*steps_of([row])) for row in data] if waits else steps_of(data)
    return [{str(robot): command for robot, command in step.items()} for step in steps]
