"""A sweep on Ray Tune: several trials at once, Optuna for bayes, ASHA for hyperband. Needs the extra `sweep`.

Tune decides which trial runs next and which is cut off; each trial is a process of its own (trial.TrialProcess). What
is done stands in the trials' files and not in Tune's own state, which a kill may leave seconds behind: a resumed sweep
starts Tune anew and shows it the values of the trials that have ended, without running them.
"""

from __future__ import annotations

import math
import os
import tempfile
from collections.abc import Sequence
from typing import Any

from ...registry import UserError, install_line
from ..rllib.session import local_ray
from .sweep_file import Sweep
from .trial import ENDED, Place, Trial

MOST_RUNGS = 20
QUIET = {
    "TUNE_DISABLE_AUTO_CALLBACK_LOGGERS": "1",
    "TUNE_PRINT_ALL_TRIAL_ERRORS": "0",
    "RAY_AIR_NEW_OUTPUT": "0",
}


def run_on_tune(place: Place, trials: Sequence[Trial], agents: int) -> list[Trial]:
    """Run the trials, or for bayes as many as the sweep asks for.

    Args:
        place: of the sweep.
        trials: of a grid or random search; empty for bayes.
        agents: trials at once.

    Returns:
        The trials as they ended, in the order in which they began.

    Raises:
        UserError: if a package of the extra `sweep` is missing.
        KeyboardInterrupt: after Ctrl-C, once the trials have stopped in good order.
    """
    os.environ.update(QUIET)
    try:
        from ray import tune
    except ImportError:
        raise UserError(f"this sweep needs Ray Tune\n{install_line('sweep')}") from None
    sweep, count, search = place.sweep, 1, None
    if sweep.method == "bayes":
        known = place.all()
        count = (sweep.run_cap or 0) - sum(t.state in ENDED for t in known)
        if count <= 0:
            return known
        space: dict[str, Any] = {}
        search = _optuna(sweep, known)
    else:
        space = {"trial": tune.grid_search([t.id for t in trials])}
    listed = {t.id: t for t in trials}
    with local_ray(agents, object_store_mb=80), tempfile.TemporaryDirectory(prefix="tune-") as temporary:
        import ray

        from .tune_parts import TrialSteps, Watcher

        gpus = ray.cluster_resources().get("GPU", 0.0) / agents
        share = {"cpu": 1, "gpu": gpus if gpus < 1 else math.floor(gpus)}
        trainable = tune.with_parameters(TrialSteps, place=place, listed=listed, agents=agents)
        tune.Tuner(
            tune.with_resources(trainable, share),
            param_space=space,
            tune_config=tune.TuneConfig(
                metric="value", mode="max" if sweep.maximize else "min", num_samples=count, search_alg=search,
                scheduler=_asha(sweep), max_concurrent_trials=agents,
            ),
            run_config=tune.RunConfig(
                name="tune", storage_path=temporary, verbose=0, callbacks=[Watcher(place, listed)],
                checkpoint_config=tune.CheckpointConfig(checkpoint_at_end=False),
            ),
        ).fit()  # fmt: skip
    found = place.all() if sweep.method == "bayes" else [place.load(t) for t in trials]
    if any(t.state not in ENDED for t in found):
        raise KeyboardInterrupt  # Tune takes Ctrl-C for the end of the search
    return found


def _asha(sweep: Sweep) -> Any:
    from ray.tune.schedulers import AsyncHyperBandScheduler, FIFOScheduler

    if sweep.early is None:
        return FIFOScheduler()
    rungs = MOST_RUNGS if sweep.early.num_rungs is None else sweep.early.num_rungs
    return AsyncHyperBandScheduler(
        time_attr="training_iteration", grace_period=sweep.early.min_iter, reduction_factor=sweep.early.eta,
        max_t=math.ceil(sweep.early.min_iter * sweep.early.eta**rungs), stop_last_trials=False,
    )  # fmt: skip


def _optuna(sweep: Sweep, known: Sequence[Trial]) -> Any:
    """Optuna's search over the unit cube (parameters.py): told of trials that have ended, handed those begun first."""
    try:
        import optuna
        from ray.tune.search.optuna import OptunaSearch
    except ImportError:
        raise UserError(f"bayes without a W&B key needs Optuna\n{install_line('sweep')}") from None
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    space: dict[str, Any] = {}
    for parameter in sweep.parameters:
        if parameter.is_choice:
            choices = list(range(len(parameter.values or ())))
            space[parameter.name] = optuna.distributions.CategoricalDistribution(choices)
        else:
            space[parameter.name] = optuna.distributions.FloatDistribution(0.0, 1.0)
    begun = [t.point for t in known if t.state == "running" and t.point]
    mode = "max" if sweep.maximize else "min"
    search = OptunaSearch(space, metric="value", mode=mode, seed=len(known), points_to_evaluate=begun or None)
    for trial in known:
        if trial.state in ENDED and trial.point and trial.value is not None:
            search.add_evaluated_point(trial.point, trial.value)
    return search
