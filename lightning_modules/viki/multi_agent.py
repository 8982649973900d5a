"""Robots that each act for themselves, trained by RLlib's stock PPO, beside the planner, chance and greed."""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy
from lightning.pytorch import LightningDataModule, LightningModule

from ...datamodules.files import atomic_write
from ...datamodules.viki.actions import clash, refusal
from ...datamodules.viki.bounds import actions_to_go, steps_to_go
from ...datamodules.viki.chains import follow, prepared
from ...datamodules.viki.effects import apply
from ...datamodules.viki.problem import Problem
from ...datamodules.viki.rules import STRICT
from ...datamodules.viki.state import State
from ...datamodules.viki.tasks import VikiTaskDataModule
from ...registry import MODELS, UserError
from .multi_agent_env import Observations, VikiMultiAgentEnv

Team = Callable[[VikiMultiAgentEnv, Observations], Mapping[str, int]]
MAX_STEPS = 20


@MODELS.register("viki_multi_agent", paper="2506.09049")
class VikiMultiAgentModule(LightningModule):
    """Every robot of a record an agent with its embodiment's network, all for one reward; needs `runner: rllib`.

    An extension of the paper's (arXiv 2506.09049), whose one planner speaks for all robots. Tasks are those of the
    datamodule `viki_tasks`. The networks lie in the stage's last checkpoint (`Algorithm.from_checkpoint`); it leaves a
    table of success on held-out tasks.

    Args:
        width: of the networks.
        num_envs: tasks that an env runner plays at once.
        batch_size: environment steps of an iteration.
        minibatch_size: of an optimiser step.
        epochs: passes over a batch.
        lr: learning rate.
        gamma: discount of a step.
        entropy_coefficient: reward for staying undecided.
        seed: of networks and draws.
    """

    def __init__(
        self,
        width: int = 64,
        num_envs: int = 40,
        batch_size: int = 4000,
        minibatch_size: int = 1000,
        epochs: int = 6,
        lr: float = 1.5e-3,
        gamma: float = 0.97,
        entropy_coefficient: float = 0.003,
        seed: int = 0,
    ) -> None:
        super().__init__()
        self.save_hyperparameters()

    def rllib_config(self, data: LightningDataModule | None) -> Any:
        """Stock PPO over the environment.

        Raises:
            UserError: without a datamodule of tasks.
        """
        from .rllib_env import ppo_config

        if not isinstance(data, VikiTaskDataModule):
            raise UserError("viki_multi_agent needs tasks: `data: viki_tasks`")
        p, self.data = self.hparams, data
        tasks = {name: data.hparams[name] for name in ("num_records", "team_size", "seed")} | {"max_steps": MAX_STEPS}
        held_out = {"env_config": {**tasks, "split": "val", "num_records": data.hparams["num_val"]}, "explore": False}
        return (
            ppo_config(tasks, p["width"], p["num_envs"])
            .training(
                train_batch_size_per_learner=p["batch_size"], minibatch_size=p["minibatch_size"],
                num_epochs=p["epochs"], lr=p["lr"], gamma=p["gamma"], lambda_=0.95, vf_clip_param=10.0, clip_param=0.2,
                grad_clip=1.0, entropy_coeff=p["entropy_coefficient"],
            )
            .evaluation(evaluation_config=held_out)
            .debugging(seed=p["seed"])
        )  # fmt: skip

    def rllib_metrics(self, result: dict[str, Any]) -> dict[str, float]:
        """Reward and length of the episodes that ended in an iteration, of those on validation tasks where it evaluated
        (`val`), and its time; what no episode tells is left out.
        """
        runners = {"train": result.get("env_runners"), "val": result.get("evaluation", {}).get("env_runners")}
        found = {"time/iteration_s": float(result["time_this_iter_s"])}
        for split, runner in runners.items():
            for name, key in (("reward", "episode_return_mean"), ("steps", "episode_len_mean"), ("success", "success")):
                value = float((runner or {}).get(key, math.nan))
                if math.isfinite(value):
                    found[f"{split}/{name}"] = value
        return found

    def rllib_end(self, algorithm: Any, folder: Path) -> dict[str, Any]:
        """Write the figure; returns the table of held-out success."""
        from .rllib_env import robots_act

        p = self.hparams
        tasks, team_size = self.data.test_tasks(), self.data.hparams["team_size"]
        draw = numpy.random.default_rng(p["seed"])
        teams: dict[str, Team] = {
            "trained, one draw": functools.partial(robots_act, algorithm, draw=draw),
            "trained, likeliest actions": functools.partial(robots_act, algorithm),
            "greedy over the planner's bound": functools.partial(greedy, draw=draw),
            "greedy over what is rewarded": functools.partial(greedy, draw=draw, to_go=actions_to_go),
            "random": functools.partial(at_random, draw=draw),
        }
        rows = [["planner", 1.0, 1.0, float(numpy.mean([task.num_steps for task in tasks]))]]
        rows += [[name, *play(tasks, team)] for name, team in teams.items()]
        names = {"trained, one draw": "trained", "trained, likeliest actions": "trained_likeliest",
                 "greedy over the planner's bound": "greedy", "greedy over what is rewarded": "greedy_reward",
                 "random": "random"}  # fmt: skip
        columns = ["who acts", "done", "done as quickly as the planner", "steps of those done"]
        title = f"{len(tasks)} held-out tasks" + (f" of {team_size} robots" if team_size else "")
        _draw(rows, folder / "success.png", title)
        return {
            "metrics": {f"test/success/{names[row[0]]}": row[1] for row in rows if row[0] in names},
            "tables": [{"title": title, "columns": columns, "rows": rows, "note": f"Cut off after {MAX_STEPS} steps."}],
            "figures": ["success.png"],
        }


