"""The command `viki check`: answers against records, with the released rewards and the checker's sentence for each."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy
from rich.console import Console

from ...datamodules.files import write_json
from ...datamodules.viki.plans import find_answer, literal
from ...datamodules.viki.records import Record, read_records
from ...registry import COMMANDS, UserError
from .rewards import REWARDS, plan_reward_and_verdict, sharp_trajectory_score, skill, trajectory_distances

_SHOWN = 20


@COMMANDS.register("viki check", paper="2506.09049")
def check(
    records: Path, plans: Path, record: str = "0", strict: bool = False, seed: int = 0, out: Path | None = None
) -> int:
    """Judge plans, or answers of any level: whether they can be carried out, and the reward.

    Args:
        records: parquet file of records, or a folder of such files.
        plans: a file of one answer; or, if it ends in .jsonl, one answer a line, {"answer": ..., "record": ...}, where
            record is a key or number, and the line's own number unless given.
        record: key or number of the record that one answer is for.
        strict: judge by the mended rules; else exactly as the released code does.
        seed: of start areas that a record leaves open.
        out: JSON file for all verdicts.

    Returns:
        0 if every answer gets the full accuracy, 1 otherwise.
    """
    found = read_records(records)
    constant = mean_paths(found)
    rows = [
        _judge(find_record(found, name, records), answer, strict, seed, constant)
        for name, answer in _answers(plans, record)
    ]
    screen = Console(highlight=False, soft_wrap=True)
    for row in rows[:_SHOWN]:
        screen.print(f"{row['record']}: reward {row['total']:.2f}, {row['sentence']}", markup=False)
    if len(rows) > _SHOWN:
        screen.print(f"... and {len(rows) - _SHOWN} more" + (f", all in {out}" if out else "; --out FILE keeps all"))
    right = sum(row["accuracy"] == 1 for row in rows)
    codes = Counter(row["code"] for row in rows if row.get("code"))
    why = "".join(f", {code} {count}" for code, count in codes.most_common())
    screen.print(f"{right} of {len(rows)} right{why}; mean reward {sum(r['total'] for r in rows) / len(rows):.3f}")
    measured = [r for r in rows if r.get("constant_rmse_px")]
    if measured:  # an answer that can't be read is worth as much as the constant
        blind = sum(r["constant_rmse_px"] for r in measured)
        error = sum(r["constant_rmse_px"] if r["rmse_px"] is None else r["rmse_px"] for r in measured)
        screen.print(
            f"level 3: RMSE {error / len(measured):.1f} px, of the mean of the right paths "
            f"{blind / len(measured):.1f} px; skill {skill(error, blind):.2f}, "
            f"sharp score {sum(r['sharp'] for r in measured) / len(measured):.3f}"
        )
    if out is not None:
        write_json(out, {"schema_version": 1, "strict": strict, "seed": seed, "verdicts": rows})
    return int(right < len(rows))


def find_record(records: list[Record], name: str, where: Path) -> Record:
    """The record of that key or number.

    Raises:
        UserError: if there is none.
    """
    for number, record in enumerate(records):
        if name in (record.key, str(number)):
            return record
    last = f"0 to {len(records) - 1}" if records else "none, it is empty"
    raise UserError(f"{where}: no record '{name}'\nnumbers: {last}; keys such as {records[0].key if records else ''}")


def _answers(plans: Path, record: str) -> list[tuple[str, Any]]:
    """Pairs of a record's name and an answer.

    Raises:
        UserError: if the file can't be read, or holds none.
    """
    try:
        text = plans.read_text(encoding="utf-8")
        if plans.suffix != ".jsonl":
            return [(record, text)]
        lines = [json.loads(line) for line in text.splitlines() if line.strip()]
        found = [(str(line.get("record", number)), line["answer"]) for number, line in enumerate(lines)]
    except OSError as error:
        raise UserError(f"{plans}: can't be read: {error.strerror}") from None
    except (ValueError, KeyError, AttributeError) as error:
        raise UserError(f'{plans}: a line is no {{"answer": ..., "record": ...}}: {error}') from None
    if not found:
        raise UserError(f"{plans}: holds no answer")
    return found


def mean_paths(records: list[Record]) -> list[Any]:
    """The level 3 answer that is best without looking: the mean of the records' right paths, [2, 5, 2] pixels."""
    gold = [literal(str(record.ground_truth)) for record in records if record.level == 3]
    found: list[Any] = numpy.array(gold, float).mean(0).tolist() if gold else []
    return found


def _judge(record: Record, answer: Any, strict: bool, seed: int, constant: list[Any]) -> dict[str, Any]:
    """A row of the report. An answer without answer tags is taken for what would stand between them."""
    text = answer if isinstance(answer, str) else json.dumps(answer)
    if "<answer>" not in text:
        text = f"<think></think><answer>{text}</answer>"
    row: dict[str, Any] = {"record": record.key, "family": record.family}
    if isinstance(record.ground_truth, Mapping):
        reward, verdict = plan_reward_and_verdict(text, record.ground_truth, strict=strict, seed=seed)
        sentence = verdict.sentence if verdict else "no answer"
        if verdict and verdict.ok and not reward.accuracy:
            gold = len(record.ground_truth["time_steps"])
            sentence = f"{sentence}, but in {verdict.num_steps} steps; {gold} are enough"
        row |= {"code": verdict.code if verdict else "UNREADABLE_PLAN", "step": verdict.step if verdict else None}
    else:
        reward = REWARDS[f"viki/l{record.level}"](text, record.ground_truth)
        if record.level == 3:
            row |= _distances(text, record.ground_truth, constant)
        sentence = (
            "right" if reward.accuracy == 1 else f"accuracy {reward.accuracy:.3f}; right is {record.ground_truth}"
        )
    return {**row, **reward._asdict(), "sentence": sentence}


def _distances(text: str, ground_truth: Any, constant: list[Any]) -> dict[str, Any]:
    """What the released reward hardly tells apart: errors in pixels, the constant's too, and a sharper score."""
    try:
        paths = literal(find_answer(text) or "")
    except ValueError:
        paths = None
    ours, blind = trajectory_distances(paths, ground_truth), trajectory_distances(constant, ground_truth)
    return {
        "rmse_px": None if ours is None else float(ours[:, 0].mean()),
        "constant_rmse_px": None if blind is None else float(blind[:, 0].mean()),
        "sharp": sharp_trajectory_score(ours),
    }
