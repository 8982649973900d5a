"""Adapters that PEFT saved come into a snapshot store; those that do not belong together are refused or warned of."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from fulgurite.datamodules.dnd.snapshots import SnapshotStore
from fulgurite.lightning_modules.dnd.adapted import AdaptedModel, write_adapter
from fulgurite.lightning_modules.dnd.import_adapters import import_adapters
from fulgurite.registry import UserError

BASE = "tiny-random-llama"


@pytest.fixture(scope="module")
def model() -> AdaptedModel:
    return AdaptedModel(BASE, {"r": 4, "lora_alpha": 8, "target_modules": ["q_proj", "v_proj"]})


def saved(model: AdaptedModel, folder: Path, init: int, change: int) -> Path:
    model.reset(init)
    rng = torch.Generator().manual_seed(change)
    state = {k: v + 0.02 * torch.randn(v.shape, generator=rng) for k, v in model.state().items()}
    write_adapter(folder, state, model.adapter_config(), "card")
    return folder


@pytest.fixture
def task(tmp_path: Path) -> Path:
    file = tmp_path / "task.jsonl"
    file.write_text("".join(json.dumps({"prompt": f"say {i}", "response": str(i)}) + "\n" for i in range(40)))
    return file


def test_adapters_come_in_as_they_are(
    model: AdaptedModel, task: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folders = [saved(model, tmp_path / name, 1, i) for i, name in enumerate(("one", "two"))]
    import_adapters(folders, [task, task], tmp_path / "store")
    import_adapters([saved(model, tmp_path / "three", 1, 7)], [task], tmp_path / "store")
    store = SnapshotStore(tmp_path / "store")
    assert store.tasks == ["one", "two", "three"] and store.manifest["base_model"] == BASE
    for name in store.tasks:
        wanted = load_file(tmp_path / name / "adapter_model.safetensors")
        found = store.load(name)
        assert found.keys() == wanted.keys() and all(torch.equal(found[k], wanted[k]) for k in wanted)
    assert "initialisation" not in capsys.readouterr().err


def test_another_initialisation_is_warned_about(
    model: AdaptedModel, task: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folders = [saved(model, tmp_path / "one", 1, 1), saved(model, tmp_path / "two", 2, 2)]
    import_adapters(folders, [task, task], tmp_path / "store")
    assert "did not begin at the same initialisation" in " ".join(capsys.readouterr().err.split())


def test_what_does_not_belong_together_is_refused(model: AdaptedModel, task: Path, tmp_path: Path) -> None:
    one = saved(model, tmp_path / "one", 1, 1)
    out = tmp_path / "store"
    other = saved(model, tmp_path / "other", 1, 2)
    weights = load_file(other / "adapter_model.safetensors")
    key = next(iter(weights))
    save_file({**weights, key: weights[key][:, :8].contiguous()}, other / "adapter_model.safetensors")
    with pytest.raises(UserError, match=r"other: .*is \[4, 8\]"):
        import_adapters([one, other], [task, task], out)
    save_file({k: v for k, v in weights.items() if k != key}, other / "adapter_model.safetensors")
    with pytest.raises(UserError, match="not the modules"):
        import_adapters([one, other], [task, task], out)
    config = json.loads((other / "adapter_config.json").read_text())
    (other / "adapter_config.json").write_text(json.dumps({**config, "r": 8}))
    with pytest.raises(UserError, match="r is 8, the others' is 4"):
        import_adapters([one, other], [task, task], out)
    (other / "adapter_config.json").write_text(json.dumps({**config, "base_model_name_or_path": "another"}))
    with pytest.raises(UserError, match="made for another"):
        import_adapters([one, other], [task, task], out)
    with pytest.raises(UserError, match="no PEFT adapter"):
        import_adapters([tmp_path / "none"], [task], out)
    with pytest.raises(UserError, match="one file for each"):
        import_adapters([one], [], out)
    assert not out.exists(), "something was taken in though it was refused"
    import_adapters([one], [task], out)
    with pytest.raises(UserError, match="already"):
        import_adapters([one], [task], out)
