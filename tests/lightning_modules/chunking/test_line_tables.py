"""Tables from lines that were judged: columns, cells of several lines, headers over several columns."""

from __future__ import annotations

from collections.abc import Sequence

from fulgurite.datamodules.chunking.layout.text_lines import TextLine, lines_of, pieces_of
from fulgurite.datamodules.chunking.layout.turned import Frame
from fulgurite.datamodules.chunking.strokes import Stroke
from fulgurite.datamodules.chunking.words import Word
from fulgurite.lightning_modules.chunking.layout.line_tables import JudgedLine, line_table

FRAME = Frame(0, 595.0, 842.0)


def line(y: float, *cells: tuple[float, str]) -> TextLine:
    words = []
    for x, text in cells:
        for word in text.split():
            words.append(Word(word, x, y, x + 5.0 * len(word), y + 10.0, 10.0, False, 0.0))
            x += 5.0 * len(word) + 3.0
    [found] = lines_of(pieces_of(words))
    return found


def made(judged: Sequence[JudgedLine], strokes: Sequence[Stroke] = (), num_columns: int = 0) -> list[tuple[str, ...]]:
    table = line_table(judged, FRAME, strokes, num_columns)
    assert table is not None
    return [row.cells for row in table.rows]


def test_cells_of_several_lines_are_one_row() -> None:
    judged = [
        JudgedLine(line(100, (50, "Part"), (150, "What it does")), True, True),
        JudgedLine(line(115, (50, "Valve"), (150, "lets the water")), False, True),
        JudgedLine(line(127, (150, "in and out")), False, False),
        JudgedLine(line(142, (50, "Pump"), (150, "moves it")), False, True),
    ]
    assert made(judged) == [("Part", "What it does"), ("Valve", "lets the water in and out"), ("Pump", "moves it")]


def test_a_rule_below_a_group_tells_its_columns() -> None:
    judged = [
        JudgedLine(line(100, (190, "Order")), True, True),
        JudgedLine(line(115, (50, "Part"), (150, "Code"), (250, "Price")), True, False),
        JudgedLine(line(130, (50, "Valve"), (150, "K-1"), (250, "2.50")), False, True),
        JudgedLine(line(145, (50, "Pump"), (150, "K-2"), (250, "9.00")), False, True),
    ]
    rule = Stroke(145.0, 112.0, 290.0, 112.0)
    rows = made(judged, [rule])
    assert rows[0] == ("", "Order", "Order") and rows[1] == ("Part", "Code", "Price")


def test_near_columns_are_parted_by_the_open_table_s_number() -> None:
    judged = [
        JudgedLine(line(100 + 15 * k, (50, "Valve"), (83, f"K-{k}00"), (116, "2.50")), False, True) for k in range(8)
    ]
    assert made(judged, num_columns=3)[3] == ("Valve", "K-300", "2.50")


def test_lines_without_columns_make_no_table() -> None:
    judged = [JudgedLine(line(100 + 12 * k, (50, "words that fill the line")), False, True) for k in range(4)]
    assert line_table(judged, FRAME, [], 0) is None


def test_most_rows_tell_more_columns_than_a_header_whose_cells_are_near() -> None:
    head = JudgedLine(line(100, (50, "Part"), (150, "Code"), (180, "Price")), True, True)
    near = JudgedLine(line(115, (50, "Plate with a coating"), (150, "K-1"), (180, "2.50")), False, True)
    rest = [
        JudgedLine(line(130 + 15 * k, (50, "Valve"), (150, f"K-{k}"), (180, "9.00")), False, True) for k in range(5)
    ]
    assert len(head.line.pieces) == 2
    assert made([head, near, *rest])[:2] == [("Part", "Code", "Price"), ("Plate with a coating", "K-1", "2.50")]


def test_names_as_near_as_words_are_columns_where_all_rows_leave_the_white_between_them() -> None:
    judged = [JudgedLine(line(100, (50, "Part"), (110, "Quantity"), (158, "Price")), True, True)]
    judged += [
        JudgedLine(line(115 + 15 * k, (50, "Valve"), (140, f"{36 + k}"), (158, "72.50")), False, True) for k in range(3)
    ]
    assert len(judged[0].line.pieces) == 2
    rows = made(judged)
    assert rows[0] == ("Part", "Quantity", "Price") and rows[2] == ("Valve", "37", "72.50")
