"""The tagged text: what the parser takes, and that it gives back what the writer wrote."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fulgurite.datamodules.chunking.contract import FLAGS, TaggedChunk, complete_headings, parse, split_head, write

TRICKY = st.sampled_from(
    [
        "[HEAD]",
        "[/HEAD]",
        "[continues]",
        "[ Continues ]True[/CONTINUES]",
        "\\[HEAD]",
        " > ",
        " \\> ",
        "[1](a)",
        "\n",
        "|",
    ]
)
TEXT = st.lists(st.one_of(st.text(max_size=12), TRICKY), max_size=6).map("".join)
HEADING = TEXT.map(lambda t: " ".join(t.split())).filter(bool)
CHUNK = st.builds(
    TaggedChunk, st.sampled_from(FLAGS), st.tuples(HEADING, HEADING, HEADING), TEXT.map(str.strip).filter(bool)
)


@given(st.lists(CHUNK, max_size=4))
def test_parser_gives_back_what_the_writer_wrote(chunks: list[TaggedChunk]) -> None:
    parsed = parse(write(chunks))
    assert list(parsed.chunks) == chunks
    assert parsed.faults == ()


@given(st.lists(st.one_of(st.text(max_size=20), TRICKY, st.just("[CONTINUES]True[/CONTINUES]")), max_size=12))
def test_any_text_is_read_without_an_error(parts: list[str]) -> None:
    parsed = parse("".join(parts))
    assert all(c.continues in FLAGS and len(c.headings) <= 3 for c in parsed.chunks)


@pytest.mark.parametrize(
    "answer",
    [
        "[CONTINUES]True[/CONTINUES]\n[HEAD]A > B > C[/HEAD]\nsome text",
        "[CONTINUES]True[/CONTINUES][HEAD]A > B > C[/HEAD]some text",
        "[continues] TRUE [/Continues] [head]A > B > C[/head] some text",
        "```\n[CONTINUES]true[/CONTINUES]\n\n[HEAD] A  >  B > C [/HEAD]\n\nsome text\n```",
    ],
)
def test_both_placements_and_any_case(answer: str) -> None:
    parsed = parse(answer)
    assert parsed.chunks == (TaggedChunk("True", ("A", "B", "C"), "some text"),)
    assert parsed.faults == ()


def test_brackets_in_the_text_end_nothing() -> None:
    text = "see [1] and [the site](https://x.org/[a])\n[CONTINUE] is no tag, nor is [HEADER]"
    parsed = parse(f"[CONTINUES]False[/CONTINUES][HEAD]A [draft] > B > C[/HEAD]{text}")
    assert parsed.chunks == (TaggedChunk("False", ("A [draft]", "B", "C"), text),)


def test_a_head_has_at_most_three_levels_and_keeps_the_rest() -> None:
    assert split_head("A > B > x > 3 > y") == ("A", "B", "x > 3 > y")
    assert split_head("A>B > C") == ("A>B", "C")


def test_an_open_heading_with_the_sign_in_it_is_kept_whole() -> None:
    assert split_head("Menu > File > B > C", known=("Menu > File", "X", "Y")) == ("Menu > File", "B", "C")
    assert split_head("Menu > Edit > B > C", known=("Menu > File", "X", "Y")) == ("Menu", "Edit", "B > C")


@pytest.mark.parametrize(
    ("answer", "rule", "flag"),
    [
        ("[CONTINUES]Maybe[/CONTINUES][HEAD]A > B > C[/HEAD]x", "flag_unknown", "Partial"),
        ("[CONTINUES]True\n[HEAD]A > B > C[/HEAD]\nx", "tag_unclosed", "True"),
        ("[CONTINUES]False[/CONTINUES]\n[HEAD]A > B > C\nx", "tag_unclosed", "False"),
        ("[CONTINUES]False[/CONTINUES]\nx", "head_missing", "False"),
        ("Here it is:\n[CONTINUES]False[/CONTINUES][HEAD]A > B > C[/HEAD]x", "text_outside", "False"),
    ],
)
def test_a_broken_form_is_read_and_reported(answer: str, rule: str, flag: str) -> None:
    parsed = parse(answer)
    assert [f.rule for f in parsed.faults] == [rule]
    assert [(c.continues, c.text) for c in parsed.chunks] == [(flag, "x")]


def test_missing_levels_inherit() -> None:
    assert complete_headings(("A", "B"), ()) == ("A", "B", "B")
    assert complete_headings((), ("A", "B", "C")) == ("A", "B", "C")
    assert complete_headings(("", "B", "C"), ("Title", "x", "y")) == ("Title", "B", "C")
