"""How a document is set: body type, heading styles, running lines. Told from a sample of its pages, once."""

from __future__ import annotations

import re
from collections import Counter, defaultdict
from collections.abc import Sequence
from dataclasses import dataclass

from ..lines import is_bullet, is_page_number, step_number
from ..pages import Document
from ..rules import PLACEHOLDERS
from .blocks import Block, page_blocks

SAMPLE_PAGES = 24
ZONE = 0.11  # share of the page's height at its top and bottom in which running lines stand
HEADING_SCALE = 1.12  # of the body's type size
MAX_HEADING_CHARS = 200
MAX_BOLD_HEADING_CHARS = 110
MIN_SHARE = 0.15  # of the sampled pages: how often a line returns to be a running one
BAND_SHARE = 0.5  # of the sampled pages: how often a line set apart stands at one height to be one
_SECTION = re.compile(r"(?:part|item|chapter|appendix|annex|kapitel|chapitre)\s+[\divxlca-z]{1,5}\b", re.IGNORECASE)
_NO_TITLE = re.compile(
    r"submission data file|^untitled|^microsoft \w+ - |\.(?:docx?|indd|pdf|tex|dvi|xlsx?|pptx?)$", re.IGNORECASE
)
_NUMBERED = re.compile(r"(\d{1,3}(?:\.\d{1,3})*|[A-Z](?:\.\d{1,3})+|[IVX]{1,5}(?=\.))\.?\s+\S")


@dataclass(frozen=True)
class DocumentStyle:
    """What a document's pages have in common.

    Attributes:
        body_size: type size in points of most of the text.
        title: the document's title.
        heading_styles: (size, bold) of headings, the largest first; the title's own is not among them.
        running: texts of lines that return at the top or bottom of pages, digits replaced by `#`.
        named_sections: whether sections call themselves such (`Item 1A`, `Part II`): others then stand below them.
        bands: heights of running lines whose text changes: (height in units of `BAND_POINTS`, size).
    """

    body_size: float
    title: str
    heading_styles: tuple[tuple[float, bool], ...]
    running: frozenset[str]
    bands: frozenset[tuple[int, float]]
    named_sections: bool = False

    def is_running(self, block: Block) -> bool:
        """Whether a block is a running header or footer or a page number."""
        if block.table is None and block.outermost and is_page_number(block.text, bare=True):
            return True
        if block.table is not None or not in_zone(block) or len(block.lines) > 3:
            return False
        if is_page_number(block.text, bare=True) or normal(block.text) in self.running:
            return True
        return len(block.lines) == 1 and band(block) in self.bands

    def heading_level(self, block: Block) -> int:
        """2 for a heading of a section, 3 for one below it, 0 for what is none."""
        if not looks_like_heading(block, self.body_size):
            return 0
        text = block.text.strip()
        if _SECTION.match(text):
            return 2
        numbered = _NUMBERED.match(text)
        if numbered:
            return 2 if numbered[1].count(".") == 0 else 3
        style = style_of(block)
        if self.named_sections and style[0] <= HEADING_SCALE * self.body_size:
            return 3
        return 2 if self.heading_styles and style == self.heading_styles[0] else 3


BAND_POINTS = 4.0


def band(block: Block) -> tuple[int, float]:
    """Height and type size of a block's first line, rounded."""
    return round(block.upright.y0 / BAND_POINTS), round(block.size, 0)


def normal(text: str) -> str:
    """A running line without what changes from page to page: digits and roman numerals."""
    return re.sub(r"\b[ivxlc]+\b|\d+", "#", text.lower()).strip()


def in_zone(block: Block) -> bool:
    """Whether a block stands at the top or bottom of its page."""
    return block.upright.y1 < ZONE * block.height or block.upright.y0 > (1 - ZONE) * block.height


def style_of(block: Block) -> tuple[float, bool]:
    """Type size in half points, and bold."""
    return round(block.size * 2) / 2, block.bold


def looks_like_heading(block: Block, body_size: float) -> bool:
    """Whether a block is set like a heading: larger than the body, or bold and short."""
    text = block.text.strip()
    if text.lower().strip(" .") in PLACEHOLDERS:
        return False
    if block.table is not None or not any(c.isalpha() for c in text) or len(text) > MAX_HEADING_CHARS:
        return False
    larger = block.size >= HEADING_SCALE * body_size
    if text.endswith((",", ";", ".")):
        return False
    if is_bullet(text) or len(block.lines) > 3 or any(len(x.pieces) > 2 for x in block.lines):
        return False
    if larger:
        return len(text) > 2
    step = step_number(text) is not None and not _NUMBERED.match(text)
    short = len(block.lines) <= 2 and 3 <= len(text) <= MAX_BOLD_HEADING_CHARS
    if block.bold and block.size >= 0.93 * body_size:
        return short and not step and not text.endswith(":")
    return len(block.lines) == 1 and block.size >= 0.95 * body_size and _caps_heading(text)


