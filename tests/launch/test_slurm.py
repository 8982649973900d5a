"""`--on slurm` on a real SLURM of one machine (Debian's slurmctld, slurmd, munge), started in a temporary folder."""

from __future__ import annotations

import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from fulgurite.cli import main
from fulgurite.launch.clusters import slurm as ours
from fulgurite.registry import UserError

SLURM_CONF = """\
ClusterName=toy
SlurmctldHost={host}(127.0.0.1)
SlurmUser=root
SlurmdUser=root
AuthType=auth/munge
AuthInfo=socket={folder}/munge.socket
CredType=cred/munge
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
MpiDefault=none
SelectType=select/cons_tres
SelectTypeParameters=CR_CPU
SlurmctldPort={ports[0]}
SlurmdPort={ports[1]}
SlurmctldPidFile={folder}/slurmctld.pid
SlurmdPidFile={folder}/slurmd.pid
SlurmctldLogFile={folder}/slurmctld.log
SlurmdLogFile={folder}/slurmd.log
StateSaveLocation={folder}/state
SlurmdSpoolDir={folder}/spool
ReturnToService=2
JobRequeue=1
PreemptType=preempt/partition_prio
PreemptMode=REQUEUE
SchedulerParameters=sched_interval=2,batch_sched_delay=0
KillWait=60
NodeName=localhost NodeHostname={host} NodeAddr=127.0.0.1 CPUs=2 State=UNKNOWN
PartitionName=low Nodes=localhost Default=YES PriorityTier=1 GraceTime=60
PartitionName=high Nodes=localhost PriorityTier=10 PreemptMode=OFF
"""
NEEDED = ("munged", "slurmctld", "slurmd", "sbatch", "scontrol", "squeue")
PATH = os.pathsep.join([os.environ.get("PATH", ""), "/usr/sbin"])
MISSING = [name for name in NEEDED if shutil.which(name, path=PATH) is None]
LONG = """\
base: base/cpu
seed_everything: 3
model: {class_path: noisy.StillModule}
data: {class_path: digits, init_args: {batch_size: 16, num_batches: 300, seed: 5}}
trainer:
  max_epochs: 2
  callbacks:
  - {class_path: fulgurite.launch.callbacks.ResumePoint, init_args: {every_n_steps: 1000}}
"""
CLUSTER = "schema_version: 1\npartition: low\ntime: 30m\nsetup: ['export TOLD_BY_SETUP=1']\n"


def test_the_dry_run_prints_the_script_that_would_be_queued(tmp_path, monkeypatch, capsys):
    file = tmp_path / "site.yaml"
    file.write_text(
        "schema_version: 1\npartition: gpu\naccount: vision\ntime: 2d\ncpus_per_task: 8\nmemory_gb: 200\n"
        "container: /images/f.sif\nsetup: [module load cuda]\noptions: {constraint: h100}\n"
    )
    words = ["run", "hello", "--on", "slurm", "--nodes", "2", "--gpus-per-node=4", "--cluster", str(file), "--dry-run",
             "--output", str(tmp_path / "runs"), "--trainer.max_epochs", "3"]  # fmt: skip
    monkeypatch.setattr(sys, "argv", ["fulgurite", *words])
    assert main(words) == 0
    text = capsys.readouterr().out
    for line in ("--nodes=2", "--ntasks-per-node=4", "--gpus-per-node=4", "--partition=gpu", "--account=vision",
                 "--time=2880", "--cpus-per-task=8", "--mem=200GB", "--constraint=h100", "--requeue"):  # fmt: skip
        assert f"#SBATCH {line}\n" in text
    assert "module load cuda\n" in text
    command = text.splitlines()[-2] if text.splitlines()[-1] == "" else text.splitlines()[-1]
    assert command.startswith("srun ")
    assert command.endswith(
        f"apptainer exec --nv /images/f.sif fulgurite run hello --output {tmp_path / 'runs'} --trainer.max_epochs 3"
    )
    assert [f.name for f in tmp_path.iterdir()] == ["site.yaml"]


