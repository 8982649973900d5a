"""What becomes of the flags: the chunks of all batches are merged into those of the document.

The paper says only that the flags allow it (arXiv 2506.16035, section 3) and gives no algorithm. Here:

- `True` is appended to the chunk before it, over batch breaks too; headings stay those of the first, boxes and pages
  add up. A table row that goes on has its cells appended to the open row's.
- A complete table row is never merged with its neighbours, whatever its flag says.
- `Partial` is decided by `MergePolicy.partial`; the default is to keep it apart: it is linked to its neighbours by
  `prev_id` and `next_id` all the same.
- Steps and items that a reader has parted are recombined: a chunk that begins with the next number, or the next bullet,
  under the same headings, is merged whatever its flag says; also where short chunks that were taken in come between.
- A table's header without a row is text.
- A chunk of under three lines is joined to its neighbour, with its heading where that is another one; table rows,
  questions with answers and figures are exempt.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal

from .chunks import PlacedChunk
from .contract import TaggedChunk
from .lines import (
    cells,
    count_lines,
    is_bullet,
    is_separator,
    is_table_line,
    kind_of,
    separator_line,
    step_number,
    table_line,
    table_of,
)

MIN_LINES = 3
LONG_CHARS = 6000  # a short chunk is not joined to one that would grow beyond this
_END_OF_SENTENCE = tuple(".!?:;…。！？")


@dataclass(frozen=True)
class MergePolicy:
    """How chunks are merged.

    Attributes:
        partial: what `Partial` does: `keep` it apart (the default), merge where title and section are the `same`, or
            `merge` always.
        join_short: whether chunks of under three lines are joined to a neighbour.
    """

    partial: Literal["keep", "same", "merge"] = "keep"
    join_short: bool = True


def merge(parts: Iterable[PlacedChunk], policy: MergePolicy) -> list[PlacedChunk]:
    """The document's chunks; a merged one has the flag of its first part, and `True` is left where it could not merge.

    Args:
        parts: chunks of all batches in document order, with three headings each.
        policy: the rules above.
    """
    merged: list[PlacedChunk] = []
    for part in parts:
        if not part.tagged.text.strip():
            continue
        part = _rowless_as_text(part)
        if merged and _belongs(merged[-1], part, policy):
            merged[-1] = append(merged[-1], part)
        else:
            flag = part.tagged.continues
            if flag == "True" and (not merged or is_complete_row(part.tagged.text)):  # there is nothing it continues
                part = dataclasses.replace(part, tagged=dataclasses.replace(part.tagged, continues="False"))
            merged.append(part)
    return _lists_joined(_join_short(merged)) if policy.join_short else merged


def _rowless_as_text(part: PlacedChunk) -> PlacedChunk:
    """A table that has no row, such as words over a line of hyphens each, as the lines that they are."""
    table = table_of(part.tagged.text)
    if table is None or table[1]:
        return part
    lines = [line for line in part.tagged.text.splitlines() if line.strip()]
    under_header = next((k for k, line in enumerate(lines) if table[0] and is_separator(line)), None)
    kept = [" ".join(cells(line)) if is_table_line(line) else line for k, line in enumerate(lines) if k != under_header]
    return dataclasses.replace(part, tagged=dataclasses.replace(part.tagged, text="\n".join(kept).strip()))


def _lists_joined(chunks: Iterable[PlacedChunk]) -> list[PlacedChunk]:
    kept: list[PlacedChunk] = []
    for chunk in chunks:
        if kept and not is_complete_row(chunk.tagged.text) and splits_list(kept[-1].tagged, chunk.tagged):
            kept[-1] = append(kept[-1], chunk)
        else:
            kept.append(chunk)
    return kept


def _belongs(before: PlacedChunk, part: PlacedChunk, policy: MergePolicy) -> bool:
    flag = part.tagged.continues
    if is_complete_row(part.tagged.text):
        return False
    if splits_list(before.tagged, part.tagged):
        return True
    if flag == "False":
        return False
    if flag == "True":
        return (table_of(before.tagged.text) is None) == (table_of(part.tagged.text) is None)
    same = before.tagged.headings[:2] == part.tagged.headings[:2]
    tables = table_of(before.tagged.text) is not None or table_of(part.tagged.text) is not None
    return not tables and (policy.partial == "merge" or (policy.partial == "same" and same))


def splits_list(before: TaggedChunk, chunk: TaggedChunk) -> bool:
    """Whether a chunk begins with the next step or item of the list with which the one before it, of the same headings,
    ends; whatever its flag says.
    """
    if before.headings != chunk.headings or not before.text.strip() or not chunk.text.strip():
        return False
    lines = [line for line in before.text.splitlines() if line.strip()]
    head = chunk.text.lstrip()
    step = step_number(head)
    if step is not None:
        steps = [n for line in lines if (n := step_number(line)) is not None]
        return step > 1 and bool(steps) and step == steps[-1] + 1
    return is_bullet(head) and is_bullet(lines[-1])


def is_complete_row(text: str) -> bool:
    """Whether a text is a table row with its header: it stands for itself, even if the table goes on."""
    table = table_of(text)
    return table is not None and bool(table[0]) and len(table[1]) > 0 and bool(table[1][0] and table[1][0][0])


def append(before: PlacedChunk, part: PlacedChunk) -> PlacedChunk:
    """Both chunks as one: the first one's flag and headings, both texts and places."""
    text = _rows_joined(before.tagged.text, part.tagged.text) or joined(before.tagged.text, part.tagged.text)
    return PlacedChunk(
        TaggedChunk(before.tagged.continues, before.tagged.headings, text),
        (*before.boxes, *part.boxes),
        min(before.page_start, part.page_start),
        max(before.page_end, part.page_end),
    )


