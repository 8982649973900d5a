"""Completions: reproducible, rewarded by level, and with log-probabilities that both sides of RLlib agree on."""

from __future__ import annotations

import dataclasses
import json

import pytest
import torch

from fulgurite.datamodules.viki.generator import draw_record
from fulgurite.lightning_modules.viki.grpo.rollout import answer, log_probs, parts_of, reward_of, roll_out
from fulgurite.lightning_modules.viki.grpo.settings import GRPOSettings
from fulgurite.lightning_modules.viki.policy.policy import VikiPolicy
from fulgurite.registry import UserError

SETTINGS = GRPOSettings(group_size=3, max_new_tokens=12, minibatch_prompts=2, micro_prompts=2)


@pytest.fixture(scope="module")
def policy(policy_folder):
    return VikiPolicy.load(policy_folder)


@pytest.fixture(scope="module")
def records(data):
    return data.records("train")[:3]


def test_same_seed_same_completions(policy, records):
    first, again = (roll_out(policy, None, records, SETTINGS, seed=5) for _ in range(2))
    assert first.texts == again.texts and len(first.texts) == 9
    assert first.tokens_GL.shape == first.mask_GL.shape == first.old_GL.shape == (9, 12)
    assert first.texts != roll_out(policy, None, records, SETTINGS, seed=6).texts
    assert len(set(first.texts)) > 3


def test_prompts_are_drawn_in_parts_that_bound_the_memory(policy, records, monkeypatch):
    sizes = []
    generate = VikiPolicy.generate
    monkeypatch.setattr(
        VikiPolicy, "generate", lambda self, batch, **how: sizes.append(len(batch)) or generate(self, batch, **how)
    )
    few = dataclasses.replace(SETTINGS, draw_prompts=2)
    found, whole = (roll_out(policy, None, records, settings, seed=5) for settings in (few, SETTINGS))
    assert sizes == [2, 1, 3]
    assert found.tokens_GL.shape == whole.tokens_GL.shape and len(found.texts) == 9
    assert len(set(found.texts[6:])) > 1 and found.texts[6:] != found.texts[:3], "each part has draws of its own"


def test_old_log_probabilities_are_those_of_the_draws(policy, records):
    found = roll_out(policy, None, records, SETTINGS, seed=0)
    batch = policy.encode([policy.asked.prompt(r) for r in records])
    drawn = policy.generate(batch, group_size=3, max_new_tokens=12, generator=torch.Generator().manual_seed(0))
    length = drawn.tokens_GL.shape[1]
    assert torch.equal(drawn.tokens_GL, found.tokens_GL[:, :length])
    torch.testing.assert_close(found.old_GL[:, :length], drawn.log_probs_GL, atol=1e-3, rtol=0)


def test_micro_batches_change_no_log_probability(policy, records):
    found = roll_out(policy, None, records, SETTINGS, seed=0)
    prompts = [policy.asked.prompt(r) for r in records]
    whole = log_probs(policy, policy.encode(prompts), found.tokens_GL, found.mask_GL, 1.0)
    parts = parts_of(prompts, SETTINGS.micro_prompts, SETTINGS.group_size)
    assert [at for _, at in parts] == [slice(0, 6), slice(6, 9)]
    cut = [log_probs(policy, policy.encode(part), found.tokens_GL[at], found.mask_GL[at], 1.0) for part, at in parts]
    torch.testing.assert_close(torch.cat(cut), whole, atol=1e-4, rtol=0)


def test_the_reference_is_another_network(policy, records, policy_folder):
    other = VikiPolicy.load(policy_folder)
    with torch.no_grad():
        for parameter in other.parameters():
            parameter.mul_(1.05)
    alone, beside = (roll_out(policy, r, records, SETTINGS, seed=0) for r in (None, other))
    assert torch.equal(alone.reference_GL, alone.old_GL) and torch.equal(beside.old_GL, alone.old_GL)
    assert (beside.reference_GL - beside.old_GL)[beside.mask_GL].abs().mean() > 1e-3


def test_the_better_of_a_group_gets_the_advantage(policy, records, monkeypatch):
    """Rewards by the first letter stand in for right answers, which random weights never give."""
    from fulgurite.lightning_modules.viki.grpo import rollout
    from fulgurite.lightning_modules.viki.rewards import Reward

    worth = lambda record, text, length_counts: Reward(0.0, len(text) % 2, len(text) % 2)  # noqa: E731
    monkeypatch.setattr(rollout, "reward_of", worth)
    found = roll_out(policy, None, records, SETTINGS, seed=3)
    rewards = torch.tensor([r.total for r in found.rewards]).float()
    assert set(rewards.tolist()) == {0.0, 1.0}
    for group, advantages in zip(rewards.split(3), found.advantages_G.split(3), strict=True):
        assert torch.equal(advantages > 0, (group > group.mean()))
        assert float(advantages.sum()) == pytest.approx(0, abs=1e-5)
    control = roll_out(policy, None, records, dataclasses.replace(SETTINGS, zero_advantages=True), seed=3)
    assert control.texts == found.texts and not control.advantages_G.any()


def test_greedy_answers_need_no_seed(policy, records):
    first, again = (answer(policy, records, SETTINGS)[0] for _ in range(2))
    assert first == again and len(first) == 3


def test_without_the_step_penalty_a_longer_plan_counts():
    record = next(r for r in (draw_record(2, "train", i, 0) for i in range(20)) if len(r.problem.agents) == 1)
    steps = json.loads(record.answer())
    away = {"step": 1, "actions": {"R1": ["Move", "sink"]}}
    plans = {"as given": steps, "a step more": [away, *steps]}
    texts = {name: f"<think>so</think><answer>{json.dumps(plan)}</answer>" for name, plan in plans.items()}
    assert reward_of(record, texts["as given"]).accuracy == 1
    assert reward_of(record, texts["a step more"]).accuracy == 0
    assert reward_of(record, texts["a step more"], length_counts=False).accuracy == 1


@pytest.mark.parametrize("wrong", [{"group_size": 0}, {"clip": 0.0}, {"epochs": -1}, {"aggregation": "median"}])
def test_settings_that_can_t_be_are_refused(wrong):
    with pytest.raises(UserError, match=next(iter(wrong))):
        GRPOSettings(**wrong)


def test_prompts_that_do_not_divide_are_refused():
    with pytest.raises(UserError, match="no multiple of minibatch_prompts 2"):
        SETTINGS.check_prompts(5)
    with pytest.raises(UserError, match="3 learners"):
        SETTINGS.check_prompts(4, 3)
    SETTINGS.check_prompts(4, 2)
