"""From drafts and the coded copy's glyphs to blocks with exact boxes."""

from __future__ import annotations

import unicodedata
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace

from ..chunks import Box
from .glyphs import CodedPages, Glyph
from .manuscript import FOOTER, HEADER, PAGE_NUMBER, Draft, Manuscript, Run
from .truth import Block, Cell, Part, Role

_HYPHENS = "-\u2010\u00ad\u0002"
Region = tuple[int, int]
"""Page, from 1, and text column; -1 for what spans all columns."""
_RUNNING: tuple[tuple[int, Role], ...] = ((HEADER, "header"), (FOOTER, "footer"), (PAGE_NUMBER, "page_number"))


@dataclass(frozen=True)
class _Piece:
    """What of a run stands in one region."""

    text: str
    box: Box
    hyphens: int


def place_blocks(manuscript: Manuscript, pages: CodedPages) -> tuple[list[Block], list[Draft | None]]:
    """All blocks in reading order, and the draft of each (None for running lines).

    Raises:
        ValueError: the glyphs of a run are not its text; the template and the drafts disagree.
    """
    columns = {run.code: e.columns for e in manuscript.elements for d in e.blocks() for run in d.runs}
    placed: list[tuple[Block, Draft | None]] = []
    for draft in manuscript.drafts():
        placed += [(block, draft) for block in _blocks_of(draft, columns.get(draft.runs[0].code, 1), pages)]
    for code, role in _RUNNING:
        draft = Draft(role, [Run(code, None)], (manuscript.title,), repeats=True, wide=True)
        placed += [(block, None) for block in _blocks_of(draft, 1, pages)]
    keys = sorted(
        (_reading_key(block, part), number, k)
        for number, (block, _) in enumerate(placed)
        for k, part in enumerate(block.parts)
    )
    order = {(number, k): place for place, (_, number, k) in enumerate(keys)}
    first = sorted(range(len(placed)), key=lambda number: order[number, 0])
    blocks = []
    for new, number in enumerate(first):
        block = placed[number][0]
        parts = tuple(replace(part, order=order[number, k]) for k, part in enumerate(block.parts))
        blocks.append(replace(block, id=new, parts=parts))
    return blocks, [placed[number][1] for number in first]


def _reading_key(block: Block, part: Part) -> tuple[int, int, int, int]:
    zone = {"header": 0, "footer": 2, "page_number": 3}.get(block.role, 1)
    return part.box.page, zone, part.column, int(block.role == "footnote")


def _blocks_of(draft: Draft, columns: int, pages: CodedPages) -> Iterator[Block]:
    middle = pages.sizes[0][0] / 2 if columns > 1 and not draft.wide else None
    pieces: dict[Region, dict[int, _Piece]] = {}
    for number, run in enumerate(draft.runs):
        for region, piece in _pieces(run, pages.glyphs.get(run.code, []), draft, middle):
            pieces.setdefault(region, {})[number] = piece
    parts = [_part(draft, region, pieces[region], pages) for region in sorted(pieces)]
    if not parts:
        if draft.repeats:
            return
        raise ValueError(f"no glyph of the {draft.role} '{draft.runs[0].text}' is on any page")
    table = draft.role in ("table_header", "table_row")
    texts = [run.text or "" for run in draft.runs]
    common = Block(
        0,
        draft.role,
        draft.joint.join(texts) if all(run.text is not None for run in draft.runs) else parts[0].text,
        tuple(parts),
        draft.path,
        table=draft.table,
        row=draft.row,
        cells=(draft.columns or tuple(texts)) if table else (),
        procedure=draft.procedure,
        step=draft.step,
    )
    if not draft.repeats:
        yield common
        return
    for k, part in enumerate(parts):
        yield replace(common, text=part.text, parts=(part,), repeated=k > 0 and table)


def _part(draft: Draft, region: Region, pieces: dict[int, _Piece], pages: CodedPages) -> Part:
    page, column = region
    box = _around(page, [piece.box for piece in pieces.values()])
    if draft.role == "figure":
        box = pages.frames[draft.runs[0].code]
    cells: tuple[Cell, ...] = ()
    if draft.role in ("table_header", "table_row"):
        found = [pieces.get(k) for k in range(len(draft.runs))]
        cells = tuple(Cell(piece.text, piece.box) if piece else Cell("", None) for piece in found)
        text = draft.joint.join(cell.text for cell in cells)
    else:
        text = draft.joint.join(pieces[k].text for k in sorted(pieces))
    return Part(box, text, 0, column, cells, sum(piece.hyphens for piece in pieces.values()))


def _pieces(run: Run, glyphs: Sequence[Glyph], draft: Draft, middle: float | None) -> Iterator[tuple[Region, _Piece]]:
    regions: dict[Region, list[Glyph]] = {}
    for glyph in glyphs:
        column = -1 if draft.wide else int(middle is not None and glyph.box.x0 + glyph.box.x1 > 2 * middle)
        regions.setdefault((glyph.box.page, column), []).append(glyph)
    position = 0
    for region in sorted(regions):
        found = regions[region]
        box = _around(region[0], [glyph.box for glyph in found])
        if run.text is None:
            yield region, _Piece(_printed(found), box, 0)
            continue
        begin = 0 if draft.repeats else position
        position, hyphens = _follow(run.text, begin, found)
        if draft.repeats and run.text[position:].strip():
            raise ValueError(f"'{run.text}' is not whole on page {region[0]}")
        yield region, _Piece(run.text[begin:position].strip(), box, hyphens)
    if run.text is not None and run.text[position:].strip() and not (draft.repeats and not glyphs):
        raise ValueError(f"'{run.text[position:]}' of '{run.text}' is on no page")


def _follow(text: str, position: int, glyphs: Iterable[Glyph]) -> tuple[int, int]:
    """How far in `text` the glyphs reach from `position`, and how many hyphens among them are the typesetter's."""
    hyphens = 0
    for glyph in glyphs:
        ligature = "\ufb00" <= glyph.char <= "\ufb06"
        for char in unicodedata.normalize("NFKC", glyph.char) if ligature else glyph.char:
            while position < len(text) and text[position].isspace():
                position += 1
            wanted = text[position : position + 1]
            if char == wanted or (char in _HYPHENS and wanted in tuple(_HYPHENS)):
                position += 1
            elif char in _HYPHENS:
                hyphens += 1
            else:
                raise ValueError(f"the page has '{char}' where '{wanted}' stands in '{text}'")
    return position, hyphens


def _printed(glyphs: Sequence[Glyph]) -> str:
    """Text of glyphs of one line, with a space where there is a gap of a quarter of the line's height."""
    text, before = "", None
    height = max(g.box.y1 for g in glyphs) - min(g.box.y0 for g in glyphs)
    for glyph in glyphs:
        if before is not None and set(text[-1:] + glyph.char) != {"."} and glyph.box.x0 - before.x1 > 0.25 * height:
            text += " "
        text += glyph.char
        before = glyph.box
    return text


def _around(page: int, boxes: Sequence[Box]) -> Box:
    return Box(
        page,
        min(b.x0 for b in boxes),
        min(b.y0 for b in boxes),
        max(b.x1 for b in boxes),
        max(b.y1 for b in boxes),
    )
