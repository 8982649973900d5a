"""RLlib's parts without a cluster: runner and learner agree, and no cut of a minibatch changes the step."""

from __future__ import annotations

import numpy
import pytest
import torch

pytest.importorskip("ray.rllib", reason="needs the extra viki (ray)")

DRAWS = [0, 1, 2, 3]


@pytest.fixture
def make(make_config):
    """`make(lr=…)` -> an env runner and a learner of one configuration."""

    def parts(**settings):
        from fulgurite.lightning_modules.viki.grpo.env_runner import GenerationEnvRunner

        config = make_config(**settings)
        learner = config.get_default_learner_class()(config=config, module_spec=multi(config))
        learner.build()
        return GenerationEnvRunner(config=config, worker_index=0), learner, config.grpo_settings()

    return parts


def multi(config):
    from ray.rllib.core.rl_module.multi_rl_module import MultiRLModuleSpec

    return MultiRLModuleSpec(rl_module_specs={"default_policy": config.get_default_rl_module_spec()})


def update(learner, episodes, settings, num_learners=1):
    from fulgurite.lightning_modules.viki.grpo.algorithm import pack

    size = settings.minibatch_prompts * settings.group_size
    found = learner.update(
        batch=pack(episodes, settings, num_learners), timesteps={}, num_epochs=settings.epochs, minibatch_size=size,
        shuffle_batch_per_epoch=False,
    )  # fmt: skip
    return {name: value.peek() for name, value in found["default_policy"].items() if hasattr(value, "peek")}


def with_rewards(episodes):
    """The same episodes with advantages as if some answers had been right."""
    for number, episode in enumerate(episodes):
        episode.extra_model_outputs["advantages"][0] = numpy.float32([1.2, -0.4, -0.8][number % 3])
    return episodes


def weights(learner):
    return torch.cat([p.detach().reshape(-1) for p in learner.module["default_policy"].parameters()])


def test_after_a_weight_sync_the_first_ratio_is_one_again(make):
    runner, learner, settings = make()
    first = update(learner, with_rewards(runner.sample(draws=DRAWS)), settings)
    assert first["first_ratio_gap"] < 1e-3 < first["ratio_gap"], "the second minibatch has seen the first one's step"
    stale = update(learner, with_rewards(runner.sample(draws=DRAWS)), settings)
    assert stale["first_ratio_gap"] > 1e-2
    runner.set_state({"rl_module": learner.module.get_state()})
    synced = update(learner, with_rewards(runner.sample(draws=DRAWS)), settings)
    assert synced["first_ratio_gap"] < 1e-3
    assert synced["kl"] > first["first_kl"] == 0, "the reference stays where it was"


def test_micro_batches_do_not_change_the_step(make):
    found = []
    for micro in (1, 2):
        runner, learner, settings = make(micro_prompts=micro, lr=1e-3)
        update(learner, with_rewards(runner.sample(draws=DRAWS)), settings)
        found.append(weights(learner))
    torch.testing.assert_close(*found, atol=2e-5, rtol=0)


def test_a_record_may_come_twice_in_a_micro_batch(make, make_config, tmp_path):
    """Three records and four prompts: the last one begins the next pass."""
    from fulgurite.datamodules.viki.generator import draw_record
    from fulgurite.datamodules.viki.records import write_records

    write_records(tmp_path / "train.parquet", [draw_record(1, "train", i, 0) for i in range(3)])
    spec = make_config().data
    few = {**spec, "init_args": {**spec["init_args"], "data": str(tmp_path)}}
    runner, learner, settings = make(data=few, minibatch_prompts=4, micro_prompts=4)
    episodes = runner.sample(draws=DRAWS)
    assert len({int(e.get_observations(0)[0]) for e in episodes}) == 3
    assert update(learner, with_rewards(episodes), settings)["first_ratio_gap"] < 1e-3


def test_without_advantages_nothing_moves(make):
    runner, learner, settings = make(zero_advantages=True, weight_decay=0.0)
    before = weights(learner)
    update(learner, runner.sample(draws=DRAWS), settings)
    torch.testing.assert_close(weights(learner), before, atol=1e-6, rtol=0)


def test_a_step_makes_the_rewarded_likelier(make):
    runner, learner, settings = make(lr=1e-3)
    episodes = with_rewards(runner.sample(draws=DRAWS))
    update(learner, episodes, settings)
    runner.set_state({"rl_module": learner.module.get_state()})
    from fulgurite.lightning_modules.viki.grpo.algorithm import pack

    batch = pack(episodes, settings, 1).policy_batches["default_policy"]
    rows = {name: torch.as_tensor(value) for name, value in batch.items()}
    gain = (runner.module.forward_train(rows)["action_logp"].detach() - rows["old_log_probs"]).sum(1)
    assert gain[rows["advantages"] > 0].mean() > 0 > gain[rows["advantages"] < 0].mean()


def test_learners_of_one_batch_share_each_minibatch(make):
    """The n-th minibatches of two learners are the halves of the n-th one of a single learner."""
    from fulgurite.lightning_modules.viki.grpo.algorithm import pack

    runner, _, settings = make()
    episodes = runner.sample(draws=DRAWS)
    alone, dealt = (pack(episodes, settings, k).policy_batches["default_policy"] for k in (1, 2))
    half = len(alone["actions"]) // 2
    for minibatch in range(2):
        one = alone["actions"][minibatch * half : (minibatch + 1) * half]
        cut = [dealt["actions"][k * half :][minibatch * half // 2 : (minibatch + 1) * half // 2] for k in range(2)]
        assert numpy.array_equal(numpy.concatenate(cut), one)
        weights = alone["token_weights"][minibatch * half : (minibatch + 1) * half]
        assert weights.sum() == pytest.approx(1)


def test_what_a_runner_draws_is_a_function_of_draws_seed_and_weights(make):
    runner, _, _ = make()
    other, _, _ = make()
    first, again = runner.sample(draws=DRAWS[2:]), other.sample(draws=DRAWS[2:])
    actions = [numpy.stack([e.get_actions(0) for e in found]) for found in (first, again)]
    assert numpy.array_equal(*actions) and len(first) == 6
    assert all(len(e) == 1 and e.is_terminated for e in first)
    logged = runner.get_metrics()
    assert logged["num_completions"].peek() == 6


def test_validation_records_are_answered_greedily(make):
    runner, _, _ = make()
    found = runner.sample(records=[1, 3])
    assert [int(e.get_observations(0)[0]) for e in found] == [1, 3]
