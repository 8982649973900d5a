"""Contents of the tables: parts, prices, measurements, faults, form fields."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from .manuscript import Draft, Element, Manuscript, Run
from .truth import ChunkKind
from .wording import Wording, lexicon


@dataclass(frozen=True)
class Column:
    """A column of a table.

    Attributes:
        name: its heading.
        draw: makes a cell's text, given the row's number from 0.
        width: share of the free width; 0 for as wide as its text.
        numeric: whether its cells are set to the right.
        group: heading over it and its neighbours; empty for none.
    """

    name: str
    draw: Callable[[int], str]
    width: float = 0
    numeric: bool = False
    group: str = ""


def draw_columns(wording: Wording, kind: str, narrow: bool) -> list[Column]:
    """The columns of a table.

    Args:
        wording: source of text.
        kind: `prices`, `parts`, `measures`, `faults`, `fields` or `notes`.
        narrow: whether it must fit a text column of half a page: three columns at most.
    """
    rng, column, number = wording.rng, wording.column, wording.number
    lists = lexicon(wording.language)
    start = rng.randint(100, 8000)
    wordy = rng.random() < 0.6

    def part(_: int) -> str:
        text = rng.choice(lists["parts"])
        return (text[:1].upper() + text[1:]) + (f", {rng.choice(lists['kinds'])}" if rng.random() < 0.5 else "")

    def long_text(_: int) -> str:
        return wording.paragraph(60, 500 if wordy else 160)

    code = Column(column("code"), lambda k: f"{wording.model[:2].strip('- ')}-{start + 7 * k}")
    price = Column(column("price"), lambda _: f"{number(rng.uniform(1, 990))} €", numeric=True)
    quantity = Column(column("quantity"), lambda _: str(rng.randint(1, 48)), numeric=True)
    state = Column(column("state"), lambda _: rng.choice(lists["states"]))
    if kind == "prices":
        found = [Column(column("part"), part, 2), code, price]
        if not narrow:
            trade = wording.group("trade") if rng.random() < 0.6 else ""
            found = [found[0], *(_grouped(c, trade) for c in (code, quantity, price))]
    elif kind == "parts":
        group = wording.group("size") if rng.random() < 0.7 else ""
        size = [
            Column(f"{column(key)} mm", lambda _: str(rng.randint(4, 950)), numeric=True, group=group)
            for key in ("width", "height")
        ]
        weight = Column(f"{column('weight')} kg", lambda _: number(rng.uniform(0.1, 30), 1), numeric=True)
        found = [Column(column("part"), part, 2), *size] + ([] if narrow else [weight, code])
    elif kind == "measures":
        group = wording.group("result") if rng.random() < 0.6 else ""
        units = ["bar", "kW", "°C"] if not narrow else ["bar", "kW"]
        values = [
            Column(f"{column('value')} {unit}", lambda _: number(rng.uniform(0, 99), 1), numeric=True, group=group)
            for unit in units
        ]
        site = Column(column("site"), lambda k: f"{lists['sites'][k % len(lists['sites'])]} {k + 1}", 1.5)
        date = Column(column("date"), lambda _: f"{rng.randint(1, 28):02}.{rng.randint(1, 12):02}.{wording.year}")
        found = [site, *values] if narrow else [site, date, *values, state]
    elif kind == "faults":
        found = [
            Column(column("fault"), lambda k: f"E{start % 50 + k}"),
            *([] if narrow else [Column(column("cause"), lambda _: wording.choice("subjects"), 1)]),
            Column(column("remedy"), lambda _: " ".join(wording.sample("steps", rng.choice((1, 1, 2, 3)))), 2.5),
        ]
    elif kind == "fields":
        names = wording.sample("fields", 10)
        entries = (wording.code, lambda: number(rng.uniform(1, 900), 0), lambda: wording.choice("sites"), lambda: "")
        found = [
            Column(column("field"), lambda k: f"{k + 1} {names[k % len(names)]}", 1),
            Column(column("entry"), lambda _: rng.choice(entries)(), 1.6),
        ]
    else:
        found = [Column(column("part"), part, 1.3 if narrow else 1), Column(column("text"), long_text, 2.6)] + (
            [] if narrow else [state]
        )
    return found


def draw_caption(wording: Wording, kind: str) -> str:
    """A caption, without its number, for a kind of table as of `draw_columns`."""
    captions: list[str] = lexicon(wording.language)["table_captions"]
    places = {"parts": 0, "notes": 0, "measures": 1, "fields": 1, "prices": 2, "faults": 3}
    return wording.filled(captions[places[kind]])


def _grouped(column: Column, group: str) -> Column:
    return Column(column.name, column.draw, column.width, column.numeric, group)


def add_table(manuscript: Manuscript, wording: Wording, columns: list[Column], num_rows: int, caption: str) -> None:
    """Add a table; neighbouring columns with the same group get a heading over them.

    Args:
        manuscript: where it is added.
        wording: source of text.
        columns: at least one.
        num_rows: rows below the header.
        caption: over the table, empty for none.
    """
    table = f"t{manuscript.count('table')}"
    names = tuple(f"{c.group} {c.name}".strip() for c in columns)
    cells, top, low = _header(manuscript, columns)
    header = Draft("table_header", cells, manuscript.path, joint="\t", repeats=True, table=table, columns=names)
    extra: dict[str, Any] = {}
    drafts = [header]
    if caption:
        first: tuple[ChunkKind, str] = ("table_row", f"{table}.1")
        above = Draft("caption", [manuscript.run(caption)], manuscript.path, unit=first, table=table)
        extra["caption"] = {"code": above.runs[0].code, "text": caption}
        drafts.insert(0, above)
    element = manuscript.add(
        "table",
        drafts,
        header=[top, low] if low else [top],
        widths=[c.width for c in columns],
        numeric=[c.numeric for c in columns],
        repeat=manuscript.style.repeat_header,
        narrow=manuscript.columns > 1 or manuscript.style.width < 500,
        inset=wording.rng.choice((3, 4, 5, 6)),
        **extra,
    )
    for k in range(num_rows):
        runs = [manuscript.run(c.draw(k)) for c in columns]
        unit: tuple[ChunkKind, str] = ("table_row", f"{table}.{k + 1}")
        row = Draft("table_row", runs, manuscript.path, joint="\t", unit=unit, table=table, row=k + 1)
        element.rows.append(Element({"cells": [{"code": r.code, "text": r.text} for r in runs]}, [row]))


def _header(
    manuscript: Manuscript, columns: list[Column]
) -> tuple[list[Run], list[dict[str, Any]], list[dict[str, Any]]]:
    """Runs of a header's cells, and the cells of its one or two lines as the template takes them."""
    runs, top, low = [], [], []
    grouped = any(c.group for c in columns)
    for k, column in enumerate(columns):
        if column.group and (k == 0 or columns[k - 1].group != column.group):
            span = sum(1 for c in columns if c.group == column.group)
            runs.append(manuscript.run(column.group))
            top.append({"code": runs[-1].code, "text": column.group, "colspan": span, "rowspan": 1})
        runs.append(manuscript.run(column.name))
        cell = {"code": runs[-1].code, "text": column.name, "colspan": 1}
        if column.group:
            low.append({**cell, "rowspan": 1})
        else:
            top.append({**cell, "rowspan": 2 if grouped else 1})
    return runs, top, low
