"""GRPO as an RLlib algorithm on the new API stack. Importing it needs ray.

An iteration: deal the prompts to the env runners (or complete them here), pack the episodes into one batch whose
minibatches are the same for any number of learners, update, hand the new weights to the runners.
"""

from __future__ import annotations

import functools
import time
from collections.abc import Sequence
from dataclasses import fields
from typing import Any

import numpy
import torch
from ray.rllib.algorithms.algorithm import Algorithm
from ray.rllib.algorithms.algorithm_config import AlgorithmConfig
from ray.rllib.core import DEFAULT_MODULE_ID
from ray.rllib.core.columns import Columns
from ray.rllib.env.single_agent_episode import SingleAgentEpisode
from ray.rllib.policy.sample_batch import MultiAgentBatch, SampleBatch
from ray.rllib.utils.metrics import ENV_RUNNER_RESULTS, LEARNER_RESULTS

from .env_runner import GenerationEnvRunner, sums_of
from .learner import GRPOTorchLearner
from .loss import token_weights
from .record_bank import DataSpec, open_bank
from .reports import SECONDS
from .rl_module import MASK, OLD, REFERENCE, WEIGHTS, module_spec
from .settings import GRPOSettings

_PATIENCE_S = 300.0
_OWN = tuple(f.name for f in fields(GRPOSettings))


class GRPOConfig(AlgorithmConfig):
    """Configuration of `GRPO`: RLlib's, and every setting of `GRPOSettings` under its own name (Tune can search them).

    Attributes:
        policy: folder of the policy that training begins with; also the reference.
        data: the datamodule as `record_bank.spec_of` gives it; its `batch_size` is the prompts of an iteration.
    """

    def __init__(self, algo_class: Any = None) -> None:
        super().__init__(algo_class=algo_class or GRPO)
        for name in _OWN:
            setattr(self, name, getattr(GRPOSettings, name))
        self.policy, self.data = "", DataSpec()
        self.env_runners(env_runner_cls=GenerationEnvRunner, num_env_runners=0)
        self.learners(num_learners=0)
        self.environment(disable_env_checking=True)
        self._dont_auto_sync_env_runner_states = True  # runners have none but the weights

    def training(self, *, policy: str | None = None, data: DataSpec | None = None, **kwargs: Any) -> GRPOConfig:
        """Set what is trained and how: `policy`, `data`, settings of `GRPOSettings`, or RLlib's own keys."""
        own = {name: kwargs.pop(name) for name in _OWN if name in kwargs and name not in ("lr", "grad_clip")}
        super().training(**kwargs)
        for name, value in (own | {"policy": policy or self.policy, "data": data or self.data}).items():
            setattr(self, name, value)
        return self

    def grpo_settings(self) -> GRPOSettings:
        """The settings of GRPO among all."""
        return GRPOSettings(**{name: getattr(self, name) for name in _OWN})

    def get_default_rl_module_spec(self) -> Any:
        """The policy's module."""
        return module_spec(self.policy, self.data, self.max_new_tokens, self.temperature, self.group_size)

    def get_default_learner_class(self) -> type:
        """Our learner."""
        return GRPOTorchLearner

    def validate(self) -> None:
        """Refuse what can't be.

        Raises:
            UserError: if the prompts do not divide.
        """
        super().validate()
        prompts = self.data["init_args"]["batch_size"]
        self.grpo_settings().check_prompts(prompts, self.num_learners)


