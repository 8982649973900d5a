"""A document before it is set: elements for the template, and drafts of the blocks that will be found on its pages.

Every piece of text is a *run* with a code of its own. The template sets a second, coded copy of the document in which
each run has its code as colour; colour moves nothing, so that copy's glyphs tell to which block they belong.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

from .style import Style
from .truth import ChunkKind, Role

HEADER, FOOTER, PAGE_NUMBER = 1, 2, 3
"""Codes of the running lines."""
_FIRST_CODE = 16


@dataclass(frozen=True)
class Run:
    """A piece of text with its code; text None is what the template makes up, such as a page number."""

    code: int
    text: str | None


@dataclass(eq=False)
class Draft:
    """A block of which the place is not known yet; attributes as of `truth.Block`.

    Attributes:
        runs: its pieces of text, in order; a table row's or header's cells.
        joint: what stands between the runs' texts.
        unit: what it belongs to when chunks are made, and its kind; None outside chunks. Drafts with equal units are
            one chunk.
        wide: whether it spans all text columns.
        repeats: whether the template may set it on several pages, each time whole.
        host: for a footnote, the block that refers to it.
    """

    role: Role
    runs: list[Run]
    path: tuple[str, ...] = ()
    joint: str = " "
    unit: tuple[ChunkKind, str] | None = None
    wide: bool = False
    repeats: bool = False
    host: Draft | None = None
    table: str = ""
    row: int = 0
    columns: tuple[str, ...] = ()
    procedure: str = ""
    step: int = 0


@dataclass(eq=False)
class Element:
    """What the template sets as one thing.

    Attributes:
        setting: the template's data.
        drafts: its blocks.
        rows: for a table, its rows, which may be left out from the end.
        columns: text columns of the pages on which it stands.
        opens: whether it must not be the document's last, such as a heading.
    """

    setting: dict[str, Any]
    drafts: list[Draft]
    rows: list[Element] = field(default_factory=list)
    columns: int = 1
    opens: bool = False

    def blocks(self) -> Iterator[Draft]:
        """Its drafts and its rows'."""
        yield from self.drafts
        for row in self.rows:
            yield from row.drafts


