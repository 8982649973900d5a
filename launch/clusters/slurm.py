"""`fulgurite run EXPERIMENT --on slurm`: the same command as a job, written with submitit, one process for each GPU.

The job calls `fulgurite run` in every process (stages/group.py says how they work together). Before its time is over,
or when it has to make room, SLURM signals the processes: they save, the job is queued again, and the same command goes
on in the same run folder.
"""

from __future__ import annotations

import os
import re
import shlex
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ...registry import UserError
from ..config.experiment import Experiment
from ..records.redaction import redact
from ..stages.group import REQUEUE_VARIABLE
from ..stages.termination import EXIT_STATUS
from ..strategies import check, one_process
from .cluster_file import Cluster

_OURS = ("--on", "--nodes", "--gpus-per-node", "--tasks-per-node", "--cluster")


@dataclass(frozen=True)
class SlurmOptions:
    """How much of a cluster a run takes.

    Args:
        cluster: what the site asks for.
        nodes: machines.
        gpus_per_node: of each machine; each gets a process.
        tasks_per_node: processes of each machine, where no GPUs are asked for.
        root: of the run folders; the job's logs lie below it.
    """

    cluster: Cluster
    nodes: int = 1
    gpus_per_node: int = 0
    tasks_per_node: int = 1
    root: Path = Path("runs")

    @property
    def processes_per_node(self) -> int:
        """Processes of each machine."""
        return self.gpus_per_node or self.tasks_per_node


def check_experiment(experiment: Experiment, options: SlurmOptions) -> None:
    """Refuse what can't run in so many processes, before anything is queued.

    Raises:
        UserError: with the reason.
    """
    for name, value in (("nodes", options.nodes), ("tasks-per-node", options.tasks_per_node)):
        if value < 1:
            raise UserError(f"--{name} {value}: at least 1")
    if options.gpus_per_node < 0:
        raise UserError(f"--gpus-per-node {options.gpus_per_node}: at least 0")
    for stage in experiment.stages:
        if stage.verb != "command" and not one_process(stage):
            check(stage, options.nodes * options.processes_per_node)


def script(words: Sequence[str], name: str, options: SlurmOptions) -> str:
    """The job's script.

    Args:
        words: of the command line, after `fulgurite`.
        name: of the job.
        options: of the run.

    Raises:
        UserError: if submitit is not installed, or the command line holds a secret, which the script would keep.
    """
    os.environ.setdefault("SUBMITIT_LOG_LEVEL", "NOCONFIG")  # else its import closes every handler of logging
    try:
        from submitit.slurm.slurm import _make_sbatch_string
    except ImportError:
        raise UserError("--on slurm needs submitit\npip install 'fulgurite[slurm]'") from None
    _check_secrets(words)
    cluster = options.cluster
    command = [*_command(cluster), *_without_ours(words)]
    parameters: dict[str, Any] = {
        "job_name": name.replace("/", "-"),
        "partition": cluster.partition,
        "account": cluster.account,
        "time": cluster.minutes,
        "nodes": options.nodes,
        "ntasks_per_node": options.processes_per_node,
        "gpus_per_node": options.gpus_per_node or None,
        "cpus_per_task": cluster.cpus_per_task,
        "mem": f"{cluster.memory_gb:g}GB" if cluster.memory_gb else None,
        "setup": [*cluster.setup, f"export {REQUEUE_VARIABLE}=1"],
        "signal_delay_s": cluster.warning_s,
        "stderr_to_stdout": True,
        "srun_args": ["--kill-on-bad-exit=1"],
        "additional_parameters": {"requeue": True, **(cluster.options or {})},
    }
    given = {key: value for key, value in parameters.items() if value is not None}
    text: str = _make_sbatch_string(command=shlex.join(command), folder=_logs(options).resolve(), **given)
    return text


def submit(words: Sequence[str], name: str, options: SlurmOptions) -> str:
    """Queue the job; returns its number.

    Raises:
        UserError: if there is no SLURM here, or it refuses the job; with its own words.
    """
    text, folder = script(words, name, options), _logs(options)
    folder.mkdir(parents=True, exist_ok=True)
    file = folder / f"{name.replace('/', '-')}-{time.strftime('%Y%m%d-%H%M%S')}.sh"
    with tempfile.NamedTemporaryFile(
        "w", dir=folder, delete=False, encoding="utf-8"
    ) as temporary:  # for its owner alone
        temporary.write(text)
    os.replace(temporary.name, file)
    try:
        done = subprocess.run(["sbatch", "--parsable", str(file)], capture_output=True, text=True)
    except FileNotFoundError:
        raise UserError(
            "no sbatch here: this machine can't queue jobs of SLURM\n--dry-run prints the script."
        ) from None
    if done.returncode:
        raise UserError(f"SLURM has refused the job ({file}):\n{done.stderr.strip()}"[:400])
    return done.stdout.strip().partition(";")[0]


