"""From a manuscript to a PDF by typst (https://typst.app), without the machine's fonts."""

from __future__ import annotations

import dataclasses
import functools
import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ....registry import UserError, install_line
from .manuscript import Manuscript

if TYPE_CHECKING:
    from typst import Compiler

TEMPLATE = Path(__file__).with_name("template.typ")
_TIMESTAMP = 1_600_000_000  # a fixed one, so that equal seeds give equal bytes


@functools.cache
def _compiler() -> Compiler:
    try:
        import typst
    except ImportError as error:
        raise UserError(f"typesetting needs the package typst\n{install_line('chunking')}") from error
    import matplotlib

    fonts = Path(matplotlib.get_data_path()) / "fonts" / "ttf"
    return typst.Compiler(str(TEMPLATE), root=str(TEMPLATE.parent), ignore_system_fonts=True, font_paths=[str(fonts)])


def compile_pdf(manuscript: Manuscript, words: dict[str, str], coded: bool) -> bytes:
    """The PDF of a manuscript.

    Args:
        manuscript: what to set.
        words: the lexicon's single words.
        coded: whether each run of text gets its code as colour, which moves nothing.
    """
    document = json.dumps(_document(manuscript, words), ensure_ascii=False)
    inputs = {"document": document, "coded": "yes" if coded else "no"}
    pdf = _compiler().compile(format="pdf", sys_inputs=inputs, timestamp=_TIMESTAMP, pdf_tags=False)
    if not isinstance(pdf, bytes):
        raise TypeError("typst gave no PDF")
    return pdf


def _document(manuscript: Manuscript, words: dict[str, str]) -> dict[str, Any]:
    entries = []
    for heading in manuscript.entries():
        text, dots, page = heading.setting["entry"].runs
        codes = {"code": text.code, "dots": dots.code, "page": page.code, "target": heading.setting["code"]}
        entries.append({**codes, "text": text.text, "level": heading.setting["level"]})
    parts = []
    for columns, elements in manuscript.parts():
        settings = []
        for element in elements:
            plain = {key: value for key, value in element.setting.items() if key != "entry"}
            if plain["kind"] == "table":
                plain["rows"] = [row.setting["cells"] for row in element.rows]
            elif plain["kind"] == "contents":
                plain["entries"] = entries
            settings.append(plain)
        parts.append({"columns": columns, "elements": settings})
    return {
        "title": manuscript.title,
        "model": manuscript.model,
        "language": manuscript.language,
        "words": words,
        "style": dataclasses.asdict(manuscript.style),
        "parts": parts,
    }
