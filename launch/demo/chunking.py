"""The tab of vision-guided chunking (arXiv 2506.16035): a PDF to coloured chunks, and questions to its text."""

from __future__ import annotations

import html
import tempfile
from pathlib import Path
from typing import Any

import gradio

from ...registry import UserError
from .tab import Tab, framed, told

MAX_PAGES = 40
SHOWN = 5  # chunks in an answer
VIEW = "chunks.html"


_stopping: set[str] = set()  # visitors who have asked to stop


@told
def read(pdf: str | None, progress: Any, visitor: str) -> tuple[str, str, str]:
    """Chunk a PDF.

    Args:
        pdf: the uploaded file.
        progress: of gradio.
        visitor: who may stop it.

    Returns:
        The view of its pages, a summary, and the folder that holds its index, for `ask`.

    Raises:
        UserError: if there is none, or it can't be read.
    """
    from ...datamodules.chunking.chunks import write_chunks
    from ...datamodules.chunking.merging import MergePolicy
    from ...datamodules.chunking.ocr import PageOcr
    from ...datamodules.chunking.pages import Document, parse_pages
    from ...lightning_modules.chunking.command import make_reader, summary
    from ...lightning_modules.chunking.reading import read_document
    from ...lightning_modules.chunking.retrieval.store import build_index
    from ...lightning_modules.chunking.view import write_view

    if pdf is None:
        raise UserError("Drop a PDF first.")
    _stopping.discard(visitor)
    file = Path(pdf)
    folder = Path(tempfile.mkdtemp(prefix="chunks-", dir=file.parent))  # gradio's folder of this visitor's uploads
    with Document(file, PageOcr("auto", folder / "pictures")) as document:
        last = min(MAX_PAGES, document.num_pages)
        done = 0

        def advance(pages: int) -> None:
            nonlocal done
            done += pages
            if visitor in _stopping:
                raise UserError(f"Stopped after {done} of {last} pages.")
            progress((done, last), desc="reading", unit="pages")

        numbers = parse_pages(f"1-{last}", document.num_pages)
        reader = make_reader("layout", {}, None)
        result = read_document(document, reader, "layout", numbers, 4, MergePolicy(), folder / "journal.jsonl", advance)
        note = f" Only the first {MAX_PAGES} of its {document.num_pages} pages were read." if (
            document.num_pages > MAX_PAGES) else ""  # fmt: skip
        digest = document.sha256
    write_chunks(folder / "chunks.jsonl", iter(result.chunks))
    write_view(folder / VIEW, [(file, result)])
    progress(0.9, desc="indexing")
    build_index(folder / "index", {digest: list(result.chunks)})
    return (
        framed("Pages with their chunks", (folder / VIEW).read_text(encoding="utf-8"), scripts=True),
        summary(result) + note,
        str(folder / "index"),
    )


@told
def ask(question: str, index: str) -> str:
    """The chunks that answer a question, best first, as Markdown.

    Raises:
        UserError: before a PDF was read, or without a question.
    """
    from ...lightning_modules.chunking.retrieval.command import place
    from ...lightning_modules.chunking.retrieval.store import ChunkIndex

    if not index:
        raise UserError("Read a PDF first, then ask about it.")
    if not question.strip():
        raise UserError("Type a question first.")
    hits = ChunkIndex(Path(index)).search(question, "hybrid", k=SHOWN)
    blocks = [f"<h3>{html.escape(place(hit))}</h3><pre>{html.escape(hit.text)}</pre>" for hit in hits]
    return '<div class="found">' + "\n".join(blocks) + "</div>"


def build() -> None:
    """The tab's content."""

    def reading(
        pdf: str | None,
        request: gradio.Request,
        progress: Any = gradio.Progress(),  # noqa: B008
    ) -> tuple[str, str, str]:
        return read(pdf, progress, str(request.session_hash))

    def halt(request: gradio.Request) -> None:
        _stopping.add(str(request.session_hash))

    gradio.Markdown(
        "Drop a PDF: its pages are read as pictures are, by layout, and cut into chunks that keep tables, steps and "
        "headings together. Then ask: the chunks are found by meaning and by words."
    )
    index = gradio.State("")
    with gradio.Row():
        with gradio.Column(scale=2):
            pdf = gradio.File(label="PDF", file_types=[".pdf"], type="filepath", elem_id="chunking-pdf")
            with gradio.Row():
                go = gradio.Button("Cut into chunks", variant="primary", elem_id="chunking-go")
                stop = gradio.Button("Stop")
            about = gradio.Textbox(label="What was done", interactive=False, elem_id="chunking-about")
            question = gradio.Textbox(label="Question", elem_id="chunking-question")
            answer = gradio.HTML(label="Chunks found", elem_id="chunking-found")
        with gradio.Column(scale=3):
            view = gradio.HTML(label="Pages", elem_id="chunking-view")
    go.click(reading, pdf, [view, about, index], concurrency_limit=1, concurrency_id="chunking")
    stop.click(halt)
    question.submit(ask, [question, index], answer)


def warm_up() -> None:
    """Load the reader."""
    from ...lightning_modules.chunking.command import make_reader

    make_reader("layout", {}, None)


TAB = Tab(
    "chunking", "Chunking", "2506.16035", "chunking", ("pypdfium2", "onnxruntime", "lancedb"), build, warm_up
)  # fmt: skip
