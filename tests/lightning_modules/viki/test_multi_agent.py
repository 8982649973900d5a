"""Who plays how well: the planner's own actions do every task in its steps, greed does some, chance hardly any."""

from __future__ import annotations

import numpy
import pytest
import torch

from fulgurite.datamodules.viki.bounds import actions_to_go
from fulgurite.datamodules.viki.generator import draw_task
from fulgurite.datamodules.viki.problem import Problem
from fulgurite.lightning_modules.viki.agent_view import ACTIONS, NUM_SLOTS, AgentView, seen
from fulgurite.lightning_modules.viki.multi_agent import at_random, greedy, play
from fulgurite.lightning_modules.viki.multi_agent_env import VikiMultiAgentEnv
from fulgurite.lightning_modules.viki.robot_network import RobotNetwork

pytest.importorskip("gymnasium", reason="needs the extra viki")


@pytest.fixture(scope="module")
def drawn():
    found = [draw_task("test", i, seed=0) for i in range(60)]
    return [task for task in found if len(task.team) == 2]


@pytest.fixture(scope="module")
def tasks(drawn):
    return [Problem.read(task.truth) for task in drawn]


def test_the_planner_s_actions_do_every_task_in_its_steps(tasks, drawn):
    plans = {id(p): t.truth["time_steps"] for p, t in zip(tasks, drawn, strict=True)}

    def planned(env, observations):
        (row,) = [plan[env.num_steps] for key, plan in plans.items() if key == id(env.problem)]
        return {agent: env.action_of(agent, ",".join(words)) for agent, words in row["actions"].items()}

    done, quick, steps = play(tasks, planned)
    assert done == quick == 1
    assert steps == pytest.approx(numpy.mean([task.num_steps for task in tasks]))


def test_every_step_of_a_plan_is_rewarded(tasks, drawn):
    """Else a robot that puts down its thing, while the other is on its way, learns not to: the bound stays as it is."""
    for problem, task in zip(tasks, drawn, strict=True):
        env = VikiMultiAgentEnv([problem])
        env.reset()
        for row in task.truth["time_steps"]:
            actions = {agent: env.action_of(agent, ",".join(words)) for agent, words in row["actions"].items()}
            _, rewards, _, _, infos = env.step(actions)
            assert min(rewards.values()) > 0, infos


def test_putting_a_thing_down_where_it_belongs_is_rewarded_whatever_the_other_robot_does(tasks, drawn):
    found = 0
    for problem, task in zip(tasks, drawn, strict=True):
        env = VikiMultiAgentEnv([problem])
        env.reset()
        for row in task.truth["time_steps"]:
            actions = {agent: env.action_of(agent, ",".join(words)) for agent, words in row["actions"].items()}
            placing = {a: n for a, n in actions.items() if ACTIONS[n][0] == "place"}
            (reward, *_) = env.step(placing or actions)[1].values()
            if placing:
                found += 1
                assert reward > 0, row
                break
    assert found > 10


def test_waiting_does_nothing_and_chance_little(tasks):
    assert play(tasks, lambda env, observations: {}) == (0, 0, None)
    draw = numpy.random.default_rng(0)
    by_chance, _, _ = play(tasks, lambda env, observations: at_random(env, observations, draw))
    assert by_chance < 0.3


def test_greed_never_breaks_a_rule_and_does_more_over_what_is_rewarded(tasks):
    draw = numpy.random.default_rng(0)
    done, quick, _ = play(tasks, lambda env, seen: greedy(env, seen, draw))  # a masked action would raise
    assert 0.05 < done < 1 and 0 <= quick <= done
    assert done < play(tasks, lambda env, seen: greedy(env, seen, draw, actions_to_go))[0] < 1


def test_features_are_taken_apart_as_they_were_put_together(tasks):
    view, state = AgentView(tasks[0]), None
    from fulgurite.datamodules.viki.state import State

    state = State.start(tasks[0], tasks[0].drawn_start(0))
    part = seen(view.seen_by(view.features(state, 0.25), 1))
    count = len(tasks[0].assets)
    assert part.time.tolist() == [0.25] and part.who.tolist() == [0, 1, 0]
    assert part.where[:count].sum(-1).tolist() == [1] * count and not part.where[count:].any()
    assert part.agent_where.sum(-1).tolist() == [1, 1, 0]
    assert (part.goal.sum() + part.switch.sum()) >= 1
    assert not part.carried.any() and not part.reached.any()


def test_slots_share_their_weights():
    """Things that change places change the scores of their actions with them, and nothing else."""
    torch.manual_seed(0)
    network = RobotNetwork(16, "actions")
    features = torch.rand(1, AgentView.num_features)
    part = seen(features)
    for value in (part.where, part.agent_where, part.goal, part.before):  # nobody is in a thing
        value[..., :NUM_SLOTS][..., :5] = 0
    swapped = features.clone()
    other = seen(swapped)
    for name in ("name", "where", "flags", "goal", "switch", "before", "order"):
        value = getattr(other, name)
        value[:, [0, 1]] = value[:, [1, 0]].clone()
    for name in ("reached", "carried"):
        value = getattr(other, name)
        value[..., [0, 1]] = value[..., [1, 0]].clone()
    before, after = network(features)[0], network(swapped)[0]
    trade = {0: 1, 1: 0}
    for number, (name, slots) in enumerate(ACTIONS):
        twin = ACTIONS.index((name, tuple(trade.get(s, s) for s in slots)))
        torch.testing.assert_close(after[twin], before[number])
    values = RobotNetwork(16, "value")
    torch.testing.assert_close(values(features), values(swapped))
