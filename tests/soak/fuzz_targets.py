"""What is fuzzed, as functions of bytes; as a program, `fuzz_targets.py NAME [FLAGS]`, atheris drives one."""

from __future__ import annotations

import io
import sys
import tempfile
from pathlib import Path


def contract(data: bytes) -> None:
    """The parser of tagged text: any text gives chunks, and what it gives is written and read again unchanged."""
    from fulgurite.datamodules.chunking.context import ChunkContext
    from fulgurite.datamodules.chunking.contract import complete_headings, parse, write
    from fulgurite.datamodules.chunking.rules import validate_answer

    text = data.decode("utf-8", "replace")
    parsed = parse(text)
    for chunk in parsed.chunks:
        assert chunk.continues in ("True", "False", "Partial")
        assert len(chunk.headings) <= 3 and chunk.text == chunk.text.strip()
        assert len(complete_headings(chunk.headings, ())) == 3
    validate_answer(text, ChunkContext(), [text])
    again = parse(write(parsed.chunks))
    assert [c.text for c in again.chunks] == [c.text for c in parsed.chunks]
    assert [c.continues for c in again.chunks] == [c.continues for c in parsed.chunks]


def pdf(data: bytes) -> None:
    """PDFs: a damaged one is read, or refused by a sentence of at most six lines."""
    from fulgurite.datamodules.chunking.layout.blocks import page_blocks
    from fulgurite.datamodules.chunking.pages import Document
    from fulgurite.registry import UserError

    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "fuzzed.pdf"
        path.write_bytes(data)
        try:
            with Document(path) as document:
                for number in range(1, min(document.num_pages, 3) + 1):
                    page_blocks(document.page(number))
        except UserError as error:
            assert 1 <= len(str(error).splitlines()) <= 6


TARGETS = {"contract": contract, "pdf": pdf}


def seeds(name: str) -> list[bytes]:
    """Inputs to begin with."""
    if name == "contract":
        head = "[HEAD]Pump > Care > Filter[/HEAD]\n"
        parts = ("[CONTINUES]False[/CONTINUES]\n", "[continues] Partial [/Continues]", "[CONTINUES]True")
        bodies = ("1. Close it.\n2. Open it.\n", "| a | b |\n|---|---|\n| 1 | 2 |\n", "see [1] \\[HEAD] and A > B\n")
        return [(part + head + body).encode() for part in parts for body in bodies]
    import pypdf

    found = []
    for words in (b"BT /F1 12 Tf 72 700 Td (1. Close it.) Tj ET", b"72 500 300 40 re S 72 520 m 372 520 l S"):
        writer = pypdf.PdfWriter()
        for _ in range(2):
            page = writer.add_blank_page(595, 842)
            content = pypdf.generic.DecodedStreamObject()
            content.set_data(words)
            page[pypdf.generic.NameObject("/Contents")] = writer._add_object(content)
        out = io.BytesIO()
        writer.write(out)
        found.append(out.getvalue())
    return found


def main() -> None:
    """Fuzz one target by atheris until its time is over."""
    import atheris

    with atheris.instrument_imports(include=["fulgurite.datamodules.chunking"]):
        import fulgurite.datamodules.chunking.contract
        import fulgurite.datamodules.chunking.layout.blocks  # noqa: F401

    name = sys.argv.pop(1)
    with tempfile.TemporaryDirectory() as corpus:
        for number, data in enumerate(seeds(name)):
            (Path(corpus) / str(number)).write_bytes(data)
        atheris.Setup([sys.argv[0], *sys.argv[1:], corpus], TARGETS[name])
        atheris.Fuzz()


if __name__ == "__main__":
    main()