class Manuscript:
    """Collects a document's elements; each method adds one.

    Args:
        style: how it is set.
        language: ISO 639-1 code.
        title: the document's title.
        model: what a running header may say in the title's place.
    """

    def __init__(self, style: Style, language: str, title: str, model: str) -> None:
        self.style = style
        self.language = language
        self.title = title
        self.model = model
        self.elements: list[Element] = []
        self.columns = style.columns
        self._open: list[str] = []
        self._numbers = [0, 0, 0]
        self._next_code = _FIRST_CODE
        self._counts: dict[str, int] = {}
        self._num_notes = 0

    @property
    def path(self) -> tuple[str, ...]:
        """Title and open headings."""
        return (self.title, *self._open)

    def count(self, what: str) -> int:
        """The next number of a series, from 1: tables, figures, procedures …"""
        self._counts[what] = self._counts.get(what, 0) + 1
        return self._counts[what]

    def run(self, text: str | None) -> Run:
        """A new run."""
        self._next_code += 1
        return Run(self._next_code - 1, text)

    def add(self, kind: str, drafts: list[Draft], opens: bool = False, **setting: Any) -> Element:
        """Add an element of a kind of the template."""
        element = Element({"kind": kind, **setting}, drafts, columns=self.columns, opens=opens)
        self.elements.append(element)
        return element

    def head(self, lines: Sequence[str], align: str) -> None:
        """The title and the lines under it."""
        wide = self.columns > 1
        title = Draft("title", [self.run(self.title)], self.path, wide=wide)
        unit: tuple[ChunkKind, str] = ("text", "head")
        below = [Draft("body", [self.run(line)], self.path, unit=unit, wide=wide) for line in lines]
        set_lines = [setting(d) for d in below]
        self.add("title", [title, *below], opens=True, run=setting(title), lines=set_lines, align=align, floating=wide)

    def contents(self, name: str, dotted: bool) -> None:
        """A contents page: it lists the headings that the document has in the end.

        Args:
            name: its heading.
            dotted: whether dots lead to the page numbers.
        """
        draft = Draft("heading1", [self.run(name)], (self.title, name))
        self.add("contents", [draft], opens=True, title=setting(draft), dotted=dotted)

    def heading(self, level: int, text: str) -> None:
        """A heading, numbered if the style says so; level 1 to 3."""
        self._numbers[level - 1] += 1
        self._numbers[level:] = [0] * (3 - level)
        if self.style.capitals and level == 1:
            text = text.upper()
        if self.style.numbering:
            text = ".".join(map(str, self._numbers[:level])) + ("." if level == 1 else "") + " " + text
        self._open = [*self._open[: level - 1], text]
        role: Role = ("heading1", "heading2", "heading3")[level - 1]
        draft = Draft(role, [self.run(text)], self.path)
        entry = Draft("contents_entry", [self.run(text), self.run(None), self.run(None)], (self.title,), joint="\t")
        self.add("heading", [draft], opens=True, level=level, entry=entry, **setting(draft))

    def paragraph(
        self,
        text: str,
        *,
        role: Role = "body",
        unit: tuple[ChunkKind, str] | None = None,
        lead: str = "",
        boxed: bool = False,
        note: str = "",
        opens: bool = False,
        procedure: str = "",
    ) -> Draft:
        """Running text, a question or an answer.

        Args:
            text: without the lead.
            role: its block's role.
            unit: as of `Draft`; a paragraph has one of its own by default.
            lead: bold words before it, such as "Note:".
            boxed: whether it stands in a box.
            note: text of a footnote at its first full stop; empty for none.
            opens: whether something must follow.
            procedure: id of a procedure that it belongs to.
        """
        cut = text.find(". ") + 1 if note else len(text)
        cut = cut or len(text)
        unit = unit or ("text", f"p{self.count('paragraph')}")
        mark = str(self._num_notes + 1) if note else ""
        whole = f"{lead} {text[:cut]}{mark}{text[cut:]}".strip()
        draft = Draft(role, [self.run(whole)], self.path, unit=unit, procedure=procedure)
        drafts = [draft]
        extra: dict[str, Any] = {}
        if note:
            self._num_notes += 1
            below = Draft("footnote", [self.run(f"{mark} {note}")], self.path, unit=unit, host=draft)
            drafts.append(below)
            extra["note"] = setting(below)
        kind = role if role in ("question", "answer") else "paragraph"
        code = draft.runs[0].code
        self.add(kind, drafts, opens, code=code, lead=lead, before=text[:cut], after=text[cut:], boxed=boxed, **extra)
        return draft

    def item(
        self,
        mark: str,
        text: str,
        unit: tuple[ChunkKind, str],
        *,
        indent: float,
        level: int = 0,
        procedure: str = "",
        step: int = 0,
    ) -> None:
        """An item of a list, or with `step` a step of a procedure.

        Args:
            mark: before it; empty for a drawn box.
            text: without the mark.
            unit: as of `Draft`.
            indent: room for the mark, em; 0 if the text begins right behind it.
            level: depth of nesting, from 0.
            procedure: id of the step's procedure.
            step: the step's number, from 1.
        """
        role: Role = "step" if step else "list_item"
        draft = Draft(role, [self.run(f"{mark} {text}".strip())], self.path, unit=unit, procedure=procedure, step=step)
        self.add("item", [draft], code=draft.runs[0].code, mark=mark, text=text, level=level, indent=indent)

    def parts(self) -> list[tuple[int, list[Element]]]:
        """Runs of elements with equal text columns, in order."""
        grouped: list[tuple[int, list[Element]]] = []
        for element in self.elements:
            if not grouped or grouped[-1][0] != element.columns:
                grouped.append((element.columns, []))
            grouped[-1][1].append(element)
        return grouped

    def entries(self) -> list[Element]:
        """The headings that a contents page lists; empty where there is no such page."""
        listed = any(e.setting["kind"] == "contents" for e in self.elements)
        return [e for e in self.elements if listed and e.setting["kind"] == "heading"]

    def drafts(self) -> list[Draft]:
        """All blocks in logical order, the running lines left out."""
        found: list[Draft] = []
        for element in self.elements:
            found += element.blocks()
            if element.setting["kind"] == "contents":
                found += [heading.setting["entry"] for heading in self.entries()]
        return found

    def trim(self, beyond: set[int]) -> None:
        """Leave out all that follows the first element of which something stands where it must not.

        Args:
            beyond: codes of the runs behind the last page that may remain.
        """

        def fits(drafts: Sequence[Draft]) -> bool:
            return not any(run.code in beyond for draft in drafts if not draft.repeats for run in draft.runs)

        kept: list[Element] = []
        for element in self.elements:
            if not fits(list(element.blocks())):
                element.rows = [row for row in element.rows if fits(row.drafts)]
                if element.rows and fits(element.drafts):
                    kept.append(element)
                break
            kept.append(element)
        while len(kept) > 1 and kept[-1].opens:
            kept.pop()
        self.elements = kept
        self._num_notes = sum(d.role == "footnote" for e in kept for d in e.blocks())  # the template counts these


def setting(draft: Draft) -> dict[str, Any]:
    """A draft of one run as the template takes it."""
    return {"code": draft.runs[0].code, "text": draft.runs[0].text}