def joined(first: str, second: str) -> str:
    """Two texts in a row: a sentence or word that was cut goes on in its line, anything else begins a new one."""
    last = first.rstrip().rpartition("\n")[2]
    head = second.lstrip()
    starts_item = step_number(head) is not None or is_bullet(head)
    open_sentence = not last.endswith(_END_OF_SENTENCE) and not starts_item and head[:1].islower()
    return f"{first.rstrip()}{' ' if open_sentence else chr(10)}{head}"


def _rows_joined(first: str, second: str) -> str | None:
    table, further = table_of(first), table_of(second)
    if table is None or further is None or not table[1] or not further[1]:
        return None
    (header, rows), (_, added) = table, further
    width = max(len(header), len(rows[-1]), len(added[0]))
    pairs = [(_at(rows[-1], k), _at(added[0], k)) for k in range(width)]
    row = tuple(" ".join(c for c in pair if c) for pair in pairs)
    lines = [table_line(r) for r in [*rows[:-1], row, *added[1:]]]
    return "\n".join([*([table_line(header), separator_line(len(header))] if header else []), *lines])


def _at(row: tuple[str, ...], column: int) -> str:
    return row[column] if column < len(row) else ""


def _join_short(chunks: list[PlacedChunk]) -> list[PlacedChunk]:
    kept: list[PlacedChunk] = []
    waiting: PlacedChunk | None = None  # a short one, for the next chunk to take in
    for chunk in chunks:
        if waiting is not None:
            if _takes(chunk, waiting):
                chunk = _with_heading(waiting, chunk, keep=chunk)
            else:
                _settle(kept, waiting)
            waiting = None
        if not is_short(chunk.tagged.text):
            kept.append(chunk)
        elif kept and _takes(kept[-1], chunk) and kept[-1].tagged.headings[:2] == chunk.tagged.headings[:2]:
            kept[-1] = _with_heading(kept[-1], chunk, keep=kept[-1])
        else:
            waiting = chunk
    if waiting is not None:
        _settle(kept, waiting)
    return kept


def _settle(kept: list[PlacedChunk], short: PlacedChunk) -> None:
    """Put a short chunk, which the next one cannot take in, to the one before, or by itself."""
    if kept and _takes(kept[-1], short):
        kept[-1] = _with_heading(kept[-1], short, keep=kept[-1])
    else:
        kept.append(short)


def is_short(text: str) -> bool:
    """Whether a chunk falls under the rule of three lines: rows, questions and figures do not."""
    return kind_of(text) not in ("table_row", "faq", "figure") and count_lines(text) < MIN_LINES


def can_join(text: str, short: str) -> bool:
    """Whether a chunk may take in a short neighbour: it is no table row, question or figure, and does not grow long."""
    return kind_of(text) not in ("table_row", "faq", "figure") and len(text) + len(short) <= LONG_CHARS


def _takes(chunk: PlacedChunk, short: PlacedChunk) -> bool:
    return can_join(chunk.tagged.text, short.tagged.text)


def _with_heading(first: PlacedChunk, second: PlacedChunk, keep: PlacedChunk) -> PlacedChunk:
    """Both as one under the headings of `keep`; those that only the other has, or that stand between, become text."""
    new = [h for h, o in zip(second.tagged.headings, first.tagged.headings, strict=True) if h != o]
    old = [h for h, o in zip(first.tagged.headings, second.tagged.headings, strict=True) if h != o]
    above = [] if keep is first else list(dict.fromkeys(old))
    text = "\n".join([*above, first.tagged.text, *dict.fromkeys(new), second.tagged.text])
    tagged = TaggedChunk(first.tagged.continues, keep.tagged.headings, text)
    return dataclasses.replace(append(first, second), tagged=tagged)
