"""`VikiMultiAgentEnv` for RLlib's new stack: the environment, a policy with masked actions, and stock PPO over them.

One module an embodiment: an agent's number says the robot's type, and so which module acts for it. RLlib goes through
sets of agents, and the order of names in a set is another in every process; that of numbers is not, so that a run is a
function of its seed. Importing it needs ray.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy
import torch
from ray.rllib.algorithms.ppo import PPOConfig
from ray.rllib.core.columns import Columns
from ray.rllib.core.rl_module.apis.value_function_api import ValueFunctionAPI
from ray.rllib.core.rl_module.multi_rl_module import MultiRLModuleSpec
from ray.rllib.core.rl_module.rl_module import RLModuleSpec
from ray.rllib.core.rl_module.torch import TorchRLModule
from ray.rllib.env.multi_agent_env import MultiAgentEnv
from torch import Tensor

from ...datamodules.viki.tasks import problems
from ...datamodules.viki.vocabulary import robots
from .multi_agent_env import VikiMultiAgentEnv
from .robot_network import RobotNetwork

Frames = dict[Any, Any]  # by an agent's number, or `__all__`
_PLACES = 8  # the least size of a set's table, in which numbers that differ by less have their own slots
_SUCCESS_WINDOW = 200  # episodes that the share of tasks done is taken over


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
        self.possible_agents = [
            _number(place, name) for place in range(len(self.env.possible_agents)) for name in robots()
        ]
        self.observation_spaces = {number: self.env.observation_space("R1") for number in self.possible_agents}
        self.action_spaces = {number: self.env.action_space("R1") for number in self.possible_agents}
        self.agents: list[int] = []
        self._numbers: dict[str, int] = {}

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[Frames, Frames]:
        """Begin an episode."""
        observations, infos = self.env.reset(seed, options)
        team = enumerate(zip(self.env.problem.agents, self.env.problem.types, strict=True))
        self._numbers = {agent: _number(place, name) for place, (agent, name) in team}
        self.agents = list(self._numbers.values())
        return self._numbered(observations), self._numbered(infos)

    def step(self, action_dict: Mapping[int, int]) -> tuple[Frames, Frames, Frames, Frames, Frames]:
        """One step of all robots."""
        actions = {agent: int(action_dict[n]) for agent, n in self._numbers.items() if n in action_dict}
        observations, rewards, terminated, truncated, infos = self.env.step(actions)
        ends, cuts = self._numbered(terminated), self._numbered(truncated)
        ends["__all__"], cuts["__all__"] = all(terminated.values()), all(truncated.values())
        return self._numbered(observations), self._numbered(rewards), ends, cuts, self._numbered(infos)

    def _numbered(self, values: Mapping[str, Any]) -> Frames:
        return {self._numbers[agent]: value for agent, value in values.items()}


def _number(place: int, name: str) -> int:
    """A robot's number by its place in the team and its type; a set of a team's has them in the team's order."""
    return list(robots()).index(name) * _PLACES + place


def module_of(agent: int, *_: Any, **__: Any) -> str:
    """Name of the module that acts for an agent: arm, wheeled, humanoid or dog."""
    return list(robots().values())[agent // _PLACES].kind


class MaskedPolicy(TorchRLModule, ValueFunctionAPI):
    """An actor and a critic, a `RobotNetwork` each; masked actions get no probability.

    `model_config`: `width` of the layers, 64 unless given.
    """

    def setup(self) -> None:
        """Make the networks."""
        width = self.model_config.get("width", 64)
        self.actor, self.critic = RobotNetwork(width, "actions"), RobotNetwork(width, "value")

    def _forward(self, batch: dict[str, Any], **_: Any) -> dict[str, Any]:
        seen = batch[Columns.OBS]
        logits_BA = self.actor(seen["observations"])
        return {Columns.ACTION_DIST_INPUTS: logits_BA.masked_fill(seen["action_mask"] == 0, -1e9)}

    def compute_values(self, batch: dict[str, Any], embeddings: Any = None) -> Tensor:
        """Values, float32 [B]."""
        values: Tensor = self.critic(batch[Columns.OBS]["observations"])
        return values


def ppo_config(env_config: Mapping[str, Any], width: int = 64, num_envs: int = 1) -> PPOConfig:
    """Stock PPO with a module an embodiment, in one process; how it learns is the caller's `training(...)`.

    Args:
        env_config: of `RllibVikiEnv`; its `team_size` says which modules there are.
        width: of the networks.
        num_envs: tasks that are played at once.
    """
    kinds = {2: ("humanoid", "wheeled"), 3: ("dog", "arm")}.get(
        env_config["team_size"], ("arm", "wheeled", "humanoid", "dog")
    )
    space = VikiMultiAgentEnv([problems("train", 1, 0)[0]])
    spec = RLModuleSpec(
        module_class=MaskedPolicy, observation_space=space.observation_space("R1"),
        action_space=space.action_space("R1"), model_config={"width": width},
    )  # fmt: skip
    return (
        PPOConfig()
        .environment(RllibVikiEnv, env_config=dict(env_config), disable_env_checking=True)  # it plays masked ones
        # RLlib's runner would turn every finished episode into arrays again at each later step
        .env_runners(num_env_runners=0, num_envs_per_env_runner=num_envs, episodes_to_numpy=False)
        .learners(num_learners=0)
        .multi_agent(policies=kinds, policy_mapping_fn=module_of)  # a set's order would be another in every process
        .rl_module(rl_module_spec=MultiRLModuleSpec(rl_module_specs=dict.fromkeys(kinds, spec)))
        .callbacks(on_episode_end=_log_success)
    )  # fmt: skip


def _log_success(*, episode: Any, metrics_logger: Any, **_: Any) -> None:
    """An episode's task is done, or not."""
    done = all(info["done"] for info in episode.get_infos(-1).values())
    metrics_logger.log_value("success", float(done), reduce="mean", window=_SUCCESS_WINDOW)


def robots_act(
    algorithm: Any, env: VikiMultiAgentEnv, observations: Mapping[str, Any], draw: numpy.random.Generator | None = None
) -> dict[str, int]:
    """What the trained robots of an environment do.

    Args:
        algorithm: a built PPO of `ppo_config`.
        env: the environment.
        observations: what each robot sees.
        draw: draws actions by their probabilities; the likeliest ones without.
    """
    found = {}
    for agent, seen in observations.items():
        kind = robots()[env.problem.types[env.problem.agent_index[agent]]].kind
        batch = {Columns.OBS: {name: torch.as_tensor(value)[None] for name, value in seen.items()}}
        logits_A = algorithm.get_module(kind).forward_inference(batch)[Columns.ACTION_DIST_INPUTS][0].cpu()
        if draw is None:
            found[agent] = int(logits_A.argmax())
        else:
            chances = logits_A.double().softmax(0).numpy()
            found[agent] = int(draw.choice(len(chances), p=chances / chances.sum()))
    return found