@pytest.mark.parametrize(
    ("content", "text"),
    {
        "partitoin: gpu": "site.yaml:2: unknown key 'partitoin'\nDid you mean 'partition'",
        "time: 1000": "site.yaml:2: `time:` is a time such as 90m, 24h, 2d, not 1000",
        "setup: module load cuda": "site.yaml:2: `setup:` is a list of shell lines",
    }.items(),
)
def test_a_mistake_in_the_cluster_s_file_is_told_with_its_line(content, text, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "site.yaml").write_text(f"schema_version: 1\n{content}\n")
    assert main(["run", "hello", "--on", "slurm", "--cluster", "site.yaml"]) == 2
    assert text in capsys.readouterr().err


@pytest.mark.parametrize(
    ("text", "words"),
    {
        "--nodes 0: at least 1": ("--nodes", "0"),
        "--tasks-per-node 0: at least 1": ("--tasks-per-node", "0"),
        "--gpus-per-node -1: at least 0": ("--gpus-per-node=-1",),
        "--data.api_key ***\nPut it into the environment": ("--data.api_key", "abcdefgh12345678"),
        "://me:***@host": ("--data.path", "https://me:abcdefgh@host/x"),
    }.items(),
)  # fmt: skip
def test_what_no_job_can_take_is_refused(text, words, tmp_path, monkeypatch, capsys):
    options = ours.SlurmOptions(ours.Cluster(), root=tmp_path)
    if words[0].startswith("--data"):
        with pytest.raises(UserError) as refused:
            ours.submit(["run", "hello", *words], "hello", options)
        told = str(refused.value)
        assert "abcdefgh" not in told and len(told.splitlines()) <= 6
    else:
        monkeypatch.chdir(tmp_path)
        assert main(["run", "hello", "--on", "slurm", *words]) == 2
        told = capsys.readouterr().err
    assert text in told
    assert not list(tmp_path.iterdir())


@pytest.fixture
def standing_in(tmp_path, monkeypatch) -> Callable[[str, str], Path]:
    """Puts a command of SLURM's on the PATH that prints what is given; returns the file with its calls."""
    monkeypatch.setenv("PATH", f"{tmp_path / 'bin'}{os.pathsep}{os.environ['PATH']}")
    monkeypatch.setenv("SLURM_JOB_ID", "7")

    def make(name: str, prints: str) -> Path:
        (tmp_path / "bin").mkdir()
        file = tmp_path / "bin" / name
        file.write_text(f"#!/bin/sh\necho \"$*\" >> {tmp_path}/calls\necho '{prints}'\n")
        file.chmod(0o755)
        return tmp_path / "calls"

    return make


@pytest.mark.parametrize(
    ("told", "again"),
    [
        ("JobState=RUNNING Reason=None RunTime=00:05:00 TimeLimit=00:30:00", True),  # warned, or to make room
        ("JobState=COMPLETING Reason=None RunTime=00:05:00 TimeLimit=1-00:00:00", False),  # what scancel leaves
        ("JobState=COMPLETING Reason=None RunTime=00:05:00 TimeLimit=UNLIMITED", False),
        ("JobState=CANCELLED Reason=None RunTime=00:05:00 TimeLimit=00:30:00", False),
        ("JobState=PENDING Reason=BeginTime RunTime=00:00:00 TimeLimit=00:30:00", False),  # put back by SLURM
        ("JobState=COMPLETING Reason=TimeLimit RunTime=00:30:02 TimeLimit=00:30:00", True),  # a step that took too long
    ],
)
def test_a_job_that_slurm_is_ending_is_not_queued_again(told, again, standing_in, monkeypatch):
    calls = standing_in("scontrol", told)
    monkeypatch.setattr(ours.time, "sleep", lambda seconds: None)
    ours.requeue()
    assert calls.read_text().splitlines() == ["show job 7", *(["requeue 7"] if again else [])]


def test_without_scontrol_a_job_says_that_it_is_not_queued_again(monkeypatch, tmp_path):
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setenv("SLURM_JOB_ID", "7")
    with pytest.raises(UserError, match="job 7 is not queued again by itself: no scontrol in here"):
        ours.requeue()


