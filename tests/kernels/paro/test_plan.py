"""The plan's file: bits, checks that name what is wrong, and nothing half-written."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import load_file, save_file

from fulgurite.kernels.paro.orders import Layout
from fulgurite.kernels.paro.plan import KEY, Plan, PlanMeta, check, forced_blocks, pack, unpack
from fulgurite.registry import UserError


def make_plan(
    grid: tuple[int, ...] = (3, 6, 8), text: int = 7, side: str = "suffix", num_layers: int = 2, num_heads: int = 3,
    edges: tuple[float, ...] = (700.0, 400.0), share: float = 0.5, seed: int = 0, **changes: Any,
) -> Plan:  # fmt: skip
    """A plan with random orders and masks."""
    meta = PlanMeta(grid, text, side, edges, **changes)
    generator = torch.Generator().manual_seed(seed)
    size, num_bins, num_orders = -(-meta.layout.num_tokens // 64), len(edges) + 1, len(meta.layout.orders)
    forced = forced_blocks(meta.layout)
    keep = torch.rand(num_bins, num_layers, num_heads, size, size, generator=generator) < share
    keep |= forced | forced[:, None]
    ones, metric = torch.ones(num_bins, num_layers, num_heads), torch.ones(num_layers, num_heads, num_orders)
    orders = torch.randint(num_orders, (num_layers, num_heads), generator=generator).to(torch.uint8)
    empty = torch.zeros(num_layers, num_heads, dtype=torch.bool)
    return Plan(meta, pack(keep), orders, empty, keep.float().mean((3, 4)), ones, ones, metric, metric, metric)


@given(st.lists(st.lists(st.booleans(), min_size=19, max_size=19), min_size=1, max_size=5))
@settings(max_examples=50, deadline=None)
def test_bits_there_and_back(rows) -> None:
    keep = torch.tensor(rows)
    assert pack(keep).shape == (len(rows), 3)
    assert torch.equal(unpack(pack(keep), 19), keep)
    assert int(pack(keep)[0, 0]) == sum(bit << place for place, bit in enumerate(rows[0][:8]))


def test_saved_and_loaded(tmp_path: Path) -> None:
    plan = make_plan(model="X", target={"density": 0.5}, metric={"alpha": 0.5})
    plan.save(tmp_path / "new" / "plan.safetensors")
    back = Plan.load(tmp_path / "new" / "plan.safetensors")
    assert back.meta == plan.meta
    for field in dataclasses.fields(Plan)[1:]:
        assert torch.equal(getattr(back, field.name), getattr(plan, field.name))
    assert [f.name for f in (tmp_path / "new").iterdir()] == ["plan.safetensors"]


def test_a_bin_by_number_or_tensor() -> None:
    plan = make_plan()
    assert torch.equal(plan.keep(2, 1), plan.keep(torch.tensor(2), 1))
    assert not torch.equal(plan.keep(2, 1), plan.keep(0, 1))


@pytest.mark.parametrize(
    "layout,kept",
    [
        (Layout((4, 8, 8)), [3]),
        (Layout((4, 8, 8), 1, "prefix"), [0, 4]),
        (Layout((13, 30, 45), 226, "prefix"), [0, 1, 2, 3, 277]),  # CogVideoX: 226 words and 30 tokens of the picture
        (Layout((2, 8, 9), 60, "suffix"), [2, 3]),
        (Layout((2, 8, 8), 60, "suffix"), [2]),
    ],
)
def test_blocks_of_text_and_the_last_are_always_kept(layout, kept) -> None:
    assert forced_blocks(layout).nonzero().flatten().tolist() == kept


def damaged(plan: Plan, path: Path, change: dict[str, Any] | None = None, **tensors: Any) -> Path:
    plan.save(path)
    content = {**load_file(path), **tensors}
    meta = {**json.loads(json.dumps(dataclasses.asdict(plan.meta))), **(change or {})}
    save_file({k: v for k, v in content.items() if v is not None}, path, {KEY: json.dumps(meta)})
    return path


@pytest.mark.parametrize(
    "change,tensors,text",
    [
        ({"schema_version": 2}, {}, "a plan of version 2; this fulgurite reads version 1"),
        ({"block": 128}, {}, "blocks of 128 tokens"),
        ({"grid": [3, 6]}, {}, "masks is"),
        ({"grid": "wide"}, {}, "metadata can't be read"),
        ({"edges": [400.0, 700.0]}, {}, "do not fall"),
        ({"novelty": 1}, {}, "metadata can't be read"),
        ({}, {"orders": None}, "lacks orders"),
        ({}, {"orders": torch.full((2, 3), 6, dtype=torch.uint8)}, "order 6 of a grid that has 6"),
        ({}, {"orders": torch.zeros(2, 3)}, "orders is torch.float32"),
        ({}, {"recall": torch.full((3, 2, 3), 1.5)}, "recall has values that are no shares"),
        ({}, {"density": torch.zeros(3, 2, 3)}, "bin 0, layer 0 keeps other shares"),
        ({}, {"masks": torch.zeros(3, 2, 3, 3, 1, dtype=torch.uint8)}, "drops blocks of text"),
    ],
)
def test_a_damaged_plan_is_refused_with_the_reason(change, tensors, text, tmp_path: Path) -> None:
    path = damaged(make_plan(), tmp_path / "plan.safetensors", change, **tensors)
    with pytest.raises(UserError, match=text):
        Plan.load(path)


def test_what_is_no_plan(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="can't be read as a plan"):
        Plan.load(tmp_path / "absent")
    (tmp_path / "text").write_text("no plan")
    with pytest.raises(UserError, match="can't be read as a plan"):
        Plan.load(tmp_path / "text")
    save_file({"x": torch.zeros(1)}, tmp_path / "other")
    with pytest.raises(UserError, match="is no plan of PARO"):
        Plan.load(tmp_path / "other")
    whole = tmp_path / "whole"
    make_plan().save(whole)
    (tmp_path / "half").write_bytes(whole.read_bytes()[:400])
    with pytest.raises(UserError, match="can't be read as a plan"):
        Plan.load(tmp_path / "half")


def test_a_failed_write_leaves_the_old_plan(tmp_path: Path) -> None:
    path = tmp_path / "plan.safetensors"
    make_plan().save(path)
    before = path.read_bytes()
    wrong = dataclasses.replace(make_plan(), recall=torch.full((3, 2, 3), 2.0))
    with pytest.raises(UserError, match="the plan to be written: recall"):
        wrong.save(path)
    assert path.read_bytes() == before
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match="can't be written"):
        make_plan().save(tmp_path / "file" / "plan.safetensors")
    check(make_plan(), "here")
