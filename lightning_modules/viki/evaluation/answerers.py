"""Who answers records: a policy with its pictures or without, a server, and controls that see no tested record."""

from __future__ import annotations

import base64
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any, Protocol

import numpy
import torch
from rich.progress import track

from ....datamodules.viki.module import chosen_images, spread
from ....datamodules.viki.records import Record
from ...chunking.readers.chat_client import ChatClient, Completion
from ..check import mean_paths
from ..policy.policy import VikiPolicy
from ..scoring import score
from .kept import KeptAnswers

_CANDIDATES, _TRIED_ON = 60, 300


class Answerer(Protocol):
    """Answers records, one text each.

    Attributes:
        cut_off: how many answers so far the limit of tokens ended.
    """

    cut_off: int

    def answers(self, records: Sequence[Record]) -> list[str]:
        """The answers' texts, in order."""


class PolicyAnswers:
    """A policy's greedy answers.

    Args:
        policy: that answers.
        blind: without pictures.
        views: `all` or `global`; as the policy was trained unless given.
        batch_size: records at a time.
        max_new_tokens: limit of an answer.
    """

    def __init__(
        self, policy: VikiPolicy, *, blind: bool = False, views: str | None = None, batch_size: int = 32,
        max_new_tokens: int = 320,
    ) -> None:  # fmt: skip
        self._policy, self._blind = policy, blind
        self._asked = policy.asked if views is None else replace(policy.asked, views=views)
        self._batch_size, self._max_new_tokens, self.cut_off = batch_size, max_new_tokens, 0

    def answers(self, records: Sequence[Record]) -> list[str]:
        """The answers' texts, in order."""
        found: list[str] = []
        for first in track(range(0, len(records), self._batch_size), "answers", transient=True):
            prompts = [self._asked.prompt(r, blind=self._blind) for r in records[first : first + self._batch_size]]
            batch = self._policy.encode(prompts)
            with torch.autocast(batch.tokens_PN.device.type, torch.bfloat16, enabled=batch.tokens_PN.is_cuda):
                made = self._policy.generate(batch, greedy=True, max_new_tokens=self._max_new_tokens)
            last_G1 = made.tokens_GL.gather(1, made.mask_GL.sum(1, keepdim=True) - 1)
            self.cut_off += int((last_G1 != self._policy.texts.end).sum())
            found += made.texts
        return found


class ServerAnswers:
    """A model behind a server that speaks OpenAI's protocol, zero-shot, with the records' full prompts.

    Args:
        client: the server's.
        blind: send no pictures.
        views: `all` or `global`.
        max_new_tokens: limit of an answer.
        kept: where answers are kept, and those of an earlier call found.
    """

    def __init__(
        self, client: ChatClient, *, blind: bool = False, views: str = "all", max_new_tokens: int = 2048,
        kept: KeptAnswers | None = None,
    ) -> None:  # fmt: skip
        self._client, self._blind, self._views, self._max_new_tokens = client, blind, views, max_new_tokens
        self._kept, self.cut_off = kept, 0

    def answers(self, records: Sequence[Record]) -> list[str]:
        """The answers' texts, in order; an answer that the limit cuts off stays cut off."""
        found = []
        for record in track(records, "answers", transient=True):
            pictures = () if self._blind else chosen_images(record, self._views)
            content: list[dict[str, Any]] = [{"type": "image_url", "image_url": {"url": _url(p)}} for p in pictures]
            content.append({"type": "text", "text": record.instruction})
            chat: list[dict[str, Any]] = [
                {"role": "system", "content": record.system},
                {"role": "user", "content": content},
            ]
            answer = self._answer(chat)
            self.cut_off += answer.cut_off
            found.append(answer.text)
        return found

    def _answer(self, chat: list[dict[str, Any]]) -> Completion:
        if self._kept is None:
            return self._client.complete(chat, 0.0, self._max_new_tokens)
        key = self._kept.key(chat, self._max_new_tokens)
        known = self._kept.get(key)
        if known is not None:
            return known
        answer = self._client.complete(chat, 0.0, self._max_new_tokens)
        self._kept.add(key, answer)
        return answer


def _url(picture: bytes) -> str:
    kind = "png" if picture[:4] == b"\x89PNG" else "jpeg"
    return f"data:image/{kind};base64,{base64.b64encode(picture).decode()}"


class ConstantAnswer:
    """Of each level, the one answer that is worth most on other records, always.

    Level 1 and 2: the best of the commonest right answers; level 3: the mean of the right paths.

    Args:
        known: records whose answers may be known, some of every level that is asked.
    """

    cut_off = 0

    def __init__(self, known: Sequence[Record]) -> None:
        self._of_level = {
            level: _best_constant([r for r in known if r.level == level]) for level in {r.level for r in known}
        }

    def answers(self, records: Sequence[Record]) -> list[str]:
        """The same text for all records of a level."""
        return [self._of_level[record.level] for record in records]


def _best_constant(known: list[Record]) -> str:
    if known[0].level == 3:
        return wrapped(str(numpy.rint(mean_paths(known)).astype(int).tolist()))
    common = [answer for answer, _ in Counter(r.answer() for r in known).most_common(_CANDIDATES)]
    tried = spread(known, _TRIED_ON)
    return max((wrapped(a) for a in common), key=lambda text: sum(score(r, text).accuracy for r in tried))


class RandomAnswers:
    """The right answer of another record of the level, drawn at random.

    Args:
        known: records whose answers may be known, some of every level that is asked.
        seed: of the draws.
    """

    cut_off = 0

    def __init__(self, known: Sequence[Record], seed: int = 0) -> None:
        self._known: Mapping[int, list[str]] = {
            level: [r.answer() for r in known if r.level == level] for level in {r.level for r in known}
        }
        self._seed = seed

    def answers(self, records: Sequence[Record]) -> list[str]:
        """Texts in order; the same seed draws the same."""
        draw = numpy.random.default_rng(self._seed)
        return [wrapped(self._known[r.level][int(draw.integers(len(self._known[r.level])))]) for r in records]


def wrapped(answer: str) -> str:
    """An answer in the form that is asked for, with nothing thought."""
    return f"<think>\n</think>\n\n<answer>{answer}</answer>"
