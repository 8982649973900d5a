"""The update of GRPO without Lightning and RLlib: gradients of one minibatch, in micro-batches."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from ..policy.batch import Prompt
from ..policy.policy import VikiPolicy
from .loss import grpo_loss, token_weights
from .rollout import Rollout, log_probs_and_entropy, parts_of
from .settings import GRPOSettings


def add_gradients(
    policy: VikiPolicy, prompts: Sequence[Prompt], found: Rollout, first: int, settings: GRPOSettings,
    backward: Callable[[Tensor], object] = Tensor.backward,
) -> dict[str, Tensor]:  # fmt: skip
    """Add a minibatch's gradients to the policy's.

    Args:
        policy: that is trained.
        prompts: of the minibatch.
        found: the iteration's completions.
        first: row of the minibatch's first completion among them.
        settings: of GRPO.
        backward: what computes gradients of a loss.

    Returns:
        Figures of `grpo_loss` over the whole minibatch.
    """
    s, rows = settings, slice(first, first + len(prompts) * settings.group_size)
    weights_GL = token_weights(found.mask_GL[rows], s.aggregation)
    figures: dict[str, Tensor] = {}
    for part, at in parts_of(prompts, s.micro_prompts, s.group_size):
        here = slice(first + at.start, first + at.stop)
        log_probs_GL, entropy_GL = log_probs_and_entropy(
            policy, policy.encode(part), found.tokens_GL[here], found.mask_GL[here], s.temperature
        )
        old, reference, advantages, weights = (
            column.to(policy.device)
            for column in (found.old_GL[here], found.reference_GL[here], found.advantages_G[here], weights_GL[at])
        )
        loss, told = grpo_loss(
            log_probs_GL, old, reference, advantages, weights, entropy_GL, clip=s.clip, dual_clip=s.dual_clip,
            kl_coefficient=s.kl_coefficient,
        )  # fmt: skip
        backward(loss)
        for name, value in told.items():
            before = figures.get(name, torch.zeros_like(value))
            figures[name] = torch.maximum(before, value) if name == "ratio_gap" else before + value
    return figures
