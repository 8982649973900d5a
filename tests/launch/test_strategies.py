"""The table of strategies: what can't work together is refused with its reason, without torch."""

from __future__ import annotations

import subprocess
import sys

import pytest

from fulgurite.cli import main
from fulgurite.launch.config.experiment import parse_flags, resolve
from fulgurite.launch.strategies import check_experiment, find
from fulgurite.registry import UserError

SHARDED = "lightning.pytorch.strategies.ModelParallelStrategy"
REFUSED = {
    "no sharding": (
        "gamecraft/vae --trainer.devices 2 --trainer.strategy fsdp2",
        r"--trainer.strategy: VAEModule can't be sharded: its configure_model does not use self.device_mesh",
    ),
    "one process": (
        "dnd/smoke --collect.trainer.devices 2 --collect.trainer.strategy ddp",
        r"stage collect: LoRACollectorModule trains in one process: its tasks are runs of steps",
    ),
    "no package": (
        "hello --trainer.strategy deepspeed",
        r"deepspeed needs the package deepspeed\npip install deepspeed",
    ),
    "layers that are not divided": (
        f"hello --trainer.devices 2 --trainer.strategy.class_path {SHARDED} "
        "--trainer.strategy.init_args.tensor_parallel_size 2",
        r"HelloModule does not divide its layers\nLeave tensor_parallel_size at 1",
    ),
    "sizes that don't fit": (
        f"hello --trainer.devices 2 --trainer.strategy.class_path {SHARDED} "
        "--trainer.strategy.init_args.tensor_parallel_size 1 --trainer.strategy.init_args.data_parallel_size 4",
        r"data_parallel_size 4 x tensor_parallel_size 1 is 4, not the 2 processes",
    ),
}


@pytest.mark.parametrize(("words", "text"), REFUSED.values(), ids=REFUSED.keys())
def test_what_can_t_work_is_refused_with_its_reason(words, text):
    name, *flags = words.split()
    with pytest.raises(UserError, match=text) as refused:
        check_experiment(resolve(name, parse_flags(flags)))
    assert len(str(refused.value).splitlines()) <= 6


@pytest.mark.parametrize("devices", ["auto", "-1"])
def test_sizes_are_not_held_against_a_number_of_devices_that_only_the_machine_tells(devices):
    flags = f"--trainer.devices {devices} --trainer.strategy.class_path {SHARDED}".split()
    sizes = ["--trainer.strategy.init_args.tensor_parallel_size", "1"]
    sizes += ["--trainer.strategy.init_args.data_parallel_size", "4"]
    check_experiment(resolve("hello", parse_flags([*flags, "--trainer.accelerator", "gpu", *sizes])))
    if devices == "auto":  # one, on a CPU
        with pytest.raises(UserError, match="is 4, not the 1 processes"):
            check_experiment(resolve("hello", parse_flags([*flags, "--trainer.accelerator", "cpu", *sizes])))


def test_a_run_refuses_it_before_it_makes_a_folder(tmp_path, capsys):
    words = ["run", "gamecraft/vae", "--trainer.devices", "2", "--trainer.strategy", "fsdp2"]
    assert main([*words, "--output", str(tmp_path / "runs")]) == 2
    assert "Take ddp, which every model can." in capsys.readouterr().err
    assert not list(tmp_path.iterdir())


def test_every_way_to_write_a_strategy_finds_its_row():
    assert [find(v).name for v in ("ddp", "ddp_find_unused_parameters_true", "fsdp2", "deepspeed_stage_2_offload")] == [
        "ddp", "ddp", "fsdp2", "deepspeed",
    ]  # fmt: skip
    assert find({"class_path": SHARDED}).name == "fsdp2"
    assert find("auto") is find(None) is find("fsdp") is None


def test_refusing_needs_no_torch(child_environment):
    words = ["run", "gamecraft/vae", "--trainer.devices", "2", "--trainer.strategy", "fsdp2"]
    code = f"import sys; from fulgurite.cli import main; print(main({words}), 'torch' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], env=child_environment(), capture_output=True, text=True)
    assert "VAEModule can't be sharded" in done.stderr
    assert done.stdout.split() == ["2", "False"]
