"""The trained chunker's network and module: what it looks at, that it learns, that its file is whole."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from fulgurite.datamodules.chunking.layout.features import NUM_OWN, NUM_RELATED
from fulgurite.datamodules.chunking.layout.state import NUM_STATE, NUM_STATE_FEATURES
from fulgurite.datamodules.chunking.typeset.truth import ROLES
from fulgurite.lightning_modules.chunking.chunker.module import ChunkerModule
from fulgurite.lightning_modules.chunking.chunker.network import ChunkerNetwork
from fulgurite.lightning_modules.chunking.chunker.trained import load_chunker, save_chunker

SETTINGS = {"width": 32, "num_layers": 1, "num_heads": 2, "dropout": 0.0}


def batch(num_items: int = 6, padding: int = 0) -> dict[str, torch.Tensor]:
    draw = torch.Generator().manual_seed(0)
    total = num_items + padding
    return {
        "own": torch.randn(2, total, NUM_OWN, generator=draw),
        "related": torch.randn(2, total, NUM_RELATED, generator=draw),
        "crops": torch.randint(0, 256, (2, total, 16, 48), generator=draw, dtype=torch.uint8),
        "text": torch.randn(2, total, 384, generator=draw),
        "page": torch.zeros(2, total, dtype=torch.long),
        "state": torch.randn(2, NUM_STATE, NUM_STATE_FEATURES, generator=draw),
        "state_text": torch.randn(2, NUM_STATE, 384, generator=draw),
        "is_item": (torch.arange(total) < num_items).expand(2, -1),
        "role": torch.randint(0, len(ROLES), (2, total), generator=draw),
        "begins": torch.randint(0, 2, (2, total), generator=draw),
        "flag": torch.randint(0, 3, (2, total), generator=draw),
    }


def test_padding_changes_nothing_and_every_input_counts() -> None:
    torch.manual_seed(0)
    network = ChunkerNetwork(**SETTINGS).eval()  # type: ignore[arg-type]
    told = batch(padding=4)
    before = network(told).role[:, :6]
    for name in ("own", "related", "crops", "text"):
        changed = {**told, name: told[name].clone()}
        changed[name][:, 6:] = 1
        torch.testing.assert_close(network(changed).role[:, :6], before)
        changed[name][:, 2] = 0
        assert not torch.allclose(network(changed).role[:, :6], before, atol=1e-4)
    assert not torch.allclose(network({**told, "state": told["state"] + 1}).role[:, :6], before, atol=1e-4)


def test_it_learns_a_batch_by_heart() -> None:
    torch.manual_seed(0)
    module = ChunkerModule(width=32, num_layers=1, num_heads=2, dropout=0.0, text_dropout=0.0)
    module.log = lambda *args, **kwargs: None  # type: ignore[method-assign]  # there is no trainer
    optimizer = torch.optim.Adam(module.parameters(), 3e-3)
    told = batch()
    first = float(module.training_step(told, 0).detach())
    for _ in range(120):
        loss = module.training_step(told, 0)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    assert float(loss.detach()) < 0.1 * first


def test_a_written_chunker_is_read_back(tmp_path: Path) -> None:
    network = ChunkerNetwork(**SETTINGS).eval()  # type: ignore[arg-type]
    save_chunker(network, SETTINGS, {"code": "x"}, tmp_path)
    again, config = load_chunker(tmp_path)
    assert config["code"] == "x" and len(config["weights"]) == 16
    told = batch()
    torch.testing.assert_close(again(told).role, network(told).role, atol=2e-2, rtol=2e-2)
    assert (tmp_path / "model.safetensors").stat().st_size < 8 << 20


@pytest.mark.parametrize("width", [128])
def test_the_default_size_is_small(width: int) -> None:
    assert 300_000 < ChunkerNetwork(width=width).num_parameters < 2_000_000
