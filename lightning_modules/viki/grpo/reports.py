"""What RLlib's result of an iteration says, in the names and units of our other runs."""

from __future__ import annotations

import math
from typing import Any

from ..rewards import POOLED_LEVELS

MODULE = "default_policy"
_LEARNER = ("loss", "policy_loss", "kl", "ratio", "clipped", "entropy", "first_ratio_gap")
SECONDS = "seconds"
"""Where the algorithm tells what `update`, `sync` and the whole `iteration` took."""


def iteration_metrics(result: dict[str, Any]) -> dict[str, float]:
    """Metrics of one training iteration, and of the evaluation where there was one; what is not known is left out."""
    runner, learner = result["env_runners"], result["learners"][MODULE]
    found = _rewards("train", runner)
    found |= {f"train/{name}": float(learner[name]) for name in _LEARNER}
    found["train/grad_norm"] = float(learner["gradients_default_optimizer_global_norm"])
    count = runner["num_completions"]
    found["train/telling_groups"] = runner["telling_sum"] / count
    found["train/tokens_per_completion"] = runner["tokens_sum"] / count
    found |= {f"time/{name}_s": float(runner[f"{name}_s"]) for name in ("generate", "reward", "log_probs")}
    found |= {f"time/{name}_s": float(result[SECONDS][name]) for name in ("update", "sync", "iteration")}
    found["time/completions_per_s"] = count / found["time/iteration_s"]
    found["time/tokens_per_s"] = runner["tokens_sum"] / found["time/iteration_s"]
    evaluated = result.get("evaluation", {}).get("env_runners")
    if evaluated:
        found |= _rewards("val", evaluated)
    return {name: value for name, value in found.items() if math.isfinite(value)}


def _rewards(split: str, runner: dict[str, Any]) -> dict[str, float]:
    count = max(1, runner["num_completions"])
    names = {"reward": "total", "format": "format"}
    found = {f"{split}/{name}": runner[f"{part}_sum"] / count for name, part in names.items()}
    right, asked = (sum(runner[f"l{level}_{what}"] for level in POOLED_LEVELS) for what in ("sum", "count"))
    if asked > 0:
        found[f"{split}/accuracy"] = right / asked
    for level in (1, 2, 3):
        if runner[f"l{level}_count"] > 0:
            found[f"{split}/accuracy_l{level}"] = runner[f"l{level}_sum"] / runner[f"l{level}_count"]
    return found
