"""RLlib's EnvRunner for GRPO: completes prompts, rewards the completions; one completion is an episode of one step.

Importing it needs ray.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import Any

import numpy
import torch
from ray.rllib.core import COMPONENT_RL_MODULE, DEFAULT_MODULE_ID
from ray.rllib.core.columns import Columns
from ray.rllib.env.env_runner import EnvRunner
from ray.rllib.env.single_agent_episode import SingleAgentEpisode
from ray.rllib.utils.checkpoints import Checkpointable
from ray.rllib.utils.metrics import EPISODE_RETURN_MEAN, NUM_ENV_STEPS_SAMPLED, NUM_ENV_STEPS_SAMPLED_LIFETIME

from ..policy.policy import VikiPolicy
from ..rewards import Reward
from .record_bank import open_bank
from .rl_module import MASK, OLD, REFERENCE, action_space, observation_space
from .rollout import Rollout, answer, roll_out, rollout_seed

COUNT = "num_completions"
LEVELS = (1, 2, 3)


class GenerationEnvRunner(EnvRunner, Checkpointable):
    """Draws a group of completions for each prompt. What it draws depends on weights, draws and seed alone, so that a
    runner that died can be stood in for by any other.
    """

    def __init__(self, *, config: Any, **kwargs: Any) -> None:
        super().__init__(config=config, **kwargs)
        self.settings = self.config.grpo_settings()
        self.make_module()

    def make_module(self) -> None:
        """Load the policy, and the reference where the KL counts."""
        device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
        spec = self.config.get_rl_module_spec()
        self.module = spec.build().to(device).eval()
        self.reference: VikiPolicy | None = None
        if self.settings.kl_coefficient > 0:
            self.reference = VikiPolicy.load(spec.model_config["policy"]).to(device).eval().requires_grad_(False)
        self.bank = open_bank(spec.model_config["data"])

    def sample(self, *, draws: Sequence[int] = (), records: Sequence[int] = (), **_: Any) -> list[SingleAgentEpisode]:
        """Complete the prompts at `draws` of the training stream; or, greedily, validation records.

        Args:
            draws: places in the training stream.
            records: numbers of validation records.
        """
        if draws:
            return self._train(list(draws))
        numbers = list(records)
        asked = self.bank.records("val", numbers)
        rewards = answer(self.module.policy, asked, self.settings)[1]
        self._log([record.level for record in asked], rewards)
        episodes = [
            _episode(n, numpy.zeros(1, numpy.int64), r.total, {}) for n, r in zip(numbers, rewards, strict=True)
        ]
        for episode, record, reward in zip(episodes, asked, rewards, strict=True):
            episode.custom_data.update(level=record.level, reward=reward)
        return episodes

    def _train(self, draws: list[int]) -> list[SingleAgentEpisode]:
        numbers = self.bank.numbers(draws)
        asked = self.bank.records("train", numbers)
        seed = rollout_seed(self.config.seed or 0, draws[0])
        found = roll_out(self.module.policy, self.reference, asked, self.settings, seed)
        group = self.settings.group_size
        self._log([record.level for record in asked for _ in range(group)], found.rewards)
        self._log_more(found)
        columns = {
            name: value.numpy()
            for name, value in (
                (MASK, found.mask_GL), (OLD, found.old_GL), (REFERENCE, found.reference_GL),
                (Columns.ADVANTAGES, found.advantages_G), (Columns.ACTIONS, found.tokens_GL),
            )
        }  # fmt: skip
        episodes = []
        for row, reward in enumerate(found.rewards):
            extra = {name: value[row] for name, value in columns.items() if name != Columns.ACTIONS}
            episodes.append(_episode(numbers[row // group], columns[Columns.ACTIONS][row], reward.total, extra))
            episodes[-1].custom_data["draw"] = draws[row // group]
        return episodes

    def _log(self, levels: Sequence[int], rewards: Sequence[Reward]) -> None:
        for name, value in sums_of(list(zip(levels, rewards, strict=True))).items():
            self.metrics.log_value(name, value, reduce="sum")
        self.metrics.log_value(EPISODE_RETURN_MEAN, float(numpy.mean([r.total for r in rewards])), reduce="mean")
        self.metrics.log_value(NUM_ENV_STEPS_SAMPLED, len(rewards), reduce="sum")
        self.metrics.log_value(NUM_ENV_STEPS_SAMPLED_LIFETIME, len(rewards), reduce="lifetime_sum")

    def _log_more(self, found: Rollout) -> None:
        group = self.settings.group_size
        totals_PG = torch.tensor([r.total for r in found.rewards]).reshape(-1, group)
        telling = (totals_PG.amax(1) > totals_PG.amin(1)).sum()
        self.metrics.log_value("telling_sum", float(telling) * group, reduce="sum")
        self.metrics.log_value("tokens_sum", int(found.mask_GL.sum()), reduce="sum")
        for name, seconds in found.seconds.items():
            self.metrics.log_value(f"{name}_s", seconds, reduce="sum")

    def get_metrics(self) -> Any:
        """What was logged since the last call."""
        return self.metrics.reduce()

    def get_spaces(self) -> dict[str, Any]:
        """Spaces of the one module, which are the environment's too."""
        spaces = (observation_space(), action_space(self.settings.max_new_tokens))
        return {DEFAULT_MODULE_ID: spaces, "__env__": spaces}

    def assert_healthy(self) -> None:
        """It has its policy."""
        assert self.module is not None

    def get_state(
        self, components: str | Collection[str] | None = None, *, not_components: str | Collection[str] | None = None,
        **kwargs: Any,
    ) -> dict[str, Any]:  # fmt: skip
        """The policy's weights; there is nothing else to remember."""
        if not self._check_component(COMPONENT_RL_MODULE, components, not_components):
            return {}
        return {COMPONENT_RL_MODULE: self.module.get_state(**kwargs)}

    def set_state(self, state: dict[str, Any]) -> None:
        """Take weights over."""
        weights = state.get(COMPONENT_RL_MODULE)
        if weights is not None:
            self.module.set_state(weights.get(DEFAULT_MODULE_ID, weights))

    def get_ctor_args_and_kwargs(self) -> tuple[tuple[Any, ...], dict[str, Any]]:
        """For RLlib's checkpoints."""
        return (), {"config": self.config}

    def get_checkpointable_components(self) -> list[tuple[str, Any]]:
        """The module is a part with its own state."""
        return [(COMPONENT_RL_MODULE, self.module)]


def sums_of(rewards: Sequence[tuple[int, Reward]]) -> dict[str, float]:
    """Counts and sums of the parts of (level, reward) pairs; accuracy by level, as levels do not compare."""
    found: dict[str, float] = {COUNT: len(rewards)}
    for part in ("format", "total"):
        found[f"{part}_sum"] = float(sum(getattr(reward, part) for _, reward in rewards))
    for level in LEVELS:
        of_level = [reward.accuracy for own, reward in rewards if own == level]
        found |= {f"l{level}_count": len(of_level), f"l{level}_sum": float(sum(of_level))}
    return found


def _episode(number: int, action: numpy.ndarray, reward: float, extra: dict[str, Any]) -> SingleAgentEpisode:
    episode = SingleAgentEpisode(observation_space=None, action_space=None)
    seen = numpy.array([number], numpy.int64)
    episode.add_env_reset(observation=seen)
    episode.add_env_step(seen, action, reward, terminated=True, extra_model_outputs=extra)
    return episode
