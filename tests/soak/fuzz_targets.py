"""What is fuzzed, as functions of bytes; as a program, `fuzz_targets.py NAME [FLAGS]`, atheris drives one."""

from __future__ import annotations

import functools
import importlib
import io
import math
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


@functools.cache
def _viki_records() -> tuple[tuple[int, object], ...]:
    """(level, ground truth) of some records: every sub-family's plan, robots to choose, two arms' paths."""
    from fulgurite.datamodules.viki.generator import draw_record

    plans = {r.family: r.ground_truth for r in (draw_record(2, "train", k, 0) for k in range(60))}
    chosen = [(1, draw_record(1, "train", k, 0).ground_truth) for k in range(3)]
    return (*chosen, *((2, truth) for truth in plans.values()), (3, str([[[n, 2 * n] for n in range(5)]] * 2)))


def viki_rewards(data: bytes) -> None:
    """Rewards and checker: any text has parts from 0 to 1 and a verdict in one sentence, by the released rules and by
    the mended ones; none raises.
    """
    from fulgurite.datamodules.viki.checker import check_plan
    from fulgurite.lightning_modules.viki.rewards import REWARDS

    text = data[1:].decode("utf-8", "replace")
    records = _viki_records()
    level, truth = records[data[0] % len(records)] if data else records[0]
    reward = REWARDS[f"viki/l{level}"](text, truth)
    assert all(math.isfinite(part) and 0 <= part <= 1 + 1e-9 for part in reward)
    if level == 2:
        for strict in (False, True):
            verdict = check_plan(truth, text, strict=strict)
            assert verdict.ok == (verdict.code is None) and len(verdict.sentence.splitlines()) == 1


TARGETS = {"contract": contract, "pdf": pdf, "viki_rewards": viki_rewards}
INSTRUMENTED = {
    "contract": "fulgurite.datamodules.chunking.contract",
    "pdf": "fulgurite.datamodules.chunking.layout.blocks",
    "viki_rewards": "fulgurite.lightning_modules.viki.rewards",
}
"""Target -> module that is read with atheris's counters in it, and what it imports of its paper."""


def seeds(name: str) -> list[bytes]:
    """Inputs to begin with."""
    if name == "contract":
        head = "[HEAD]Pump > Care > Filter[/HEAD]\n"
        parts = ("[CONTINUES]False[/CONTINUES]\n", "[continues] Partial [/Continues]", "[CONTINUES]True")
        bodies = ("1. Close it.\n2. Open it.\n", "| a | b |\n|---|---|\n| 1 | 2 |\n", "see [1] \\[HEAD] and A > B\n")
        return [(part + head + body).encode() for part in parts for body in bodies]
    if name == "viki_rewards":
        answers = [
            f"<think>so</think>\n<answer>{truth['time_steps'] if isinstance(truth, dict) else truth}</answer>"
            for _, truth in _viki_records()
        ]
        return [bytes([number]) + answer.encode() for number, answer in enumerate(answers)]
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

    name = sys.argv.pop(1)
    with atheris.instrument_imports(include=["fulgurite.datamodules.chunking", "fulgurite.datamodules.viki",
                                             "fulgurite.lightning_modules.viki.rewards"]):  # fmt: skip
        importlib.import_module(INSTRUMENTED[name])
    with tempfile.TemporaryDirectory() as corpus:
        for number, data in enumerate(seeds(name)):
            (Path(corpus) / str(number)).write_bytes(data)
        atheris.Setup([sys.argv[0], *sys.argv[1:], corpus], TARGETS[name])
        atheris.Fuzz()


if __name__ == "__main__":
    main()
