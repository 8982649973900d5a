"""Tables that only lying rules part: what stands between two of them, above the first rule, beside text."""

from __future__ import annotations

from fulgurite.datamodules.chunking.layout.gutters import Gutter, hidden_gutter
from fulgurite.datamodules.chunking.layout.open_tables import open_tables
from fulgurite.datamodules.chunking.layout.text_lines import Piece, gutter_of, in_reading_order, pieces_of
from fulgurite.datamodules.chunking.strokes import Stroke
from fulgurite.datamodules.chunking.words import Word


def words(x: float, y: float, text: str) -> list[Word]:
    found = []
    for part in text.split():
        found.append(Word(part, x, y, x + 5.0 * len(part), y + 10.0, 10.0, False))
        x += 5.0 * len(part) + 3.0
    return found


def row(y: float, *cells: str) -> list[Word]:
    return [w for x, cell in zip((310, 400, 500), cells, strict=True) for w in words(x, y, cell)]


def rules(*ys: float) -> list[Stroke]:
    return [Stroke(305, y, 545, y) for y in ys]


def table(y: float, name: str, num_rows: int) -> tuple[list[Stroke], list[Word]]:
    """Rows with a rule under each, the first of them above the first rule."""
    held = [w for k in range(num_rows) for w in row(y + 15 * k, name, f"K-{k}", f"{k}.50")]
    return rules(*(y + 13 + 15 * k for k in range(num_rows))), held


def test_the_row_above_the_first_rule_belongs_to_the_table() -> None:
    strokes, held = table(80, "valve", 6)
    beside = words(50, 80, "a line of text in the other column")
    [found] = open_tables(strokes, [*held, *beside], [])
    assert [line.pieces[0].text for line in found.lines] == ["valve"] * 6
    assert "K-0" in found.lines[0].text and found.region.y0 < 80


def test_text_right_above_the_first_rule_does_not() -> None:
    strokes, held = table(100, "valve", 5)
    [found] = open_tables(strokes, [*held, *words(310, 86, "words of a caption that has one piece")], [])
    assert len(found.lines) == 5


def test_a_heading_between_rules_of_one_width_parts_two_tables() -> None:
    first, upper = table(80, "valve", 5)
    second, lower = table(220, "pump", 5)
    between = [
        *words(310, 170, "2 Pumps"),
        *words(310, 190, "All of them are new."),
        *row(205, "Part", "Code", "Price"),
    ]
    found = open_tables([*first, *second], [*upper, *between, *lower], [])
    assert [{line.pieces[0].text for line in t.lines} for t in found] == [{"valve"}, {"Part", "pump"}]


def test_tables_beside_each_other_show_that_the_gutter_runs_between_them() -> None:
    texts = [w for k in range(8) for x in (50, 140, 250, 310, 400, 500) for w in words(x, 100 + 14 * k, "9.00")]
    pieces = pieces_of(texts)
    gutter = Gutter(290.0, 306.0)
    assert hidden_gutter(pieces, [gutter]) is None, "all lines are level: one table over the whole width"
    tables = [Piece(45.0, 300.0, 293.0, 500.0, (), 0), Piece(303.0, 300.0, 550.0, 500.0, (), 1)]
    assert hidden_gutter([*pieces, *tables], [gutter]) == gutter.middle


def test_text_beside_a_table_shows_a_gutter_where_its_lines_are_not_level() -> None:
    text = [w for k in range(14) for w in words(50, 100 + 12.5 * k, "words that fill the line of a column well")]
    _, cells = table(100, "valve", 11)
    pieces = pieces_of([*text, *cells])
    assert gutter_of(pieces) is None
    found = gutter_of(pieces, one_filled=True)
    assert found is not None and 235 < found < 310
    assert [{w.x0 < 300 for p in s for w in p.words} for s in in_reading_order(pieces, found)] == [{True}, {False}]
