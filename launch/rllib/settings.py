"""What `rllib:` in an experiment takes. No ray and no torch here."""

from __future__ import annotations

import math
from collections.abc import Mapping

from ...registry import UserError


class RllibSettings:
    """How long and on how many processes a stage with `runner: rllib` trains.

    Args:
        iterations: training iterations.
        num_env_runners: processes that draw; 0 draws in the run's own.
        num_learners: processes that update; 0 updates in the run's own.
        gpus_per_env_runner: GPUs of each of them, also parts of one; what the machine has is shared out unless given.
        gpus_per_learner: the same for learners.
        evaluate_every: iterations between two evaluations; 0 for none.
        evaluation_size: what an evaluation evaluates: validation records of GRPO, held-out episodes of robots.
        enough: metrics and values, such as {val/success: 0.98}: training ends after the iteration in which all of them
            are reached, or more. None of a test.
        save_every: iterations between two checkpoints; `--max-time` and SIGTERM save too.
        object_store_mb: memory for what processes hand to each other.
    """

    def __init__(
        self,
        iterations: int = 100,
        num_env_runners: int = 0,
        num_learners: int = 0,
        gpus_per_env_runner: float | None = None,
        gpus_per_learner: float | None = None,
        evaluate_every: int = 0,
        evaluation_size: int = 100,
        enough: dict[str, float] | None = None,
        save_every: int = 10,
        object_store_mb: int = 200,
    ) -> None:
        for name, value, least in (
            ("iterations", iterations, 1), ("num_env_runners", num_env_runners, 0), ("num_learners", num_learners, 0),
            ("evaluate_every", evaluate_every, 0), ("evaluation_size", evaluation_size, 1),
            ("save_every", save_every, 1), ("object_store_mb", object_store_mb, 80),
        ):  # fmt: skip
            if value < least:
                raise UserError(f"rllib.{name} is a whole number from {least} on, not {value}")
        for name in enough or {}:
            if not name.startswith(("train/", "val/")):
                raise UserError(f"rllib.enough: {name} is no metric of training or validation, train/… or val/…")
        self.enough = dict(enough or {})
        self.iterations, self.num_env_runners, self.num_learners = iterations, num_env_runners, num_learners
        self.gpus_per_env_runner, self.gpus_per_learner = gpus_per_env_runner, gpus_per_learner
        self.evaluate_every, self.evaluation_size = evaluate_every, evaluation_size
        self.save_every, self.object_store_mb = save_every, object_store_mb

    def is_enough(self, values: Mapping[str, float]) -> bool:
        """Whether an iteration's metrics end the training."""
        return bool(self.enough) and all(values.get(k, -math.inf) >= v for k, v in self.enough.items())
