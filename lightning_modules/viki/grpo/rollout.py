"""One round of completions: drawn, rewarded, and with the log-probabilities that the loss needs. No RLlib here.

G = completions (prompts times group, groups adjacent), L = `max_new_tokens`.
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy
import torch
from torch import Tensor
from torch.nn import functional

from ....datamodules.viki.records import Record
from ..policy.batch import PolicyBatch
from ..policy.policy import VikiPolicy
from ..rewards import REWARDS, Reward, plan_reward_and_verdict
from .loss import group_advantages
from .settings import GRPOSettings


@dataclass
class Rollout:
    """Completions of some prompts, on the CPU.

    Attributes:
        tokens_GL: int64, padded behind the end.
        mask_GL: bool, True up to and with the end.
        old_GL: float32, log-probabilities by the forward pass of training, before any update.
        reference_GL: float32, the same of the fixed reference; equal to `old_GL` where no reference is given.
        advantages_G: float32.
        rewards: format, accuracy and total of each completion.
        texts: the completions.
        seconds: what generating, rewarding and the log-probabilities took.
    """

    tokens_GL: Tensor
    mask_GL: Tensor
    old_GL: Tensor
    reference_GL: Tensor
    advantages_G: Tensor
    rewards: list[Reward]
    texts: list[str]
    seconds: dict[str, float] = field(default_factory=dict)


def reward_of(record: Record, text: str, length_counts: bool = True) -> Reward:
    """The released reward of a completion, by the record's level.

    Args:
        record: what was asked.
        text: the completion.
        length_counts: level 2: whether a plan longer than the record's own is worth nothing.
    """
    if record.level == 2 and not length_counts:
        assert not isinstance(record.ground_truth, str)
        return plan_reward_and_verdict(text, record.ground_truth, length_counts=False)[0]
    reward: Reward = REWARDS[f"viki/l{record.level}"](text, record.ground_truth)
    return reward


@torch.no_grad()
def roll_out(
    policy: VikiPolicy, reference: VikiPolicy | None, records: Sequence[Record], settings: GRPOSettings, seed: int
) -> Rollout:
    """Draw a group of completions for each record and say how much better than its group each one is.

    Args:
        policy: what is trained.
        reference: what it must not stray from; None where the KL does not count.
        records: what is asked.
        settings: of GRPO.
        seed: of the draws; the same policy, records and seed give the same completions.
    """
    prompts, begun = [policy.asked.prompt(record) for record in records], time.perf_counter()
    drawn = [
        policy.generate(
            policy.encode(part), group_size=settings.group_size, temperature=settings.temperature,
            max_new_tokens=settings.max_new_tokens, generator=_generator(policy, seed, at.start),
        )
        for part, at in parts_of(prompts, settings.draw_prompts, settings.group_size)
    ]  # fmt: skip
    texts = [text for part in drawn for text in part.texts]
    tokens_GL, mask_GL = (
        torch.cat([_padded(rows, settings) for rows in columns])
        for columns in ([part.tokens_GL for part in drawn], [part.mask_GL for part in drawn])
    )
    generated = time.perf_counter()
    asked = [record for record in records for _ in range(settings.group_size)]
    rewards = [reward_of(r, text, settings.length_counts) for r, text in zip(asked, texts, strict=True)]
    rewarded = time.perf_counter()
    networks = [policy] if reference is None else [policy, reference]
    rows = []
    for part, at in parts_of(prompts, settings.micro_prompts, settings.group_size):
        batch = policy.encode(part)
        rows.append([log_probs(p, batch, tokens_GL[at], mask_GL[at], settings.temperature) for p in networks])
    old_GL, reference_GL = (torch.cat([row[k] for row in rows]).cpu() for k in (0, len(networks) - 1))
    advantages_G = group_advantages(torch.tensor([reward.total for reward in rewards]), settings.group_size)
    return Rollout(
        tokens_GL.cpu(), mask_GL.cpu(), old_GL, reference_GL,
        torch.zeros_like(advantages_G) if settings.zero_advantages else advantages_G, rewards, texts,
        {"generate": generated - begun, "reward": rewarded - generated, "log_probs": time.perf_counter() - rewarded},
    )  # fmt: skip


@torch.no_grad()
def answer(policy: VikiPolicy, records: Sequence[Record], settings: GRPOSettings) -> tuple[list[str], list[Reward]]:
    """The likeliest completion of each record's prompt, and its reward."""
    texts: list[str] = []
    for part, _ in parts_of(records, settings.draw_prompts, 1):
        batch = policy.encode([policy.asked.prompt(record) for record in part])
        texts += policy.generate(
            batch, group_size=1, temperature=1.0, max_new_tokens=settings.max_new_tokens, generator=None, greedy=True
        ).texts
    return texts, [reward_of(record, text) for record, text in zip(records, texts, strict=True)]


