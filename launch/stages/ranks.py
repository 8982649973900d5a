"""Further processes of a multi-process fit: Lightning starts them with the command line or script of the first."""

from __future__ import annotations

import os
import time
from pathlib import Path

from ...registry import UserError
from ..config.experiment import Experiment
from .placeholders import expand
from .run_folder import RunFolder, all_runs

JOIN_VARIABLE = "FULGURITE_JOIN"


def is_further_rank() -> bool:
    """Whether this process was started by the first one of a fit."""
    return JOIN_VARIABLE in os.environ and os.environ.get("LOCAL_RANK", "0") != "0"


def join(experiment: Experiment, root: Path, max_time_s: float | None) -> RunFolder:
    """A further rank of a multi-process fit, started by Lightning with the command line or script of the first: only
    that stage, no lock, no record; then it leaves. What the first rank ran before (an earlier seed, an earlier
    `fulgurite.run` of a script) is skipped: its run folder is returned as it stands.

    Raises:
        SystemExit: after the stage.
        UserError: if an earlier run can't be found.
    """
    from .lightning_stage import run_lightning_stage

    digest, name, path = os.environ[JOIN_VARIABLE].split("::", 2)
    if digest != experiment.digest():
        before = [r for r in all_runs(root / experiment.name) if r.state["digest"] == experiment.digest()]
        if not before:
            raise UserError(f"{experiment.name}: a further process finds no run of the first one in {root}")
        return before[-1]
    stage = next(s for s in experiment.stages if s.name == name)
    stop_at = time.time() + max_time_s if max_time_s else None
    run_lightning_stage(
        stage.verb, expand(stage.settings, Path(path), experiment.seed), Path(path) / name, stop_at, None
    )
    raise SystemExit(0)
