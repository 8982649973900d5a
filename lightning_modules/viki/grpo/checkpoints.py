"""From RLlib's algorithm to a folder of a policy; the way back is the setting `policy`. Importing it needs ray."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from ray.rllib.core import DEFAULT_MODULE_ID

from ..policy.policy import VikiPolicy


def save_policy(algorithm: Any, folder: Path) -> None:
    """Write the policy that an algorithm trains, in the form that `VikiPolicy.load` and transformers read."""
    policy: VikiPolicy = algorithm.get_module(DEFAULT_MODULE_ID).policy
    policy.save(folder)
