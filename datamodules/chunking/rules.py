"""The contract's rules, each with a name, and the validator that reports where an answer breaks them.

Source: arXiv 2506.16035, section 3 and the prompt of its appendix. The paper contradicts itself in places; what holds
here, for prompt, readers, merging and validator alike:

1. *A list that goes on from the batch before is to be combined, yet every chunk must come from the current pages.* The
   reader gives only the new part, flagged True; merging.py combines.
2. *Continuation into the next batch is to be indicated, but no flag looks forward.* Nothing is marked: the next batch's
   flag says it, and the context carries the open table and procedure.
3. *No chunk under three lines, yet a table row with its header has three and a short FAQ fewer.* Rows, questions with
   answers and figures are exempt; so are a chunk that continues, which merging takes in, and one between exempt
   neighbours only. A paragraph without line breaks counts a line for each 80 characters.
4. *Last chunk, final chunks, LAST CHUNKS.* The last two are carried (context.py).
5. *Tables are kept whole, yet each row is a chunk.* Each row is a chunk; what is kept whole is the row with its header.
6. *Rule 8 is missing.* The block on steps stands in its place, and has the highest priority.
7. *Partial has no meaning for merging.* It is kept apart unless the policy says otherwise (merging.py).
8. *A missing level inherits.* The first comes from the context, a lower one from its parent; a head that is missing
   altogether takes the context's path (contract.complete_headings).

Rules that no program can tell from text alone (screenshots left out, diagrams described, footnotes beside their
reference, headings well inferred) have no name here; they stand in the prompt.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

from .context import ChunkContext
from .contract import NUM_LEVELS, Fault, TaggedChunk, parse
from .lines import (
    cells,
    is_answer,
    is_contents_line,
    is_page_number,
    is_question,
    is_separator,
    is_table_line,
    kind_of,
    question_lines,
    step_number,
    table_of,
)
from .merging import can_join, is_complete_row, is_short, splits_list
from .verbatim import invented, tokens

RULES: dict[str, str] = {
    "text_outside": "nothing stands before the first [CONTINUES]",
    "flag_unknown": "the flag is True, False or Partial",
    "tag_unclosed": "every tag is closed",
    "head_missing": "every chunk has a [HEAD]",
    "head_levels": "a head has three levels",
    "head_placeholder": "a level is a heading, not a word for its absence",
    "head_shortened": "headings are not cut short",
    "empty_chunk": "a chunk says something",
    "first_continues": "a document's first chunk continues nothing",
    "contents": "tables of contents and indexes are left out",
    "page_furniture": "page numbers are left out",
    "boilerplate": "menus, cookie notices, privacy policies are left out",
    "repeats_context": "what was carried over is not given out again",
    "procedure_split": "the steps of a procedure stay in one chunk",
    "list_split": "the items of a list stay in one chunk",
    "row_count": "a chunk of a table is one row",
    "row_header": "a row stands under the table's full header",
    "row_width": "a table's lines have as many cells as its header",
    "row_flag": "a complete row is False; one that goes on does not repeat the header",
    "short_chunk": "a chunk has three lines or more",
    "faq_merged": "one question with its answer a chunk",
    "faq_split": "a question and its answer stay together",
    "not_verbatim": "the text is the page's, unchanged",
    "page_skipped": "no page is skipped",
}
MAX_INVENTED = 0.05
MIN_PAGE_TOKENS = 40
MIN_PAGE_SHARE = 0.1
PLACEHOLDERS = {"unknown", "n/a", "na", "none", "untitled", "no heading", "null", "main_heading", "section_heading"}
_NO_FINDING = re.compile(
    r"(?:no (?:relevant |further )?(?:content|findings?|text|information)(?: (?:found|on (?:this|the) page))?"
    r"|n/?a|none|empty)\W*",
    re.IGNORECASE,
)
_MENU = re.compile(r"[A-Z]\w*(?: [A-Z]\w*)?\.\.\.")  # `Save As...`: so programs name what asks for more
_BOILERPLATE = re.compile(
    r"\b(?:we use cookies|accept all cookies|cookie (?:policy|settings)|skip to (?:main )?content)\b"
)


@dataclass(frozen=True)
class Violation:
    """A rule that a chunk breaks.

    Attributes:
        rule: a name of `RULES`.
        chunk: number of the chunk, from 1; 0 for the answer as a whole.
        sentence: what is wrong with it.
    """

    rule: str
    chunk: int
    sentence: str


def validate_answer(
    answer: str, context: ChunkContext, page_texts: Sequence[str] = (), first_batch: bool = False
) -> list[Violation]:
    """Every rule that an answer breaks.

    Args:
        answer: tagged text.
        context: what the reader was given.
        page_texts: the text layer of each page of the batch, where there is one.
        first_batch: whether the batch begins the document.
    """
    parsed = parse(answer, context.headings)
    chunks = parsed.chunks
    found = [_of_fault(fault) for fault in parsed.faults]
    for number, chunk in enumerate(chunks, 1):
        if chunk.headings and len(chunk.headings) < NUM_LEVELS:
            found.append(Violation("head_levels", number, f"the head has {len(chunk.headings)} of three levels"))
    if first_batch and chunks and chunks[0].continues == "True":
        found.append(Violation("first_continues", 1, "the document's first chunk says True"))
    found += validate_chunks(chunks, context, "\n".join(page_texts))
    found += _against_pages(chunks, context, page_texts)
    return sorted(found, key=lambda v: v.chunk)


def validate_chunks(
    chunks: Sequence[TaggedChunk], context: ChunkContext | None = None, printed: str = ""
) -> list[Violation]:
    """The rules that hold for parsed chunks, of an answer or, after merging, of a whole document.

    Args:
        chunks: in order.
        context: what the reader was given, whose headings stay as they are; none for a whole document.
        printed: text of the pages, if known: a heading that ends in three dots there was not cut short.
    """
    context = context or ChunkContext()
    found: list[Violation] = []
    dots = {level for chunk in chunks for level in chunk.headings if _has_dots(level)}
    as_printed = " ".join(printed.split()) if dots else ""
    carried = {" ".join(level.split()) for level in context.headings}  # judged in the batch that printed them
    shortened = {level for level in dots if (line := " ".join(level.split())) not in as_printed and line not in carried}
    for number, chunk in enumerate(chunks, 1):
        for level in chunk.headings:
            if level in shortened:
                found.append(Violation("head_shortened", number, f"'{level[-40:]}' is cut short"))
        for check in _SINGLE:
            found += [Violation(rule, number, sentence) for rule, sentence in check(chunk)]
    for number in range(1, len(chunks) + 1):
        found += _beside_neighbours(chunks, number, context)
    return found


def _of_fault(fault: Fault) -> Violation:
    return Violation(fault.rule, fault.chunk, fault.sentence)


Found = Iterator[tuple[str, str]]


def _head(chunk: TaggedChunk) -> Found:
    for level in chunk.headings:
        if level.lower().strip("[]<> .") in PLACEHOLDERS:
            yield "head_placeholder", f"'{level}' is no heading"


def _has_dots(level: str) -> bool:
    """Whether a heading ends as if it were cut short; neither leaders of a contents entry nor a menu's name do."""
    return level.endswith(("...", "…")) and not re.search(r"(?:\.\s?){4,}$", level) and not _MENU.fullmatch(level)


