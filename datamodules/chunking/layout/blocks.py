"""What a page shows, without a decision about what it means: paragraphs and tables, in reading order.

A trained chunker takes the same blocks, and decides in the place of decide.py.
"""

from __future__ import annotations

import dataclasses
import itertools
import statistics
from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass
from weakref import WeakKeyDictionary

from ..figures import figures_of, is_caption, shared
from ..lines import bare_step, is_bullet, is_contents_line, is_question, step_number
from ..pages import Document, Page
from ..strokes import Stroke
from ..words import UPRIGHT_DEGREES, Word, words_of
from .aligned import aligned_tables
from .gutters import document_gutters, hidden_gutter
from .open_tables import open_tables
from .tables import Table, ruled_tables
from .text_lines import Piece, Region, TextLine, in_reading_order, join_lines, lines_of, pieces_of
from .turned import Frame

BLOCK_GAP = 0.55  # of the type size, between the em boxes of two lines: a wider gap begins a block
SIZE_STEP = 0.08
INDENT = (0.7, 4.0)  # of the type size: how far a paragraph's first line is set in
FAR_IN = 8.0  # of the type size: a line set in further than this begins a block
TERMINAL = tuple(".!?:;。！？")
GRID_SHARE = 0.5  # of a figure or of a table: what both cover, for the figure to be that table
CAPTION_GAP = 3.0  # of its type size, between a figure and its caption
HELD_PAGES = 26  # those that a style is told from, and a batch's last
_held: WeakKeyDictionary[Document, OrderedDict[int, list[Block]]] = WeakKeyDictionary()
_NO_FRAME = Frame(0, 0.0, 0.0)  # until the page's own is known


@dataclass(frozen=True)
class Block:
    """A paragraph, heading, list item or table: what the page sets apart.

    Attributes:
        page: page number, from 1.
        region: where it stands.
        text: its lines joined; of a table, nothing.
        size: type size in points of most of it; 0 of a table.
        bold: whether all of it is bold.
        lines: its lines; none of a table.
        table: the table, if it is one.
        column: (left, right) of the column it stands in.
        upright: where it stands in the frame in which its text is upright; `region` where the page is not turned.
        height: of that frame, in points.
        frame: between the shown page and that frame.
        outermost: whether nothing stands above it on its page, or nothing below it.
        figure: of a figure, where it stands on the shown page, then where its caption does if it has one; `text` is the
            caption and then what is written in it, a line each.
    """

    page: int
    region: Region
    text: str
    size: float
    bold: bool
    lines: tuple[TextLine, ...]
    table: Table | None
    column: tuple[float, float]
    upright: Region
    height: float
    frame: Frame
    outermost: bool = False
    figure: tuple[Region, ...] = ()


def page_blocks(page: Page) -> list[Block]:
    """The blocks of a page's text layer, in reading order; none where there is no text layer.

    Those of a document's last `HELD_PAGES` pages are kept: its style is told from pages that are then read.
    """
    held = _held.setdefault(page.document, OrderedDict())
    if page.number not in held:
        held[page.number] = _read_blocks(page)
        if len(held) > HELD_PAGES:
            held.popitem(last=False)
    return held[page.number]


def _read_blocks(page: Page) -> list[Block]:
    found = words_of(page)
    frame = Frame.of(found, page.width, page.height)
    words = frame.upright(found)
    strokes = frame.strokes(page.strokes) if words else []
    drawn, words, strokes = _figure_blocks(page, frame, words, strokes)
    tables = ruled_tables(strokes, words)
    tables += open_tables(strokes, words, tables)
    loose = [w for w in words if not any(t.region.holds(*w.middle) for t in tables)]
    whole: list[Table | Block] = [*tables, *drawn]
    places = [t.region if isinstance(t, Table) else t.upright for t in whole]
    marks = [Piece(r.x0, r.y0, r.x1, r.y1, (), k) for k, r in enumerate(places)]
    blocks: list[Block] = []
    pieces = [*pieces_of(loose), *marks]
    for stretch in in_reading_order(pieces, hidden_gutter(pieces, document_gutters(page.document))):
        blocks += _stretch_blocks(page.number, stretch, whole)
    blocks = _captioned(blocks, frame)
    top = min((b.upright.y0 for b in blocks), default=0.0)
    bottom = max((b.upright.y1 for b in blocks), default=0.0)
    ends = [b.upright.y0 <= top or b.upright.y1 >= bottom for b in blocks]
    return [dataclasses.replace(_shown(b, frame), outermost=end) for b, end in zip(blocks, ends, strict=True)]


