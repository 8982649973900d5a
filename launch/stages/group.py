"""A run in processes that torchrun or srun has started: the first one is the run, the others join its fits.

The first process keeps folder, lock and record, and runs alone whatever is one process's work. Before a fit it tells
the others by a small key-value server of torch's, which dies with it; they wait there between fits.
"""

from __future__ import annotations

import contextlib
import datetime
import json
import os
import signal
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ...registry import UserError
from ..config.experiment import Experiment, Stage
from ..config.settings import Settings
from ..place import Place
from ..strategies import check, make, one_process
from .placeholders import expand
from .ranks import JOIN_VARIABLE
from .termination import EXIT_STATUS

REQUEUE_VARIABLE = "FULGURITE_REQUEUE"  # set in a job that is to be queued again when it was told to stop
_PORTS_AWAY = 10_007  # from the port on which the processes of a fit meet
_LONG = datetime.timedelta(days=90)
_HIDDEN = ("SLURM_", "TORCHELASTIC_", "RANK", "WORLD_SIZE", "LOCAL_RANK", "LOCAL_WORLD_SIZE", "GROUP_RANK")
SIGNALS = {signal.SIGTERM, *(getattr(signal, n) for n in ("SIGUSR1", "SIGUSR2") if hasattr(signal, n))}


@dataclass(frozen=True)
class Group:
    """This process among those that a launcher has started.

    Args:
        rank: of this process.
        size: processes in all.
        local_size: processes on this machine.
        address: host of the first process.
        port: on which the processes of a fit meet.
        launcher: its name.
    """

    rank: int
    size: int
    local_size: int
    address: str
    port: int
    launcher: str


def of_launcher() -> Group | None:
    """The group of this process; None if nobody has started several.

    Raises:
        UserError: where it was started in a way that can't work.
    """
    if JOIN_VARIABLE in os.environ:
        return None
    names = {**os.environ}
    interactive = names.get("SLURM_JOB_NAME") in ("bash", "interactive")  # as Lightning tells a shell from a job
    if _count(names, "WORLD_SIZE") > 1:
        if "TORCHELASTIC_RUN_ID" not in names:
            raise _no_launcher("WORLD_SIZE", names["WORLD_SIZE"], "torchrun")
        return Group(
            int(names["RANK"]), int(names["WORLD_SIZE"]), int(names["LOCAL_WORLD_SIZE"]), names["MASTER_ADDR"],
            int(names["MASTER_PORT"]), "torchrun",
        )  # fmt: skip
    if _count(names, "SLURM_NTASKS") and not interactive:
        several = _count(names, "SLURM_NTASKS") > 1
        if "SLURM_STEP_ID" not in names or "SLURM_PROCID" not in names:
            if not several:
                return None
            raise _no_launcher("SLURM_NTASKS", names["SLURM_NTASKS"], "srun")
        if several and not _count(names, "SLURM_NTASKS_PER_NODE"):
            raise UserError("srun: give --ntasks-per-node N beside --nodes, so that each machine has as many processes")
        from lightning.fabric.plugins.environments import SLURMEnvironment

        where = SLURMEnvironment(auto_requeue=False)
        return Group(
            where.global_rank(), where.world_size(), _count(names, "SLURM_NTASKS_PER_NODE") or 1, where.main_address,
            where.main_port, "srun",
        )  # fmt: skip
    return None


def _count(names: dict[str, str], name: str) -> int:
    return int(names.get(name, "")) if names.get(name, "").isdigit() else 0


def _no_launcher(name: str, value: str, launcher: str) -> UserError:
    return UserError(
        f"{name}={value}, but {launcher} has not started this process: several would be the same run\n"
        f"Start them by {launcher}: {launcher} … fulgurite run EXPERIMENT\n"
        "or one process: fulgurite run EXPERIMENT --trainer.devices N"
    )


