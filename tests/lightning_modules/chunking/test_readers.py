"""The readers that ask a server, and the recorded ones; the server is a process that answers by a script."""

from __future__ import annotations

import base64
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from fulgurite.datamodules.chunking.context import ChunkContext
from fulgurite.datamodules.chunking.contract import TaggedChunk, parse
from fulgurite.datamodules.chunking.pages import Document, PageBatch
from fulgurite.datamodules.chunking.places import place_chunks
from fulgurite.lightning_modules.chunking.readers.layout import LayoutReader
from fulgurite.lightning_modules.chunking.readers.openai import OpenAIReader
from fulgurite.lightning_modules.chunking.readers.protocol import READERS, PageReader
from fulgurite.lightning_modules.chunking.readers.recorded import RecordedReader
from fulgurite.registry import UserError

HEAD = ("Pump P-100 Owner Manual", "1 Mounting", "1.1 Fixing the base")
STEPS = "\n".join(f"{k}. Turn bolt number {k} until it is hand tight." for k in range(1, 5))
LATER = "\n".join(f"{k}. Turn bolt number {k} until it is hand tight." for k in range(5, 8))
INTRO = (
    "Read all of this before you begin. The pump is heavy and should be lifted by two persons,\n"
    "one at each end. Keep the packaging until the pump has run for a day without a fault.\nDo it in this order:"
)


def batch_of(document: Document, *numbers: int) -> PageBatch:
    return next(document.batches(numbers, len(numbers)))


def quick(url: str, **options: Any) -> OpenAIReader:
    reader = OpenAIReader("tiny", url, **options)
    reader.client.wait_s = 0.01
    return reader


def test_the_registry_has_them() -> None:
    assert list(READERS) == ["layout", "openai", "recorded", "rules"]
    assert isinstance(LayoutReader(), PageReader) and READERS["openai"] is OpenAIReader


