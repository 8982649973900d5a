"""From what the network thinks of items to blocks with a role each: lines become rows of tables, headers are told.

What holds whatever the network thinks: a header's rows come first in their table, a ruled grid stays a table, blocks
keep their order, nothing is lost. Axis legend: N item, R role.
"""

from __future__ import annotations

import dataclasses
import statistics
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from ....datamodules.chunking.layout.blocks import Block
from ....datamodules.chunking.layout.items import Item
from ....datamodules.chunking.layout.seen_page import SeenPage
from ....datamodules.chunking.layout.tables import Table
from ....datamodules.chunking.layout.text_lines import Region, TextLine, join_lines
from ....datamodules.chunking.lines import is_bullet, step_number
from ....datamodules.chunking.strokes import Stroke
from ....datamodules.chunking.typeset.truth import ROLES, Role
from .line_tables import JudgedLine, line_table

ROW, HEADER = ROLES.index("table_row"), ROLES.index("table_header")
TABULAR = [ROW, HEADER]
KEPT_TABLE = 0.3  # lines that the rules call a table stay one if the network thinks at least so much of it
LARGER = 1.08  # than a table's type: a heading's
RUNNING = [ROLES.index(r) for r in ("header", "footer", "page_number")]


@dataclass(frozen=True)
class Judged:
    """A block with what is thought of it.

    Attributes:
        block: a paragraph, or a table whose header is told.
        role: the likeliest; `table_row` for a table.
        probability: of each role, in the order of `ROLES`.
        begins: probability that it begins a chunk; of a table, that its first row is a new one.
        flag: probabilities of labels.FLAGS, should it be a batch's first.
    """

    block: Block
    role: Role
    probability: np.ndarray
    begins: float
    flag: np.ndarray

    def sum_of(self, roles: Sequence[int]) -> float:
        """Probability that it has one of these roles."""
        return float(self.probability[list(roles)].sum())


@dataclass(frozen=True)
class Opinion:
    """Probabilities of items: role [N, R], begins [N], flag [N, 3]."""

    role: np.ndarray
    begins: np.ndarray
    flag: np.ndarray


def judge_page(seen: SeenPage, opinion: Opinion, strokes: Sequence[Stroke], num_columns: int) -> list[Judged]:
    """The blocks of a page, judged.

    Args:
        seen: the page.
        opinion: of its items, in their order.
        strokes: of the page, upright.
        num_columns: of the table that is open before it; 0 for none.
    """
    found: list[Judged] = []
    run: list[tuple[Item, TextLine, int]] = []  # a table's lines: (item, line, number of the item)

    def close() -> None:
        nonlocal num_columns
        if run:
            made = _from_lines(seen, run, opinion, strokes, num_columns)
            found.extend(made)
            tables = [j.block.table for j in made if j.block.table is not None]
            num_columns = len(tables[-1].rows[0].cells) if tables else num_columns
            run.clear()

    for number, block in enumerate(seen.blocks):
        own = [k for k, item in enumerate(seen.items) if item.block == number]
        if not own:
            close()
            found.append(_unseen(block))
            continue
        first = seen.items[own[0]]
        if first.kind == "band":
            close()
            judged = _ruled(block, own, opinion)
            found.append(judged)
            if judged.block.table is not None:
                num_columns = len(judged.block.table.rows[0].cells)
            continue
        rows = _tabular(block, own, opinion)
        for k in own:
            item = seen.items[k]
            if k in rows:
                lines = [item.line] if item.line is not None else list(block.lines)
                new_header = opinion.role[k, HEADER] > opinion.role[k, ROW] and bool(run) and _has_row(run, opinion)
                if new_header or (run and lines[0].y1 < run[-1][1].y0):  # or at the top of another text column
                    close()
                run += [(item, line, k) for line in lines]
            else:
                close()
                found.append(_text(block, [item], [k], opinion))
        found = _lines_joined(found)
    close()
    return _lines_joined(found)


def _tabular(block: Block, own: Sequence[int], opinion: Opinion) -> set[int]:
    """Items of a block that are lines of a table; all of them where the rules found one and the network half agrees.

    Two tables that the rules took for one are parted: by lines between them that are no rows, if a header follows.
    """
    share = opinion.role[list(own)][:, TABULAR].sum(1)
    if block.table is None:
        return {k for k, p in zip(own, share, strict=True) if p > 0.5}
    if float(share.mean()) < KEPT_TABLE:
        return set()
    found, between = set(own), set[int]()
    for k, p in zip(own, share, strict=True):
        if p <= 0.5:
            between.add(k)
            continue
        if opinion.role[k, HEADER] > opinion.role[k, ROW]:
            found -= between
        between = set()
    return found


def _has_row(run: Sequence[tuple[Item, TextLine, int]], opinion: Opinion) -> bool:
    return any(opinion.role[k, ROW] >= opinion.role[k, HEADER] for _, _, k in run)


def _unseen(block: Block) -> Judged:
    sure = np.zeros(len(ROLES))
    sure[ROLES.index("body")] = 1.0
    return Judged(block, "table_row" if block.table else "body", sure, 1.0, np.array([1.0, 0.0, 0.0]))


def _text(block: Block, items: Sequence[Item], numbers: Sequence[int], opinion: Opinion) -> Judged:
    part = block
    if items[0].line is not None:
        lines = tuple(item.line for item in items if item.line is not None)
        part = _paragraph(block, lines)
    probability = opinion.role[list(numbers)].mean(0)
    begins = float(opinion.begins[numbers[0]])
    return Judged(part, ROLES[int(probability.argmax())], probability, begins, opinion.flag[numbers[0]])


