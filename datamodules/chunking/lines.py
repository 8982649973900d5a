"""What a line of a chunk is: table row, step, list item, question, contents entry, page number."""

from __future__ import annotations

import re
from typing import Literal, get_args

Kind = Literal["text", "table_row", "steps", "list", "faq", "figure"]
KINDS: tuple[Kind, ...] = get_args(Kind)
FIGURE_MARK = "[Figure]"  # no word of the page's
LINE_CHARS = 80  # a paragraph without line breaks counts one line for each 80 characters

_SEPARATOR = re.compile(r"\s*\|?(\s*:?-{2,}:?\s*\|)+\s*(:?-{2,}:?)?\s*")
_BARE = re.compile(r"\s*(\d{1,2})\s+[A-ZÀ-Þ]")
_STEP = re.compile(r"\s*(?:(?:step|schritt|étape|paso)\s+(\d{1,3})\b[.:)]?|\(?(\d{1,3})[.)]\s)\s*(?=\S)", re.IGNORECASE)
_BULLET = re.compile(r"\s*[•◦▪▸►●○■□‣⁃∙·–—*\-]\s+\S")
_LETTER = re.compile(r"\s*\(?([a-z]|[ivx]{1,4})[.)]\s+\S")
_QUESTION = re.compile(r"\s*(?:\*\*)?(?:(?:question|q)\s*\d*\s*[.:)]|frage\s*\d*\s*:)\s*", re.IGNORECASE)
_ANSWER = re.compile(r"\s*(?:\*\*)?(?:(?:answer|a)\s*\d*\s*[.:)]|antwort\s*\d*\s*:)\s*", re.IGNORECASE)
_CONTENTS = re.compile(r".*\S\s*(?:\.\s?){4,}\s*(?:\d{1,4}|[ivxlc]{1,7})\s*|.*\S\s*…{2,}\s*\d{1,4}\s*", re.IGNORECASE)
_PAGE_NUMBER = re.compile(
    r"\s*(?:page|seite|p\.)\s*\d{1,5}(?:\s*(?:of|/|von)\s*\d{1,5})?\s*|\s*\d{1,5}\s*(?:of|/)\s*\d{1,5}\s*",
    re.IGNORECASE,
)
_BARE_NUMBER = re.compile(r"\s*[-–—|]?\s*(?:\d{1,5}|[ivxlc]{1,7})\s*[-–—|]?\s*", re.IGNORECASE)
_FIGURE = re.compile(r"\s*(?:\[figure\b|!\[)", re.IGNORECASE)
_CELL_BREAK = re.compile(r"(?<!\\)\|")


def is_table_line(line: str) -> bool:
    """Whether a line is a row of a markdown table: it begins and ends with a pipe."""
    text = line.strip()
    return len(text) >= 2 and text.startswith("|") and text.endswith("|") and not text.endswith("\\|")


def is_separator(line: str) -> bool:
    """Whether a line is the row of hyphens under a markdown table's header."""
    return "-" in line and _SEPARATOR.fullmatch(line) is not None


def cells(line: str) -> tuple[str, ...]:
    """The cells of a table line, stripped; a pipe inside a cell has a backslash before it."""
    inner = line.strip().removeprefix("|").removesuffix("|")
    return tuple(c.strip().replace("\\|", "|") for c in _CELL_BREAK.split(inner))


def table_line(row: tuple[str, ...]) -> str:
    """The markdown line of a row's cells."""
    return "| " + " | ".join(" ".join(c.split()).replace("|", "\\|") for c in row) + " |"


def separator_line(num_columns: int) -> str:
    """The line of hyphens under a header."""
    return "|" + "---|" * num_columns


def table_of(text: str) -> tuple[tuple[str, ...], list[tuple[str, ...]]] | None:
    """Header cells (empty where there is no header) and rows of a chunk that is a table; None for any other text."""
    lines = [line for line in text.splitlines() if line.strip()]
    rows = [line for line in lines if is_table_line(line)]
    if not rows or len(rows) * 2 < len(lines):
        return None
    if len(rows) >= 2 and is_separator(rows[1]):
        return cells(rows[0]), [cells(r) for r in rows[2:] if not is_separator(r)]
    return (), [cells(r) for r in rows if not is_separator(r)]


def step_number(line: str) -> int | None:
    """The number of a numbered step, such as 3 for `3. Press OK` or `Step 3: …`; None for another line."""
    found = _STEP.match(line)
    return int(found[1] or found[2]) if found else None


def is_bullet(line: str) -> bool:
    """Whether a line is an item of an unnumbered or lettered list."""
    return bool(_BULLET.match(line) or _LETTER.match(line)) and not is_separator(line)


def bare_step(line: str) -> int | None:
    """The number with which a line begins, without a mark behind it, before a capital: a step's only beside others."""
    match = _BARE.match(line)
    return int(match[1]) if match else None


def is_question(line: str) -> bool:
    """Whether a line opens a question of an FAQ, by its mark (`Q:`, `Question 3.`)."""
    return _QUESTION.match(line) is not None


def is_answer(line: str) -> bool:
    """Whether a line opens an answer of an FAQ, by its mark (`A:`)."""
    return _ANSWER.match(line) is not None


def question_lines(text: str) -> list[int]:
    """Numbers of the lines, from 0, that open a question, in a text that holds an answer too; [] for any other text."""
    lines = text.splitlines()
    return [k for k, line in enumerate(lines) if is_question(line)] if any(map(is_answer, lines)) else []


def is_contents_line(line: str) -> bool:
    """Whether a line is an entry of a table of contents: leaders of dots, then a page."""
    return _CONTENTS.fullmatch(line) is not None


def is_page_number(line: str, bare: bool = False) -> bool:
    """Whether a line is a page number in words (`Page 3 of 9`); with `bare`, also a number or numeral alone."""
    return bool(_PAGE_NUMBER.fullmatch(line) or (bare and _BARE_NUMBER.fullmatch(line)))


def figure_text(text: str) -> str:
    """A figure's chunk: its caption and what is written in it, behind the mark by which it is known."""
    return f"{FIGURE_MARK} {text.strip()}"


def count_lines(text: str) -> int:
    """Lines of a text as they would be set: a long one counts once for each `LINE_CHARS` characters."""
    return sum(-(-len(line) // LINE_CHARS) for line in text.splitlines() if line.strip())


def kind_of(text: str) -> Kind:
    """The kind of a chunk, told from its text alone, so that it is the same whichever reader wrote it."""
    if table_of(text) is not None:
        return "table_row"
    lines = [line for line in text.splitlines() if line.strip()]
    if lines and _FIGURE.match(lines[0]):
        return "figure"
    if lines and is_question(lines[0]):
        return "faq"
    steps = sum(step_number(line) is not None for line in lines)
    if steps >= 2 or (steps and steps * 2 >= len(lines)):
        return "steps"
    bullets = sum(is_bullet(line) for line in lines)
    return "list" if bullets >= 2 or (bullets and bullets * 2 >= len(lines)) else "text"