def parts_of(prompts: Sequence[Any], size: int, group_size: int) -> list[tuple[Sequence[Any], slice]]:
    """Prompts cut up into parts of `size`, each with its rows among the completions."""
    return [
        (prompts[start : start + size], slice(start * group_size, min(start + size, len(prompts)) * group_size))
        for start in range(0, len(prompts), size)
    ]


def log_probs(policy: VikiPolicy, batch: PolicyBatch, tokens_GL: Tensor, mask_GL: Tensor, temperature: float) -> Tensor:
    """Log-probabilities of completions by the forward pass of training, float32 [G, L] and 0 where there is no token;
    the columns behind the longest completion are not computed.
    """
    tokens, mask = _trimmed(policy, tokens_GL, mask_GL)
    found = policy.log_probs(batch, tokens, mask, temperature)
    return functional.pad(found, (0, mask_GL.shape[1] - mask.shape[1]))


def log_probs_and_entropy(
    policy: VikiPolicy, batch: PolicyBatch, tokens_GL: Tensor, mask_GL: Tensor, temperature: float
) -> tuple[Tensor, Tensor]:
    """As `log_probs`, and the entropy of each token's distribution, float32 [G, L], without gradient."""
    tokens, mask = _trimmed(policy, tokens_GL, mask_GL)
    found = policy.log_probs_and_entropy(batch, tokens, mask, temperature)
    log_probs_GL, entropy_GL = (functional.pad(f, (0, mask_GL.shape[1] - mask.shape[1])) for f in found)
    return log_probs_GL, entropy_GL


def _trimmed(policy: VikiPolicy, tokens_GL: Tensor, mask_GL: Tensor) -> tuple[Tensor, Tensor]:
    """Completions on the policy's device, without the columns behind the longest."""
    length = max(1, int(mask_GL.any(0).sum()))
    return tokens_GL[:, :length].to(policy.device), mask_GL[:, :length].to(policy.device)


def load_policy(folder: str, data: Mapping[str, Any]) -> VikiPolicy:
    """A policy from its folder, asked as in earlier training but for what the data says.

    Args:
        folder: of the policy.
        data: arguments of the datamodule: `prompts` and `views` count where given, and `blind`.
    """
    policy = VikiPolicy.load(folder)
    given = {name: data[name] for name in ("prompts", "views") if data[name] is not None}
    policy.asked = replace(policy.asked, **given, blind=policy.asked.blind or data["blind"])
    return policy


def _padded(rows_GL: Tensor, settings: GRPOSettings) -> Tensor:
    return functional.pad(rows_GL, (0, settings.max_new_tokens - rows_GL.shape[1]))


def rollout_seed(seed: int, draw: int) -> int:
    """Seed of the completions of the prompts from a place in the training stream on."""
    return int(numpy.random.SeedSequence((seed, draw)).generate_state(1)[0])


def _generator(policy: VikiPolicy, seed: int, first_row: int) -> torch.Generator:
    """Of the draws of a part of the prompts; each part has its own."""
    return torch.Generator(policy.device).manual_seed(rollout_seed(seed, first_row) if first_row else seed)
