"""The paper's way: a vision-language model behind an OpenAI-compatible server sees the pages and writes the chunks."""

from __future__ import annotations

import base64
import io
from collections.abc import Callable

from ....datamodules.chunking.context import ChunkContext
from ....datamodules.chunking.contract import TaggedChunk, parse, write
from ....datamodules.chunking.pages import Page, PageBatch
from ....datamodules.chunking.rules import Violation, validate_answer
from ....registry import UserError
from .chat_client import ChatClient, Message
from .prompt import RULES_TEXT, context_text, prompt_digest, repair_text
from .protocol import READERS

JPEG_QUALITY = 90


@READERS.register("openai", paper="2506.16035")
class OpenAIReader:
    """Sends page pictures and the rules to a server (Gemini, vLLM, a local one), and takes the tagged text it writes.

    An answer that breaks the contract is asked for again with what was wrong, and the better of the answers is taken;
    one that the output limit cuts off is asked for again in two halves, the second with the first one's context.

    Args:
        model: name of the model, as the server knows it.
        url: the server's base.
        key_variable: environment variable that holds the key.
        dpi: resolution of the pictures.
        temperature: of the model; the paper's is 0.1.
        max_output_tokens: limit of one answer.
        repairs: how often an answer that breaks the contract is asked for again.
        price_in: price of a million tokens that are sent.
        price_out: price of a million tokens that are written.
        max_cost: no further call is made once this is spent.
        min_interval_s: least time between two calls.
        retries: how often a call that fails is tried again.
        client: makes the client; a test's own.
    """

    def __init__(
        self,
        model: str,
        url: str = "http://127.0.0.1:8000/v1",
        key_variable: str = "OPENAI_API_KEY",
        dpi: int = 150,
        temperature: float = 0.1,
        max_output_tokens: int = 16_000,
        repairs: int = 1,
        price_in: float = 0.0,
        price_out: float = 0.0,
        max_cost: float | None = None,
        min_interval_s: float = 0.0,
        retries: int = 4,
        client: Callable[..., ChatClient] = ChatClient,
    ) -> None:
        self.model, self.dpi, self.temperature = model, dpi, temperature
        self.max_output_tokens, self.repairs = max_output_tokens, repairs
        self.pages_read = self.asked_again = self.halved = 0
        self.client = client(
            url=url,
            model=model,
            key_variable=key_variable,
            retries=retries,
            price_in=price_in,
            price_out=price_out,
            max_cost=max_cost,
            min_interval_s=min_interval_s,
        )

    def settings(self) -> dict[str, str]:
        """Model, resolution, temperature and prompt: what an answer depends on."""
        return {
            "model": self.model,
            "dpi": str(self.dpi),
            "temperature": str(self.temperature),
            "max_output_tokens": str(self.max_output_tokens),
            "prompt": prompt_digest(),
        }

    def usage(self) -> str:
        """Calls, tokens and price, in all and a page."""
        c, pages = self.client, max(self.pages_read, 1)
        return (
            f"{c.calls} calls ({self.asked_again} asked again, {self.halved} batches halved), {c.tokens_in} tokens in, "
            f"{c.tokens_out} out, {(c.tokens_in + c.tokens_out) / pages:.0f} a page; cost {c.cost:.4f}, "
            f"{c.cost / pages:.5f} a page"
        )

    def read(self, batch: PageBatch, context: ChunkContext) -> str:
        """The batch's chunks in tagged text.

        Raises:
            UserError: if the server fails, the budget is spent, or the limit cuts off the answer for one page.
        """
        answer = self._ask(batch, context)
        if answer is None:
            if len(batch.pages) == 1:
                raise UserError(
                    f"page {batch.numbers[0]}: the answer is longer than {self.max_output_tokens} tokens\n"
                    "Raise --max_output_tokens, or leave the page out with --pages."
                )
            self.halved += 1
            first, second = batch.halves()
            begun = self.read(first, context)
            later = context.advance(parse(begun, context.headings).chunks)
            return f"{begun}\n\n{self.read(second, later)}"
        self.pages_read += len(batch.pages)
        return answer

    def _ask(self, batch: PageBatch, context: ChunkContext) -> str | None:
        """The best answer for a batch; None if the output limit cut it off."""
        messages = self._messages(batch, context)
        best: tuple[int, str] | None = None
        for attempt in range(self.repairs + 1):
            done = self.client.complete(messages, self.temperature, self.max_output_tokens)
            if done.cut_off:
                return best[1] if best else None
            texts = [page.text for page in batch.pages]
            wrong = validate_answer(done.text, context, texts, first_batch=not context.headings)
            if best is None or len(wrong) < best[0]:
                best = (len(wrong), done.text)
            if not wrong:
                break
            if attempt < self.repairs:
                self.asked_again += 1
                messages = [*messages, *_again(done.text, wrong)]
        return mended(best[1], context) if best else None

    def _messages(self, batch: PageBatch, context: ChunkContext) -> list[Message]:
        words = context_text(context, batch.numbers[0], batch.numbers[-1])
        content: list[Message] = [{"type": "text", "text": words}]
        content += [{"type": "image_url", "image_url": {"url": picture_url(page, self.dpi)}} for page in batch.pages]
        return [{"role": "system", "content": RULES_TEXT}, {"role": "user", "content": content}]


def _again(answer: str, wrong: list[Violation]) -> list[Message]:
    return [{"role": "assistant", "content": answer}, {"role": "user", "content": repair_text(wrong)}]


def mended(answer: str, context: ChunkContext) -> str:
    """An answer without its empty chunks and without those that repeat what was carried over."""
    chunks = parse(answer, context.headings).chunks
    bad = {v.chunk for v in validate_answer(answer, context) if v.rule in ("empty_chunk", "repeats_context")}
    kept: list[TaggedChunk] = [c for k, c in enumerate(chunks, 1) if k not in bad]
    return write(kept)


def picture_url(page: Page, dpi: int) -> str:
    """A page's picture as a data URL."""
    out = io.BytesIO()
    page.picture(dpi).save(out, "JPEG", quality=JPEG_QUALITY)
    return "data:image/jpeg;base64," + base64.b64encode(out.getvalue()).decode()
