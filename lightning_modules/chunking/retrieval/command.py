"""`fulgurite chunking index` and `ask`: chunks into a folder that can be searched, questions to it."""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from rich.console import Console

from ....registry import COMMANDS, UserError

if TYPE_CHECKING:
    from ....datamodules.chunking.chunks import Chunk
    from .store import Hit

DEFAULT_K = 10
MAX_K = 100
ANSWER_TOKENS = 600


@COMMANDS.register("chunking index", paper="2506.16035")
def index(chunks: Path, out: Path = Path("index"), model: str = "minilm-l6") -> None:
    """Put chunks into a folder that `fulgurite chunking ask` searches by meaning and by words.

    Documents that are in it and unchanged are not encoded again; new ones are added.

    Args:
        chunks: a chunks.jsonl, or a folder of them.
        out: the index's folder.
        model: sentence encoder: a source, a local folder or a Hugging Face id.
    """
    from ....datamodules.chunking.chunks import read_chunks
    from .store import build_index

    files = sorted(chunks.glob("*.jsonl")) if chunks.is_dir() else [chunks]
    if not files:
        raise UserError(f"{chunks}: holds no .jsonl file\nMake one: fulgurite chunking chunk FILE.pdf")
    documents: dict[str, list[Chunk]] = {}
    for file in files:
        own: dict[str, list[Chunk]] = {}
        for chunk in read_chunks(file):
            if not re.fullmatch(r"[\w-]{1,80}", chunk.id) or not re.fullmatch(r"[0-9a-f]{64}", chunk.source_sha256):
                raise UserError(f"{file}: chunk '{chunk.id[:40]}' has an id or digest of another form")
            own.setdefault(chunk.source_sha256, []).append(chunk)
        documents |= own
    if not documents:
        raise UserError(f"{chunks}: holds no chunk")
    console = Console(stderr=True, highlight=False, soft_wrap=True)
    tenth = -1

    def progress(done: int, total: int) -> None:
        nonlocal tenth
        if total >= 500 and done * 10 // total > tenth:
            tenth = done * 10 // total
            console.print(f"{done} of {total} texts encoded", markup=False)

    encoded, kept = build_index(out, documents, model, progress)
    console.print(f"{out}: {encoded} documents encoded, {kept} as they were", markup=False)


@COMMANDS.register("chunking ask", paper="2506.16035")
def ask(
    question: str,
    index: Path = Path("index"),
    mode: Literal["vector", "text", "hybrid"] = "hybrid",
    k: int | None = None,
    tokens: int | None = None,
    url: str | None = None,
    model: str | None = None,
) -> None:
    """Show the chunks that answer a question, with document, pages and headings; with a language model, its answer.

    Args:
        question: what is asked.
        index: folder that `fulgurite chunking index` made.
        mode: by meaning (vector), by words (text: BM25), or both by reciprocal rank (hybrid).
        k: how many chunks; default 10.
        tokens: as many chunks as have this many tokens together, in the place of k.
        url: base of an OpenAI-compatible server that writes an answer, such as http://127.0.0.1:8000/v1.
        model: its model.
    """
    if not question.strip():
        raise UserError("the question is empty")
    if k is not None and tokens is not None:
        raise UserError("--k or --tokens, not both")
    if k is not None and not 1 <= k <= MAX_K:
        raise UserError(f"--k {k}: a whole number from 1 to {MAX_K}")
    if tokens is not None and tokens < 1:
        raise UserError(f"--tokens {tokens}: a whole number from 1")
    if (url is None) != (model is None):
        raise UserError("an answer needs both --url and --model")
    from .store import ChunkIndex

    hits = ChunkIndex(index).search(question, mode, None if tokens else k or DEFAULT_K, tokens)
    console = Console(highlight=False, soft_wrap=True)
    if not hits:
        console.print("No chunk has a word of the question. Try --mode vector.", markup=False)
        return
    for number, hit in enumerate(hits, 1):
        console.print(f"[{number}] {place(hit)}\n{hit.text}\n", markup=False)
    if url and model:
        from ..readers.chat_client import ChatClient

        messages = [{"role": "user", "content": answer_prompt(question, [hit.text for hit in hits])}]
        said = ChatClient(url, model).complete(messages, temperature=0.1, max_tokens=ANSWER_TOKENS).text.strip()
        console.print(f"Answer: {said}\n", markup=False)
        for number in cited(said, len(hits)):
            console.print(f"[{number}] {place(hits[number - 1])}", markup=False)


def place(hit: Hit) -> str:
    """Where a chunk stands: document and pages."""
    pages = f"page {hit.page_start}" if hit.page_start == hit.page_end else f"pages {hit.page_start}-{hit.page_end}"
    return f"{hit.source}, {pages}, {hit.kind.replace('_', ' ')}"


def answer_prompt(question: str, texts: list[str]) -> str:
    """What a language model is asked: answer from the numbered texts alone, name them, or say that they do not tell."""
    sources = "\n\n".join(f"[{number}]\n{text}" for number, text in enumerate(texts, 1))
    return (
        "Answer the question from the sources alone. Name the sources that you used by their numbers, such as [2]. "
        "If they do not hold the answer, say that they do not.\n\n"
        f"Sources:\n\n{sources}\n\nQuestion: {question}"
    )


def cited(answer: str, count: int) -> list[int]:
    """Numbers in square brackets that are sources, each once, in order."""
    found = [int(n) for group in re.findall(r"\[([\d,\s]+)\]", answer) for n in re.findall(r"\d+", group)]
    return [n for n in dict.fromkeys(found) if 1 <= n <= count]
