"""`fulgurite chunking chunk`: PDFs in, chunks.jsonl out, with a summary and, if wished, a page to look at."""

from __future__ import annotations

import contextlib
import inspect
import json
import shutil
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from rich.console import Console

from ...datamodules.sources.catalogue import SOURCES
from ...datamodules.sources.download import fetch
from ...registry import COMMANDS, UserError

if TYPE_CHECKING:
    from ...datamodules.chunking.ocr import PageOcr
    from .readers.protocol import PageReader
    from .reading import DocumentResult

MAX_BATCH = 64
JOURNALS = ".reading"


@COMMANDS.register("chunking chunk", paper="2506.16035")
def chunk(
    path: Path,
    out: Path = Path("chunks.jsonl"),
    reader: str = "layout",
    pages: str | None = None,
    batch_pages: int = 4,
    html: Path | None = None,
    partial: Literal["keep", "same", "merge"] = "keep",
    ocr: Literal["auto", "never", "always"] = "auto",
    weights: Path | None = None,
    model: str | None = None,
    url: str | None = None,
    dpi: int | None = None,
    price_in: float | None = None,
    price_out: float | None = None,
    max_cost: float | None = None,
    record: Path | None = None,
) -> int:
    """Cut PDFs into chunks that keep tables, steps and headings together.

    A call that was cut off goes on where it was: the same call again reads no page twice.

    Args:
        path: a PDF, a folder whose PDFs are read one after the other, or a source of PDFs such as papers-pdf.
        out: file for the chunks, one a line.
        reader: who reads the pages: `layout` needs no server, `rules` no weights; `fulgurite list readers` shows all.
        pages: which pages, such as 1-40 or 1-3,9-; default: all.
        batch_pages: how many pages a reader sees at a time.
        html: file for one page that shows each page's picture with its chunks.
        partial: what becomes of a chunk that may continue the one before: keep it apart, merge it where title and
            section are the same, or merge it always.
        ocr: which pages are read off their picture: auto takes those without a text layer, always all.
        weights: folder of a trained chunker, for the reader layout; default: the released one.
        model: name of the server's model, for the reader openai.
        url: base of the server, such as http://127.0.0.1:8000/v1.
        dpi: resolution of the pictures that a model sees.
        price_in: price of a million tokens that are sent.
        price_out: price of a million tokens that are written.
        max_cost: stop once this much is spent.
        record: folder that keeps a reader's answers, or has them for the reader recorded.
    """
    if not 1 <= batch_pages <= MAX_BATCH:
        raise UserError(f"--batch_pages {batch_pages}: a whole number from 1 to {MAX_BATCH}")
    console = Console(stderr=True, highlight=False, soft_wrap=True)
    files = find_pdfs(path)
    _check_out(out)
    options = {"weights": weights, "model": model, "url": url, "dpi": dpi, "price_in": price_in, "price_out": price_out}
    made = make_reader(reader, {**options, "max_cost": max_cost}, record)
    failed: dict[str, str] = {}
    results: list[DocumentResult] = []
    from ...datamodules.chunking.merging import MergePolicy
    from ...datamodules.chunking.ocr import PageOcr

    with journal_folder(out) as journals:
        policy, eyes = MergePolicy(partial=partial), PageOcr(ocr, journals / "pictures")
        for file in files:
            try:
                results.append(_one(file, made, reader, pages, batch_pages, policy, eyes, journals, console))
            except UserError as error:
                if len(files) == 1:
                    raise
                failed[file.name] = str(error)
                console.print(f"[yellow]{file.name}: left out: {str(error).partition(chr(10))[0]}[/yellow]")
        if not results:
            raise UserError(f"{path}: none of its {len(files)} PDFs can be read\n{next(iter(failed.values()))}"[:400])
        from ...datamodules.chunking.chunks import write_chunks

        write_chunks(out, (c for result in results for c in result.chunks))
        if html is not None:
            from .view import write_view

            write_view(html, [(f, r) for f in files for r in results if r.source == f.name])
        shutil.rmtree(journals, ignore_errors=True)
    _report(results, made, out, html, console)
    if failed:
        console.print(f"[yellow]{len(failed)} of {len(files)} PDFs were left out: {', '.join(sorted(failed))}[/yellow]")
    return 1 if failed else 0


def find_pdfs(path: Path) -> list[Path]:
    """The PDF that `path` is, or those that lie in it or in the source of that name, sorted.

    Raises:
        UserError: if there is none, or the source can't be fetched.
    """
    if not path.exists() and str(path) in SOURCES:
        path = fetch(str(path))
    if path.is_dir():
        found = sorted(f for f in path.iterdir() if f.suffix.lower() == ".pdf" and f.is_file())
        if not found:
            raise UserError(f"{path}: holds no file that ends in .pdf")
        return found
    if not path.exists():
        raise UserError(f"{path}: there is no such file or folder, nor a source of that name")
    return [path]


def make_reader(name: str, options: dict[str, Any], record: Path | None) -> PageReader:
    """A reader by name, with those of the command's options that were given.

    Raises:
        UserError: if there is no such reader, it takes no such option, or needs one that was not given.
    """
    from .readers.protocol import READERS

    kind = READERS[name]
    given = {k: v for k, v in options.items() if v is not None}
    takes = inspect.signature(kind).parameters
    if "record" in takes:
        if record is None:
            raise UserError(f"the reader {name} needs --record FOLDER, where the answers lie")
        given["record"] = record
    if wrong := sorted(given.keys() - takes.keys()):
        raise UserError(f"the reader {name} takes no --{wrong[0]}\n--reader openai does.")
    missing = [k for k, p in takes.items() if p.default is inspect.Parameter.empty and k not in given]
    if missing:
        raise UserError(f"the reader {name} needs --{missing[0]}")
    made: PageReader = kind(**given)
    if record is not None and "record" not in takes:
        made = READERS["recorded"](record, made)
    return made


