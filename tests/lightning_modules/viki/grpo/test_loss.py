"""GRPO's loss against a plain loop and closed forms."""

from __future__ import annotations

import math

import pytest
import torch

from fulgurite.lightning_modules.viki.grpo.loss import (
    clipped_objective,
    group_advantages,
    grpo_loss,
    low_variance_kl,
    token_weights,
)

SETTINGS = {"clip": 0.2, "dual_clip": 3.0, "kl_coefficient": 0.3}


@pytest.fixture
def rows():
    draw = torch.Generator().manual_seed(0)
    old, reference = (-3 * torch.rand(10, 7, generator=draw) for _ in range(2))
    new = (old + 0.6 * torch.randn(10, 7, generator=draw)).requires_grad_()
    mask = torch.arange(7)[None] < torch.randint(1, 8, (10, 1), generator=draw)
    return new, old, reference, torch.randn(10, generator=draw), mask


def in_a_loop(new, old, reference, advantages, mask, aggregation, clip, dual_clip, kl_coefficient):
    sequences = []
    for g in range(len(new)):
        terms = []
        for at in range(new.shape[1]):
            if not mask[g, at]:
                continue
            ratio, a = math.exp(new[g, at] - old[g, at]), float(advantages[g])
            loss = max(-a * ratio, -a * min(max(ratio, 1 - clip), 1 + clip))
            loss = min(loss, -a * dual_clip) if a < 0 else loss
            d = float(reference[g, at] - new[g, at])
            terms.append(loss + kl_coefficient * min(math.exp(d) - d - 1, 10))
        sequences.append(terms)
    if aggregation == "token_mean":
        every = [term for terms in sequences for term in terms]
        return sum(every) / len(every)
    return sum(sum(terms) / len(terms) for terms in sequences) / len(sequences)


@pytest.mark.parametrize("aggregation", ["token_mean", "sequence_mean"])
def test_it_is_what_a_plain_loop_says(rows, aggregation):
    new, old, reference, advantages, mask = rows
    weights = token_weights(mask, aggregation)
    assert float(weights.sum()) == pytest.approx(1)
    loss, figures = grpo_loss(new, old, reference, advantages, weights, torch.zeros_like(old), **SETTINGS)
    wanted = in_a_loop(*(x.detach() for x in rows), aggregation, **SETTINGS)
    assert float(loss.detach()) == pytest.approx(wanted, abs=1e-5)
    ratios = (new - old).detach().exp()[mask]
    assert float(figures["ratio_gap"]) == pytest.approx(float((ratios - 1).abs().max()), rel=1e-5)
    if aggregation == "token_mean":
        assert float(figures["clipped"]) == pytest.approx(float(((ratios - 1).abs() > 0.2).float().mean()))


@pytest.mark.parametrize("aggregation", ["token_mean", "sequence_mean"])
def test_parts_of_a_minibatch_add_up_to_its_gradient(rows, aggregation):
    new, old, reference, advantages, mask = rows
    weights = token_weights(mask, aggregation)
    entropy = torch.rand(10, 7, generator=torch.Generator().manual_seed(1))
    whole, figures = grpo_loss(new, old, reference, advantages, weights, entropy, **SETTINGS)
    (wanted,) = torch.autograd.grad(whole, new)
    parts = [
        grpo_loss(new[at], old[at], reference[at], advantages[at], weights[at], entropy[at], **SETTINGS)
        for at in (slice(0, 3), slice(3, 4), slice(4, 10))
    ]
    (found,) = torch.autograd.grad(sum(loss for loss, _ in parts), new)
    torch.testing.assert_close(found, wanted)
    for name in ("kl", "ratio", "clipped", "entropy", "policy_loss"):
        torch.testing.assert_close(sum(f[name] for _, f in parts), figures[name])


