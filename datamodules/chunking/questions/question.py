"""A file of questions about PDFs, one JSON object a line, and the documents' split by their bytes.

A line needs `id`, `pdf` (file name), `question` and `answer`. What it may have besides decides how it is scored:

- `answer_mode`: `text`: the strings of `answer_keys` stand in the text, so finding them is the score;
  `text_table_cell`: the answer is a cell, told by `table`; any other (`derived`, `pixels_only`, `text_weak`,
  `unanswerable`): containment proves nothing, a judge has to say. Without it: `text` where there are keys, else
  `derived`.
- `answer_keys`: strings that must all be found.
- `evidence_pages`: numbers of the PDF's pages, from 1, that hold the answer.
- `category`: a word of the annotators; classes.py reads it.
- `human`: whether people outside the project that is measured made it; default true.
- `table`: `row_key`, `column_header`, `cell`, `header_row` (list), `row_window` (letters behind the row key within
  which its cell stands), `header_on_evidence_page`, `page_in_table` (from 1).
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from ....registry import UserError

PageKind = Literal["first page", "later page, header repeated", "later page, no header"]
PAGE_KINDS: tuple[PageKind, ...] = ("first page", "later page, header repeated", "later page, no header")
MODES = ("text", "text_table_cell", "text_weak", "derived", "pixels_only", "unanswerable")
DEFAULT_WINDOW = 200


@dataclass(frozen=True)
class TableCell:
    """A cell that a question asks for.

    Attributes:
        row_key: what names its row.
        cell: what it says.
        header_row: the labels of all columns, in order.
        row_window: letters behind the row key within which the cell stands, spaces and hyphens not counted.
        page_kind: where in its table the page lies.
    """

    row_key: str
    cell: str
    header_row: tuple[str, ...]
    row_window: int
    page_kind: PageKind


@dataclass(frozen=True)
class Question:
    """One question.

    Attributes:
        id: its name, unique in the file.
        pdf: file name of the document.
        question: what is asked.
        answer: what the annotators answer.
        mode: how it can be scored, one of `MODES`.
        keys: strings that must all be found.
        pages: pages that hold the answer, from 1.
        category: the annotators' word for it.
        human: whether people outside the project made it.
        cell: for a table's cell.
    """

    id: str
    pdf: str
    question: str
    answer: str
    mode: str
    keys: tuple[str, ...]
    pages: tuple[int, ...]
    category: str
    human: bool
    cell: TableCell | None

    @property
    def searchable(self) -> bool:
        """Whether finding strings in a text is a fair score."""
        return self.mode == "text_table_cell" or (self.mode == "text" and bool(self.keys))


def read_questions(file: Path) -> list[Question]:
    """The questions of a file, or of the one of that name beside this module.

    Raises:
        UserError: if it can't be read, a line is no question, or an id stands twice; names the line.
    """
    found: list[Question] = []
    seen: set[str] = set()
    ours = Path(__file__).with_name(f"{file.name}.jsonl")
    if not file.exists() and file == Path(file.name) and ours.is_file():
        file = ours
    try:
        lines = file.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"{file}: can't be read: {getattr(error, 'strerror', None) or error}") from None
    for number, line in enumerate(lines, 1):
        if not line.strip():
            continue
        try:
            question = _from_json(json.loads(line))
        except KeyError as error:
            raise UserError(f"{file}:{number}: has no field {error}") from None
        except (ValueError, TypeError, AttributeError) as error:
            raise UserError(f"{file}:{number}: is no question: {error}") from None
        if question.id in seen:
            raise UserError(f"{file}:{number}: the id '{question.id}' stands a second time")
        seen.add(question.id)
        found.append(question)
    if not found:
        raise UserError(f"{file}: holds no question\nOne JSON object a line: id, pdf, question, answer.")
    return found


def _from_json(held: dict[str, Any]) -> Question:
    keys = tuple(str(k) for k in held.get("answer_keys") or ())
    mode = held.get("answer_mode") or ("text" if keys else "derived")
    if mode not in MODES:
        raise ValueError(f"answer_mode '{mode}' is none of {', '.join(MODES)}")
    cell = None
    if mode == "text_table_cell":
        cell = _cell(held["table"])
    return Question(
        id=str(held["id"]),
        pdf=str(held["pdf"]),
        question=str(held["question"]),
        answer=str(held["answer"]),
        mode=mode,
        keys=keys,
        pages=tuple(int(p) for p in held.get("evidence_pages") or ()),
        category=str(held.get("category") or ""),
        human=bool(held.get("human", True)),
        cell=cell,
    )


def _cell(table: dict[str, Any]) -> TableCell:
    if int(table.get("page_in_table", 1)) <= 1:
        kind: PageKind = "first page"
    else:
        kind = "later page, header repeated" if table["header_on_evidence_page"] else "later page, no header"
    return TableCell(
        row_key=str(table["row_key"]),
        cell=str(table["cell"]),
        header_row=tuple(str(h) for h in table["header_row"]),
        row_window=int(table.get("row_window", DEFAULT_WINDOW)),
        page_kind=kind,
    )


def split_documents(
    files: Sequence[Path], num_development: int, used: Collection[str] = ()
) -> tuple[list[Path], list[Path]]:
    """Documents to build with and documents to test on, told apart by the sha256 of their bytes.

    Those in `used` were looked at already and are forced into the first part; the others fill it up in the order of
    their digests. Neither names nor sizes have a say, so nobody chose.

    Args:
        files: all documents.
        num_development: size of the first part.
        used: file names, with or without `.pdf`.

    Raises:
        UserError: if a name of `used` is no document, or more are used than the first part holds.
    """
    ordered = sorted(files, key=_digest)
    names = {n.removesuffix(".pdf") for n in used}
    if unknown := sorted(names - {f.stem for f in files}):
        raise UserError(f"used: there is no document '{unknown[0]}' in the folder")
    if len(names) > num_development:
        raise UserError(f"{len(names)} documents are used, the development part holds {num_development}")
    forced = [f for f in ordered if f.stem in names]
    free = [f for f in ordered if f.stem not in names]
    room = num_development - len(forced)
    return sorted([*forced, *free[:room]]), sorted(free[room:])


def _digest(file: Path) -> str:
    with open(file, "rb") as opened:
        return hashlib.file_digest(opened, "sha256").hexdigest()
