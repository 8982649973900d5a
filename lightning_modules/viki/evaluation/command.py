"""The command `viki evaluate`: a model's answers beside those of controls."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from rich.console import Console

from ....datamodules.files import atomic_write, write_json
from ....datamodules.viki.generate import LEVELS
from ....datamodules.viki.module import split_path, spread
from ....datamodules.viki.records import Record, read_records
from ....registry import COMMANDS, UserError
from ...chunking.readers.chat_client import ChatClient
from ..policy.asked import OTHERS_TOKENS, answer_tokens
from ..policy.policy import VikiPolicy
from ..scoring import Score, score
from .answerers import Answerer, ConstantAnswer, PolicyAnswers, RandomAnswers, ServerAnswers
from .cooperation import cooperation_report, draw_cooperation
from .figure import draw_families
from .kept import KeptAnswers
from .report import CONSTANT, report

_ROWS = ("model", "no pictures", "trained blind", CONSTANT, "random")
_KNOWN = 3000  # training records whose answers the controls know


@COMMANDS.register("viki evaluate", paper="2506.09049")
def evaluate(
    model: str, data: list[Path], out: Path, split: list[str] | None = None, level: str | None = None,
    views: str | None = None, num: int | None = None, also: list[str] | None = None, blind: Path | None = None,
    strict: bool = False, batch_size: int = 32, max_new_tokens: int | None = None, server_model: str = "",
    key_variable: str = "OPENAI_API_KEY", price_in: float = 0.0, price_out: float = 0.0,
    max_cost: float | None = None, seed: int = 0,
) -> None:  # fmt: skip
    """Evaluate a vision-language model on records, ours or released ones, beside controls.

    Rows: the model; the same without pictures; a policy trained without pictures, if given; the constant answer that is
    best on training records; right answers of random training records.

    A server's answers are kept in `out`/unfinished.jsonl until results.json is written: the same call goes on there.

    Args:
        model: folder of a policy, ORG/NAME of a released Qwen2.5-VL, or openai:URL of a server, such as
            openai:http://127.0.0.1:8000/v1.
        data: folders with a train split and the tested ones, as `viki generate` writes; several for several levels.
        out: folder for results.json, answers.jsonl and a figure.
        split: splits to test; `test` unless given.
        level: l1, l2 or l3 only; all that the data holds unless given.
        views: `all` pictures or the `global` one; as the policy was trained unless given.
        num: so many records of each split at most, evenly.
        also: further policies as NAME=FOLDER, each for a row of its own, such as before=SFT/policy.
        blind: folder of a policy that was trained without pictures.
        strict: judge plans by the mended checker.
        batch_size: records at a time.
        max_new_tokens: limit of an answer; 320 for policies of ours and 2048 for other models unless given.
        server_model: name of the server's model.
        key_variable: environment variable that holds the server's key.
        price_in: price of a million tokens that are sent to the server.
        price_out: price of a million tokens that it writes.
        max_cost: no further call is made once this command has spent it.
        seed: of the random control.
    """
    if level is not None and level not in LEVELS:
        raise UserError(f"no level '{level}'\nlevels: {' '.join(LEVELS)}")
    if views not in (None, "all", "global"):
        raise UserError(f"no views '{views}'\nviews: all global")
    further = _named(also or [])
    wanted = None if level is None else LEVELS[level]
    screen = Console(highlight=False, soft_wrap=True)
    splits = {name: _records(data, name, wanted, num) for name in split or ["test"]}
    known = _records(data, "train", wanted, _KNOWN)
    missing = {r.level for records in splits.values() for r in records} - {r.level for r in known}
    if missing:
        raise UserError(f"no training record of level {min(missing)}: the controls are chosen on those")
    client = kept = None
    answerers: dict[str, Answerer]
    if model.startswith("openai:"):
        client = ChatClient(
            url=model.removeprefix("openai:"), model=server_model, key_variable=key_variable, price_in=price_in,
            price_out=price_out, max_cost=max_cost,
        )  # fmt: skip
        kept = KeptAnswers(out / "unfinished.jsonl", f"{client.url} {server_model}")
        how: dict[str, Any] = {"max_new_tokens": max_new_tokens or OTHERS_TOKENS, "kept": kept}
        answerers = {
            "model": ServerAnswers(client, views=views or "all", **how),
            "no pictures": ServerAnswers(client, blind=True, **how),
        }
    else:
        policy = _on_device(VikiPolicy.load(model))
        how = {"batch_size": batch_size, "max_new_tokens": max_new_tokens or answer_tokens(model)}
        answerers = {
            "model": PolicyAnswers(policy, views=views, **how),
            "no pictures": PolicyAnswers(policy, blind=True, **how),
        }
        for name, folder in further.items():
            answerers[name] = PolicyAnswers(_on_device(VikiPolicy.load(folder)), views=views, **how)
        if blind is not None:
            answerers["trained blind"] = PolicyAnswers(_on_device(VikiPolicy.load(blind)), blind=True, **how)
    answerers |= {CONSTANT: ConstantAnswer(known), "random": RandomAnswers(known, seed)}
    found: dict[str, dict[str, list[Score]]] = {}
    shared: dict[str, dict[str, Any]] = {}
    with atomic_write(out / "answers.jsonl") as temporary, temporary.open("w", encoding="utf-8") as file:
        for name, records in splits.items():
            found[name], answers = {}, {}
            for who, answerer in answerers.items():
                texts = answers[who] = answerer.answers(records)
                found[name][who] = [score(r, text, strict=strict) for r, text in zip(records, texts, strict=True)]
                for record, text, one in zip(records, texts, found[name][who], strict=True):
                    row = {"split": name, "record": record.key, "who": who, "accuracy": one.accuracy, "answer": text}
                    file.write(json.dumps(row) + "\n")
            shared[name] = cooperation_report(name, records, answers)
    results = report(found)
    figures = ["families.png"]
    for name, plans in shared.items():
        results["metrics"] |= plans["metrics"]
        results["tables"] += plans["tables"]
        if plans["tables"]:
            figures.append(f"cooperation_{name}.png")
            draw_cooperation(plans["measured"], name, out / figures[-1])
    for who, answerer in answerers.items():
        if answerer.cut_off:
            told = f"{who}: {answerer.cut_off} answers of {sum(map(len, splits.values()))}"
            results["statements"].append(f"{told} were cut off after {how['max_new_tokens']} tokens.")
    if client is not None and kept is not None:
        told = f"{client.calls} calls, {client.tokens_in} tokens in, {client.tokens_out} out; cost {client.cost:.4f}."
        if kept.taken:
            told += f" {len(kept.taken)} answers are an earlier call's, and its cost is not in this."
        results["statements"].append(told)
        results["metrics"]["cost"] = client.cost
    draw_families(found, out / "families.png")
    write_json(out / "results.json", {**results, "figures": figures})
    if kept is not None:
        kept.file.unlink(missing_ok=True)
    for line in results["statements"]:
        screen.print(line, markup=False)
    screen.print(f"{out}/results.json, {', '.join(figures)}, answers.jsonl", markup=False)


def _named(also: Sequence[str]) -> dict[str, Path]:
    """NAME=FOLDER as name -> folder.

    Raises:
        UserError: if one has another form, or a name that a row has already.
    """
    found: dict[str, Path] = {}
    for text in also:
        name, _, folder = text.partition("=")
        if not name or not folder or name in _ROWS or name in found:
            raise UserError(f"also: '{text}' is not NAME=FOLDER with a name of its own, such as before=SFT/policy")
        found[name] = Path(folder)
    return found


def _on_device(policy: VikiPolicy) -> VikiPolicy:
    return policy.to("cuda" if torch.cuda.is_available() else "cpu").eval()


def _records(data: Sequence[Path], split: str, level: int | None, num: int | None) -> list[Record]:
    """Records of a split from all folders that have it.

    Raises:
        UserError: if none has it, or no record is of the level.
    """
    paths = [split_path(folder, split) for folder in data]
    held = [path for path in paths if path.exists()]
    if not held:
        raise UserError(f"no split '{split}' in {', '.join(map(str, data))}\nThe controls need a train split as well.")
    found: list[Record] = []
    for path in held:
        records = [r for r in read_records(path) if level is None or r.level == level]
        found += records if num is None else spread(records, num)
    if not found:
        raise UserError(f"split '{split}': no record of level {level}")
    return found
