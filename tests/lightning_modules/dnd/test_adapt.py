"""`fulgurite dnd adapt`: what it writes opens with PEFT alone, and what it can't use it says in a sentence."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from fulgurite.datamodules.sources.models import resolve_model
from fulgurite.lightning_modules.dnd.adapt import adapt
from fulgurite.lightning_modules.dnd.generator import TrainedGenerator
from fulgurite.registry import UserError

PROMPTS = [f"What is the plural of the noun '{w}'?" for w in ("mouse", "box", "city", "wolf", "child", "hero")]
FOREIGN_PROCESS = """
import sys, torch
from transformers import AutoModelForCausalLM
from peft import PeftModel
base = AutoModelForCausalLM.from_pretrained(sys.argv[1])
ids = torch.arange(5, 15).unsqueeze(0)
with torch.no_grad():
    before = base(input_ids=ids).logits
    adapted = PeftModel.from_pretrained(base, sys.argv[2])
    after = adapted(input_ids=ids).logits
assert not any(name.split(".")[0] == "fulgurite" for name in sys.modules)
print("largest change", (after - before).abs().max().item())
"""


@pytest.fixture
def checkpoint(smoke_run: Path) -> Path:
    return smoke_run / "generator" / "generator"


def write(path: Path, text: str) -> Path:
    path.write_text(text, encoding="utf-8")
    return path


def test_peft_alone_opens_the_adapter_and_it_changes_the_output(checkpoint: Path, tmp_path: Path) -> None:
    adapt(write(tmp_path / "p.txt", "\n".join(PROMPTS)), tmp_path / "adapter", checkpoint)
    assert {f.name for f in (tmp_path / "adapter").iterdir()} == {
        "adapter_config.json",
        "adapter_model.safetensors",
        "README.md",
    }
    config = json.loads((tmp_path / "adapter" / "adapter_config.json").read_text())
    assert config["r"] == 2 and config["lora_alpha"] == 4 and config["base_model_name_or_path"] == "tiny-random-llama"
    environment = {k: v for k, v in os.environ.items() if k != "PYTHONPATH"}
    command = [sys.executable, "-c", FOREIGN_PROCESS, resolve_model("tiny-random-llama"), str(tmp_path / "adapter")]
    done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=280)
    assert done.returncode == 0, done.stderr
    assert "missing" not in done.stderr.lower()
    assert float(done.stdout.split()[-1]) > 1e-4


def test_the_time_is_split_and_the_coverage_told(
    checkpoint: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    lines = "\n".join(json.dumps({"prompt": p, "response": "?"}) for p in PROMPTS)
    adapt(write(tmp_path / "p.jsonl", lines), tmp_path / "out", checkpoint)
    told = capsys.readouterr().err
    assert all(f"{lap} " in told for lap in ("load", "encode", "decode", "detokenise", "write"))
    assert "nearest training task plural" in told and "Coverage" in (tmp_path / "out" / "README.md").read_text()


def test_it_works_on_the_device_asked_and_refuses_one_that_is_not_here(
    checkpoint: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    file, placed = write(tmp_path / "p.txt", "\n".join(PROMPTS)), []
    move = TrainedGenerator.to
    monkeypatch.setattr(TrainedGenerator, "to", lambda self, device: placed.append(device.type) or move(self, device))
    adapt(file, tmp_path / "out", checkpoint)
    adapt(file, tmp_path / "other", checkpoint, device="cpu")
    assert placed == ["cuda" if torch.cuda.is_available() else "cpu", "cpu"]
    assert "made on cpu" in capsys.readouterr().err.splitlines()[-3:][0]
    with pytest.raises(UserError, match="--device gpu: "):
        adapt(file, tmp_path / "third", checkpoint, device="gpu")


def test_same_seed_same_adapter_other_prompts_other_adapter(checkpoint: Path, tmp_path: Path) -> None:
    file = write(tmp_path / "p.txt", "\n".join(PROMPTS))
    other = write(tmp_path / "q.txt", "\n".join(f"Yesterday they {w}" for w in ("ran", "sang", "slept", "went")))
    made = {}
    for name, prompts in (("a", file), ("b", file), ("c", other)):
        adapt(prompts, tmp_path / name, checkpoint)
        made[name] = (tmp_path / name / "adapter_model.safetensors").read_bytes()
    assert made["a"] == made["b"] != made["c"]


def test_one_prompt_works_with_a_warning(checkpoint: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    adapt(write(tmp_path / "p.txt", PROMPTS[0]), tmp_path / "out", checkpoint)
    assert "1 different prompts, the generator was trained with 4" in capsys.readouterr().err
    assert (tmp_path / "out" / "adapter_config.json").is_file()


def test_a_hundred_thousand_prompts_work(checkpoint: Path, tmp_path: Path) -> None:
    adapt(
        write(tmp_path / "p.txt", "\n".join(f"plural of word {i}" for i in range(100_000))),
        tmp_path / "out",
        checkpoint,
    )
    assert "100000 unlabelled prompts" in (tmp_path / "out" / "README.md").read_text()


@pytest.mark.parametrize(
    ("name", "content", "told"),
    [
        ("empty.txt", b"", "empty.txt"),
        ("binary.txt", bytes(range(256)) * 8, "binary.txt"),
        ("wrong.jsonl", b'{"question": "x"}\n', "prompt"),
    ],
)
def test_bad_prompt_files_are_told_in_a_sentence(
    checkpoint: Path, tmp_path: Path, name: str, content: bytes, told: str
) -> None:
    (tmp_path / name).write_bytes(content)
    with pytest.raises(UserError, match=told) as caught:
        adapt(tmp_path / name, tmp_path / "out", checkpoint)
    assert len(str(caught.value).splitlines()) <= 6 and not (tmp_path / "out").exists()


def test_an_unwritable_folder_is_told_before_the_work(checkpoint: Path, tmp_path: Path) -> None:
    file = write(tmp_path / "p.txt", "\n".join(PROMPTS))
    for out in (file, file / "below", Path("/proc/nowhere")):
        with pytest.raises(UserError, match="can't be written"):
            adapt(file, out, checkpoint)


def test_a_folder_that_is_no_generator_is_told(
    checkpoint: Path, tmp_path: Path, fulgurite_process: Callable[..., subprocess.CompletedProcess[str]]
) -> None:
    file = write(tmp_path / "p.txt", "\n".join(PROMPTS))
    with pytest.raises(UserError, match="no generator here"):
        adapt(file, tmp_path / "out", tmp_path)
    damaged = tmp_path / "damaged"
    damaged.mkdir()
    (damaged / "generator.json").write_bytes((checkpoint / "generator.json").read_bytes())
    (damaged / "generator.safetensors").write_bytes((checkpoint / "generator.safetensors").read_bytes()[:500])
    with pytest.raises(UserError, match="no generator here"):
        adapt(file, tmp_path / "out", damaged)
    done = fulgurite_process("dnd", "adapt", "--prompts", str(file), "--out", "out")
    assert done.returncode == 2 and "fulgurite run dnd/tiny" in done.stderr and "Traceback" not in done.stderr


def test_no_file_of_the_user_is_overwritten(checkpoint: Path, tmp_path: Path) -> None:
    file = write(tmp_path / "p.txt", "\n".join(PROMPTS))
    mine = tmp_path / "project"
    mine.mkdir()
    write(mine / "README.md", "my project")
    with pytest.raises(UserError, match="would be lost"):
        adapt(file, mine, checkpoint)
    assert (mine / "README.md").read_text() == "my project"
    adapt(file, tmp_path / "again", checkpoint)
    adapt(file, tmp_path / "again", checkpoint, seed=1)  # what an earlier call made may be made anew
