"""`VikiMultiAgentEnv` for RLlib's new stack: the environment, a policy with masked actions, and stock PPO over them.

One module an embodiment: an agent's name says the robot's type, `R1:fetch`, and so which module acts for it. Importing
it needs ray.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from ray.rllib.algorithms.ppo import PPOConfig
from ray.rllib.core.columns import Columns
from ray.rllib.core.rl_module.apis.value_function_api import ValueFunctionAPI
from ray.rllib.core.rl_module.multi_rl_module import MultiRLModuleSpec
from ray.rllib.core.rl_module.rl_module import RLModuleSpec
from ray.rllib.core.rl_module.torch import TorchRLModule
from ray.rllib.env.multi_agent_env import MultiAgentEnv
from torch import Tensor, nn

from ...datamodules.viki.generator import draw_task
from ...datamodules.viki.problem import Problem
from ...datamodules.viki.vocabulary import robots
from .multi_agent_env import VikiMultiAgentEnv

Frames = dict[str, Any]


class RllibVikiEnv(MultiAgentEnv):
    """The environment under RLlib's names.

    Args:
        config: `split` and `num_records` of symbolic records to draw tasks from, `seed`, `team_size` (only records with
            so many robots; 0 for all), `max_steps`, `shaping`.
    """

    def __init__(self, config: Mapping[str, Any] | None = None) -> None:
        super().__init__()
        options: dict[str, Any] = {"split": "train", "num_records": 400, "seed": 0, "team_size": 2}
        options |= {"max_steps": 20, "shaping": True, **(config or {})}
        self.env = VikiMultiAgentEnv(
            problems(options["split"], options["num_records"], options["seed"], options["team_size"]),
            options["max_steps"], options["shaping"], options["seed"] + int(getattr(config, "worker_index", 0)),
        )  # fmt: skip
        self.possible_agents = [f"{agent}:{name}" for agent in self.env.possible_agents for name in robots()]
        self.observation_spaces = {name: self.env.observation_space("R1") for name in self.possible_agents}
        self.action_spaces = {name: self.env.action_space("R1") for name in self.possible_agents}
        self.agents: list[str] = []
        self._names: dict[str, str] = {}

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[Frames, Frames]:
        """Begin an episode."""
        observations, infos = self.env.reset(seed, options)
        team = zip(self.env.problem.agents, self.env.problem.types, strict=True)
        self._names = {agent: f"{agent}:{name}" for agent, name in team}
        self.agents = list(self._names.values())
        return self._renamed(observations), self._renamed(infos)

    def step(self, action_dict: Mapping[str, int]) -> tuple[Frames, Frames, Frames, Frames, Frames]:
        """One step of all robots."""
        actions = {name.partition(":")[0]: int(action) for name, action in action_dict.items()}
        observations, rewards, terminated, truncated, infos = self.env.step(actions)
        ends, cuts = self._renamed(terminated), self._renamed(truncated)
        ends["__all__"], cuts["__all__"] = all(terminated.values()), all(truncated.values())
        return self._renamed(observations), self._renamed(rewards), ends, cuts, self._renamed(infos)

    def _renamed(self, values: Mapping[str, Any]) -> Frames:
        return {self._names[agent]: value for agent, value in values.items()}


def problems(split: str, num_records: int, seed: int, team_size: int = 0) -> list[Problem]:
    """Tasks of a split's first records, those with so many robots; all for 0."""
    found = (Problem.read(draw_task(split, index, seed).truth) for index in range(num_records))
    return [problem for problem in found if team_size in (0, len(problem.agents))]


def module_of(agent: str, *_: Any, **__: Any) -> str:
    """Name of the module that acts for an agent: arm, wheeled, humanoid or dog."""
    return robots()[agent.partition(":")[2]].kind


