"""Ray for the time of one stage or sweep: small, local, and gone at the end whatever happens."""

from __future__ import annotations

import contextlib
import logging
import os
import shutil
import signal
import tempfile
import warnings
from collections.abc import Iterator
from typing import Any

from .settings import RllibSettings

QUIET = {
    "RAY_USAGE_STATS_ENABLED": "0",
    "RAY_DEDUP_LOGS": "0",
    "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0",  # else it warns of what a later version will do
    "TOKENIZERS_PARALLELISM": "false",
}


@contextlib.contextmanager
def ray_session(settings: RllibSettings) -> Iterator[None]:
    """Start Ray on this machine for as many processes as a stage asks for; stop it when left."""
    with local_ray(settings.num_env_runners + settings.num_learners + 1, settings.object_store_mb):
        yield


@contextlib.contextmanager
def local_ray(num_cpus: int, object_store_mb: int) -> Iterator[None]:
    """Start Ray on this machine, without a dashboard; stop it when left.

    Ray's processes are the run's children: where the run itself is killed, the system ends them. Where the run is on
    Ray as a whole (`--on ray`), that Ray is taken, and left as it is.

    Args:
        num_cpus: processes that may ask for one each.
        object_store_mb: memory for what they share.
    """
    for name, value in QUIET.items():
        os.environ.setdefault(name, value)
    warnings.filterwarnings("ignore", message=".*RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO.*")
    import ray

    if ray.is_initialized():
        yield
        return
    for talker in ("ray", "ray.rllib", "ray.tune"):
        logging.getLogger(talker).setLevel(logging.ERROR)
    folder = tempfile.mkdtemp(prefix="ray-", dir="/tmp" if os.path.isdir("/tmp") else None)  # sockets want a short path
    on_sigterm = signal.getsignal(signal.SIGTERM)
    try:
        ray.init(
            address="local",  # else RAY_ADDRESS, where it is set, would name a cluster
            num_cpus=num_cpus, include_dashboard=False, _temp_dir=folder, object_store_memory=object_store_mb * 10**6,
            logging_level=logging.ERROR, log_to_driver=False,
        )  # fmt: skip
        with contextlib.suppress(ValueError):  # not in the main thread
            signal.signal(signal.SIGTERM, on_sigterm)  # Ray has put its own there, with another exit status
        yield
    finally:
        ray.shutdown()
        shutil.rmtree(folder, ignore_errors=True)


def apply_settings(config: Any, settings: RllibSettings) -> None:
    """Put processes, GPUs, evaluation and restarts into an `AlgorithmConfig`."""
    runners, learners = settings.num_env_runners, settings.num_learners
    shared = _share(runners + learners)
    runner_gpus = shared if settings.gpus_per_env_runner is None else settings.gpus_per_env_runner
    learner_gpus = shared if settings.gpus_per_learner is None else settings.gpus_per_learner
    config.env_runners(num_env_runners=runners, num_gpus_per_env_runner=runner_gpus if runners else 0)
    config.learners(num_learners=learners, num_gpus_per_learner=learner_gpus)
    config.fault_tolerance(restart_failed_env_runners=True)
    config.evaluation(evaluation_interval=settings.evaluate_every or None, evaluation_duration=settings.evaluation_size)
    config.debugging(log_level="ERROR")


def _share(processes: int) -> float:
    """GPUs for each of so many processes of Ray's; whole ones if there are enough."""
    import torch

    count = torch.cuda.device_count()
    if not count or not processes:
        return float(count > 0)
    return float(count // processes) if count >= processes else count / processes
