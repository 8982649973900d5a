"""The policy as RLlib holds it: a `TorchRLModule` around the very network that a LightningModule trains.

An observation is a record's number, an action a whole completion. Importing it needs ray.
"""

from __future__ import annotations

from typing import Any

import numpy
from gymnasium import spaces
from ray.rllib.core.columns import Columns
from ray.rllib.core.rl_module.rl_module import RLModuleSpec
from ray.rllib.core.rl_module.torch import TorchRLModule

from .record_bank import DataSpec, open_bank
from .rollout import load_policy, log_probs_and_entropy

MASK, OLD, REFERENCE, WEIGHTS = "token_mask", "old_log_probs", "reference_log_probs", "token_weights"
ENTROPY = "entropy"
_MOST_RECORDS = 2**31 - 1


class PolicyRLModule(TorchRLModule):
    """A `VikiPolicy` under RLlib.

    `model_config`: `policy`, the folder that it is loaded from; `data`, the datamodule whose training records the
    observations number; `max_new_tokens`, `temperature`, `group_size`.
    """

    def setup(self) -> None:
        """Load the policy."""
        self.policy = load_policy(self.model_config["policy"], self.model_config["data"]["init_args"])

    def _forward_train(self, batch: dict[str, Any], **_: Any) -> dict[str, Any]:
        """Log-probabilities of the batch's completions and entropies, {"action_logp", "entropy"}: float32 [G, L].

        Rows are whole groups, those of one prompt adjacent; a record may come twice, at the end of a pass.
        """
        numbers = batch[Columns.OBS].reshape(-1).tolist()
        drawn = numbers[:: self.model_config["group_size"]]
        records = open_bank(self.model_config["data"]).records("train", drawn)
        encoded = self.policy.encode([self.policy.asked.prompt(record) for record in records])
        log_probs_GL, entropy_GL = log_probs_and_entropy(
            self.policy, encoded, batch[Columns.ACTIONS].long(), batch[MASK],
            self.model_config["temperature"],
        )  # fmt: skip
        return {Columns.ACTION_LOGP: log_probs_GL, ENTROPY: entropy_GL}


def observation_space() -> spaces.Box:
    """A record's number, int64 [1]."""
    return spaces.Box(0, _MOST_RECORDS, (1,), numpy.int64)


def action_space(max_new_tokens: int) -> spaces.Box:
    """The tokens of a completion, int64 [L]."""
    return spaces.Box(0, _MOST_RECORDS, (max_new_tokens,), numpy.int64)


def module_spec(policy: str, data: DataSpec, max_new_tokens: int, temperature: float, group_size: int) -> RLModuleSpec:
    """How RLlib makes the module.

    Args:
        policy: folder of the policy to begin with.
        data: the datamodule.
        max_new_tokens: length of an action.
        temperature: of draws, and of the log-probabilities.
        group_size: completions of a prompt in training.
    """
    config = {"policy": policy, "data": data, "max_new_tokens": max_new_tokens, "temperature": temperature}
    config["group_size"] = group_size
    return RLModuleSpec(
        module_class=PolicyRLModule, observation_space=observation_space(), action_space=action_space(max_new_tokens),
        model_config=config,
    )  # fmt: skip
