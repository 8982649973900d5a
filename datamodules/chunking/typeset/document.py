"""`typeset_document`: one synthetic PDF with its exact ground truth, a function of a seed."""

from __future__ import annotations

import dataclasses
import json
import random

from ....registry import UserError
from .compilation import compile_pdf
from .composing import GENRES, Composer
from .glyphs import codes_beyond, read_coded
from .grouping import group_chunks, page_starts
from .manuscript import Manuscript
from .placing import place_blocks
from .style import Style, draw_style
from .truth import Truth, TypesetDocument
from .wording import LANGUAGES, Wording

MAX_PAGES = 1000
_ROUNDS = 12


def typeset_document(
    seed: int,
    *,
    language: str | None = None,
    style: Style | None = None,
    num_pages: int | None = None,
    genre: str | None = None,
) -> TypesetDocument:
    """Typeset a made-up document; the same arguments give the same bytes (with the same release of typst).

    Args:
        seed: of everything that is not given.
        language: a code of `LANGUAGES`.
        style: its looks; under three pages there is neither a title page nor a contents page.
        num_pages: pages, 1 to 1000; drawn from 3 to 8 by default.
        genre: a name of `GENRES`: manual, price_list, form, report, faq.

    Raises:
        UserError: an unknown language or genre, a number of pages out of range, or typst is not installed.
    """
    rng = random.Random(seed)
    drawn = rng.choice(LANGUAGES), rng.choice(list(GENRES)), rng.randint(3, 8)
    language, genre = language or drawn[0], genre or drawn[1]
    num_pages = drawn[2] if num_pages is None else num_pages
    if genre not in GENRES or not 1 <= num_pages <= MAX_PAGES:
        raise UserError(f"no document of the genre '{genre}' with {num_pages} pages; genres: {', '.join(GENRES)}")
    wording = Wording(rng, language)
    drawn_style = draw_style(rng, wording.words)
    looks = style or drawn_style
    if num_pages < 3:
        looks = dataclasses.replace(looks, title_page=False, contents=False)
    composer = Composer(wording, looks, genre)
    paper, coded = _set_to_length(composer, num_pages)
    figures = {e.setting["code"] for e in paper.elements if e.setting["kind"] == "figure"}
    pages = read_coded(coded, figures)
    blocks, drafts = place_blocks(paper, pages)
    blocks, chunks = group_chunks(blocks, drafts)
    truth = Truth(
        seed=seed,
        language=language,
        genre=genre,
        style=json.loads(json.dumps(dataclasses.asdict(looks))),
        page_sizes=tuple(pages.sizes),
        blocks=tuple(blocks),
        chunks=tuple(chunks),
        page_starts=tuple(page_starts(blocks, chunks, len(pages.sizes))),
    )
    return TypesetDocument(compile_pdf(paper, wording.words, coded=False), truth)


def _set_to_length(composer: Composer, num_pages: int) -> tuple[Manuscript, bytes]:
    """Add sections until there are more pages than wanted, then leave out what is too much; also the coded copy."""
    paper, words = composer.manuscript, composer.wording.words
    reached, coded = 0, b""
    for _ in range(_ROUNDS):
        for _ in range(max(1, num_pages + 1 - reached)):
            composer.extend()
        coded = compile_pdf(paper, words, coded=True)
        reached, beyond = codes_beyond(coded, num_pages)
        if reached <= num_pages:
            continue
        while reached > num_pages:
            before = len(paper.elements), sum(len(e.rows) for e in paper.elements)
            paper.trim(beyond)
            if before == (len(paper.elements), sum(len(e.rows) for e in paper.elements)):
                paper.elements.pop()
            coded = compile_pdf(paper, words, coded=True)
            reached, beyond = codes_beyond(coded, num_pages)
        if reached == num_pages:
            break
    return paper, coded