def test_before_an_update_it_is_the_policy_gradient(rows):
    _, old, _, advantages, mask = rows
    new, weights = old.clone().requires_grad_(), token_weights(mask, "token_mean")
    loss, figures = grpo_loss(new, old, old, advantages, weights, torch.zeros_like(old), **SETTINGS)
    loss.backward()
    torch.testing.assert_close(new.grad, -advantages[:, None] * weights)
    assert float(figures["kl"]) == 0 and float(figures["ratio_gap"]) == 0


def test_what_stands_outside_the_mask_counts_for_nothing(rows):
    new, old, reference, advantages, mask = rows
    weights, zeros = token_weights(mask, "token_mean"), torch.zeros_like(old)
    wild = torch.where(mask, old, torch.full_like(old, float("inf")))
    loss, _ = grpo_loss(new, wild, reference, advantages, weights, zeros, **SETTINGS)
    wanted, _ = grpo_loss(new, old, reference, advantages, weights, zeros, **SETTINGS)
    assert float(loss.detach()) == pytest.approx(float(wanted.detach()))
    (gradient,) = torch.autograd.grad(loss, new)
    assert not gradient[~mask].any() and gradient[mask].any()


def test_clipping_by_hand():
    ratios = torch.tensor([[0.5, 1.1, 10.0]])
    good = clipped_objective(ratios, torch.tensor([2.0]), clip=0.2, dual_clip=3.0)
    torch.testing.assert_close(good, torch.tensor([[-1.0, -2.2, -2.4]]))
    bad = clipped_objective(ratios, torch.tensor([-2.0]), clip=0.2, dual_clip=3.0)
    torch.testing.assert_close(bad, torch.tensor([[1.6, 2.2, 6.0]]))


def test_the_kl_estimate_is_never_negative_and_bounded():
    policy, reference = torch.tensor([0.0, -1.0, -20.0]), torch.tensor([0.0, -2.0, 0.0])
    torch.testing.assert_close(low_variance_kl(policy, reference), torch.tensor([0.0, math.exp(-1), 10.0]))


def test_the_kl_estimate_is_right_on_average():
    """Over draws of the policy its mean is the KL of the two distributions."""
    policy, reference = torch.tensor([0.7, 0.2, 0.1]).log(), torch.tensor([0.4, 0.4, 0.2]).log()
    mean = (policy.exp() * low_variance_kl(policy, reference)).sum()
    torch.testing.assert_close(mean, (policy.exp() * (policy - reference)).sum())


def test_advantages_by_hand():
    found = group_advantages(torch.tensor([1.0, 0, 0, 0, 0, 0.5, 0.5, 0.5, 0.5, 0.5]), 5)
    spread = math.sqrt(0.2)  # of 1, 0, 0, 0, 0, unbiased
    wanted = [0.8 / (spread + 1e-6), *[-0.2 / (spread + 1e-6)] * 4, *[0.0] * 5]
    torch.testing.assert_close(found, torch.tensor(wanted))
    torch.testing.assert_close(group_advantages(torch.tensor([0.7, 0.1]), 1), torch.tensor([0.7, 0.1]))
    with pytest.raises(ValueError, match="no whole groups of 4"):
        group_advantages(torch.ones(10), 4)


@pytest.mark.parametrize("far", [95.0, -95.0])
def test_logarithms_far_apart_give_finite_gradients(far):
    """e^95 is beyond float32."""
    new = torch.tensor([[-1.0, -1.0]], requires_grad=True)
    away, weights = torch.tensor([[-1.0 - far, -1.0]]), torch.full((1, 2), 0.5)
    for advantage in (1.0, -1.0):
        loss, figures = grpo_loss(new, away, away, torch.tensor([advantage]), weights, torch.zeros(1, 2), **SETTINGS)
        (gradient,) = torch.autograd.grad(loss, new)
        assert gradient.isfinite().all() and loss.isfinite() and all(f.isfinite() for f in figures.values())
    assert low_variance_kl(away, new.detach()).tolist() == [[10.0, 0.0]]