def _figure_blocks(
    page: Page, frame: Frame, words: list[Word], strokes: list[Stroke]
) -> tuple[list[Block], list[Word], list[Stroke]]:
    """Figures as blocks, and the words and strokes that are not inside one."""
    blocks: list[Block] = []
    figures = figures_of(page)
    grids = [t.region for t in ruled_tables(strokes, words) if _is_filled(t)] if figures else []
    for figure in figures:
        r = frame.into(figure.region)
        if any(shared(r, grid) > GRID_SHARE for grid in grids):
            continue
        inner = [w for w in words if r.holds(*w.middle)]
        words = [w for w in words if not r.holds(*w.middle)]
        strokes = [s for s in strokes if not r.holds((s.x0 + s.x1) / 2, (s.y0 + s.y1) / 2)]
        text = "\n".join(line.text for line in lines_of(pieces_of(inner))) or figure.text
        blocks.append(
            Block(page.number, r, text, 0.0, False, (), None, (r.x0, r.x1), r, 0.0, frame, figure=(figure.region,))
        )
    return blocks, words, strokes


def _is_filled(table: Table) -> bool:
    """Whether a grid is a table, and not boxes of a drawing: three rows and more, most cells with words in them."""
    cells = [c for row in table.rows for c in row.cells]
    return len(table.rows) >= 3 and 3 * sum(map(bool, cells)) >= 2 * len(cells)


def _captioned(blocks: list[Block], frame: Frame) -> list[Block]:
    """Blocks with each figure's caption inside its block; a figure of which no word is known is left out."""
    taken: set[int] = set()
    made: dict[int, Block] = {}
    for k, block in enumerate(blocks):
        if not block.figure:
            continue
        near = [j for j in (k + 1, k - 1, k + 2, k - 2) if 0 <= j < len(blocks) and j not in taken]
        caption = next((j for j in near if _names(blocks[j], block)), None)
        if caption is not None:
            taken.add(caption)
            own = blocks[caption]
            text = "\n".join(part for part in (own.text.strip(), block.text) if part)
            made[k] = dataclasses.replace(block, text=text, figure=(*block.figure, frame.shown(own.region)))
    found = [made.get(k, block) for k, block in enumerate(blocks) if k not in taken]
    return [b for b in found if not b.figure or b.text.strip()]


def _names(caption: Block, figure: Block) -> bool:
    """Whether a paragraph right above or below a figure is its caption."""
    if caption.table is not None or caption.figure or not is_caption(caption.text):
        return False
    a, b = caption.upright, figure.upright
    gap = max(a.y0 - b.y1, b.y0 - a.y1)
    return gap <= CAPTION_GAP * caption.size and min(a.x1, b.x1) > max(a.x0, b.x0)


def _shown(block: Block, frame: Frame) -> Block:
    height = frame.upright_size[1]
    if not frame.turn and not frame.skew:
        return dataclasses.replace(block, height=height, frame=frame)
    table = block.table
    if table is not None:
        rows = tuple(dataclasses.replace(row, region=frame.shown(row.region)) for row in table.rows)
        table = dataclasses.replace(table, region=frame.shown(table.region), rows=rows)
    return dataclasses.replace(block, region=frame.shown(block.region), table=table, height=height, frame=frame)


