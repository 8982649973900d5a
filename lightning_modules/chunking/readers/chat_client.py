"""The chat endpoint of an OpenAI-compatible server: retries with back-off, and an account of tokens and money."""

from __future__ import annotations

import json
import os
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from ....registry import UserError

RETRIED = frozenset({408, 409, 425, 429, 500, 502, 503, 504, 529})
LONGEST_WAIT_S = 60.0
MAX_ANSWER_BYTES = 64 << 20
Message = dict[str, Any]


@dataclass(frozen=True)
class Completion:
    """A server's answer.

    Attributes:
        text: what the model wrote.
        cut_off: whether the limit of output tokens ended it.
    """

    text: str
    cut_off: bool


class ChatClient:
    """Asks a server's `/chat/completions`.

    Args:
        url: the server's base, such as `http://127.0.0.1:8000/v1`.
        model: name of the model, as the server knows it.
        key_variable: environment variable that holds the key; without it, none is sent.
        retries: how often a call is tried again.
        wait_s: first pause before that; it doubles each time.
        timeout_s: how long one answer may take.
        price_in: price of a million tokens that are sent; in whatever currency `max_cost` is.
        price_out: price of a million tokens that are written.
        max_cost: no further call is made once this is spent; None for no limit.
        min_interval_s: least time between two calls.
        sleep: what waits; a test's own.
    """

    def __init__(
        self,
        url: str,
        model: str,
        key_variable: str = "OPENAI_API_KEY",
        retries: int = 4,
        wait_s: float = 1.0,
        timeout_s: float = 600.0,
        price_in: float = 0.0,
        price_out: float = 0.0,
        max_cost: float | None = None,
        min_interval_s: float = 0.0,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        if not url.startswith(("http://", "https://")):
            raise UserError(f"--url '{url[:80]}': the server's base begins with http:// or https://")
        if max_cost is not None and not (price_in or price_out):
            raise UserError("--max_cost needs prices: --price_in and --price_out, for a million tokens each")
        self.url, self.model, self.key_variable = url.rstrip("/") + "/chat/completions", model, key_variable
        self.retries, self.wait_s, self.timeout_s = retries, wait_s, timeout_s
        self.price_in, self.price_out, self.max_cost = price_in, price_out, max_cost
        self.min_interval_s, self.sleep = min_interval_s, sleep
        self.calls = self.tokens_in = self.tokens_out = 0
        self._last_call = float("-inf")

    @property
    def cost(self) -> float:
        """What was spent so far."""
        return (self.tokens_in * self.price_in + self.tokens_out * self.price_out) / 1e6

    def complete(self, messages: Sequence[Message], temperature: float, max_tokens: int) -> Completion:
        """The model's answer.

        Raises:
            UserError: if the budget is spent, or the server refuses, fails again and again, or answers no completion.
        """
        if self.max_cost is not None and self.cost >= self.max_cost:
            raise UserError(
                f"--max_cost {self.max_cost:g} is spent: {self.cost:.4f} for {self.calls} calls\n"
                "What was read is kept; call again with a higher limit to go on."
            )
        body = {
            "model": self.model,
            "messages": list(messages),
            "temperature": temperature,
            "max_tokens": max_tokens,
        }
        answer = self._post(json.dumps(body).encode())
        try:
            choice = answer["choices"][0]
            text = choice["message"]["content"]
            usage = answer.get("usage") or {}
            self.tokens_in += int(usage.get("prompt_tokens", 0))
            self.tokens_out += int(usage.get("completion_tokens", 0))
            reason = choice.get("finish_reason")
        except (KeyError, IndexError, TypeError, ValueError, AttributeError):
            raise UserError(f"{self.url}: answered something else than a completion: {str(answer)[:160]}") from None
        return Completion(text if isinstance(text, str) else "", reason == "length")

    def _post(self, body: bytes) -> Any:
        headers = {"Content-Type": "application/json"}
        if key := os.environ.get(self.key_variable):
            headers["Authorization"] = f"Bearer {key}"
        pause = self.wait_s
        for attempt in range(self.retries + 1):
            self.sleep(max(0.0, self._last_call + self.min_interval_s - time.monotonic()))
            self._last_call = time.monotonic()
            self.calls += 1
            try:
                request = urllib.request.Request(self.url, body, headers)
                with urllib.request.urlopen(request, timeout=self.timeout_s) as response:
                    return json.loads(response.read(MAX_ANSWER_BYTES))
            except urllib.error.HTTPError as error:
                said = error.read(2000).decode("utf-8", "replace").strip()
                problem, wait = f"status {error.code}: {said[:160]}", error.headers.get("Retry-After", "")
                if error.code not in RETRIED:
                    raise UserError(f"{self.url}: {problem}") from None
            except (OSError, ValueError) as error:  # no connection, a cut one, or no JSON
                problem, wait = str(getattr(error, "reason", error))[:160], ""
            if attempt < self.retries:
                asked = float(wait) if wait.isdigit() else 0.0
                self.sleep(min(max(pause, asked), LONGEST_WAIT_S))
                pause *= 2
        raise UserError(
            f"{self.url}: {problem}\nTried {self.retries + 1} times. Is the server up, and is --url its base?\n"
            "What was read is kept; the same call goes on from there."
        )
