"""From RLlib's checkpoints to folders of policies; the way back is the setting `policy`. Importing it needs ray."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from ray.rllib.core import COMPONENT_LEARNER, COMPONENT_LEARNER_GROUP, COMPONENT_RL_MODULE, DEFAULT_MODULE_ID
from ray.rllib.core.rl_module.rl_module import RLModule

from ....registry import UserError
from ..policy.policy import VikiPolicy


def save_policy(algorithm: Any, folder: Path) -> None:
    """Write the policy that an algorithm trains, in the form that `VikiPolicy.load` and transformers read."""
    policy: VikiPolicy = algorithm.get_module(DEFAULT_MODULE_ID).policy
    policy.save(folder)


def policy_of(checkpoint: Path) -> VikiPolicy:
    """The policy in a checkpoint of RLlib's (`Algorithm.save_to_path`), without an algorithm around it.

    Raises:
        UserError: if it holds none.
    """
    folder = checkpoint / COMPONENT_LEARNER_GROUP / COMPONENT_LEARNER / COMPONENT_RL_MODULE / DEFAULT_MODULE_ID
    if not folder.is_dir():
        raise UserError(f"{checkpoint}: no checkpoint of GRPO by RLlib ({folder.relative_to(checkpoint)} is missing)")
    policy: VikiPolicy = RLModule.from_checkpoint(folder.resolve()).policy
    return policy