class GRPO(Algorithm):
    """Group relative policy optimisation with a policy that answers whole prompts."""

    @classmethod
    def get_default_config(cls) -> GRPOConfig:
        """The published settings."""
        return GRPOConfig()

    @classmethod
    def _should_create_evaluation_env_runners(cls, eval_config: Any) -> bool:
        return False  # the training runners answer the validation records too

    def training_step(self) -> None:
        """One iteration."""
        config, prompts = self.config, self.config.data["init_args"]["batch_size"]
        first = self.iteration * prompts
        size = -(-prompts // max(1, config.num_env_runners))
        jobs = [
            {"draws": list(range(start, min(start + size, first + prompts)))}
            for start in range(first, first + prompts, size)
        ]
        begun = time.perf_counter()
        episodes = [e for found in self._deal(jobs, (ENV_RUNNER_RESULTS,)) for e in found]
        sampled = time.perf_counter()
        batch = pack(episodes, config.grpo_settings(), config.num_learners)
        rows = config.minibatch_prompts * config.group_size // max(1, config.num_learners)
        results = self.learner_group.update(
            batch=batch, timesteps={}, num_epochs=config.epochs, minibatch_size=rows, shuffle_batch_per_epoch=False
        )
        self.metrics.aggregate(results, key=LEARNER_RESULTS)
        updated = time.perf_counter()
        self.sync_weights()
        ended = time.perf_counter()
        # RLlib's own timers are moving averages that the first iteration rules for long
        told = {"update": updated - sampled, "sync": ended - updated, "iteration": ended - begun}
        self.metrics.log_dict(told, key=SECONDS, window=1)

    def sync_weights(self) -> None:
        """Hand the learners' weights to all runners; within one process without a detour over NumPy and Ray."""
        group = self.env_runner_group
        if self.learner_group.is_local and not group.num_remote_env_runners():
            state = self.learner_group._learner.module[DEFAULT_MODULE_ID].state_dict()
            self.env_runner.module.load_state_dict(state)
        else:
            group.sync_weights(from_worker_or_learner_group=self.learner_group, inference_only=True)

    def evaluate(self, parallel_train_future: Any = None) -> dict[str, Any]:
        """Answer `evaluation_duration` validation records greedily, evenly from all (levels stand one after the other),
        dealt to the runners.
        """
        most = len(open_bank(self.config.data).data.records("val"))
        wanted = min(int(self.config.evaluation_duration), most)
        runners = max(1, self.config.num_env_runners)
        numbers = [k * most // wanted for k in range(wanted)]
        jobs = [{"records": numbers[start::runners]} for start in range(min(runners, wanted))]
        episodes = [e for found in self._deal(jobs, None) for e in found]
        return {ENV_RUNNER_RESULTS: sums_of([(e.custom_data["level"], e.custom_data["reward"]) for e in episodes])}

    def load_checkpoint(self, checkpoint_dir: str) -> None:
        """Restore, and hand the restored weights to the runners."""
        super().load_checkpoint(checkpoint_dir)
        self.sync_weights()

    def _deal(self, jobs: Sequence[dict[str, Any]], key: tuple[str, ...] | None) -> list[list[SingleAgentEpisode]]:
        """Have jobs done by the runners, each once; the jobs of one that dies go to the others, or to its successor.
        What they log is gathered under `key`, if there is one.

        Raises:
            RuntimeError: if no runner has done a job for minutes; a job's own error, where it has one, instead.
        """
        group = self.env_runner_group
        if not group.num_remote_env_runners():
            found = [self.env_runner.sample(**job) for job in jobs]
            logged = [self.env_runner.get_metrics()]
            if key:
                self.metrics.aggregate(logged, key=key)
            return found
        done: dict[int, list[SingleAgentEpisode]] = {}
        metrics, give_up = [], time.monotonic() + _PATIENCE_S
        while left := [number for number in range(len(jobs)) if number not in done]:
            runners = group.healthy_env_runner_ids()
            if not runners:
                if time.monotonic() > give_up:
                    if self.env_runner is not None:
                        self.env_runner.sample(**jobs[left[0]])  # what always fails, fails here where it is seen
                    raise RuntimeError(f"no env runner has done its work within {_PATIENCE_S:.0f} s")
                time.sleep(0.5)
                self.restore_env_runners(group)
                continue
            now = left[: len(runners)]
            calls = [functools.partial(_do, number=number, job=jobs[number]) for number in now]
            answers = group.foreach_env_runner(calls, local_env_runner=False, remote_worker_ids=runners[: len(now)])
            for number, episodes, logged in answers:
                done[number] = episodes
                metrics.append(logged)
                give_up = time.monotonic() + _PATIENCE_S
        if key:
            self.metrics.aggregate(metrics, key=key)
        return [done[number] for number in range(len(jobs))]


def _do(runner: GenerationEnvRunner, number: int, job: dict[str, Any]) -> tuple[int, list[SingleAgentEpisode], Any]:
    return number, runner.sample(**job), runner.get_metrics()


def pack(episodes: Sequence[SingleAgentEpisode], settings: GRPOSettings, num_learners: int) -> MultiAgentBatch:
    """Episodes of one step as the learners' batch: columns trimmed to the longest completion, rows in the order in
    which learners cut them up, and what each token counts in its minibatch.

    Rows of one prompt stay together. With several learners RLlib gives each a run of rows, which it cuts into as many
    minibatches as there are; so the rows are laid out so that the learners' n-th minibatches make up the n-th one.

    Args:
        episodes: in the order of their draws, groups adjacent.
        settings: of GRPO.
        num_learners: learners that share the batch.
    """
    last = {name: numpy.stack([e.get_extra_model_outputs(name)[0] for e in episodes])
            for name in (MASK, OLD, REFERENCE, Columns.ADVANTAGES)}  # fmt: skip
    length = max(1, int(last[MASK].any(0).sum()))
    columns = {name: value[:, :length] if value.ndim == 2 else value for name, value in last.items()}
    columns[Columns.OBS] = numpy.stack([e.get_observations(0) for e in episodes])
    columns[Columns.ACTIONS] = numpy.stack([e.get_actions(0) for e in episodes])[:, :length]
    size = settings.minibatch_prompts * settings.group_size
    masks = torch.from_numpy(columns[MASK]).split(size)
    columns[WEIGHTS] = torch.cat([token_weights(mask, settings.aggregation) for mask in masks]).numpy()
    order = numpy.arange(len(episodes)).reshape(-1, max(1, num_learners), size // max(1, num_learners))
    rows = order.swapaxes(0, 1).reshape(-1)
    batch = SampleBatch({name: numpy.ascontiguousarray(value[rows]) for name, value in columns.items()})
    return MultiAgentBatch({DEFAULT_MODULE_ID: batch}, env_steps=len(episodes))
