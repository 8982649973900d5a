"""`fulgurite chunking judge`: retrieved contexts answered and judged by language models, as the paper does it."""

from __future__ import annotations

import dataclasses
import json
import os
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from rich.console import Console

from ....registry import COMMANDS, UserError

SCHEMA_VERSION = 1


@COMMANDS.register("chunking judge", paper="2506.16035")
def judge(
    contexts: Path,
    url: str,
    model: str,
    out: Path,
    judge_model: str | None = None,
    arms: list[str] | None = None,
    limit: int | None = None,
    price_in: float = 0.0,
    price_out: float = 0.0,
    max_cost: float | None = None,
) -> None:
    """Have questions answered from what was retrieved, and the answers judged: correct, hallucinate or abstain.

    Each judged question is kept at once: the same call again goes on where it was stopped.

    Args:
        contexts: folder `contexts` of `fulgurite chunking evaluate`.
        url: base of an OpenAI-compatible server, such as http://127.0.0.1:8000/v1.
        model: its model that answers.
        out: folder for what was judged and results.json.
        judge_model: its model that judges; default: the one that answers.
        arms: ways of chunking; default: all that are there.
        limit: how many questions an arm, the first of each; default: all.
        price_in: price of a million tokens that are sent.
        price_out: price of a million tokens that are written.
        max_cost: stop once one of the two models has spent this much.
    """
    from ....datamodules.files import write_json
    from ..readers.chat_client import ChatClient
    from .contexts import read_contexts
    from .judge import judge as judge_one

    found = sorted(f.name for f in contexts.iterdir() if f.is_dir()) if contexts.is_dir() else []
    names = arms or found
    if unknown := [n for n in names if n not in found]:
        raise UserError(f"{contexts}: has no contexts of the arm '{unknown[0]}'; it has {', '.join(found) or 'none'}")
    if not names:
        raise UserError(f"{contexts}: holds no contexts\nMake them: fulgurite chunking evaluate")
    account = {"price_in": price_in, "price_out": price_out, "max_cost": max_cost}
    answerer = ChatClient(url, model, **account)  # type: ignore[arg-type]
    judger = ChatClient(url, judge_model or model, **account)  # type: ignore[arg-type]
    console = Console(stderr=True, highlight=False, soft_wrap=True)
    judged: dict[str, list[dict[str, Any]]] = {}
    for name in names:
        asked = [c for file in sorted((contexts / name).glob("*.jsonl")) for c in read_contexts(file)][:limit]
        head = {"schema_version": SCHEMA_VERSION, "arm": name, "model": model, "judge_model": judge_model or model}
        kept = _Kept(out / "judged" / f"{name}.jsonl", head)
        for context in asked:
            if context.id not in kept.lines:
                kept.add(context.id, dataclasses.asdict(judge_one(context, answerer, judger)))
        judged[name] = [kept.lines[c.id] for c in asked]
        console.print(f"{name}: {len(asked)} questions judged", markup=False)
    write_json(out / "results.json", {"schema_version": 1, **summarise(judged, model, judge_model or model)})


class _Kept:
    """Judged questions in a file, a line each; begun anew for other models."""

    def __init__(self, file: Path, head: Mapping[str, Any]) -> None:
        self.file = file
        self.lines: dict[str, dict[str, Any]] = {}
        file.parent.mkdir(parents=True, exist_ok=True)
        content = file.read_bytes() if file.is_file() else b""
        whole = content[: content.rfind(b"\n") + 1]
        try:
            rows = [json.loads(line) for line in whole.splitlines()]
            if rows and rows[0] == head:
                self.lines = {row["id"]: row["judged"] for row in rows[1:]}
                os.truncate(file, len(whole))
                return
        except (ValueError, KeyError, TypeError):
            pass  # damaged: judged again
        file.write_text(json.dumps(head) + "\n", encoding="utf-8")

    def add(self, identity: str, judged: dict[str, Any]) -> None:
        self.lines[identity] = judged
        with open(self.file, "a", encoding="utf-8") as opened:
            opened.write(json.dumps({"id": identity, "judged": judged}) + "\n")


def summarise(judged: Mapping[str, Sequence[Mapping[str, Any]]], model: str, judge_model: str) -> dict[str, Any]:
    """Shares of correct, hallucinate and abstain of each arm, as content of results.json."""
    rows: list[list[Any]] = []
    metrics: dict[str, float] = {}
    for arm, held in judged.items():
        verdicts = [j["verdict"] for j in held if j["verdict"] is not None]
        counts: dict[str, int] = defaultdict(int, Counter(v["response_quality"] for v in verdicts))
        exists = sum(v["is_answer_exist"] for v in verdicts)
        shares = [counts[q] / len(verdicts) if verdicts else None for q in ("correct", "hallucinate", "abstain")]
        rows.append([arm, len(held), *shares, exists / len(verdicts) if verdicts else None, len(held) - len(verdicts)])
        if shares[0] is not None:
            metrics[f"test/judged_correct/{arm}"] = shares[0]
    columns = ["arm", "questions", "correct", "hallucinate", "abstain", "sources hold it", "no verdict"]
    note = f"Answers by {model}, judged by {judge_model}; ten chunks by cosine. The judge sees no reference answer."
    table = {"title": "Judged answers", "columns": columns, "rows": rows, "note": note}
    return {"metrics": metrics, "statements": [], "tables": [table]}