class MaskedPolicy(TorchRLModule, ValueFunctionAPI):
    """An actor and a critic of two layers each; masked actions get no probability.

    `model_config`: `width` of the layers, 256 unless given.
    """

    def setup(self) -> None:
        """Make the networks."""
        features, width = self.observation_space["observations"].shape[0], self.model_config.get("width", 256)

        def layers(outputs: int) -> nn.Sequential:
            return nn.Sequential(
                nn.Linear(features, width), nn.Tanh(), nn.Linear(width, width), nn.Tanh(), nn.Linear(width, outputs)
            )

        self.actor, self.critic = layers(int(self.action_space.n)), layers(1)

    def _forward(self, batch: dict[str, Any], **_: Any) -> dict[str, Any]:
        seen = batch[Columns.OBS]
        logits_BA = self.actor(seen["observations"])
        return {Columns.ACTION_DIST_INPUTS: logits_BA.masked_fill(seen["action_mask"] == 0, -1e9)}

    def compute_values(self, batch: dict[str, Any], embeddings: Any = None) -> Tensor:
        """Values, float32 [B]."""
        values: Tensor = self.critic(batch[Columns.OBS]["observations"]).squeeze(-1)
        return values


def ppo_config(env_config: Mapping[str, Any] | None = None, width: int = 256, seed: int = 0) -> PPOConfig:
    """Stock PPO with a module an embodiment, in one process; the caller may change anything of it.

    Args:
        env_config: of `RllibVikiEnv`; its `team_size` says which modules there are.
        width: of the networks.
        seed: of networks and draws.
    """
    options: dict[str, Any] = {"team_size": 2, "seed": seed, **(env_config or {})}
    kinds = {2: ("humanoid", "wheeled"), 3: ("dog", "arm")}.get(
        options["team_size"], ("arm", "wheeled", "humanoid", "dog")
    )
    space = VikiMultiAgentEnv([problems("train", 1, 0)[0]])
    spec = RLModuleSpec(
        module_class=MaskedPolicy, observation_space=space.observation_space("R1"),
        action_space=space.action_space("R1"), model_config={"width": width},
    )  # fmt: skip
    return (
        PPOConfig()
        .environment(RllibVikiEnv, env_config=options, disable_env_checking=True)  # its check plays masked actions
        .env_runners(num_env_runners=0)
        .learners(num_learners=0)
        .multi_agent(policies=set(kinds), policy_mapping_fn=module_of)
        .rl_module(rl_module_spec=MultiRLModuleSpec(rl_module_specs=dict.fromkeys(kinds, spec)))
        .training(
            lr=5e-4, gamma=0.99, lambda_=0.95, entropy_coeff=0.005, clip_param=0.2, vf_clip_param=10.0,
            train_batch_size_per_learner=2000, minibatch_size=500, num_epochs=6, grad_clip=1.0,
        )
        .debugging(seed=seed)
    )  # fmt: skip


@torch.no_grad()
def success(algorithm: Any, tasks: list[Problem], max_steps: int = 20) -> tuple[float, float]:
    """Share of tasks that greedy policies do, and the share that they do in the planner's number of steps.

    Args:
        algorithm: a built PPO of `ppo_config`.
        tasks: the tasks.
        max_steps: an episode is cut off after so many.
    """
    env = RllibVikiEnv({"num_records": 1, "team_size": 0})
    env.env = VikiMultiAgentEnv(tasks, max_steps)
    done = quick = 0
    for number, task in enumerate(tasks):
        observations, infos = env.reset(options={"problem": number})
        while env.env.agents:
            actions = {agent: _greedy(algorithm, agent, seen) for agent, seen in observations.items()}
            observations, _, _, _, infos = env.step(actions)
        finished = all(info["done"] for info in infos.values())
        done += finished
        quick += finished and env.env.num_steps <= task.num_steps
    return done / len(tasks), quick / len(tasks)


def _greedy(algorithm: Any, agent: str, seen: Mapping[str, Any]) -> int:
    module = algorithm.get_module(module_of(agent))
    batch = {Columns.OBS: {name: torch.as_tensor(value)[None] for name, value in seen.items()}}
    return int(module.forward_inference(batch)[Columns.ACTION_DIST_INPUTS][0].argmax())