@pytest.mark.parametrize(("rank", "again", "status"), [("1", "1", 0), ("0", "1", 143), ("1", "", 143)])
def test_a_further_process_that_was_told_to_stop_ends_well(rank, again, status, monkeypatch, standing_in):
    standing_in("scontrol", "JobState=CANCELLED")
    monkeypatch.setenv("SLURM_PROCID", rank)
    monkeypatch.setenv("FULGURITE_REQUEUE", again)

    def stopped(*_: object) -> None:
        raise SystemExit(143)

    monkeypatch.setattr("fulgurite.launch.stages.runner.run_experiment", stopped)
    try:
        ended = main(["run", "hello"])
    except SystemExit as stop:
        ended = stop.code
    assert ended == status


def test_a_job_s_script_is_its_owner_s_alone(standing_in, tmp_path):
    calls = standing_in("sbatch", "31")
    assert ours.submit(["run", "hello"], "hello", ours.SlurmOptions(ours.Cluster(), root=tmp_path / "runs")) == "31"
    (file,) = (tmp_path / "runs" / "slurm").iterdir()
    assert calls.read_text() == f"--parsable {file}\n" and file.suffix == ".sh"
    assert file.stat().st_mode & 0o777 == 0o600


def free_ports(count: int) -> list[int]:
    sockets = [socket.socket() for _ in range(count)]
    for one in sockets:
        one.bind(("127.0.0.1", 0))
    ports = [one.getsockname()[1] for one in sockets]
    for one in sockets:
        one.close()
    return ports


def wait_for(what: Callable[[], object], seconds: float, told: Callable[[], str]) -> None:
    end = time.monotonic() + seconds
    while not what():
        if time.monotonic() > end:
            raise AssertionError(told())
        time.sleep(0.2)


class OneMachine:
    """A SLURM of this machine alone: two processors, a partition that gives way to the other."""

    def __init__(self, folder: Path, environment: dict[str, str]) -> None:
        self.folder = folder
        self.env = {**environment, "PATH": PATH, "SLURM_CONF": str(folder / "slurm.conf")}
        for name in ("state", "spool"):
            (folder / name).mkdir()
        conf = SLURM_CONF.format(host=socket.gethostname().split(".")[0], folder=folder, ports=free_ports(2))
        (folder / "slurm.conf").write_text(conf)
        (folder / "munge.key").write_bytes(os.urandom(1024))
        (folder / "munge.key").chmod(0o400)
        own = [f"--{name}-file={folder}/munge.{name}" for name in ("key", "pid", "log", "seed")]
        self.daemons = [self.start("munged", "--foreground", "--force", f"--socket={folder}/munge.socket", *own)]
        wait_for((folder / "munge.socket").exists, 20, self.logs)
        self.daemons += [self.start("slurmctld", "-D"), self.start("slurmd", "-D", "-N", "localhost")]
        wait_for(lambda: "idle" in self.call("sinfo", "-h", "-o", "%T"), 40, self.logs)

    def start(self, *command: str) -> subprocess.Popen[bytes]:
        with (self.folder / f"{command[0]}.out").open("wb") as out:
            return subprocess.Popen(command, env=self.env, stdout=out, stderr=out, cwd=self.folder)

    def call(self, *command: str, cwd: Path | None = None) -> str:
        done = subprocess.run(command, env=self.env, capture_output=True, text=True, cwd=cwd or self.folder)
        return done.stdout + done.stderr

    def logs(self) -> str:
        return "\n".join(
            f"== {f.name}\n{f.read_text(errors='replace')[-3000:]}"
            for pattern in ("*.log", "*.out", "work/runs/slurm/*.out")
            for f in sorted(self.folder.glob(pattern))
        )

    def close(self) -> None:
        self.call("scancel", "--user=root")
        time.sleep(1)
        for daemon in reversed(self.daemons):
            daemon.send_signal(signal.SIGTERM)
        for daemon in self.daemons:
            try:
                daemon.wait(20)
            except subprocess.TimeoutExpired:
                daemon.kill()


@pytest.fixture(scope="session")
def slurm(child_environment, parts, tmp_path_factory) -> Iterator[OneMachine]:
    if MISSING:
        pytest.skip(f"SLURM is not installed here: no {', '.join(MISSING)} (Debian: slurmctld slurmd munge)")
    if os.getuid():
        pytest.skip("SLURM's daemons are started as root")
    folder = tmp_path_factory.mktemp("slurm")
    folder.chmod(0o755)
    machine = OneMachine(folder, child_environment(**parts))
    yield machine
    machine.close()


