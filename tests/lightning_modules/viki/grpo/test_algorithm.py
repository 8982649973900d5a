"""GRPO under a real Ray: any number of learners, runners that die, checkpoints both ways, Tune."""

from __future__ import annotations

import time

import pytest
import torch

pytest.importorskip("ray.rllib", reason="needs the extra viki (ray)")

pytestmark = [pytest.mark.slow, pytest.mark.timeout(900)]


@pytest.fixture(scope="module")
def cluster():
    import ray

    from fulgurite.launch.rllib.session import ray_session
    from fulgurite.launch.rllib.settings import RllibSettings

    with ray_session(RllibSettings(num_env_runners=2, num_learners=2)):
        yield ray


@pytest.fixture
def some_are_right(monkeypatch):
    """Random weights never answer right; here the length of what they say decides."""
    from fulgurite.lightning_modules.viki.grpo import rollout
    from fulgurite.lightning_modules.viki.rewards import Reward

    worth = lambda record, text, length_counts: Reward(0.0, len(text) % 3 / 2, len(text) % 3 / 2)  # noqa: E731
    monkeypatch.setattr(rollout, "reward_of", worth)


def weights(algorithm):
    found = algorithm.learner_group.get_weights()["default_policy"]
    return torch.cat([torch.as_tensor(v).reshape(-1) for _, v in sorted(found.items())])


def test_any_number_of_learners_takes_the_same_first_step(cluster, make_config, some_are_right, policy_folder):
    from fulgurite.lightning_modules.viki.policy.policy import VikiPolicy

    found = {}
    for learners in (0, 1, 2):
        # one minibatch an iteration: one optimiser step
        config = make_config(lr=1e-4, minibatch_prompts=4).learners(num_learners=learners)
        algorithm = config.build_algo()
        try:
            result = algorithm.train()
            assert result["learners"]["default_policy"]["first_ratio_gap"] < 1e-3
            found[learners] = weights(algorithm)
        finally:
            algorithm.stop()
    before = VikiPolicy.load(policy_folder).state_dict()
    before = torch.cat([v.reshape(-1) for _, v in sorted(before.items())])
    assert float((found[0] - before).abs().max()) > 5e-5
    torch.testing.assert_close(found[1], found[0], atol=1e-5, rtol=0)
    torch.testing.assert_close(found[2], found[0], atol=1e-5, rtol=0)


@pytest.mark.soak
def test_a_killed_runner_is_stood_in_for_and_comes_back(cluster, make_config):
    algorithm = make_config().env_runners(num_env_runners=2).build_algo()
    try:
        assert algorithm.train()["env_runners"]["num_completions"] == 12
        victim = algorithm.env_runner_group._worker_manager.actors()[1]
        cluster.kill(victim, no_restart=False)
        assert algorithm.train()["env_runners"]["num_completions"] == 12, "the other one did its work"
        for _ in range(60):
            time.sleep(1)
            algorithm.restore_env_runners(algorithm.env_runner_group)
            if algorithm.env_runner_group.num_healthy_remote_env_runners() == 2:
                break
        result = algorithm.train()
        assert algorithm.env_runner_group.num_healthy_remote_env_runners() == 2
        assert result["env_runners"]["num_completions"] == 12
        assert result["learners"]["default_policy"]["first_ratio_gap"] < 1e-3, "it has the weights of now"
    finally:
        algorithm.stop()


def test_a_checkpoint_goes_both_ways(cluster, make_config, some_are_right, tmp_path):
    from fulgurite.lightning_modules.viki.grpo.algorithm import GRPO
    from fulgurite.lightning_modules.viki.grpo.checkpoints import save_policy
    from fulgurite.lightning_modules.viki.policy.policy import VikiPolicy

    algorithm = make_config(lr=1e-4).build_algo()
    try:
        algorithm.train()
        algorithm.save_to_path(str(tmp_path / "checkpoint"))
        save_policy(algorithm, tmp_path / "policy")
        algorithm.train()
        wanted = weights(algorithm)
    finally:
        algorithm.stop()
    again = GRPO.from_checkpoint(str(tmp_path / "checkpoint"))
    try:
        assert again.iteration == 1
        again.train()
        torch.testing.assert_close(weights(again), wanted, atol=0, rtol=0)  # optimiser, prompts and draws go on
    finally:
        again.stop()
    in_folder = VikiPolicy.load(tmp_path / "policy")
    restarted = make_config(policy=str(tmp_path / "policy")).build_algo()
    try:
        assert torch.equal(
            weights(restarted), torch.cat([v.reshape(-1) for _, v in sorted(in_folder.state_dict().items())])
        )
    finally:
        restarted.stop()


def test_tune_runs_two_trials(cluster, make_config, tmp_path):
    from ray import tune

    from fulgurite.lightning_modules.viki.grpo.algorithm import GRPO

    space = make_config().training(kl_coefficient=tune.grid_search([0.0, 0.1]))
    run = tune.RunConfig(storage_path=str(tmp_path), stop={"training_iteration": 2}, verbose=0)
    results = tune.Tuner(GRPO, param_space=space, run_config=run).fit()
    assert len(results) == 2 and not results.errors
    found = {r.config["kl_coefficient"]: r.metrics for r in results}
    assert set(found) == {0.0, 0.1}
    assert all(metrics["training_iteration"] == 2 for metrics in found.values())


@pytest.mark.soak
def test_evaluation_deals_validation_records_to_the_runners(cluster, make_config):
    config = make_config().env_runners(num_env_runners=2).evaluation(evaluation_interval=1, evaluation_duration=5)
    algorithm = config.build_algo()
    try:
        result = algorithm.train()
        assert result["evaluation"]["env_runners"]["num_completions"] == 5
        assert result["env_runners"]["num_completions"] == 12
    finally:
        algorithm.stop()
