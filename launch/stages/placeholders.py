"""`${run_dir}`, `${seed}` and `artifact:…` in a stage's settings, put in when the stage begins."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from ..config.settings import Leaf, Settings


def expand(settings: Settings, run_dir: Path, seed: int) -> Settings:
    """Settings with `${run_dir}` and `${seed}` put in, and W&B artifacts (`artifact:…`) downloaded; other `${…}` are
    left to the configuration's own interpolation.

    Raises:
        UserError: if an artifact can't be had.
    """

    def put(value: Any) -> Any:
        if isinstance(value, str):
            if value == "${seed}":
                return seed
            if value.startswith("artifact:"):
                from ..wandb import local_path

                return str(local_path(value))
            return value.replace("${run_dir}", str(run_dir)).replace("${seed}", str(seed))
        if isinstance(value, list):
            return [put(v) for v in value]
        return {k: put(v) for k, v in value.items()} if isinstance(value, dict) else value

    found = Settings()
    found.leaves = {p: Leaf(put(leaf.value), leaf.origin, leaf.replaced) for p, leaf in settings.leaves.items()}
    return found