def turned_words(page: Page) -> list[Word]:
    """Words that read in another direction than the page's text, such as a margin's stamp; blocks leave them out."""
    found = words_of(page)
    frame = Frame.of(found, page.width, page.height)
    return [w for w in found if abs((w.angle - frame.turn + 180) % 360 - 180) > UPRIGHT_DEGREES]


def _stretch_blocks(page: int, stretch: Sequence[Piece], whole: Sequence[Table | Block]) -> list[Block]:
    column = (min(p.x0 for p in stretch), max(p.x1 for p in stretch))
    blocks: list[Block] = []
    held: list[Piece] = []
    for piece in [*sorted(stretch, key=lambda p: p.y0), None]:
        if piece is not None and piece.index < 0:
            held.append(piece)
            continue
        if held:
            blocks += _text_blocks(page, lines_of(held), column)
            held = []
        if piece is not None:
            held_whole = whole[piece.index]
            blocks.append(_table_block(page, held_whole, column) if isinstance(held_whole, Table) else held_whole)
    return blocks


def _text_blocks(page: int, lines: list[TextLine], column: tuple[float, float]) -> list[Block]:
    blocks: list[Block] = []
    at = 0
    for start, end, table in aligned_tables(lines):
        blocks += _paragraphs(page, lines[at:start], column)
        blocks.append(_table_block(page, table, column))
        at = end
    return [*blocks, *_paragraphs(page, lines[at:], column)]


def _paragraphs(page: int, lines: Sequence[TextLine], column: tuple[float, float]) -> list[Block]:
    gaps = [b.y0 - a.y1 for a, b in itertools.pairwise(lines) if abs(a.size - b.size) < 1]
    usual = statistics.median_low(gaps) if gaps else 0.0
    runs: list[list[TextLine]] = []
    for line in lines:
        if runs and not _begins(runs[-1], line, column, usual):
            runs[-1].append(line)
        else:
            runs.append([line])
    return [_block(page, run, column) for run in runs]


def _begins(run: list[TextLine], line: TextLine, column: tuple[float, float], usual: float) -> bool:
    """Whether a line begins a new block after the lines of `run`."""
    last, first = run[-1], run[0]
    size = line.size
    if abs(size - last.size) > SIZE_STEP * max(size, last.size) or line.bold != last.bold:
        return not (len(line.words) < 2 and line.x0 > last.x1 and line.y0 < last.y1)
    gap = line.y0 - last.y1
    if gap > max(BLOCK_GAP * size, min(usual, size) + 0.25 * size) or gap < -2 * size:
        return True
    if step_number(line.text) is not None or is_bullet(line.text) or is_question(line.text):
        return True
    if is_contents_line(last.text):
        return True
    if _elsewhere(last, line):
        return True
    width = column[1] - column[0]
    ended = last.text.endswith(TERMINAL)
    short = last.x1 < column[1] - 0.2 * width
    if short and (ended or bare_step(line.text) == 1):
        return True
    is_item = step_number(first.text) is not None or is_bullet(first.text)
    set_in = line.x0 - last.x0
    if is_item:
        return ended and line.x0 < first.x0 - 0.3 * size
    return ended and INDENT[0] * size < set_in < INDENT[1] * size


def _elsewhere(last: TextLine, line: TextLine) -> bool:
    """Whether a line is set far in without being centred or set right like the one before: a name over columns."""
    set_in = line.x0 - last.x0 > FAR_IN * line.size
    centred = abs(line.x0 + line.x1 - last.x0 - last.x1) < 4 * line.size
    return set_in and not centred and abs(line.x1 - last.x1) > line.size


def _block(page: int, lines: Sequence[TextLine], column: tuple[float, float]) -> Block:
    text = join_lines(line.text for line in lines)
    size = statistics.median(line.size for line in lines)
    box = Region.around(lines)
    return Block(page, box, text, size, all(x.bold for x in lines), tuple(lines), None, column, box, 0.0, _NO_FRAME)


def _table_block(page: int, table: Table, column: tuple[float, float]) -> Block:
    return Block(page, table.region, "", 0.0, False, (), table, column, table.region, 0.0, _NO_FRAME)
