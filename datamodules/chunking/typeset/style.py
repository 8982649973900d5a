"""How a document looks: fonts, sizes, margins, headings, tables, running lines; drawn from a seed."""

from __future__ import annotations

import random
from dataclasses import dataclass
from typing import Literal

Rules = Literal["grid", "lines", "header", "none", "zebra"]

SERIF = ("Libertinus Serif", "New Computer Modern", "STIXGeneral", "DejaVu Serif")
SANS = ("DejaVu Sans",)
MONO = ("DejaVu Sans Mono",)
"""Families that typst embeds, and those that matplotlib brings; no font of the machine is used."""
_WIDTH = {"DejaVu Sans": 0.86, "DejaVu Serif": 0.86, "DejaVu Sans Mono": 0.84}
_PAGES = {"a4": (595.28, 841.89), "us-letter": (612.0, 792.0), "a5": (419.53, 595.28)}
_COLOURS = ("#1f4e79", "#7a1f1f", "#20603d", "#5b3a8c", "#b3541e", "#333333", "#0b6e75")


@dataclass(frozen=True)
class Style:
    """The looks of one document; lengths in PDF points.

    Attributes:
        font: family of the text.
        heading_font: family of title, headings and table headers.
        size: type size of the text.
        width, height: the page.
        margin: left and right margin; top and bottom follow from it.
        columns: text columns, 1 or 2.
        justify: whether lines are justified.
        hyphenate: whether words are broken at a line's end; the hyphen that is set belongs to no block's text.
        leading: distance between lines, em.
        indent: whether paragraphs are set off by an indented first line, not by a distance.
        colour: of headings and table headers, `#rrggbb`.
        heading_scale: type sizes of the three heading levels over the text's.
        heading_bold: whether headings are bold.
        numbering: whether headings carry numbers.
        capitals: whether headings of the first level are in capitals.
        section_break: whether a heading of the first level begins a page.
        sticky: whether a heading is kept with what follows; where not, it may end a page.
        widows: whether a paragraph's single lines are kept from standing alone on a page.
        rules: how tables are ruled.
        header_fill: whether a table's header has a coloured ground with white letters.
        header_bold: whether a table's header is bold.
        repeat_header: whether a table's header is set again on later pages.
        header: what the running header says; empty for none.
        footer: what the running footer says; empty for none.
        page_number: pattern of the page number, with `{n}` and `{all}`; empty for none.
        number_place: where the page number stands: below, or above at the right (`top`).
        header_rule: whether a line is drawn under the running header.
        title_page: whether the title has a page of its own.
        contents: whether there is a contents page.
        bullet: the mark of list items; empty for a drawn box.
        step: pattern of step numbers, with `{n}`.
        faq: how questions are marked: `mark` (Q:), `number` (1.), `bold` (no mark).
    """

    font: str
    heading_font: str
    size: float
    width: float
    height: float
    margin: float
    columns: int
    justify: bool
    hyphenate: bool
    leading: float
    indent: bool
    colour: str
    heading_scale: tuple[float, float, float]
    heading_bold: bool
    numbering: bool
    capitals: bool
    section_break: bool
    sticky: bool
    widows: bool
    rules: Rules
    header_fill: bool
    header_bold: bool
    repeat_header: bool
    header: Literal["", "title", "section", "model"]
    footer: Literal["", "model", "rights"]
    page_number: str
    number_place: Literal["left", "center", "right", "outside", "top"]
    header_rule: bool
    title_page: bool
    contents: bool
    bullet: str
    step: str
    faq: Literal["mark", "number", "bold"]


def draw_style(rng: random.Random, words: dict[str, str]) -> Style:
    """A style; `words` are the lexicon's for "page", "of" and "step"."""
    font = rng.choice(rng.choice((SERIF, SERIF, SANS, SANS, MONO if rng.random() < 0.15 else SERIF)))
    page = rng.choice(("a4", "a4", "a4", "us-letter", "us-letter", "a5"))
    columns = 2 if page != "a5" and rng.random() < 0.3 else 1
    size = rng.choice((9.0, 9.5, 10.0, 10.5, 11.0, 12.0)) * _WIDTH.get(font, 1.0)
    if columns == 2 or page == "a5":
        size = min(size, 10 * _WIDTH.get(font, 1.0))
    width, height = _PAGES[page]
    flat = rng.random() < 0.2
    scale = (1.15, 1.05, 1.0) if flat else rng.choice(((1.6, 1.25, 1.1), (1.45, 1.2, 1.05), (1.9, 1.4, 1.15)))
    named = f"{words['page']} {{n}}"
    number = rng.choice(("{n}", "{n}", "– {n} –", "{n}/{all}", named, f"{named} {words['of']} {{all}}", ""))
    return Style(
        font=font,
        heading_font=font if rng.random() < 0.6 else rng.choice(SERIF + SANS + SANS),
        size=size,
        width=width,
        height=height,
        margin=rng.uniform(0.075, 0.14) * width,
        columns=columns,
        justify=rng.random() < 0.5,
        hyphenate=rng.random() < (0.7 if columns == 2 else 0.3),
        leading=rng.uniform(0.5, 0.8),
        indent=rng.random() < 0.25,
        colour=rng.choice(_COLOURS) if rng.random() < 0.6 else "#000000",
        heading_scale=scale,
        heading_bold=flat or rng.random() < 0.85,
        numbering=rng.random() < 0.5,
        capitals=rng.random() < 0.15,
        section_break=rng.random() < 0.15,
        sticky=rng.random() < 0.5,
        widows=rng.random() < 0.4,
        rules=rng.choice(("grid", "grid", "lines", "header", "none", "zebra")),
        header_fill=rng.random() < 0.35,
        header_bold=rng.random() < 0.8,
        repeat_header=rng.random() < 0.5,
        header=rng.choice(("", "title", "title", "section", "section", "model")),
        footer=rng.choice(("", "", "model", "rights")),
        page_number=number,
        number_place=rng.choice(("left", "center", "center", "right", "outside", "top")),
        header_rule=rng.random() < 0.4,
        title_page=rng.random() < 0.2,
        contents=rng.random() < 0.4,
        bullet=rng.choice(("•", "•", "–", "-", "*", "")),
        step=rng.choice(("{n}.", "{n}.", "{n}.", "{n})", "({n})", f"{words['step']} {{n}}:")),
        faq=rng.choice(("mark", "number", "bold")),
    )