def _content(chunk: TaggedChunk) -> Found:
    lines = [line for line in chunk.text.splitlines() if line.strip()]
    if not lines or _NO_FINDING.fullmatch(chunk.text.strip()):
        yield "empty_chunk", "the chunk says nothing" if not lines else f"'{chunk.text.strip()}' is no content"
        return
    entries = sum(is_contents_line(line) for line in lines)
    if entries >= 3 and entries * 2 > len(lines):
        yield "contents", f"{entries} of {len(lines)} lines are entries of a table of contents"
    if numbers := [line.strip() for line in lines if is_page_number(line)]:
        yield "page_furniture", f"'{numbers[0]}' is a page number"
    elif len(lines) == 1 and is_page_number(lines[0], bare=True):
        yield "page_furniture", f"'{lines[0].strip()}' alone is a page number"
    if len(lines) <= 3 and _BOILERPLATE.search(chunk.text.lower()):
        yield "boilerplate", "is a cookie notice or menu"


def _rows(chunk: TaggedChunk) -> Found:
    table = table_of(chunk.text)
    if table is None:
        return
    header, rows = table
    if len(rows) != 1:
        yield "row_count", f"holds {len(rows)} rows of a table"
    if not header and chunk.continues != "True":
        yield "row_header", "a row without its header"
    elif header and not any(header):
        yield "row_header", "the header's cells are empty"
    lines = [line for line in chunk.text.splitlines() if is_table_line(line) and not is_separator(line)]
    widths = {len(cells(line)) for line in lines}
    if len(widths) > 1:
        yield "row_width", f"lines of {' and '.join(map(str, sorted(widths)))} cells"
    if chunk.continues == "True" and is_complete_row(chunk.text):
        yield "row_flag", "a row with its header says True"


