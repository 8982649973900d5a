"""What a vision-language model is told: the paper's rules (arXiv 2506.16035, section 4) in our own words."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence

from ....datamodules.chunking.context import ChunkContext
from ....datamodules.chunking.contract import join_head
from ....datamodules.chunking.lines import separator_line, table_line
from ....datamodules.chunking.rules import Violation

RULES_TEXT = """\
You are shown consecutive pages of one document as pictures. Write down everything they say as a list of chunks.

FORM. Each chunk is
[CONTINUES]True|False|Partial[/CONTINUES]
[HEAD]title > section > subject[/HEAD]
text of the chunk
and ends where the next [CONTINUES] begins. Nothing else: no remarks, no JSON, no code fence.

HEADINGS. Exactly three levels. The first is the document's title in full, the second the major section, the third the
subject of this very chunk. Never shorten or reword a heading that is printed; where none is printed, infer one. A level
that is missing repeats the one above it.

TEXT. Go page by page and skip none. Copy word for word: no summary, no correction, no translation; all languages stay.
Columns are read one after the other. Leave out running headers and footers, page numbers, tables of contents, indexes,
menus, cookie and privacy notices, and screenshots. Keep a footnote with the text that refers to it. Read scanned pages.
Describe diagrams; describe a flowchart step by step; copy the words that stand in pictures. Such a chunk begins with
[Figure].

STEPS AND LISTS come first of all rules. A numbered procedure or a list is never split over chunks, however long it is
and however many pages it takes. What interrupts it stays inside if the steps go on afterwards.

TABLES. Markdown with pipes. One chunk for each row: the table's full header, the line of hyphens, then that one row.
Repeat the header also for rows on later pages where it is not printed.

QUESTIONS. One chunk for each question with its answer, as `Q: …` and `A: …`.

SIZE. No chunk has fewer than three lines, other than table rows and questions; join a short one to its neighbour, with
its heading. No empty chunks.

FLAG. True: the chunk goes on with the chunk before it, that is a sentence, list or procedure that was cut, or a table
row of which a cell was cut. False: it is new; a complete table row is False even if the table goes on. Partial: it may
belong to the one before, and you cannot tell.
"""
CONTEXT_TEXT = """\
BEFORE THESE PAGES. What follows comes from the pages before. It only tells you where you are: never write it again. If
these pages go on with it, write the new part alone and flag it True."""


def prompt_digest() -> str:
    """Digest of the fixed texts, by which recorded answers are kept apart."""
    return hashlib.sha256((RULES_TEXT + CONTEXT_TEXT).encode()).hexdigest()[:16]


def context_text(context: ChunkContext, first: int, last: int) -> str:
    """The part of the prompt that changes: page numbers and what is carried over."""
    parts = [f"These are pages {first} to {last}." if last > first else f"This is page {first}."]
    if not context.headings:
        return f"{parts[0]} The document begins here: its first chunk is False."
    parts += [CONTEXT_TEXT, f"OPEN HEADINGS: {join_head(context.headings)}"]
    if context.open_table:
        parts.append(f"OPEN TABLE:\n{table_line(context.open_table)}\n{separator_line(len(context.open_table))}")
    if context.open_procedure:
        step = context.open_procedure.last_step
        parts.append(f"OPEN PROCEDURE: {context.open_procedure.subject}" + (f", after step {step}" if step else ""))
    return "\n\n".join([*parts, "LAST CHUNKS:\n" + "\n\n".join(context.last_chunks)])


def repair_text(violations: Sequence[Violation], limit: int = 12) -> str:
    """What is said when an answer breaks the contract."""
    lines = [f"- chunk {v.chunk}: {v.rule}: {v.sentence}" for v in violations[:limit]]
    more = [f"- and {len(violations) - limit} more"] if len(violations) > limit else []
    return "\n".join(["Your answer breaks these rules:", *lines, *more, "Write the whole answer again, mended."])
