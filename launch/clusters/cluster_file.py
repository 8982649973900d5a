"""A cluster's YAML file: what a site asks of a SLURM job, apart from what is run. No torch here.

schema_version: 1
partition: gpu
account: vision
time: 24h
cpus_per_task: 8
memory_gb: 200
container: /shared/images/fulgurite.sif
setup: [module load cuda/12.8, source /shared/venvs/fulgurite/bin/activate]
options: {constraint: h100}
"""

from __future__ import annotations

import re
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

from ...registry import UserError, did_you_mean
from ..config.settings import read_yaml

SCHEMA_VERSION = 1
_UNITS = {"m": 1, "h": 60, "d": 1440}


@dataclass(frozen=True)
class Cluster:
    """What a site asks of a job.

    Args:
        partition: of the cluster.
        account: that pays.
        time: of a job, such as 90m, 24h, 2d; a run that needs more is queued again and goes on.
        cpus_per_task: cores of each process.
        memory_gb: of each machine.
        container: Apptainer image in which the run's command is started.
        setup: shell lines before it.
        options: further options of sbatch.
        warning_s: seconds before the end of its time at which a job is told to save.
    """

    partition: str | None = None
    account: str | None = None
    time: str = "24h"
    cpus_per_task: int | None = None
    memory_gb: float | None = None
    container: str | None = None
    setup: tuple[str, ...] = ()
    options: dict[str, Any] | None = None
    warning_s: int = 120

    @property
    def minutes(self) -> int:
        """A job's time."""
        return int(self.time[:-1]) * _UNITS[self.time[-1]]


def read_cluster(file: Path | None) -> Cluster:
    """Read a cluster's file; None gives SLURM's own defaults.

    Raises:
        UserError: for an unknown key or a value of the wrong kind, with its line.
    """
    if file is None:
        return Cluster()
    if not file.is_file():
        raise UserError(f"--cluster {file}: no such file")
    leaves = read_yaml(file)
    known = [f.name for f in fields(Cluster)]
    given: dict[str, Any] = {}
    origins: dict[str, str] = {}
    for path, leaf in leaves.items():
        key = path[0]
        if key not in (*known, "schema_version"):
            hint = did_you_mean(key, known, f"Known here: {', '.join(known)}.")
            raise UserError(f"{leaf.origin}: unknown key '{key}'\n{hint}")
        origins[key] = leaf.origin
        if len(path) > 1:
            given.setdefault(key, {})["-".join(path[1:])] = leaf.value
        else:
            given[key] = leaf.value
    if given.pop("schema_version", None) != SCHEMA_VERSION:
        raise UserError(
            f"{file}: `schema_version: {SCHEMA_VERSION}` is missing, or another\nThis version reads {SCHEMA_VERSION}."
        )
    for key, value in given.items():
        _check(key, value, origins[key])
    return Cluster(**{**given, "setup": tuple(given.get("setup") or ())})


def _check(key: str, value: Any, origin: str) -> None:
    texts = isinstance(value, list) and all(isinstance(v, str) for v in value)
    fits, kind = {
        "time": (bool(re.fullmatch(r"[1-9]\d*[mhd]", str(value))), "a time such as 90m, 24h, 2d"),
        "cpus_per_task": (type(value) is int and value > 0, "a whole number from 1 on"),
        "memory_gb": (type(value) in (int, float) and value > 0, "a number of gigabytes"),
        "setup": (texts, "a list of shell lines"),
        "options": (isinstance(value, dict), "a mapping of sbatch's options"),
        "warning_s": (type(value) is int and value > 0, "a whole number of seconds"),
    }.get(key, (isinstance(value, str), "a text"))
    if not fits:
        raise UserError(f"{origin}: `{key}:` is {kind}, not {value!r}"[:300])
