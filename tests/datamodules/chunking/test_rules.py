"""Each rule of the contract is found where it is broken, and none where it is kept."""

from __future__ import annotations

import pytest

from fulgurite.datamodules.chunking.context import ChunkContext
from fulgurite.datamodules.chunking.contract import TaggedChunk, write
from fulgurite.datamodules.chunking.rules import RULES, validate_answer

BODY = "A line of text that is long enough.\nAnother line of text.\nA third line."
ROW = "| Name | Size |\n|---|---|\n| bolt | 3 |"


def answer(*parts: tuple[str, str], head: str = "T > S > U") -> str:
    return "\n".join(f"[CONTINUES]{flag}[/CONTINUES]\n[HEAD]{head}[/HEAD]\n{text}" for flag, text in parts)


GOOD = [
    answer(("False", BODY), ("False", "1. Open the lid.\n2. Take it out.\n3. Close it."), ("False", ROW)),
    answer(("False", ROW), ("False", ROW.replace("bolt", "nut"))),
    answer(("False", "Q: Is it on?\nA: Yes."), ("False", "Q: Is it off?\nA: No.")),
    answer(("True", "4. Close the lid.\n5. Lock it.")),
    answer(("False", BODY), head="T > S > Save As..."),
]

BROKEN = [
    ("text_outside", "Sure!\n" + answer(("False", BODY))),
    ("flag_unknown", answer(("Perhaps", BODY))),
    ("tag_unclosed", answer(("False", BODY)).replace("[/HEAD]", "")),
    ("head_missing", f"[CONTINUES]False[/CONTINUES]\n{BODY}"),
    ("head_levels", answer(("False", BODY), head="T > S")),
    ("head_placeholder", answer(("False", BODY), head="T > Unknown > U")),
    ("head_shortened", answer(("False", BODY), head="T > A very lo... > U")),
    ("empty_chunk", answer(("False", BODY), ("False", ""))),
    ("empty_chunk", answer(("False", BODY), ("False", "No content found."))),
    ("contents", answer(("False", "1 Start ........ 3\n2 Middle ........ 7\n3 End . . . . . . 9"))),
    ("page_furniture", answer(("False", BODY + "\nPage 3 of 9"))),
    ("boilerplate", answer(("False", "We use cookies.\nAccept all cookies\nor go"))),
    ("procedure_split", answer(("False", "1. Open.\n2. Take.\n3. Put."), ("False", "4. Close.\n5. Lock.\n6. Go."))),
    ("list_split", answer(("False", BODY + "\n• one"), ("Partial", "• two\n• three\n• four"))),
    ("row_count", answer(("False", ROW + "\n| nut | 4 |"))),
    ("row_header", answer(("False", "| bolt | 3 |"))),
    ("row_width", answer(("False", ROW.replace("| 3 |", "| 3 | 4 |")))),
    ("row_flag", answer(("False", ROW), ("True", ROW))),
    ("short_chunk", answer(("False", BODY), ("False", "Short."))),
    ("faq_merged", answer(("False", "Q: Is it on?\nA: Yes.\nQ: Is it off?\nA: No."))),
    ("faq_split", answer(("False", "Q: Is it on?"), ("False", "A: Yes."))),
]


@pytest.mark.parametrize("text", GOOD)
def test_what_keeps_the_rules_is_left_in_peace(text: str) -> None:
    context = ChunkContext().advance([TaggedChunk("False", ("T", "S", "U"), "1. a\n2. b\n3. c")])
    assert validate_answer(text, context) == []


@pytest.mark.parametrize(("rule", "text"), BROKEN)
def test_a_broken_rule_is_named(rule: str, text: str) -> None:
    found = validate_answer(text, ChunkContext())
    assert rule in {v.rule for v in found}
    assert all(v.rule in RULES and v.sentence for v in found)


def test_a_step_that_goes_on_from_the_batch_before_has_to_say_so() -> None:
    context = ChunkContext().advance([TaggedChunk("False", ("T", "S", "U"), "1. Open.\n2. Take.\n3. Put.")])
    assert context.open_procedure is not None and context.open_procedure.last_step == 3
    split = validate_answer(answer(("False", "4. Close.\n5. Lock.\n6. Leave.")), context)
    assert [(v.rule, v.chunk) for v in split] == [("procedure_split", 1)]


def test_carried_text_that_comes_again_is_found() -> None:
    text = "The quick brown fox jumps over the lazy dog.\nTwice, in fact.\nAnd once more."
    context = ChunkContext().advance([TaggedChunk("False", ("T", "S", "U"), text)])
    assert "repeats_context" in {v.rule for v in validate_answer(answer(("False", text)), context)}


def test_a_heading_that_is_printed_with_three_dots_is_not_cut_short() -> None:
    text = answer(("False", BODY), head="T > A = 1; ... > U")
    assert [v.rule for v in validate_answer(text, ChunkContext(), [BODY + "\nA = 1;\n..."])] == []
    assert [v.rule for v in validate_answer(text, ChunkContext(), [BODY + "\nA = 1; b"])] == ["head_shortened"]


def test_a_heading_with_three_dots_that_was_carried_is_not_cut_short() -> None:
    context = ChunkContext().advance([TaggedChunk("False", ("T", "Wait for…", "U"), "One.\nTwo.\nThree.")])
    kept = answer(("False", BODY), head="T > Wait for… > V")
    assert validate_answer(kept, context, [BODY]) == []
    cut = answer(("False", BODY), head="T > Wait… > V")
    assert [v.rule for v in validate_answer(cut, context, [BODY])] == ["head_shortened"]


def test_a_first_chunk_continues_nothing() -> None:
    assert [v.rule for v in validate_answer(answer(("True", BODY)), ChunkContext(), first_batch=True)] == [
        "first_continues"
    ]


def test_text_that_is_not_the_pages_is_found() -> None:
    page = BODY.replace("third", "fourth")
    assert validate_answer(answer(("False", BODY)), ChunkContext(), [page.replace("fourth", "third")]) == []
    other = "Wholly different words stand here,\nso that nothing fits,\nat all and ever."
    assert "not_verbatim" in {v.rule for v in validate_answer(answer(("False", BODY)), ChunkContext(), [other])}


def test_a_page_that_was_skipped_is_found() -> None:
    pages = [BODY, " ".join(f"word{k}" for k in range(60))]
    found = validate_answer(answer(("False", BODY)), ChunkContext(), pages)
    assert [(v.rule, v.sentence) for v in found] == [
        ("page_skipped", "nothing of page 2 of this batch is in any chunk")
    ]


def test_every_rule_has_a_case_here() -> None:
    elsewhere = {"first_continues", "not_verbatim", "page_skipped", "repeats_context"}
    assert {rule for rule, _ in BROKEN} | elsewhere == set(RULES)


def test_the_context_is_capped_and_keeps_the_header() -> None:
    long = ROW.replace("bolt", "bolt " * 900)
    context = ChunkContext().advance([TaggedChunk("False", ("T", "S", "U"), long)] * 5)
    assert len(context.last_chunks) == 2
    assert all("| Name | Size |" in c and len(c) < 900 for c in context.last_chunks)
    assert context.open_table == ("Name", "Size")
    assert ChunkContext.from_json(context.to_json()) == context
    assert write([TaggedChunk("False", ("T", "S", "U"), "x")]).startswith("[CONTINUES]False")
