"""One round of completions: drawn, rewarded, and with the log-probabilities that the loss needs. No RLlib here.

G = completions (prompts times group, groups adjacent), L = `max_new_tokens`.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy
import torch
from torch import Tensor
from torch.nn import functional

from ....datamodules.viki.records import Record
from ..policy.batch import Prompt
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
    batch = policy.encode(prompts)
    drawn = policy.generate(
        batch, group_size=settings.group_size, temperature=settings.temperature,
        max_new_tokens=settings.max_new_tokens, generator=torch.Generator(policy.device).manual_seed(seed),
    )  # fmt: skip
    generated = time.perf_counter()
    asked = [record for record in records for _ in range(settings.group_size)]
    rewards = [reward_of(r, text, settings.length_counts) for r, text in zip(asked, drawn.texts, strict=True)]
    rewarded = time.perf_counter()
    tokens_GL, mask_GL = _padded(drawn.tokens_GL, settings), _padded(drawn.mask_GL, settings)
    networks = [policy] if reference is None else [policy, reference]
    rows = [
        [forward(p, part, tokens_GL[at], mask_GL[at], settings.temperature)[0] for p in networks]
        for part, at in micro_batches(prompts, settings)
    ]  # fmt: skip
    old_GL, reference_GL = (torch.cat([row[k] for row in rows]).cpu() for k in (0, len(networks) - 1))
    advantages_G = group_advantages(torch.tensor([reward.total for reward in rewards]), settings.group_size)
    return Rollout(
        tokens_GL.cpu(), mask_GL.cpu(), old_GL, reference_GL,
        torch.zeros_like(advantages_G) if settings.zero_advantages else advantages_G, rewards, list(drawn.texts),
        {"generate": generated - begun, "reward": rewarded - generated, "log_probs": time.perf_counter() - rewarded},
    )  # fmt: skip


@torch.no_grad()
def answer(policy: VikiPolicy, records: Sequence[Record], settings: GRPOSettings) -> tuple[list[str], list[Reward]]:
    """The likeliest completion of each record's prompt, and its reward."""
    texts: list[str] = []
    for start in range(0, len(records), settings.minibatch_prompts):
        batch = policy.encode([policy.asked.prompt(r) for r in records[start : start + settings.minibatch_prompts]])
        texts += policy.generate(
            batch, group_size=1, temperature=1.0, max_new_tokens=settings.max_new_tokens, generator=None, greedy=True
        ).texts
    return texts, [reward_of(record, text) for record, text in zip(records, texts, strict=True)]


def micro_batches(prompts: Sequence[Any], settings: GRPOSettings) -> list[tuple[Sequence[Any], slice]]:
    """Prompts cut up into those that go through the network at once, each part with its rows among the completions."""
    size, group = settings.micro_prompts, settings.group_size
    return [
        (prompts[start : start + size], slice(start * group, min(start + size, len(prompts)) * group))
        for start in range(0, len(prompts), size)
    ]


def forward(
    policy: VikiPolicy, prompts: Sequence[Prompt], tokens_GL: Tensor, mask_GL: Tensor, temperature: float
) -> tuple[Tensor, Tensor]:
    """Log-probabilities of completions by the forward pass of training, and entropies, both float32 [G, L] and 0 where
    there is no token; the columns behind the longest completion are not computed.
    """
    tokens_GL, mask_GL = tokens_GL.to(policy.device), mask_GL.to(policy.device)
    length = max(1, int(mask_GL.any(0).sum()))
    found = policy.log_probs_and_entropy(
        policy.encode(prompts), tokens_GL[:, :length], mask_GL[:, :length], temperature
    )
    log_probs_GL, entropy_GL = (functional.pad(f, (0, mask_GL.shape[1] - length)) for f in found)
    return log_probs_GL, entropy_GL


def load_policy(folder: str, blind: bool) -> VikiPolicy:
    """A policy from its folder; with `blind` it gets no pictures, whatever it got before."""
    policy = VikiPolicy.load(folder)
    policy.asked = replace(policy.asked, blind=policy.asked.blind or blind)
    return policy


def _padded(rows_GL: Tensor, settings: GRPOSettings) -> Tensor:
    return functional.pad(rows_GL, (0, settings.max_new_tokens - rows_GL.shape[1]))


def rollout_seed(seed: int, draw: int) -> int:
    """Seed of the completions of the prompts from a place in the training stream on."""
    return int(numpy.random.SeedSequence((seed, draw)).generate_state(1)[0])