def _faq(chunk: TaggedChunk) -> Found:
    if (questions := len(question_lines(chunk.text))) > 1:
        yield "faq_merged", f"holds {questions} questions"


_SINGLE: tuple[Callable[[TaggedChunk], Found], ...] = (_head, _content, _rows, _faq)


def _beside_neighbours(chunks: Sequence[TaggedChunk], number: int, context: ChunkContext) -> Iterator[Violation]:
    chunk = chunks[number - 1]
    before = chunks[number - 2] if number > 1 else _carried(context)
    if number <= 2 and _repeats(chunk, context):
        yield Violation("repeats_context", number, "is the text that was carried over")
    lines = [line for line in chunk.text.splitlines() if line.strip()]
    if before is not None and lines and chunk.continues != "True" and splits_list(before, chunk):
        step = step_number(lines[0])
        if step is not None:
            sentence = f"step {step} is apart from step {step - 1} and says {chunk.continues}"
            yield Violation("procedure_split", number, sentence)
        else:
            yield Violation("list_split", number, "begins with an item of the list with which the chunk before ends")
    if before is not None and chunk.continues == "True" and context.open_table and number == 1:
        table = table_of(chunk.text)
        if table and any(len(row) > len(context.open_table) for row in table[1]):
            yield Violation("row_width", number, "has more cells than the open table's header")
    if is_question(chunk.text) and len(lines) == 1 and number < len(chunks) and is_answer(chunks[number].text):
        yield Violation("faq_split", number, "a question whose answer is the next chunk")
    if chunk.continues != "True" and lines and is_short(chunk.text) and len(chunks) > 1:
        around = [chunks[k].text for k in (number - 2, number) if 0 <= k < len(chunks)]
        if any(can_join(text, chunk.text) for text in around):
            yield Violation("short_chunk", number, f"has under three lines: '{chunk.text[:40]}'")


def _carried(context: ChunkContext) -> TaggedChunk | None:
    if not context.last_chunks:
        return None
    parsed = parse(context.last_chunks[-1], context.headings)
    return parsed.chunks[0] if parsed.chunks else None


def _repeats(chunk: TaggedChunk, context: ChunkContext) -> bool:
    words = tokens(chunk.text)
    if len(words) < 8:
        return False
    for carried in context.last_chunks:
        parsed = parse(carried, context.headings).chunks
        if parsed and kind_of(chunk.text) == kind_of(parsed[0].text):
            old = " ".join(tokens(parsed[0].text))
            if " ".join(words) in old or (len(old) > 60 and old in " ".join(words)):
                return True
    return False


def _against_pages(
    chunks: Sequence[TaggedChunk], context: ChunkContext, page_texts: Sequence[str]
) -> Iterator[Violation]:
    if not any(text.strip() for text in page_texts):
        return
    layer = "\n".join([*page_texts, *context.headings, *context.open_table])
    for number, chunk in enumerate(chunks, 1):
        if kind_of(chunk.text) == "figure":
            continue  # what a picture shows stands in no text layer
        new = invented(chunk.text, layer)
        size = len(tokens(chunk.text))
        if len(new) > max(2, MAX_INVENTED * size):
            sentence = f"{len(new)} of {size} words are not on the pages: {', '.join(new[:4])}"
            yield Violation("not_verbatim", number, sentence)
    said = {t for chunk in chunks for t in (*tokens(chunk.text), *tokens(" ".join(chunk.headings)))}
    for index, text in enumerate(page_texts):
        words = tokens(text)
        contents = [line for line in text.splitlines() if is_contents_line(line)]
        if len(words) < MIN_PAGE_TOKENS or len(contents) >= 3:
            continue
        if sum(w in said for w in words) < MIN_PAGE_SHARE * len(words):
            yield Violation("page_skipped", 0, f"nothing of page {index + 1} of this batch is in any chunk")
