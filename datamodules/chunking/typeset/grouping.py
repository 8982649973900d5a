"""Which blocks make a chunk, and how each page goes on from the one before (arXiv 2506.16035, sections 3 and 4).

A table row with its full header is a chunk (the first takes the table's caption), so is a whole procedure with its
opening sentence and notes, a list with its opening sentence, a question with its answer, a figure with its caption. Of
running text each paragraph is one; one of under three lines of 80 characters is joined to the next text, list or
procedure under the same heading, or else to the one before. A footnote belongs to the block that refers to it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from .manuscript import Draft
from .truth import OUTSIDE_CHUNKS, Block, Chunk, ChunkKind, Flag, PageStart

_LINE_CHARS = 80
_MIN_LINES = 3
_FLOWING: frozenset[ChunkKind] = frozenset(("text", "list", "steps"))


@dataclass
class _Group:
    kind: ChunkKind
    path: tuple[str, ...]
    members: list[int]

    def is_short(self, blocks: Sequence[Block]) -> bool:
        texts = [blocks[k].text for k in self.members]
        return self.kind == "text" and sum(-(-len(text) // _LINE_CHARS) for text in texts) < _MIN_LINES


def group_chunks(blocks: Sequence[Block], drafts: Sequence[Draft | None]) -> tuple[list[Block], list[Chunk]]:
    """The blocks with their chunks' ids, and the chunks in document order.

    Args:
        blocks: in reading order; `id` is the place in this list.
        drafts: of each block, as of `place_blocks`.
    """
    groups = _joined_short(_by_unit(blocks, drafts), blocks)
    headers: dict[str, tuple[str, ...]] = {}
    for block in blocks:
        if block.role == "table_header":
            headers.setdefault(block.table, block.cells)
    owner: dict[int, str] = {}
    chunks = []
    for number, group in enumerate(groups):
        owner |= dict.fromkeys(group.members, f"c{number}")
        parts = [part for k in group.members for part in blocks[k].parts]
        chunks.append(
            Chunk(
                f"c{number}",
                group.kind,
                three_headings(group.path),
                "\n".join(_lines(blocks[k], headers) for k in group.members),
                tuple(group.members),
                min(part.box.page for part in parts),
                max(part.box.page for part in parts),
            )
        )
    return [replace(block, chunk=owner.get(block.id, "")) for block in blocks], chunks


def three_headings(path: Sequence[str]) -> tuple[str, str, str]:
    """Title, section and the lowest heading; a missing level is its parent."""
    section = path[1] if len(path) > 1 else path[0]
    return path[0], section, path[-1] if len(path) > 2 else section


def page_starts(blocks: Sequence[Block], chunks: Sequence[Chunk], num_pages: int) -> list[PageStart]:
    """How each page goes on; see `PageStart`."""
    ordered = sorted(
        ((part.order, part.box.page, block, k) for block in blocks for k, part in enumerate(block.parts)),
        key=lambda entry: entry[0],
    )
    kinds = {chunk.id: chunk.kind for chunk in chunks}
    counted = [
        (page, block, k)
        for _, page, block, k in ordered
        if block.role not in ("header", "footer", "page_number", "contents_entry", "table_header")
    ]
    starts = []
    for page in range(1, num_pages + 1):
        here = [(block, k) for on, block, k in counted if on == page]
        before = [block for on, block, _ in counted if on < page]
        if not here:
            starts.append(PageStart(page, -1, "", "False"))
            continue
        first, part = here[0]
        chunk = next((block.chunk for block, _ in here if block.chunk), "")
        starts.append(PageStart(page, first.id, chunk, _flag(first, part, before, kinds)))
    return starts


def _flag(first: Block, part: int, before: Sequence[Block], kinds: dict[str, ChunkKind]) -> Flag:
    if first.role in OUTSIDE_CHUNKS:
        return "False"
    if part > 0 or any(block.chunk == first.chunk for block in before):
        return "True"
    last = next((block for block in reversed(before) if block.chunk or block.role in OUTSIDE_CHUNKS), None)
    related = last is not None and last.path == first.path and bool(last.chunk)
    if not related or last is None or kinds[first.chunk] not in _FLOWING:
        return "False"
    return "Partial" if kinds[last.chunk] in (*_FLOWING, "figure") else "False"


def _by_unit(blocks: Sequence[Block], drafts: Sequence[Draft | None]) -> list[_Group]:
    """One group a unit, in logical order: blocks of one unit stand in reading order, a footnote after its host."""
    groups: dict[tuple[ChunkKind, str], _Group] = {}
    for block, draft in zip(blocks, drafts, strict=True):
        if draft is None or draft.unit is None:
            continue
        groups.setdefault(draft.unit, _Group(draft.unit[0], block.path, [])).members.append(block.id)
    for group in groups.values():
        number = {id(drafts[k]): k for k in group.members}

        def place(k: int, number: dict[int, int] = number) -> tuple[int, int]:
            draft = drafts[k]
            host = draft.host if draft is not None else None
            return (number.get(id(host), k), 1) if host is not None else (k, 0)

        group.members.sort(key=place)
    return list(groups.values())


def _joined_short(groups: list[_Group], blocks: Sequence[Block]) -> list[_Group]:
    kept: list[_Group] = []
    waiting: _Group | None = None
    for group in groups:
        if waiting is not None:
            if group.path == waiting.path and group.kind in _FLOWING:
                group.members[:0] = waiting.members
            else:
                _append(kept, waiting)
            waiting = None
        if group.is_short(blocks):
            waiting = group
        else:
            kept.append(group)
    if waiting is not None:
        _append(kept, waiting)
    return kept


def _append(kept: list[_Group], short: _Group) -> None:
    if kept and kept[-1].path == short.path and kept[-1].kind in _FLOWING:
        kept[-1].members += short.members
    else:
        kept.append(short)


def _lines(block: Block, headers: dict[str, tuple[str, ...]]) -> str:
    if block.role != "table_row":
        return block.text
    header = headers[block.table]
    return "\n".join((_line(header), "|" + "---|" * len(header), _line(block.cells)))


def _line(cells: Sequence[str]) -> str:
    return "| " + " | ".join(" ".join(c.split()).replace("|", "\\|") for c in cells) + " |"
