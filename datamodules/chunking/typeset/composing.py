"""Fills a manuscript: a title, perhaps a contents page, and sections of the kinds that the genre favours."""

from __future__ import annotations

from .figures import SHAPES, add_figure
from .manuscript import Manuscript
from .style import Style
from .tables import add_table, draw_caption, draw_columns
from .truth import ChunkKind
from .wording import Wording

GENRES: dict[str, dict[str, float]] = {
    "manual": {"prose": 2, "procedure": 4, "list": 1.5, "table": 1.5, "figure": 1.5, "faq": 0.3},
    "price_list": {"prose": 1, "procedure": 0.3, "list": 0.7, "table": 5, "figure": 0.3, "faq": 0.3},
    "form": {"prose": 1, "procedure": 1, "list": 2, "table": 3, "figure": 0.3, "faq": 0.3},
    "report": {"prose": 4, "procedure": 0.3, "list": 1, "table": 2, "figure": 2, "faq": 0.1},
    "faq": {"prose": 1, "procedure": 1.5, "list": 0.6, "table": 0.7, "figure": 0.4, "faq": 5},
}
"""How often each kind of section occurs, by kind of document."""
_TABLE_KINDS = {
    "manual": ("parts", "faults", "faults", "notes", "notes"),
    "price_list": ("prices", "prices", "parts"),
    "form": ("fields", "fields", "notes", "notes"),
    "report": ("measures", "measures", "notes"),
    "faq": ("prices", "faults", "notes"),
}
_LONG = 110
"""From this many characters on, a paragraph's first full stop may carry a footnote."""


