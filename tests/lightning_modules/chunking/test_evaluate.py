"""`fulgurite chunking evaluate` and `judge`: scores by hand, resuming, results.json, and judges that misbehave."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from fulgurite.datamodules.chunking.questions.question import Question, TableCell
from fulgurite.lightning_modules.chunking.arms.source import Piece
from fulgurite.lightning_modules.chunking.command import chunk
from fulgurite.lightning_modules.chunking.evaluation import scores as scores_module
from fulgurite.lightning_modules.chunking.evaluation.bootstrap import difference
from fulgurite.lightning_modules.chunking.evaluation.command import evaluate
from fulgurite.lightning_modules.chunking.evaluation.judge import parse_verdict
from fulgurite.lightning_modules.chunking.evaluation.judge_command import judge
from fulgurite.lightning_modules.chunking.evaluation.scores import score_pieces, take
from fulgurite.lightning_modules.chunking.retrieval.encoder import TextEncoder
from fulgurite.registry import UserError

ARMS = ["fixed", "ours", "recursive", "reader_fixed"]
HEADER = ["Code", "Part", "Price"]


@pytest.fixture(scope="module")
def encoder() -> TextEncoder:
    return TextEncoder()


@pytest.fixture
def corpus(manual: Path, tmp_path: Path) -> dict[str, Path]:
    """The manual of conftest.py with its chunks and questions: rows of its table on three pages, and its steps."""
    folder = tmp_path / "pdfs"
    folder.mkdir()
    manual.rename(folder / "manual.pdf")
    (tmp_path / "chunks").mkdir()
    chunk(folder, tmp_path / "chunks" / "all.jsonl")
    lines: list[dict[str, Any]] = []
    for number, page, order, there in ((3, 3, 1, True), (17, 4, 2, False), (20, 4, 2, False), (28, 5, 3, True)):
        table = {"row_key": f"K{number:02d}", "cell": f"{number}.50", "header_row": HEADER, "row_window": 40,
                 "page_in_table": order, "header_on_evidence_page": there}  # fmt: skip
        lines.append({"id": f"row-{number}", "pdf": "manual.pdf", "question": f"What is the price of K{number:02d}?",
                      "answer": f"{number}.50", "answer_mode": "text_table_cell", "evidence_pages": [page],
                      "category": "table", "human": False, "table": table})  # fmt: skip
    lines.append({"id": "steps", "pdf": "manual.pdf", "question": "In what order are the bolts turned?",
                  "answer": "1 to 7", "answer_keys": ["bolt number 4", "bolt number 5"], "evidence_pages": [2, 3],
                  "category": "procedure"})  # fmt: skip
    lines.append(
        {"id": "none", "pdf": "manual.pdf", "question": "Who made it?", "answer": "", "answer_mode": "unanswerable"}
    )
    questions = tmp_path / "questions.jsonl"
    questions.write_text("\n".join(map(json.dumps, lines)), encoding="utf-8")
    return {"questions": questions, "pdfs": folder, "chunks": tmp_path / "chunks", "out": tmp_path / "out"}


def table(results: dict[str, Any], title: str) -> list[dict[str, Any]]:
    [found] = [t for t in results["tables"] if t["title"].startswith(title)]
    return [dict(zip(found["columns"], row, strict=True)) for row in found["rows"]]


def test_all_arms_in_one_table_and_no_arm_is_scored_twice(
    corpus: dict[str, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    evaluate(**corpus, arms=ARMS)
    results = json.loads((corpus["out"] / "results.json").read_text())
    assert (corpus["out"] / "answers.png").read_bytes().startswith(b"\x89PNG") and results["figures"] == ["answers.png"]
    strict = {(r["arm"], r["search"]): r for r in table(results, "Table cells, strict")}
    assert len(strict) == len(ARMS) * 3
    assert strict["ours", "BM25"]["1500 tokens"] == 1.0 and strict["ours", "BM25"]["exists in one chunk"] == 1.0
    kinds = {r["arm"]: r for r in table(results, "Table cells by the kind of page")}
    assert kinds["fixed"]["first page, exists"] is not None and kinds["ours"]["later page, no header, n = 2"] == 1.0
    gains, alone = [t for t in results["tables"] if t["title"].startswith("Ours (") and "cells, strict" in t["title"]]
    assert {row[0] for row in gains["rows"]} == set(ARMS) - {"ours"}
    assert "vector search alone" in alone["title"] and {row[1] for row in alone["rows"]} == {"vector"}
    assert {"cross-table", "procedural"} <= {r["class"] for r in table(results, "By class")}
    [contract] = [r for r in table(results, "The contract") if r["document"] == "manual.pdf"]
    assert contract["violations per 100 chunks"] == 0 and contract["invented tokens"] == 0
    assert any("ours" in s and "best text chunker" in s for s in results["statements"])
    before = (corpus["out"] / "results.json").read_bytes()
    monkeypatch.setattr(scores_module, "score_pieces", lambda *_: pytest.fail("scored again"))
    evaluate(**corpus, arms=ARMS)
    assert (corpus["out"] / "results.json").read_bytes() == before


def test_a_changed_question_is_scored_anew(corpus: dict[str, Path]) -> None:
    evaluate(**corpus, arms=["ours"])
    text = corpus["questions"].read_text().replace('"cell": "17.50"', '"cell": "99.99"')
    corpus["questions"].write_text(text)
    evaluate(**corpus, arms=["ours"])
    results = json.loads((corpus["out"] / "results.json").read_text())
    assert [r["exists in one chunk"] for r in table(results, "Table cells, strict")] == [0.75] * 3


def test_wrong_input_is_told(corpus: dict[str, Path], tmp_path: Path) -> None:
    other = tmp_path / "other.jsonl"
    other.write_text('{"id": "x", "pdf": "z.pdf", "question": "?", "answer": "?"}')
    (tmp_path / "empty").mkdir()
    for given, said in (
        ({"questions": other}, "asks nothing about the PDFs"),
        ({"arms": ["fixd"]}, "Did you mean 'fixed'"),
        ({"chunks": tmp_path / "empty"}, r"holds no \.jsonl"),
        ({"part": "development", "num_development": 0, "used": ["manual"]}, "1 documents are used"),
        ({"part": "development", "num_development": 0}, "asks nothing about"),
    ):
        with pytest.raises(UserError, match=said):
            evaluate(**{**corpus, "arms": ["ours"], **given})  # type: ignore[arg-type]
    with open(corpus["pdfs"] / "manual.pdf", "ab") as file:
        file.write(b"\n% another state")
    with pytest.raises(UserError, match="come from other bytes"):
        evaluate(**corpus, arms=["ours"])


def test_budgets_cut_the_last_chunk_and_count_its_pages(encoder: TextEncoder) -> None:
    pieces = [Piece("one two three", 1, 1), Piece("four five six", 2, 3), Piece("seven", 9, 9)]
    lengths = [3, 3, 1]
    assert take([1, 0, 2], pieces, lengths, encoder, 5) == (["four five six", "one two"], {1, 2, 3})
    assert take([1, 0, 2], pieces, lengths, encoder, 3) == (["four five six"], {2, 3})
    assert take([], pieces, lengths, encoder, 3) == ([], set())


def test_scores_of_a_question_by_hand(encoder: TextEncoder) -> None:
    cell = TableCell("K1", "5", ("Code", "Price"), 20, "first page")
    asked = Question("q", "a.pdf", "price of K1", "5", "text_table_cell", (), (1, 2), "table", False, cell)
    header = Piece("Code Price", 1, 1)
    row = Piece("price of K1 5 in the list", 2, 2)
    made, [context] = score_pieces([header, row], [asked], encoder)
    assert made.exists == {"q": False} and made.num_pieces == 2
    assert made.found["q"]["text"]["k = 1"] == [True, False, True, False]
    assert made.found["q"]["text"]["500 tokens"] == [True, False, True, True]
    assert context.texts[0] == row.text and len(context.texts) == 2
    made, _ = score_pieces([Piece("Code Price K1 5", 1, 2)], [asked], encoder)
    assert made.exists == {"q": True} and made.found["q"]["hybrid"]["k = 1"] == [True] * 4


def test_a_difference_is_paired_and_repeats() -> None:
    first, second = [True] * 30 + [False] * 10, [True] * 20 + [False] * 20
    made = difference(first, second)
    assert made == difference(first, second) and made.mean == 0.25 and 0.1 < made.low < 0.25 < made.high < 0.5
    assert str(made).startswith("+25.0 points (+12.5 to +") and difference(first, first).high == 0
    with pytest.raises(ValueError, match="can't be paired"):
        difference([True], [])


GOOD = '{"is_answer_exist": true, "response_quality": "correct", "answer_ids": [1]}'


def test_the_judge_asks_again_and_goes_on_where_it_was(server: Any, corpus: dict[str, Path], tmp_path: Path) -> None:
    evaluate(**corpus, arms=["ours"])
    contexts = corpus["out"] / "contexts"
    bad = GOOD.replace("[1]", "[77]")
    url = server.start({"text": "It is [1]."}, {"text": "I think so"}, {"text": bad}, {"text": f"```json\n{GOOD}\n```"})
    judge(contexts, url, "tiny", tmp_path / "judged", limit=1)
    asked = server.requests()
    assert len(asked) == 4 and "there is no JSON object" in asked[2]["body"]["messages"][-1]["content"]
    assert "from 1 to" in asked[3]["body"]["messages"][-1]["content"]
    results = json.loads((tmp_path / "judged" / "results.json").read_text())
    assert results["metrics"] == {"test/judged_correct/ours": 1.0}
    kept = tmp_path / "judged" / "judged" / "ours.jsonl"
    kept.write_bytes(kept.read_bytes() + b'{"id": "ro')  # what a kill in the middle of a write leaves
    judge(contexts, url, "tiny", tmp_path / "judged", limit=1)
    assert len(server.requests()) == 4
    judge(contexts, url, "tiny", tmp_path / "judged", limit=2)
    rows = json.loads((tmp_path / "judged" / "results.json").read_text())["tables"][0]["rows"]
    assert rows == [["ours", 2, 1.0, 0.0, 0.0, 1.0, 0]] and len(server.requests()) == 6


def test_a_judge_that_gives_no_verdict_is_counted_apart(server: Any, corpus: dict[str, Path], tmp_path: Path) -> None:
    evaluate(**corpus, arms=["ours"])
    url = server.start({"text": "yes"})
    judge(corpus["out"] / "contexts", url, "tiny", tmp_path / "judged", limit=1)
    results = json.loads((tmp_path / "judged" / "results.json").read_text())
    assert results["tables"][0]["rows"] == [["ours", 1, None, None, None, None, 1]] and len(server.requests()) == 4
    with pytest.raises(UserError, match="no contexts of the arm 'fixed'; it has ours"):
        judge(corpus["out"] / "contexts", url, "tiny", tmp_path / "judged", arms=["fixed"])
    with pytest.raises(UserError, match="holds no contexts"):
        judge(tmp_path / "nowhere", url, "tiny", tmp_path / "judged")


@pytest.mark.parametrize(
    ("reply", "said"),
    [
        ("{", "no JSON object"),
        ("{'a': 1}", "no valid JSON"),
        (GOOD.replace("true", '"yes"'), "is_answer_exist"),
        (GOOD.replace("correct", "good"), "response_quality"),
        (GOOD.replace("[1]", "[true]"), "answer_ids"),
        (GOOD.replace("[1]", "1"), "answer_ids"),
    ],
)
def test_replies_that_are_no_verdict(reply: str, said: str) -> None:
    with pytest.raises(ValueError, match=said):
        parse_verdict(reply, 3)
    assert parse_verdict(f"Here: {GOOD}", 1).answer_ids == (1,)