def log_of(job: str, options: SlurmOptions) -> Path:
    """The file that the first process of a job writes to."""
    return _logs(options) / f"{job}_0_log.out"


def _check_secrets(words: Sequence[str]) -> None:
    line = shlex.join(words)
    if redact(line) != line:
        raise UserError(
            "the command line holds a key, token or password, which the job's script would keep for others to read:\n"
            f"{redact(line)[:200]}\nPut it into the environment, which the job takes over."
        )


def is_follower_told_to_stop(status: int) -> bool:
    """Whether this process of a job that is to be queued again is not its first, and ends because it was told to. It
    leaves with 0: after any other status srun would end the first one, which has yet to queue the job.
    """
    further = os.environ.get("SLURM_PROCID", "0") != "0" and os.environ.get(REQUEUE_VARIABLE) == "1"
    return status == EXIT_STATUS and further


def requeue() -> None:
    """Put this job back into the queue, and wait to be ended by that. A job that SLURM is ending already is left to it
    (`scancel`, or put back by SLURM itself), unless its time is over.

    Raises:
        UserError: if SLURM refuses, or can't be asked.
    """
    job = os.environ["SLURM_JOB_ID"]
    if _is_ended(_call("scontrol", "show", "job", job).stdout):
        told = (
            f"SLURM itself ends job {job}, so it is not queued again here; the same command goes on from what was saved"
        )
        print(f"fulgurite: {told}", file=sys.stderr)
        return
    done = _call("scontrol", "requeue", job)
    if done.returncode:
        raise UserError(f"job {job} can't be queued again: {done.stderr.strip()}\nQueue the command anew: it goes on.")
    print(f"fulgurite: job {job} is queued again and goes on in the same run folder", file=sys.stderr, flush=True)
    time.sleep(600)


def _is_ended(told: str) -> bool:
    """Whether a job, as `scontrol show job` tells of it, is ended by something else than its time: SLURM (seen: 22.05)
    says COMPLETING while the processes of a job that was cancelled, or put back, are still at work.
    """
    found = dict(re.findall(r"\b(JobState|RunTime|TimeLimit)=(\S+)", told))
    if found.get("JobState") in ("CANCELLED", "PENDING"):
        return True
    used, limit = (_seconds(found.get(name, "")) for name in ("RunTime", "TimeLimit"))
    return found.get("JobState") == "COMPLETING" and not (used and limit and used >= limit)


def _seconds(text: str) -> int | None:
    """Seconds of SLURM's `days-hours:minutes:seconds`; None for `UNLIMITED` and the like."""
    found = re.fullmatch(r"(?:(\d+)-)?(\d+):(\d+):(\d+)", text)
    if not found:
        return None
    days, hours, minutes, seconds = (int(part or 0) for part in found.groups())
    return ((days * 24 + hours) * 60 + minutes) * 60 + seconds


def _call(*command: str) -> subprocess.CompletedProcess[str]:
    try:
        return subprocess.run(command, capture_output=True, text=True)
    except FileNotFoundError:
        raise UserError(
            f"job {os.environ['SLURM_JOB_ID']} is not queued again by itself: no {command[0]} in here (a container?)\n"
            "It has saved: queue the command anew, and it goes on."
        ) from None


def _logs(options: SlurmOptions) -> Path:
    return options.root / "slurm"


def _command(cluster: Cluster) -> list[str]:
    if cluster.container:
        return ["apptainer", "exec", "--nv", cluster.container, "fulgurite"]
    return [sys.executable, "-m", "fulgurite"]


def _without_ours(words: Sequence[str]) -> list[str]:
    """The command line without the options that say where it runs."""
    kept, rest = [], list(words)
    while rest:
        word = rest.pop(0)
        name, equals, _ = word.partition("=")
        if name == "--dry-run":
            continue
        if name in _OURS:
            if not equals and rest:
                rest.pop(0)
            continue
        kept.append(word)
    return kept