class GroupEngine:
    """The first process's side: runs stages, and calls the others to those that are for all.

    Args:
        group: of this process.
    """

    def __init__(self, group: Group, experiment: Experiment) -> None:
        for stage in experiment.stages:
            if stage.verb == "command" or one_process(stage):
                continue
            check(stage, group.size)
            devices = stage.settings.get("trainer", "devices")
            if isinstance(devices, int) and devices not in (1, -1, group.local_size):
                raise UserError(
                    f"{stage.settings.origin('trainer', 'devices')}: trainer.devices is {devices}, and "
                    f"{group.launcher} has started {group.local_size} on each machine\n"
                    "Leave it out: the processes say how many there are."
                )
        self.group, self._store, self._told = group, _store(group), 0

    def run_stage(
        self, stage: Stage, settings: Settings, folder: Path, stop_at: float | None, wandb: dict[str, Any] | None
    ) -> str:
        """Run a stage; returns the state it ended in.

        Raises:
            SystemExit: after a signal, once the step at hand is saved.
        """
        from .lightning_stage import run_lightning_stage
        from .runner import run_command

        if stage.verb == "command":
            with alone():
                run_command(stage, settings, folder, wandb)
            return "done"
        single = bool(one_process(stage))
        if not single:
            self._tell({"stage": stage.name, "run": str(folder.parent.resolve()), "stop_at": stop_at})
            _meet(self.group, self._store, self._told)
        with _Signals() as signals, alone() if single else contextlib.nullcontext():
            place = Place(0, place_alone if single else place_in(self.group), signals.asked)
            state = run_lightning_stage(stage.verb, settings, folder, stop_at, wandb, place)
        if signals.asked():
            if state == "stopped":
                raise SystemExit(EXIT_STATUS)
            os.kill(os.getpid(), signal.SIGTERM)  # it came too late for this stage: the run stops before the next
        return state

    def end(self, status: int) -> None:
        """Send the others home."""
        self._tell({"ended": status})
        with contextlib.suppress(Exception):  # they may be gone
            for rank in range(1, self.group.size):
                self._store.wait([f"left {rank}"], datetime.timedelta(seconds=20))

    def _tell(self, what: dict[str, Any]) -> None:
        self._told += 1
        self._store.set(str(self._told), json.dumps(what))


def follow(group: Group, experiment: Experiment) -> int:
    """A further process's whole life: the fits to which the first one calls, then its exit status."""
    from .lightning_stage import run_lightning_stage

    store, told = _store(group), 0
    with _Signals() as signals:
        while True:
            told += 1
            call = json.loads(store.get(str(told)))
            if "ended" in call:
                store.set(f"left {group.rank}", "")
                return int(call["ended"])
            stage = next(s for s in experiment.stages if s.name == call["stage"])
            run = Path(call["run"])
            settings = expand(stage.settings, run, experiment.seed)
            place = Place(group.rank, place_in(group), signals.asked)
            _meet(group, store, told)
            run_lightning_stage(stage.verb, settings, run / stage.name, call["stop_at"], None, place)


def place_in(group: Group) -> Any:
    """Changes a trainer's arguments to the processes that there are."""

    def change(trainer: dict[str, Any]) -> None:
        value = trainer.get("strategy")
        trainer["strategy"] = make("ddp" if value in (None, "auto") and group.size > 1 else value)
        trainer["devices"], trainer["num_nodes"] = group.local_size, group.size // group.local_size
        if group.launcher == "srun":
            from lightning.fabric.plugins.environments import SLURMEnvironment

            # Lightning's own way to save and requeue knows nothing of the run's folder
            trainer["plugins"] = [*(trainer.get("plugins") or []), SLURMEnvironment(auto_requeue=False)]

    return change


def place_alone(trainer: dict[str, Any]) -> None:
    """Changes a trainer's arguments to one process."""
    trainer["strategy"], trainer["devices"], trainer["num_nodes"] = "auto", 1, 1


@contextlib.contextmanager
def alone() -> Iterator[None]:
    """While entered, the launcher's variables are hidden, so that nobody takes this process for one of several."""
    hidden = {name: value for name, value in os.environ.items() if name.startswith(_HIDDEN)}
    for name in hidden:
        del os.environ[name]
    try:
        yield
    finally:
        os.environ.update(hidden)


def _meet(group: Group, store: Any, number: int) -> None:
    """Make the processes a group of torch's, for one fit. Lightning would make it by the launcher's own server, where
    the addresses of the fit before still stand.
    """
    from torch.distributed import PrefixStore, init_process_group

    if group.size > 1:
        init_process_group(store=PrefixStore(f"fit {number}", store), rank=group.rank, world_size=group.size)


def queues_again(status: int) -> bool:
    """Whether this process, told to stop, is the one that puts its job of SLURM back into the queue."""
    first = os.environ.get("SLURM_PROCID") == "0" and "SLURM_JOB_ID" in os.environ
    return status == EXIT_STATUS and first and os.environ.get(REQUEUE_VARIABLE) == "1"


def _store(group: Group) -> Any:
    from torch.distributed import TCPStore

    port = group.port + (_PORTS_AWAY if group.port + _PORTS_AWAY < 2**16 else -_PORTS_AWAY)
    return TCPStore(
        group.address, port, group.size, is_master=group.rank == 0, timeout=_LONG,
        wait_for_workers=False,
    )  # fmt: skip


class _Signals:
    """SIGTERM and SIGUSR1 (before a job's time is over) are remembered: the processes save and stop together."""

    def __init__(self) -> None:
        self._asked = False
        self._before: dict[int, Any] = {}

    def __enter__(self) -> _Signals:
        with contextlib.suppress(ValueError):  # not in the main thread
            for number in SIGNALS:
                self._before[number] = signal.signal(number, self._note)
        return self

    def __exit__(self, *_: object) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)

    def asked(self) -> bool:
        """Whether one has come."""
        return self._asked

    def _note(self, number: int, frame: Any) -> None:
        self._asked = True