class Composer:
    """Adds text to a manuscript, section by section; `extend` may be called as long as more is wanted.

    Args:
        wording: source of text and of every choice.
        style: the document's.
        genre: one of `GENRES`.
    """

    def __init__(self, wording: Wording, style: Style, genre: str) -> None:
        self.wording = wording
        self.rng = wording.rng
        self.genre = genre
        self.manuscript = Manuscript(
            style, wording.language, wording.title(genre), f"{wording.product} {wording.model}"
        )
        self._sections: list[str] = []
        self._topics: list[str] = []
        self._note_share = self.rng.choice((0, 0, 0.15, 0.35))
        self._open_document(style)

    def _open_document(self, style: Style) -> None:
        paper = self.manuscript
        if style.title_page or style.contents:
            paper.columns = 1
        paper.head(self.wording.sample("subtitles", 3), self.rng.choice(("left", "center")))
        if style.contents:
            paper.contents(self.wording.words["contents"], self.rng.random() < 0.8)
        paper.columns = style.columns
        if self.rng.random() < 0.5 and not style.contents:
            self._prose()

    def extend(self) -> None:
        """Add a section of the first level, with what stands under it."""
        self._heading(1)
        if self.rng.random() < 0.6:
            self._prose()
            self._block()
        if self.rng.random() < 0.75:
            for _ in range(self.rng.randint(1, 3)):
                self._heading(2)
                self._block()
                if self.rng.random() < 0.35:
                    for _ in range(self.rng.randint(1, 2)):
                        self._heading(3)
                        self._block()
        else:
            self._block()

    def _heading(self, level: int) -> None:
        pool = self._sections if level == 1 else self._topics
        if not pool:
            pool += self.wording.sample("sections" if level == 1 else "topics", 99)
        self.manuscript.heading(level, pool.pop())

    def _apart(self) -> None:
        """A heading after an answer: what followed without one would look like the answer's next paragraph."""
        if self.manuscript.elements[-1].setting["kind"] == "answer":
            self._heading(2)

    def _block(self) -> None:
        shares = GENRES[self.genre]
        kind = self.rng.choices(list(shares), list(shares.values()))[0]
        if kind != "faq" and self.rng.random() < 0.3:
            self._prose()
        if kind != "faq":
            self._apart()
        {
            "prose": self._prose,
            "procedure": self._procedure,
            "list": self._list,
            "table": self._table,
            "figure": self._figure,
            "faq": self._faq,
        }[kind]()
        if self.rng.random() < 0.25:
            self._prose()

    def _prose(self) -> None:
        self._apart()
        for k in range(self.rng.choice((1, 1, 2, 3))):
            short = k > 0 and self.rng.random() < 0.15
            text = self.wording.paragraph(40, 90) if short else self.wording.paragraph(200, 800)
            self.manuscript.paragraph(text, note=self._note(text))
        if self.rng.random() < 0.15:
            self._note_box(("text", f"n{self.manuscript.count('box')}"), "")

    def _note(self, text: str) -> str:
        wanted = len(text) > _LONG and self.rng.random() < self._note_share
        return self.wording.choice("footnotes") if wanted else ""

    def _note_box(self, unit: tuple[ChunkKind, str], procedure: str) -> None:
        lead = self.wording.words[self.rng.choice(("note", "warning"))]
        text = self.wording.choice("notes")
        self.manuscript.paragraph(text, unit=unit, lead=lead, boxed=self.rng.random() < 0.6, procedure=procedure)

    def _procedure(self) -> None:
        paper, rng = self.manuscript, self.rng
        procedure = f"s{paper.count('procedure')}"
        unit: tuple[ChunkKind, str] = ("steps", procedure)
        if rng.random() < 0.75:
            paper.paragraph(self.wording.choice("procedure_intros"), unit=unit, opens=True, procedure=procedure)
        wordy = rng.choice((0, 0.3, 0.7))
        num_steps = rng.choice((3, 4, 5, 6, 8, 10, 14, 20))
        for step in range(1, num_steps + 1):
            last = step == num_steps and rng.random() < 0.6
            text = self.wording.choice("last_steps" if last else "steps")
            if rng.random() < wordy:
                text += " " + self.wording.paragraph(20, 200)
            mark, widest = (paper.style.step.format(n=n) for n in (step, num_steps))
            paper.item(mark, text, unit, procedure=procedure, step=step, indent=_indent(widest))
            if step < num_steps and rng.random() < 0.08:
                self._note_box(unit, procedure)
            elif 2 < step < num_steps and rng.random() < 0.05:
                add_figure(paper, self.wording, rng.choice(SHAPES))

    def _list(self) -> None:
        paper, rng = self.manuscript, self.rng
        unit: tuple[ChunkKind, str] = ("list", f"l{paper.count('list')}")
        after_items = paper.elements[-1].setting["kind"] == "item"
        if after_items or rng.random() < 0.8:
            paper.paragraph(self.wording.choice("list_intros"), unit=unit, opens=True)
        lettered = rng.random() < 0.15
        nested = not lettered and rng.random() < 0.25
        level = 0
        for k in range(rng.randint(3, 9)):
            level = int(nested and k > 0 and rng.random() < 0.4)
            mark = f"{chr(ord('a') + k)})" if lettered else paper.style.bullet
            text = self.wording.choice("items")
            if rng.random() < 0.15:
                text += ". " + self.wording.sentence()
            paper.item(mark, text, unit, level=level, indent=_indent(mark))

    def _table(self) -> None:
        paper, rng = self.manuscript, self.rng
        kind = rng.choice(_TABLE_KINDS[self.genre])
        full_width = paper.style.columns > 1 and rng.random() < 0.3
        if full_width:
            paper.columns = 1
        narrow = paper.columns > 1 or paper.style.width < 500
        if kind in ("faults", "notes"):
            num_rows = rng.choice((3, 5, 8, 12, 18))
        else:
            num_rows = rng.choice((3, 4, 5, 6, 8, 10, 16, 30, 60, 90) if self.genre != "report" else (3, 5, 8, 12, 40))
        if kind == "fields":
            num_rows = min(num_rows, 10)
        caption = ""
        if rng.random() < 0.6:
            number = paper.count("captioned table")
            caption = f"{self.wording.words['table']} {number}{rng.choice((':', '.', ' –'))} "
            caption += draw_caption(self.wording, kind)
        add_table(paper, self.wording, draw_columns(self.wording, kind, narrow), num_rows, caption)
        if full_width:
            paper.columns = paper.style.columns

    def _figure(self) -> None:
        add_figure(self.manuscript, self.wording, self.rng.choice(SHAPES))

    def _faq(self) -> None:
        paper, rng = self.manuscript, self.rng
        words = self.wording.words
        for k in range(1, rng.randint(2, 8) + 1):
            unit: tuple[ChunkKind, str] = ("faq", f"q{paper.count('question')}")
            lead = {"mark": words["question"], "number": f"{k}.", "bold": ""}[paper.style.faq]
            paper.paragraph(self.wording.choice("questions"), role="question", unit=unit, lead=lead, opens=True)
            answer = words["answer"] if paper.style.faq == "mark" else ""
            text = self.wording.paragraph(60, 450)
            paper.paragraph(text, role="answer", unit=unit, lead=answer, note=self._note(text))


def _indent(mark: str) -> float:
    """Room for a mark of an item, em; 0 for a long one, beside which the text begins at once."""
    return 0.0 if len(mark) > 5 else max(1.4, 0.6 * len(mark) + 0.5)
