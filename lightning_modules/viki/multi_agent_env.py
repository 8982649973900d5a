"""Every robot of a record as an agent of its own, in the checker's symbolic kitchen (PettingZoo's parallel form).

The paper's planner speaks for all robots at once; here each one acts for itself and all share one reward. Needs
gymnasium, neither PettingZoo nor Ray.
"""

from __future__ import annotations

import functools
from collections.abc import Mapping, Sequence
from typing import Any

import numpy

from ...datamodules.viki.actions import Command, clash, refusal
from ...datamodules.viki.bounds import actions_to_go
from ...datamodules.viki.chains import follow, prepared, unmet
from ...datamodules.viki.effects import apply
from ...datamodules.viki.problem import Problem
from ...datamodules.viki.rules import STRICT
from ...datamodules.viki.state import State
from ...registry import UserError
from .agent_view import AGENTS, AgentView

Observations = dict[str, dict[str, numpy.ndarray]]
STEP_COST, FAILURE_COST = 0.02, 0.5
_POTENTIAL = 0.05  # reward for every action fewer that is left to do


class VikiMultiAgentEnv:
    """Records as episodes under the strict rules; agents are the robots R1 to R3 that a record has.

    An observation is {"observations": float32 [F], "action_mask": int8 [A]}: what is where and what is asked for, the
    same for all but for the part that says who looks, and the actions that the state allows this robot. Where two
    actions can't go together, the later robot waits. The reward is the team's: 1 for the task done, less 0.02 a step,
    plus 0.05 for every action fewer that is left to do, differences of a potential that are not discounted: nearly, not
    exactly, a shaping that leaves the best policy what it is. An order that a record asks for and that was broken ends
    the episode at -0.5.

    Args:
        problems: the tasks; an episode is drawn from them, or chosen by `options={"problem": number}`.
        max_steps: an episode is cut off after so many.
        shaping: whether getting nearer is rewarded.
        seed: seed of the draw.

    Raises:
        UserError: if there is no task, or one has more things or robots than fit an observation.
    """

    problem: Problem
    view: AgentView
    state: State
    agents: list[str]
    num_steps: int
    _near: int
    metadata: dict[str, Any] = {"name": "viki_v0", "is_parallelizable": True}  # noqa: RUF012 (PettingZoo's form)

    def __init__(self, problems: Sequence[Problem], max_steps: int = 20, shaping: bool = True, seed: int = 0) -> None:
        if not problems:
            raise UserError("no task for the robots: give VikiMultiAgentEnv at least one problem")
        self.problems, self.max_steps, self.shaping = list(problems), max_steps, shaping
        self.views = [AgentView(problem) for problem in self.problems]
        self.possible_agents = list(AGENTS)
        self._draw = numpy.random.default_rng(seed)
        self._begin(0, seed)
        self.agents = []  # until reset

    @property
    def unwrapped(self) -> VikiMultiAgentEnv:
        """Itself."""
        return self

    @property
    def num_agents(self) -> int:
        """How many robots are at work."""
        return len(self.agents)

    @property
    def max_num_agents(self) -> int:
        """How many robots a task can have."""
        return len(self.possible_agents)

    def observation_space(self, agent: str) -> Any:
        """The space of an agent's observations; the same for all."""
        return _spaces()[0]

    def action_space(self, agent: str) -> Any:
        """The space of an agent's actions; the same for all. Action 0 waits."""
        return _spaces()[1]

    def reset(
        self, seed: int | None = None, options: Mapping[str, Any] | None = None
    ) -> tuple[Observations, dict[str, Any]]:
        """Begin an episode; returns observations and infos by agent."""
        if seed is not None:
            self._draw = numpy.random.default_rng(seed)
        number = (options or {}).get("problem", int(self._draw.integers(len(self.problems))))
        self._begin(number, int(self._draw.integers(2**31)))
        return self._observations(), {agent: {} for agent in self.agents}

    def step(
        self, actions: Mapping[str, int]
    ) -> tuple[Observations, dict[str, float], dict[str, bool], dict[str, bool], dict[str, Any]]:
        """One step of all robots.

        Args:
            actions: agent -> number of its action; those left out wait.

        Returns:
            Observations, rewards, terminations, truncations and infos by agent; infos say which commands were carried
            out and whether the task is done.

        Raises:
            UserError: if no episode is under way, or an action is masked.
        """
        if not self.agents:
            raise UserError("the episode has ended: call reset first")
        commands = self._allowed_together(actions)
        before = self.state.copy()
        held = prepared(before)
        apply(self.state, commands, STRICT, before)
        broken = follow(self.state, held, STRICT)
        self.num_steps += 1
        done = broken is None and unmet(self.state, STRICT) is None
        reward = float(done) - STEP_COST - FAILURE_COST * (broken is not None)
        if self.shaping and broken is None:
            near = actions_to_go(self.state)
            reward += _POTENTIAL * (self._near - near)
            self._near = near
        ended, cut = done or broken is not None, self.num_steps >= self.max_steps
        agents = self.agents
        said = {agents[c.agent]: " ".join((c.name, *map(before.name, c.targets))) for c in commands}
        infos = {agent: {"command": said.get(agent, "wait"), "done": done, "broken": broken} for agent in agents}
        observations = self._observations()
        if ended or cut:
            self.agents = []
        return (
            observations,
            dict.fromkeys(agents, reward),
            dict.fromkeys(agents, ended),
            dict.fromkeys(agents, cut and not ended),
            infos,
        )

    def render(self) -> str:
        """The state as an SVG."""
        from ...datamodules.viki.board import draw_state

        return draw_state(self.state, {})

    def close(self) -> None:
        """Nothing is held."""

    def action_of(self, agent: str, command: str) -> int:
        """The number of an action written as in plans, `Move,apple`.

        Raises:
            UserError: if the view has no such action.
        """
        return self.view.number(self.problem.agent_index[agent], command)

    def _begin(self, number: int, seed: int) -> None:
        self.problem, self.view = self.problems[number], self.views[number]
        self.agents = list(self.problem.agents)
        self.state = State.start(self.problem, self.problem.drawn_start(seed))
        self.num_steps, self._near = 0, actions_to_go(self.state)

    def _allowed_together(self, actions: Mapping[str, int]) -> list[Command]:
        commands: list[Command] = []
        for agent in self.agents:
            command = self.view.command(self.problem.agent_index[agent], int(actions.get(agent, 0)))
            if command is None:
                continue
            reason = refusal(self.state, command, STRICT)
            if reason is not None:
                raise UserError(f"{agent}: action {actions[agent]} is masked: {reason}")
            if clash(self.state, [*commands, command], STRICT) is None:
                commands.append(command)
        return commands

    def _observations(self) -> Observations:
        shared = self.view.features(self.state, self.num_steps / self.max_steps)
        return {
            agent: {
                "observations": self.view.seen_by(shared, number),
                "action_mask": self.view.mask(self.state, number),
            }
            for number, agent in enumerate(self.problem.agents)
            if agent in self.agents
        }


@functools.cache
def _spaces() -> tuple[Any, Any]:
    """Spaces of observations and of actions; one object each, as PettingZoo asks for."""
    from gymnasium import spaces

    seen: dict[str, spaces.Space[Any]] = {
        "observations": spaces.Box(-1.0, 1.0, (AgentView.num_features,), numpy.float32),
        "action_mask": spaces.Box(0, 1, (AgentView.num_actions,), numpy.int8),
    }
    return spaces.Dict(seen), spaces.Discrete(AgentView.num_actions)
