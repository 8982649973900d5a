"""The loss of GRPO as pure functions: group advantages, clipped ratio, KL to a reference, and how tokens are averaged.

G = completions (a multiple of the group's size, groups adjacent), L = tokens of a completion.
"""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor

Aggregation = Literal["token_mean", "sequence_mean"]
_EPS = 1e-6
_KL_LIMIT = 10.0
_LOG_LIMIT = 20.0  # of logarithms before exp: beyond it nothing has a gradient, and from 88 on exp overflows


def group_advantages(rewards_G: Tensor, group_size: int) -> Tensor:
    """(reward - mean) / (standard deviation + 1e-6) within each group, float32 [G].

    As the released code has it (verl's `grpo`): the standard deviation is the unbiased one, and a group of one keeps
    its reward (mean 0, standard deviation 1).

    Args:
        rewards_G: rewards, groups adjacent.
        group_size: completions of one prompt.

    Raises:
        ValueError: if the rewards are no whole groups.
    """
    if group_size < 1 or len(rewards_G) % group_size:
        raise ValueError(f"{len(rewards_G)} rewards are no whole groups of {group_size}")
    rewards = rewards_G.float().reshape(-1, group_size)
    if group_size == 1:
        return (rewards / (1 + _EPS)).reshape(-1)
    spread = rewards.std(1, keepdim=True, correction=1)
    return ((rewards - rewards.mean(1, keepdim=True)) / (spread + _EPS)).reshape(-1)


def token_weights(mask_GL: Tensor, aggregation: Aggregation) -> Tensor:
    """What each token counts in a mean over all completions, float32 [G, L]; sums to 1 if every one has a token.

    With `token_mean` every token counts the same, with `sequence_mean` every completion. Weights of a whole minibatch,
    cut up for micro-batches or several learners, give the same loss and gradient as uncut: the parts are summed.

    Args:
        mask_GL: bool, True up to and with the end of a completion.
        aggregation: which mean.
    """
    mask = mask_GL.float()
    if aggregation == "token_mean":
        return mask / mask.sum().clamp(min=1)
    return mask / mask.sum(1, keepdim=True).clamp(min=1) / len(mask)


def low_variance_kl(log_probs_GL: Tensor, reference_GL: Tensor) -> Tensor:
    """e^d - d - 1 with d = reference - policy, at most 10 in size: an estimate of KL(policy, reference) that is never
    negative (Schulman's k3).
    """
    difference = (reference_GL - log_probs_GL).clamp(-_LOG_LIMIT, _LOG_LIMIT)
    return (difference.exp() - difference - 1).clamp(-_KL_LIMIT, _KL_LIMIT)


def clipped_objective(ratio_GL: Tensor, advantages_G: Tensor, clip: float, dual_clip: float) -> Tensor:
    """The loss of each token, float32 [G, L]: -min(ratio A, clip(ratio) A), and at most -dual_clip A where A < 0.

    Args:
        ratio_GL: pi(token) / pi_old(token).
        advantages_G: advantage of each completion.
        clip: how far the ratio may be from 1 before it stops to count.
        dual_clip: bound of the loss of a token that became much likelier although its completion was bad.
    """
    advantages = advantages_G[:, None]
    loss = torch.maximum(-advantages * ratio_GL, -advantages * ratio_GL.clamp(1 - clip, 1 + clip))
    return torch.where(advantages < 0, torch.minimum(loss, -advantages * dual_clip), loss)


def grpo_loss(
    log_probs_GL: Tensor, old_GL: Tensor, reference_GL: Tensor, advantages_G: Tensor, weights_GL: Tensor,
    entropy_GL: Tensor, *, clip: float, dual_clip: float, kl_coefficient: float,
) -> tuple[Tensor, dict[str, Tensor]]:  # fmt: skip
    """Loss of a minibatch or of a part of it.

    Deviation: the released code averages over the tokens of each micro-batch and then over micro-batches; here over the
    tokens (or sequences) of the whole minibatch, so that the size of micro-batches changes nothing. The paper's formula
    has the reference in the ratio; this follows the code, which has the policy before the update there.

    Args:
        log_probs_GL: log pi(token | before), with gradient.
        old_GL: the same before the update.
        reference_GL: the same of the fixed reference.
        advantages_G: advantage of each completion.
        weights_GL: what each token counts, of `token_weights`; 0 where there is none.
        entropy_GL: entropy of each token's distribution, for the figures alone.
        clip: how far the ratio may be from 1.
        dual_clip: bound for negative advantages.
        kl_coefficient: weight of the KL to the reference.

    Returns:
        The loss, and figures without gradient that add up over the parts of a minibatch (`ratio_gap`, the largest
        distance of a ratio from 1, apart): `policy_loss`, `kl`, `ratio`, `clipped` (share of tokens beyond the clip)
        and `entropy`.
    """
    there = weights_GL > 0
    ratio_GL = torch.where(there, log_probs_GL - old_GL, 0.0).clamp(-_LOG_LIMIT, _LOG_LIMIT).exp()
    policy_loss = (clipped_objective(ratio_GL, advantages_G, clip, dual_clip) * weights_GL).sum()
    kl = (torch.where(there, low_variance_kl(log_probs_GL, reference_GL), 0.0) * weights_GL).sum()
    with torch.no_grad():
        outside = ((ratio_GL - 1).abs() > clip).float()
        figures = {
            "policy_loss": policy_loss.detach(),
            "kl": kl.detach(),
            "ratio": (ratio_GL * weights_GL).sum(),
            "clipped": (outside * weights_GL).sum(),
            "entropy": (entropy_GL * weights_GL).sum(),
            "ratio_gap": (ratio_GL - 1).abs().max(),
        }
    return policy_loss + kl_coefficient * kl, figures
