"""Tables in pages of two text columns: grids side by side, columns that tables hide, a group's name under a caption."""

from __future__ import annotations

from types import SimpleNamespace

import pytest

from fulgurite.datamodules.chunking.layout import gutters
from fulgurite.datamodules.chunking.layout.gutters import Gutter, hidden_gutter
from fulgurite.datamodules.chunking.layout.tables import ruled_tables
from fulgurite.datamodules.chunking.layout.text_lines import Piece, in_reading_order, pieces_of
from fulgurite.datamodules.chunking.strokes import Stroke
from fulgurite.datamodules.chunking.words import Word


def words(x: float, y: float, text: str) -> list[Word]:
    found = []
    for part in text.split():
        found.append(Word(part, x, y, x + 5.0 * len(part), y + 10.0, 10.0, False))
        x += 5.0 * len(part) + 3.0
    return found


def grid(x: float, y: float, pitch: float, num_rows: int) -> tuple[list[Stroke], list[Word]]:
    strokes = [Stroke(x, y + k * pitch, x + 240, y + k * pitch) for k in range(num_rows + 1)]
    strokes += [Stroke(x + dx, y, x + dx, y + num_rows * pitch) for dx in (0, 120, 240)]
    held = [
        w
        for k in range(num_rows)
        for dx, name in ((5, "cell"), (125, "word"))
        for w in words(x + dx, y + k * pitch + 2, f"{name}{k}")
    ]
    return strokes, held


def test_grids_side_by_side_stay_two_where_their_rules_nearly_meet() -> None:
    (first, left), (second, right) = grid(45, 71.0, 13.0, 9), grid(306, 69.0, 14.0, 12)
    tables = ruled_tables([*first, *second], [*left, *right])
    assert [len(t.rows) for t in tables] == [12, 9]
    assert all(t.region.x1 - t.region.x0 < 250 for t in tables)


def page_of_tables() -> list[Word]:
    held = []
    for k in range(8):
        held += [*words(50, 100 + 14 * k, "valve"), *words(140, 100 + 14 * k, "K-1"), *words(250, 100 + 14 * k, "9.00")]
        held += [*words(310, 105 + 13 * k, "pump"), *words(400, 105 + 13 * k, "K-2"), *words(500, 105 + 13 * k, "2.50")]
    return held


def test_a_gutter_of_the_document_parts_columns_that_are_full_of_tables() -> None:
    pieces = pieces_of(page_of_tables())
    assert len(in_reading_order(pieces)) == 1
    middle = hidden_gutter(pieces, [Gutter(290.0, 306.0)])
    assert middle == 298.0
    stretches = in_reading_order(pieces, middle)
    assert [{w.text for p in s for w in p.words} for s in stretches] == [
        {"valve", "K-1", "9.00"},
        {"pump", "K-2", "2.50"},
    ]


def test_centred_lines_beside_a_filled_column_are_no_column_of_their_own() -> None:
    held = [w for k in range(40) for w in words(50, 60 + 15 * k, "valves and pumps are told apart by number")]
    for k in range(40):
        text = "rotor"[: 2 + k % 4] + " stator" * (k % 3) + "x" * (k * 7 % 13)
        held += words(440 - 2.5 * len(text) - k % 7, 60 + 15 * k, text)
    page = SimpleNamespace(width=600.0, height=700.0)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(gutters, "words_of", lambda _: held)
        document = SimpleNamespace(page=lambda _: page)
        assert gutters._of_page(document, 1) is None


def test_a_table_that_fills_a_column_alone_is_beside_the_other_column() -> None:
    text = pieces_of([w for k in range(8) for w in words(50, 100 + 14 * k, "valves and pumps are told apart here")])
    table = Piece(303.0, 90.0, 545.0, 300.0, (), 0)
    assert hidden_gutter([*text, table], [Gutter(290.0, 306.0)]) == 298.0
    assert hidden_gutter([*text, Piece(400.0, 90.0, 545.0, 300.0, (), 0)], [Gutter(290.0, 306.0)]) is None


def test_the_short_last_line_of_a_wide_title_stays_with_it() -> None:
    title = [
        *words(50, 40, "a title that is set over both columns of its page and more words of it"),
        *words(50, 54, "ends"),
    ]
    stretches = in_reading_order(pieces_of([*title, *page_of_tables()]), 298.0)
    assert " ".join(w.text for p in stretches[0] for w in p.words).endswith("more words of it ends")


def test_a_table_over_the_whole_width_is_not_parted() -> None:
    held = [w for k in range(8) for x in (50, 140, 250, 310, 400) for w in words(x, 100 + 14 * k, "9.00")]
    assert hidden_gutter(pieces_of(held), [Gutter(290.0, 306.0)]) is None


def test_boxes_of_one_word_each_are_no_table() -> None:
    strokes, _ = grid(45, 70.0, 20.0, 4)
    held = [w for k in range(4) for w in words(50, 75 + 20 * k, f"box{k}")]
    assert ruled_tables(strokes, held) == []


def test_rules_around_a_group_of_rows_do_not_make_it_one_row() -> None:
    strokes = [Stroke(45, y, 285, y) for y in (70, 90, 150, 190)]
    strokes += [Stroke(x, 70, x, 190) for x in (45, 165, 285)]
    held = [*words(50, 75, "Parser"), *words(170, 75, "Score")]
    for k, name in enumerate(("first one", "second one", "third one")):
        held += [*words(50, 95 + 18 * k, name), *words(170, 95 + 18 * k, f"9{k}.5")]
    held += [*words(50, 155, "a name in"), *words(50, 168, "two lines"), *words(170, 160, "88.0")]
    [table] = ruled_tables(strokes, held)
    assert [row.cells for row in table.rows] == [
        ("Parser", "Score"),
        ("first one", "90.5"),
        ("second one", "91.5"),
        ("third one", "92.5"),
        ("a name in two lines", "88.0"),
    ]