def _caps_heading(text: str) -> bool:
    """`II. METHODS` in the body's own type."""
    letters = [c for c in text if c.isalpha()]
    return bool(_NUMBERED.match(text)) and len(letters) > 4 and sum(c.isupper() for c in letters) > 0.9 * len(letters)


def document_style(document: Document) -> DocumentStyle:
    """The style of a document, from at most `SAMPLE_PAGES` of its pages; the same for the same file."""
    numbers = sample_numbers(document.num_pages)
    held = [page_blocks(document.page(number)) for number in numbers]
    sizes: Counter[float] = Counter()
    for blocks in held:
        for block in blocks:
            sizes[round(block.size * 2) / 2] += len(block.text)
    sizes.pop(0.0, None)
    body_size = max(sizes, key=lambda s: (sizes[s], -s)) if sizes else 10.0
    running, bands = _running(held)
    rough = DocumentStyle(body_size, "", (), running, bands)
    title = _title(document, held[0], rough)
    counts: Counter[tuple[float, bool]] = Counter()
    named = 0
    for blocks in held:
        for block in blocks:
            if looks_like_heading(block, body_size) and not rough.is_running(block) and block.text != title:
                counts[style_of(block)] += 1
                named += bool(_SECTION.match(block.text.strip()))
    often = [s for s, n in counts.items() if n >= 2] or list(counts)
    ordered = sorted(often, key=lambda s: (-s[0], not s[1]))
    return DocumentStyle(body_size, title, tuple(ordered), running, bands, named >= 2)


def sample_numbers(num_pages: int) -> list[int]:
    """Pages to look at: the first, and pairs of neighbours spread evenly, since left and right pages differ."""
    if num_pages <= SAMPLE_PAGES:
        return list(range(1, num_pages + 1))
    pairs = SAMPLE_PAGES // 2
    starts = [2 + round(k * (num_pages - 3) / (pairs - 1)) for k in range(pairs)]
    return sorted({1, *starts, *(min(s + 1, num_pages) for s in starts)})


def _running(held: Sequence[list[Block]]) -> tuple[frozenset[str], frozenset[tuple[int, float]]]:
    texts: Counter[str] = Counter()
    heights: dict[tuple[int, float], int] = defaultdict(int)
    for blocks in held:
        zone = [b for b in blocks if b.table is None and in_zone(b) and len(b.lines) <= 3]
        texts.update({normal(b.text) for b in zone})
        heights_here = set()
        for block in zone:
            if len(block.lines) == 1 and _set_apart(block, blocks):
                heights_here.add(band(block))
        for place in heights_here:
            heights[place] += 1
    wanted = max(2.0, MIN_SHARE * len(held))
    running = {t for t, n in texts.items() if n >= wanted and t}
    bands = {place for place, n in heights.items() if n >= max(3.0, BAND_SHARE * len(held))}
    return frozenset(running), frozenset(bands)


def _set_apart(block: Block, blocks: Sequence[Block]) -> bool:
    """Whether a line is its page's outermost, with more than a line's height between it and the others."""
    own = block.upright
    others = [b.upright for b in blocks if b is not block and abs(b.upright.y0 - own.y0) > 2]
    gaps = [max(o.y0 - own.y1, own.y0 - o.y1) for o in others]
    outermost = all(o.y0 > own.y0 for o in others) or all(o.y1 < own.y1 for o in others)
    return outermost and bool(gaps) and min(gaps) > block.size


def _title(document: Document, blocks: Sequence[Block], style: DocumentStyle) -> str:
    """The largest type of the first page, if it is a heading; else the metadata's title, else the file's name.

    Names that a program left in the metadata (`Submission Data File`, `report.doc`) are no titles.
    """
    heads = [b for b in blocks if looks_like_heading(b, style.body_size) and not style.is_running(b)]
    large = [b for b in heads if b.size >= 1.25 * style.body_size]
    if large:
        size = max(b.size for b in large)
        together = [b.text for b in large if b.size >= 0.97 * size]
        return " ".join(" ".join(together[:3]).split())
    return document.title if document.title and not _NO_TITLE.search(document.title) else document.path.stem
