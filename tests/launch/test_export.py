"""`fulgurite export`: a run's weights in the forms of other libraries, and why not where there are none."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from fulgurite.cli import main
from fulgurite.launch.export import folders_of
from fulgurite.launch.stages.run_folder import all_runs
from fulgurite.lightning_modules.hello import HelloModule


def test_a_checkpoint_becomes_safetensors_with_the_same_numbers(hello_runs, tmp_path, capsys):
    run = next(all_runs(hello_runs))
    assert main(["export", run.path.name, "--output", str(hello_runs), "--out", str(tmp_path / "out")]) == 0
    file = tmp_path / "out" / "fit" / "model.safetensors"
    assert capsys.readouterr().out.strip() == str(file)
    module = HelloModule(4)
    module.load_state_dict(load_file(file))
    saved = torch.load(run.path / "fit" / "checkpoints" / "last.ckpt", weights_only=True)["state_dict"]
    assert all(torch.equal(value, module.state_dict()[name]) for name, value in saved.items())


def test_a_folder_of_shards_is_gathered(hello_runs, tmp_path):
    import shutil

    import torch.distributed.checkpoint as dcp

    root = Path(shutil.copytree(hello_runs, tmp_path / "runs"))
    run = next(all_runs(root))
    checkpoint = run.path / "fit" / "checkpoints" / "last.ckpt"
    state = torch.load(checkpoint, weights_only=True)["state_dict"]
    checkpoint.unlink()
    dcp.save({"state_dict": state}, checkpoint_id=str(checkpoint), no_dist=True)
    assert main(["export", run.path.name, "--output", str(root), "--out", str(tmp_path / "out")]) == 0
    found = load_file(tmp_path / "out" / "fit" / "model.safetensors")
    assert found.keys() == state.keys() and all(torch.equal(found[k], state[k]) for k in state)


@pytest.mark.parametrize(
    ("kind", "file", "content"),
    [
        ("hf", "config.json", {"model_type": "llama"}),
        ("diffusers", "config.json", {"_class_name": "AutoencoderKL"}),
        ("peft", "adapter_config.json", {"peft_type": "LORA"}),
    ],
)
def test_a_librarys_folder_is_copied_with_its_weights(kind, file, content, hello_runs, tmp_path):
    import shutil

    root = Path(shutil.copytree(hello_runs, tmp_path / "runs"))
    run = next(all_runs(root))
    folder = run.path / "fit" / "net"
    folder.mkdir()
    (folder / file).write_text(json.dumps(content))
    assert not list(folders_of(run.path, kind))  # a configuration without weights is no model
    save_file({"a": torch.ones(2)}, folder / "model.safetensors")
    command = ["export", run.path.name, "--format", kind, "--output", str(root), "--out", str(tmp_path / "out")]
    assert main([*command, "--stage", "fit"]) == 0
    assert {f.name for f in (tmp_path / "out" / "fit" / "net").iterdir()} == {file, "model.safetensors"}
    assert main(command) == 2  # what is there is never written over


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        (["--format", "hf"], "nothing of the form hf in fit, test\nIt has safetensors."),
        (["--format", "onnx"], "onnx: no module of this package says with which inputs"),
        (["--stage", "teacher"], "no finished stage 'teacher'\nIt has fit, test."),
        (["--format", "gguf"], "no --format 'gguf' of export"),
    ],
)
def test_what_cannot_be_exported_says_why(arguments, text, hello_runs, tmp_path, capsys):
    run = next(all_runs(hello_runs))
    command = ["export", run.path.name, "--output", str(hello_runs), "--out", str(tmp_path / "out"), *arguments]
    assert main(command) == 2
    assert text in capsys.readouterr().err and not (tmp_path / "out").exists()
