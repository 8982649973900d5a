"""Text of a PDF's pages as pypdf extracts it, kept on disk: it takes longer than all the rest of a text chunker."""

from __future__ import annotations

import contextlib
import json
import re
from pathlib import Path

from ....datamodules.chunking.nested_forms import silent_pypdf
from ....datamodules.files import write_json
from ....registry import UserError

_SURROGATE = re.compile("[\ud800-\udfff]")


def page_texts(pdf: Path, sha256: str, folder: Path) -> list[str]:
    """The text of each page; a page that pypdf fails on is empty.

    Args:
        pdf: the file.
        sha256: its digest, the kept file's name.
        folder: where texts are kept.

    Raises:
        UserError: if pypdf can't open the file.
    """
    kept = folder / f"{sha256[:32]}.json"
    with contextlib.suppress(OSError, ValueError, KeyError, TypeError):
        held = json.loads(kept.read_text(encoding="utf-8"))
        return list(held["pages"])
    import pypdf

    try:
        with silent_pypdf():
            reader = pypdf.PdfReader(pdf)
            if reader.is_encrypted:
                reader.decrypt("")
            found = [_text(page) for page in reader.pages]
    except Exception as error:  # pypdf raises what the file's damage leads to
        raise UserError(f"{pdf}: pypdf can't read it: {str(error)[:160]}") from None
    write_json(kept, {"schema_version": 1, "pages": found})
    return found


def _text(page: object) -> str:
    try:
        return _SURROGATE.sub("\N{REPLACEMENT CHARACTER}", page.extract_text())  # type: ignore[attr-defined]
    except Exception:  # as above
        return ""