def queue(slurm: OneMachine, folder: Path, *words: str) -> str:
    (folder / "long.yaml").write_text(LONG)
    (folder / "site.yaml").write_text(CLUSTER)
    command = [sys.executable, "-m", "fulgurite", "run", "long.yaml", "--on", "slurm", "--cluster", "site.yaml", *words]
    told = slurm.call(*command, cwd=folder)
    assert "is queued" in told, told
    return told.split()[1]


def state_of(slurm: OneMachine, job: str) -> str:
    return slurm.call("squeue", "-h", "-j", job, "-o", "%T", "--states=all").strip()


def record_of(folder: Path) -> dict:
    (file,) = (folder / "runs" / "long").rglob("record.json")
    return json.loads(file.read_text())


def lines_of(folder: Path) -> list[str]:
    files = list((folder / "runs" / "long").rglob("fit/metrics.csv"))
    return files[0].read_text().splitlines() if files else []


def logs_of(folder: Path) -> str:
    return "\n".join(f.read_text(errors="replace")[-4000:] for f in sorted((folder / "runs/slurm").glob("*.out")))


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_two_tasks_give_what_one_process_gives(slurm, tmp_path):
    job = queue(slurm, tmp_path, "--tasks-per-node", "2", "--data.batch_size", "8", "--data.num_batches", "20")
    wait_for(lambda: state_of(slurm, job) == "COMPLETED", 200, lambda: slurm.logs() + logs_of(tmp_path))
    alone = tmp_path / "alone"
    alone.mkdir()
    (alone / "long.yaml").write_text(LONG)
    told = slurm.call(sys.executable, "-m", "fulgurite", "run", "long.yaml", "--data.num_batches", "20", cwd=alone)
    assert record_of(tmp_path)["status"] == record_of(alone)["status"] == "done", told
    assert record_of(tmp_path)["metrics"] == pytest.approx(record_of(alone)["metrics"], abs=1e-5)


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_a_preempted_job_saves_and_goes_on_in_the_same_folder(slurm, tmp_path):
    job = queue(slurm, tmp_path, "--tasks-per-node", "2", "--new")
    told = lambda: slurm.logs() + logs_of(tmp_path)  # noqa: E731
    wait_for(lambda: any(line.startswith("60,") for line in lines_of(tmp_path)), 200, told)
    urgent = slurm.call(
        "sbatch",
        "--parsable",
        "--partition=high",
        "--ntasks=2",
        "--output=/dev/null",
        "--wrap",
        "sleep 5",
        cwd=tmp_path,
    )
    wait_for(lambda: state_of(slurm, urgent.strip()) in ("RUNNING", "COMPLETED"), 90, told)
    stopped = record_of(tmp_path)
    assert (stopped["status"], stopped["error"]) == ("stopped", None), told()
    wait_for(lambda: state_of(slurm, job) == "COMPLETED", 300, told)
    record = record_of(tmp_path)  # there is one run folder alone
    assert record["status"] == "done" and record["stages"][0]["attempts"] == 2
    steps = [line.split(",")[0] for line in lines_of(tmp_path)[1:] if "train/loss" in line]
    assert steps == [str(s) for s in range(10, 601, 10)]
    assert record["created"] == stopped["created"]


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_a_cancelled_job_saves_and_stays_cancelled(slurm, tmp_path):
    job = queue(slurm, tmp_path, "--tasks-per-node", "2", "--new")
    told = lambda: slurm.logs() + logs_of(tmp_path)  # noqa: E731
    wait_for(lambda: any(line.startswith("60,") for line in lines_of(tmp_path)), 200, told)
    slurm.call("scancel", job)
    wait_for(lambda: state_of(slurm, job) != "COMPLETING" and record_of(tmp_path)["status"] == "stopped", 120, told)
    assert state_of(slurm, job) == "CANCELLED", told()
    assert list(tmp_path.glob("runs/long/*/fit/checkpoints/last.ckpt")), told()