def test_what_is_sent_and_what_comes_back(
    server: Any, manual: Path, tagged: Callable[..., str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SOME_VARIABLE", "word")
    answer = tagged(("False", f"{INTRO}\n{STEPS}"))
    reader = quick(server.start({"text": answer}), key_variable="SOME_VARIABLE", dpi=72, price_in=2.0, price_out=10.0)
    context = ChunkContext().advance([TaggedChunk("False", HEAD, "Some words of the page before.")])
    with Document(manual) as document:
        assert parse(reader.read(batch_of(document, 2), context)).chunks == parse(answer).chunks
    [asked] = server.requests()
    assert asked["path"] == "/v1/chat/completions" and asked["authorization"] == "Bearer word"
    assert (asked["body"]["model"], asked["body"]["temperature"]) == ("tiny", 0.1)
    words, picture = asked["body"]["messages"][1]["content"]
    assert "Some words of the page before." in words["text"] and " > ".join(HEAD) in words["text"]
    assert base64.b64decode(picture["image_url"]["url"].partition("base64,")[2]).startswith(b"\xff\xd8\xff")
    assert reader.client.cost == pytest.approx((1000 * 2 + 100 * 10) / 1e6)
    assert "1100 a page" in reader.usage()


def test_a_broken_answer_is_asked_for_again_with_what_was_wrong(
    server: Any, manual: Path, tagged: Callable[..., str]
) -> None:
    good = tagged(("False", f"{INTRO}\n{STEPS}"))
    reader = quick(server.start({"text": "Here you are!\n" + INTRO + STEPS}, {"text": good}))
    with Document(manual) as document:
        assert len(parse(reader.read(batch_of(document, 2), ChunkContext())).chunks) == 1
    assert reader.asked_again == 1
    assert "text_outside" in server.requests()[1]["body"]["messages"][-1]["content"]


def test_an_answer_that_is_cut_off_halves_the_batch(server: Any, manual: Path, tagged: Callable[..., str]) -> None:
    script = [
        {"text": tagged(("False", "cut")), "reason": "length"},
        {"text": tagged(("False", f"{INTRO}\n{STEPS}"))},
        {"text": tagged(("True", LATER))},
    ]
    reader = quick(server.start(*script), repairs=0)
    with Document(manual) as document:
        chunks = parse(reader.read(batch_of(document, 2, 3), ChunkContext())).chunks
    assert [(c.continues, c.text.splitlines()[-1][:2]) for c in chunks] == [("False", "4."), ("True", "7.")]
    assert reader.halved == 1
    asked = server.requests()[2]["body"]["messages"][1]["content"]
    assert "after step 4" in asked[0]["text"] and "page 3" in asked[0]["text"] and len(asked) == 2


def test_one_page_that_is_cut_off_says_what_to_do(server: Any, manual: Path) -> None:
    reader = quick(server.start({"text": "x", "reason": "length"}))
    with Document(manual) as document, pytest.raises(UserError, match="page 2: the answer is longer"):
        reader.read(batch_of(document, 2), ChunkContext())


def test_a_busy_server_is_asked_again_and_a_refusal_is_not(
    server: Any, manual: Path, tagged: Callable[..., str]
) -> None:
    good = tagged(("False", f"{INTRO}\n{STEPS}"))
    reader = quick(server.start({"status": 429}, {"status": 503}, {"text": good}, {"status": 401, "raw": "no"}))
    waits: list[float] = []
    reader.client.sleep = waits.append
    with Document(manual) as document:
        reader.read(batch_of(document, 2), ChunkContext())
        assert [w for w in waits if w] == [0.01, 0.02]
        with pytest.raises(UserError, match="status 401"):
            reader.read(batch_of(document, 2), ChunkContext())
    assert len(server.requests()) == 4


def test_no_server_and_no_completion_are_errors_of_few_lines(server: Any, manual: Path) -> None:
    reader = quick("http://127.0.0.1:9/v1", retries=1)
    with Document(manual) as document:
        with pytest.raises(UserError, match="Tried 2 times"):
            reader.read(batch_of(document, 2), ChunkContext())
        other = quick(server.start({"raw": {"error": "none"}}))
        with pytest.raises(UserError, match="something else than a completion"):
            other.read(batch_of(document, 2), ChunkContext())


def test_the_budget_stops_the_next_call(server: Any, manual: Path, tagged: Callable[..., str]) -> None:
    good = tagged(("False", f"{INTRO}\n{STEPS}"))
    reader = quick(server.start({"text": good}), price_in=100.0, max_cost=0.05)
    with Document(manual) as document:
        reader.read(batch_of(document, 2), ChunkContext())
        with pytest.raises(UserError, match="is spent"):
            reader.read(batch_of(document, 2), ChunkContext())
    assert len(server.requests()) == 1


class Counting(LayoutReader):
    calls = 0

    def read(self, batch: PageBatch, context: ChunkContext) -> str:
        self.calls += 1
        return super().read(batch, context)


def test_recorded_answers_come_without_the_reader(manual: Path, tmp_path: Path) -> None:
    inner = Counting()
    folder = tmp_path / "answers"
    with Document(manual) as document:
        batch, context = batch_of(document, 2, 3), ChunkContext()
        first = RecordedReader(folder, inner).read(batch, context)
        assert RecordedReader(folder, inner).read(batch, context) == first and inner.calls == 1
        alone = RecordedReader(folder)
        assert alone.read(batch, context) == first
        with pytest.raises(UserError, match="holds no answer for pages 4 to 4"):
            alone.read(batch_of(document, 4), context)
        with pytest.raises(UserError, match="holds no answer"):
            alone.read(batch, ChunkContext(headings=HEAD))
    with pytest.raises(UserError, match="recorded with another target_chars"):
        RecordedReader(folder, Counting(target_chars=5))
    with pytest.raises(UserError, match="holds no recorded answers"):
        RecordedReader(tmp_path / "none")


def test_a_damaged_record_is_named(manual: Path, tmp_path: Path) -> None:
    with Document(manual) as document:
        reader = RecordedReader(tmp_path / "a", Counting())
        reader.read(batch_of(document, 2), ChunkContext())
        [file] = [f for f in (tmp_path / "a").iterdir() if f.name != "reader.json"]
        file.write_text(json.dumps({"schema_version": 1}), encoding="utf-8")
        with pytest.raises(UserError, match="is no recorded answer"):
            reader.read(batch_of(document, 2), ChunkContext())


def test_places_are_found_for_readers_that_give_text_alone(manual: Path) -> None:
    with Document(manual) as document:
        batch = batch_of(document, 2, 3, 4, 5)
        known = LayoutReader().read_placed(batch, ChunkContext()).chunks
        found = place_chunks([c.tagged for c in known], batch)
    assert [(c.page_start, c.page_end) for c in found] == [(c.page_start, c.page_end) for c in known]
    for ours, theirs in zip(found, known, strict=True):
        assert ours.boxes, ours.tagged.text
        top, bottom = min(b.y0 for b in theirs.boxes), max(b.y1 for b in theirs.boxes)
        assert all(top - 2 <= (b.y0 + b.y1) / 2 <= bottom + 2 for b in ours.boxes if len(theirs.boxes) == 1)
