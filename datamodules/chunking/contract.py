"""The tagged text in which every reader answers (arXiv 2506.16035, section 3 of the prompt): parser and writer.

    [CONTINUES]True|False|Partial[/CONTINUES]
    [HEAD]title > section > subject[/HEAD]
    text of the chunk …

A chunk ends where the next `[CONTINUES]` begins. The tags may stand on one line or on separate lines, in any case. Text
that happens to hold a tag is written with a backslash before its bracket, as is a " > " inside the upper two headings.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Literal, get_args

Flag = Literal["True", "False", "Partial"]
FLAGS: tuple[Flag, ...] = get_args(Flag)
NUM_LEVELS = 3

_OPEN = re.compile(r"(?<!\\)\[[ \t]*continues[ \t]*\]", re.IGNORECASE)
_FLAG = re.compile(r"\s*([^\[\]\n]*?)\s*(?<!\\)\[[ \t]*/[ \t]*continues[ \t]*\]", re.IGNORECASE)
_LOOSE_FLAG = re.compile(r"[ \t]*(true|false|partial)\b", re.IGNORECASE)
_HEAD = re.compile(r"\s*\[[ \t]*head[ \t]*\](.*?)(?<!\\)\[[ \t]*/[ \t]*head[ \t]*\]", re.IGNORECASE | re.DOTALL)
_LOOSE_HEAD = re.compile(r"\s*\[[ \t]*head[ \t]*\]([^\n]*)", re.IGNORECASE)
_TAG = re.compile(r"(\\*)(\[[ \t]*/?[ \t]*(?:continues|head)[ \t]*\])", re.IGNORECASE)
_FENCE = re.compile(r"\s*```[a-z]*[ \t]*\n(.*?)\n?```\s*", re.IGNORECASE | re.DOTALL)
_STEP_DOWN = re.compile(r"(?<=\s)>(?=\s)")
_ESCAPED_STEP = re.compile(r"(?<=\s)(\\+)>(?=\s)")


@dataclass(frozen=True)
class TaggedChunk:
    """One chunk as it stands in an answer.

    Attributes:
        continues: whether it goes on from the chunk before it.
        headings: what the head holds, at most three levels; empty strings and missing levels are left as they came.
        text: the chunk's text, stripped.
    """

    continues: Flag
    headings: tuple[str, ...]
    text: str


@dataclass(frozen=True)
class Fault:
    """Something in an answer that is not the contract's form, but could be read all the same.

    Attributes:
        rule: name of the rule of `rules.RULES` that it breaks.
        chunk: number of the chunk, from 1; 0 where it belongs to none.
        sentence: what is wrong.
    """

    rule: str
    chunk: int
    sentence: str


@dataclass(frozen=True)
class ParsedAnswer:
    """Chunks of an answer in order, and what was wrong with its form."""

    chunks: tuple[TaggedChunk, ...]
    faults: tuple[Fault, ...]


def parse(answer: str, known: Sequence[str] = ()) -> ParsedAnswer:
    """Read an answer; never raises: what is not in order becomes a fault, and the nearest reading is taken.

    Args:
        answer: tagged text, also inside a code fence.
        known: headings that are open, which may hold " > " themselves.
    """
    fenced = _FENCE.fullmatch(answer)
    if fenced:
        answer = fenced[1]
    starts = list(_OPEN.finditer(answer))
    faults: list[Fault] = []
    outside = answer[: starts[0].start()] if starts else answer
    if outside.strip():
        faults.append(Fault("text_outside", 0, f"text before the first [CONTINUES]: '{_short(outside)}'"))
    ends = [*(s.start() for s in starts[1:]), len(answer)][: len(starts)]
    chunks = [
        _chunk(answer[start.end() : end], number, known, faults)
        for number, (start, end) in enumerate(zip(starts, ends, strict=True), 1)
    ]
    return ParsedAnswer(tuple(chunks), tuple(faults))


def _chunk(text: str, number: int, known: Sequence[str], faults: list[Fault]) -> TaggedChunk:
    flag, closed, rest = "", True, text
    if found := _FLAG.match(text):
        flag, rest = found[1], text[found.end() :]
    elif loose := _LOOSE_FLAG.match(text):
        flag, closed, rest = loose[1], False, text[loose.end() :]
    continues = next((f for f in FLAGS if f.lower() == flag.lower()), None)
    if continues is None:
        faults.append(Fault("flag_unknown", number, f"the flag is '{_short(flag)}', not True, False or Partial"))
    elif not closed:
        faults.append(Fault("tag_unclosed", number, "[CONTINUES] is not closed by [/CONTINUES]"))
    headings: tuple[str, ...] = ()
    if found := _HEAD.match(rest):
        headings, rest = split_head(found[1], known), rest[found.end() :]
    elif loose := _LOOSE_HEAD.match(rest):
        headings, rest = split_head(loose[1], known), rest[loose.end() :]
        faults.append(Fault("tag_unclosed", number, "[HEAD] is not closed by [/HEAD]"))
    else:
        faults.append(Fault("head_missing", number, "no [HEAD] follows the flag"))
    return TaggedChunk(continues or "Partial", headings, _unescape(rest).strip())


def split_head(raw: str, known: Sequence[str] = ()) -> tuple[str, ...]:
    """The levels of a head, at most three: cut at " > " from the left, so that the last keeps any further one.

    Args:
        raw: text between the tags.
        known: open headings; one that holds " > " and stands at its place is kept whole.
    """
    text = f" {' '.join(_unescape(raw).split())} "
    levels: list[str] = []
    while len(levels) < NUM_LEVELS - 1:
        whole = known[len(levels)] if len(levels) < len(known) else ""
        if " > " in whole and text.startswith(f" {whole} > "):
            levels.append(whole)
            text = text[len(whole) + 3 :]
            continue
        found = _STEP_DOWN.search(text)
        if not found:
            break
        levels.append(text[: found.start()].strip())
        text = text[found.end() :]
    levels.append(text.strip())
    while levels and not levels[-1]:
        levels.pop()
    return tuple(_ESCAPED_STEP.sub(lambda m: m[1][1:] + ">", f" {level} ").strip() for level in levels)


def write(chunks: Iterable[TaggedChunk]) -> str:
    """The tagged text of chunks; `parse` gives the same chunks back, headings with single spaces."""
    return "\n\n".join(
        f"[CONTINUES]{c.continues}[/CONTINUES]\n[HEAD]{join_head(c.headings)}[/HEAD]\n{_escape(c.text)}".strip()
        for c in chunks
    )


def join_head(headings: Sequence[str]) -> str:
    """Levels joined by " > ", such that `split_head` gives them back."""
    upper = [_step_escaped(h) for h in headings[: NUM_LEVELS - 1]]
    lowest = [_escaped_again(h) for h in headings[NUM_LEVELS - 1 :]]
    head = _escape(" > ".join([*upper, *lowest]))
    return head + " " if head.endswith("\\") else head  # a backslash would escape the closing tag


def complete_headings(headings: Sequence[str], above: Sequence[str]) -> tuple[str, str, str]:
    """Exactly three levels: a missing first one comes from the context, a missing lower one from its parent.

    Args:
        headings: what a head held.
        above: headings of the chunk before it; may be empty at a document's start.
    """
    given = [*headings[:NUM_LEVELS], *[""] * (NUM_LEVELS - len(headings))]
    if not any(given):
        given = [*above[:NUM_LEVELS], *[""] * (NUM_LEVELS - len(above))]
    if not given[0]:
        given[0] = above[0] if above else next((h for h in given if h), "")
    for level in range(1, NUM_LEVELS):
        given[level] = given[level] or given[level - 1]
    return given[0], given[1], given[2]


def _step_escaped(heading: str) -> str:
    return re.sub(r"(?<=\s)(\\*)>(?=\s)", lambda m: "\\" + m[0], f" {' '.join(heading.split())} ").strip()


def _escaped_again(heading: str) -> str:
    return _ESCAPED_STEP.sub(lambda m: "\\" + m[0], f" {' '.join(heading.split())} ").strip()


def _escape(text: str) -> str:
    return _TAG.sub(lambda m: "\\" + m[0], text)


def _unescape(text: str) -> str:
    return _TAG.sub(lambda m: m[1][1:] + m[2], text)


def _short(text: str) -> str:
    flat = " ".join(text.split())
    return flat if len(flat) <= 60 else flat[:57] + "..."