def play(tasks: Sequence[Problem], team: Team, max_steps: int = MAX_STEPS) -> tuple[float, float, float | None]:
    """Share of tasks done, share done in the planner's number of steps, and mean steps of those done.

    Args:
        tasks: the tasks, each played once.
        team: what the robots do.
        max_steps: an episode is cut off after so many.
    """
    env = VikiMultiAgentEnv(tasks, max_steps)
    steps: list[int] = []
    quick = 0
    for number, task in enumerate(tasks):
        observations, infos = env.reset(options={"problem": number})
        while env.agents:
            observations, _, _, _, infos = env.step(team(env, observations))
        if all(info["done"] for info in infos.values()):
            steps.append(env.num_steps)
            quick += env.num_steps <= task.num_steps
    return len(steps) / len(tasks), quick / len(tasks), float(numpy.mean(steps)) if steps else None


def at_random(env: VikiMultiAgentEnv, observations: Observations, draw: numpy.random.Generator) -> dict[str, int]:
    """Any action that the state allows."""
    return {a: int(draw.choice(numpy.flatnonzero(seen["action_mask"]))) for a, seen in observations.items()}


def _bound(state: State) -> int:
    return steps_to_go(state, STRICT)


def greedy(
    env: VikiMultiAgentEnv,
    observations: Observations,
    draw: numpy.random.Generator,
    to_go: Callable[[State], int] = _bound,
) -> dict[str, int]:
    """One robot after the other takes the action after which least is left to do, given what those before it do; any of
    equal ones, and none that breaks an order asked for.

    Args:
        env: the environment.
        observations: what each robot sees.
        draw: chooses between equal ones.
        to_go: how much is left; the planner's bound on the steps unless given.
    """
    chosen: dict[str, int] = {}
    commands: list[Any] = []
    held = prepared(env.state)
    for agent, seen in observations.items():
        index, best = env.problem.agent_index[agent], (float("inf"), 0.0, 0)
        for action in map(int, numpy.flatnonzero(seen["action_mask"])):
            command = env.view.command(index, action)
            if command and (refusal(env.state, command, STRICT) or clash(env.state, [*commands, command], STRICT)):
                continue
            after = env.state.copy()
            apply(after, [*commands, *([command] if command else [])], STRICT, env.state)
            if follow(after, held, STRICT) is not None:
                continue
            best = min(best, (to_go(after), draw.random(), action))
        chosen[agent] = best[2]
        taken = env.view.command(index, best[2])
        commands += [taken] if taken else []
    return chosen


def _draw(rows: list[list[Any]], file: Path, title: str) -> None:
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    figure, axis = pyplot.subplots(figsize=(6, 2.6), layout="constrained")
    names = [row[0] for row in rows][::-1]
    axis.barh(names, [row[1] for row in rows][::-1], color="#9db7d5", label="done")
    axis.barh(names, [row[2] for row in rows][::-1], height=0.4, color="#2b5c8a", label="as quickly as the planner")
    axis.set_xlim(0, 1)
    axis.set_xlabel(f"share of {title}")
    axis.legend(fontsize=7, loc="lower right")
    with atomic_write(file) as temporary:
        figure.savefig(temporary, format="png", dpi=120)
    pyplot.close(figure)