@contextlib.contextmanager
def journal_folder(out: Path) -> Iterator[Path]:
    """The folder beside `out` that holds what was read so far; only one call at a time has it.

    Raises:
        UserError: if another call has it, or it can't be made.
    """
    from filelock import FileLock, Timeout

    folder = out.with_name(f".{out.name}{JOURNALS}")
    lock = out.with_name(f".{out.name}.lock")
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with FileLock(lock, timeout=0):
            yield folder
        lock.unlink(missing_ok=True)
    except Timeout:
        raise UserError(f"{out}: another call is writing it\nWait for it, or choose another --out.") from None
    except OSError as error:
        raise UserError(f"{out}: can't be written: {error.strerror or error}") from None


def _check_out(out: Path) -> None:
    """Refuse to take the place of a file that is no chunks.jsonl."""
    if out.is_dir():
        raise UserError(f"{out}: is a folder; --out is a file")
    if out.is_file() and out.stat().st_size:
        try:
            with open(out, encoding="utf-8") as file:
                known = "schema_version" in json.loads(file.readline())
        except (OSError, ValueError, TypeError):
            known = False
        if not known:
            raise UserError(f"{out}: holds something else than chunks, which would be lost\nChoose another --out.")


def _one(
    file: Path,
    reader: PageReader,
    name: str,
    pages: str | None,
    batch_pages: int,
    policy: Any,
    ocr: PageOcr,
    journals: Path,
    console: Console,
) -> DocumentResult:
    from ...datamodules.chunking.pages import Document, parse_pages
    from .reading import read_document

    with Document(file, ocr) as document:
        numbers = parse_pages(pages, document.num_pages)
        journal = journals / f"{document.sha256[:32]}.jsonl"
        with _progress(file.name, len(numbers), console) as advance:
            return read_document(document, reader, name, numbers, batch_pages, policy, journal, advance)


@contextlib.contextmanager
def _progress(name: str, total: int, console: Console) -> Iterator[Callable[[int], None]]:
    """A bar where stderr is a terminal, a line at every tenth of the pages elsewhere."""
    if sys.stderr.isatty():
        from rich.progress import Progress

        with Progress(console=console, transient=True) as bar:
            task = bar.add_task(name[:40], total=total)
            yield lambda pages: bar.advance(task, pages)
        return
    done = 0

    def advance(pages: int) -> None:
        nonlocal done
        before, done = done, done + pages
        if total >= 40 and done * 10 // total > before * 10 // total:
            console.print(f"{name}: {done} of {total} pages", markup=False)

    yield advance


def _report(results: list[DocumentResult], reader: PageReader, out: Path, html: Path | None, console: Console) -> None:
    from .readers.protocol import CostedReader

    def say(text: str) -> None:
        console.print(text, markup=False)

    for r in results:
        say(summary(r))
        for v in r.violations[:3]:
            say(f"  {v.rule}, chunk {v.chunk}: {v.sentence}")
        if r.ranges.wrong:
            say(f"  page ranges not borne out by the text layer: {', '.join(r.ranges.wrong[:8])}")
        if r.ocr_seconds or r.layout_seconds or r.pictures_passed_over:
            say(f"  {ocr_summary(r)}")
        if r.pages_without_text:
            shown = ", ".join(map(str, r.pages_without_text[:8]))
            more = " …" if len(r.pages_without_text) > 8 else ""
            console.print(f"[yellow]  no text on {len(r.pages_without_text)} pages: {shown}{more}[/yellow]")
    if isinstance(reader, CostedReader):
        say(reader.usage())
    say(f"{sum(len(r.chunks) for r in results)} chunks in {out}" + (f", shown in {html}" if html else ""))


def ocr_summary(result: DocumentResult) -> str:
    """What reading off pictures took, in a line."""
    whole = max(result.seconds, 1e-9)
    passed = result.pictures_passed_over
    over = f", {passed} smaller pictures not read" if passed else ""
    return (
        f"{len(result.pages_by_ocr)} pages read off their picture, "
        f"{sum(c.kind == 'figure' for c in result.chunks)} figures{over}: OCR {result.ocr_seconds:.1f} s "
        f"({100 * result.ocr_seconds / whole:.0f} % of all), layout network {result.layout_seconds:.1f} s "
        f"({100 * result.layout_seconds / whole:.0f} %); recall and invented tokens are against what was read there"
    )


def summary(result: DocumentResult) -> str:
    """One document's numbers in a line."""
    words, found = sum(p.num_tokens for p in result.fidelity), sum(p.found for p in result.fidelity)
    said, new = sum(p.said for p in result.fidelity), sum(p.invented for p in result.fidelity)
    dropped = sum(p.dropped for p in result.fidelity)
    recall = "no text layer to check against"
    if words:
        share = 100 * dropped / (words + dropped)
        recall = f"token recall {100 * found / words:.2f} % beside {share:.1f} % left out by the rules"
    invented = f", invented {100 * new / said:.3f} %" if words and said else ""
    told = result.ranges
    ranges = f"{told.right} of {told.checked} page ranges borne out"
    if told.moved:
        ranges += f" (moved a page on, {told.moved_right} of {told.moved})"
    rate = result.seconds / len(result.pages)
    resumed = f", {result.resumed} batches from the call before" if result.resumed else ""
    return (
        f"{result.source}: {len(result.pages)} pages, {len(result.chunks)} chunks, {len(result.violations)} violations "
        f"({result.answer_violations} in the reader's answers), {recall}{invented}, {ranges}, "
        f"{rate:.3f} s a page{resumed}"
    )