def _paragraph(block: Block, lines: tuple[TextLine, ...]) -> Block:
    """Lines of a block as a block of their own."""
    upright = Region.around(lines)
    sizes = sorted(line.size for line in lines)
    return dataclasses.replace(
        block,
        region=block.frame.shown(upright),
        upright=upright,
        text=join_lines(line.text for line in lines),
        lines=lines,
        size=sizes[len(sizes) // 2],
        bold=all(line.bold for line in lines),
        table=None,
    )


def _lines_joined(found: list[Judged]) -> list[Judged]:
    """Lines of one block that were judged one by one and go on with each other, as one paragraph again."""
    joined: list[Judged] = []
    for judged in found:
        before = joined[-1] if joined else None
        if (
            before is not None
            and before.block.table is None
            and judged.block.table is None
            and judged.block.column == before.block.column
            and judged.block.page == before.block.page
            and judged.role == before.role
            and judged.begins < 0.5
            and step_number(judged.block.text) is None
            and not is_bullet(judged.block.text)
            and judged.block.upright.y0 - before.block.upright.y0 >= 0
            and judged.block.upright.y0 - before.block.upright.y1 < 0.6 * judged.block.size
            and max(len(x.pieces) for x in (*before.block.lines, *judged.block.lines)) > 1
        ):
            whole = _paragraph(before.block, (*before.block.lines, *judged.block.lines))
            joined[-1] = dataclasses.replace(before, block=whole)
        else:
            joined.append(judged)
    return joined


def _ruled(block: Block, own: Sequence[int], opinion: Opinion) -> Judged:
    table = block.table
    assert table is not None
    heads = 0
    while heads < len(own) and opinion.role[own[heads], HEADER] > opinion.role[own[heads], ROW]:
        heads += 1
    if heads == len(table.rows):
        heads = table.num_header
    probability = opinion.role[list(own)].mean(0)
    role = ROLES[int(probability.argmax())]
    kept = role if role == "contents_entry" or int(probability.argmax()) in RUNNING else "table_row"
    told = dataclasses.replace(block, table=dataclasses.replace(table, num_header=heads))
    first = own[heads] if heads < len(own) else own[0]
    return Judged(told, kept, probability, float(opinion.begins[first]), opinion.flag[own[0]])


def _from_lines(
    seen: SeenPage,
    run: Sequence[tuple[Item, TextLine, int]],
    opinion: Opinion,
    strokes: Sequence[Stroke],
    num_columns: int,
) -> list[Judged]:
    """A table of lines, or paragraphs again where no columns are found."""
    above: list[Judged] = []
    while len(run) > 1 and _is_heading_above(run):
        item, _, k = run[0]
        above.append(_text(seen.blocks[item.block], [item], [k], _untabled(opinion)))
        run = run[1:]
    block = seen.blocks[run[0][0].block]
    judged = []
    rows_begun = False
    for place, (_, line, k) in enumerate(run):
        header = not rows_begun and bool(opinion.role[k, HEADER] > opinion.role[k, ROW])
        rows_begun |= not header
        first_of_item = place == 0 or run[place - 1][2] != k
        judged.append(JudgedLine(line, header, first_of_item and bool(opinion.begins[k] > 0.5)))
    whole = {id(line) for _, line, _ in run}
    table = line_table(judged, block.frame, strokes, num_columns)
    by_rules = _same_lines(seen, run[0][0].block, whole)
    if by_rules is not None and (table is None or _has_signs(by_rules)):
        table = by_rules
    numbers = [k for _, _, k in run]
    if table is None:
        own = sorted({k: (item, line) for item, line, k in run}.items())
        return [*above, *(_text(seen.blocks[item.block], [item], [k], opinion) for k, (item, _) in own)]
    upright = Region.around([line for _, line, _ in run])
    made = dataclasses.replace(
        block, region=table.region, upright=upright, text="", lines=(), size=0.0, bold=False, table=table
    )
    probability = opinion.role[numbers].mean(0)
    first = next((k for k, j in zip(numbers, judged, strict=True) if not j.header), numbers[0])
    return [*above, Judged(made, "table_row", probability, float(opinion.begins[first]), opinion.flag[numbers[0]])]


def _is_heading_above(run: Sequence[tuple[Item, TextLine, int]]) -> bool:
    """Whether the first line is no part of the table: set larger than the others, or alone over the first column."""
    (item, line, _), (_, below, _) = run[:2]
    larger = line.size > LARGER * statistics.median(x.size for _, x, _ in run[1:])
    if item.kind != "text":
        return larger and len(line.pieces) == 1
    alone = abs(line.x0 - below.x0) < 0.5 * line.size and len(below.pieces) > 1 and not _names_columns(line, below)
    return alone or larger


def _names_columns(line: TextLine, below: TextLine) -> bool:
    """Whether a word begins over each cell of the line below, as names of narrow columns do, however close they are."""
    return all(any(abs(w.x0 - piece.x0) < 0.3 * line.size for w in line.words) for piece in below.pieces)


def _untabled(opinion: Opinion) -> Opinion:
    """The opinion without the roles of tables."""
    role = opinion.role.copy()
    role[:, TABULAR] = 0.0
    return dataclasses.replace(opinion, role=role / role.sum(1, keepdims=True).clip(1e-9))


def _same_lines(seen: SeenPage, number: int, whole: set[int]) -> Table | None:
    table = seen.blocks[number].table
    return table if table is not None and {id(line) for line in table.lines} == whole else None


def _has_signs(table: Table) -> bool:
    """Whether amounts stand beside signs of their own, as financial statements set them."""
    return any(p.text in ("$", "€", "£", "%", ")") for line in table.lines for p in line.pieces)
