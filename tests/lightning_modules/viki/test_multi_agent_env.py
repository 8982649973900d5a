"""Robots as agents: the planner's plan played by them ends well, masks allow exactly what the checker does."""

from __future__ import annotations

import numpy
import pytest

from fulgurite.datamodules.viki.generator import draw_task
from fulgurite.datamodules.viki.problem import Problem
from fulgurite.lightning_modules.viki.multi_agent_env import VikiMultiAgentEnv
from fulgurite.registry import UserError

gymnasium = pytest.importorskip("gymnasium", reason="needs the extra viki")


@pytest.fixture(scope="module")
def tasks():
    return [draw_task("train", i, seed=0) for i in range(25)]


@pytest.fixture
def env(tasks):
    return VikiMultiAgentEnv([Problem.read(task.truth) for task in tasks], max_steps=12)


def test_the_gold_plan_played_by_the_robots_does_the_task(env, tasks):
    for number, task in enumerate(tasks):
        observations, _ = env.reset(options={"problem": number})
        assert set(observations) == set(task.team)
        total = 0.0
        for row in task.truth["time_steps"]:
            actions = {agent: env.action_of(agent, ",".join(words)) for agent, words in row["actions"].items()}
            for agent, seen in observations.items():
                assert env.observation_space(agent).contains(seen)
                assert seen["action_mask"][actions.get(agent, 0)] == 1
            observations, rewards, terminations, truncations, infos = env.step(actions)
            assert len(set(rewards.values())) == 1
            total += next(iter(rewards.values()))
        assert all(terminations.values()) and not any(truncations.values()) and not env.agents
        assert all(info["done"] for info in infos.values())
        assert total > 1


def test_robots_see_the_same_but_who_they_are(env, tasks):
    number = next(i for i, task in enumerate(tasks) if len(task.team) > 1)
    observations, _ = env.reset(options={"problem": number})
    first, second = (seen["observations"] for seen in list(observations.values())[:2])
    assert len(numpy.flatnonzero(first != second)) == 2


def test_random_robots_stay_within_masks_and_are_cut_off(env):
    draw = numpy.random.default_rng(0)
    ends = []
    for episode in range(12):
        observations, _ = env.reset(seed=episode)
        while env.agents:
            actions = {
                agent: int(draw.choice(numpy.flatnonzero(seen["action_mask"]))) for agent, seen in observations.items()
            }
            observations, _, terminations, truncations, _ = env.step(actions)
        ends.append(any(truncations.values()))
        assert any(truncations.values()) != any(terminations.values())
    assert any(ends)


def test_mistakes_are_told(env):
    with pytest.raises(UserError, match="at least one problem"):
        VikiMultiAgentEnv([])
    with pytest.raises(UserError, match="call reset first"):
        env.step({})
    observations, _ = env.reset(seed=0)
    agent, seen = next(iter(observations.items()))
    masked = [a for a in numpy.flatnonzero(seen["action_mask"] == 0) if env.view.command(0, int(a)) is not None]
    with pytest.raises(UserError, match=f"{agent}: action {masked[0]} is masked"):
        env.step({agent: int(masked[0])})
    assert env.render().startswith("<svg")


def test_pettingzoo_s_own_test_of_parallel_environments(env):
    pettingzoo_test = pytest.importorskip("pettingzoo.test", reason="PettingZoo is not installed")
    pettingzoo_test.parallel_api_test(env, num_cycles=40)
