"""Orders, masks and recall against maps written out whole; and that the code itself never writes one out."""

from __future__ import annotations

import itertools
import weakref
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from fulgurite.kernels.paro import calibration
from fulgurite.kernels.paro.calibration import (
    Layer,
    Metric,
    bin_of,
    bins_of,
    block_mass,
    choose_orders,
    empty_heads,
    masks_by_density,
    masks_by_recall,
    order_metrics,
    order_scores,
    peak_bytes,
    recall_of,
)
from fulgurite.kernels.paro.orders import Layout
from fulgurite.kernels.paro.plan import forced_blocks

LAYOUTS = [Layout((5, 6, 7), 9, "prefix"), Layout((4, 8, 8), 0), Layout((5, 6, 7), 70, "suffix"), Layout((12, 17), 3)]


@pytest.fixture(autouse=True)
def narrow(monkeypatch: pytest.MonkeyPatch) -> None:
    torch.set_num_threads(1)
    monkeypatch.setattr(calibration, "STRIP_ELEMENTS", 64 * 300)  # a strip is one or two blocks of rows


def axis_heads(layout: Layout, seed: int = 0) -> tuple[Tensor, Tensor]:
    """Heads that each look along one axis of the grid: to tokens that share the other coordinates."""
    generator = torch.Generator().manual_seed(seed)
    coordinates = torch.tensor(list(itertools.product(*(range(n) for n in layout.grid))))
    heads = []
    for axis in range(len(layout.grid)):
        others = [a for a in range(len(layout.grid)) if a != axis]
        place = sum(coordinates[:, a] * 100**i for i, a in enumerate(others))
        codes = torch.randn(int(place.max()) + 1, 32, generator=generator)[place]
        text = torch.randn(layout.text, 32, generator=generator) * 0.1
        heads.append(torch.cat([text, codes] if layout.side == "prefix" else [codes, text]))
    q = torch.stack(heads) * 1.5
    return q, q + 0.05 * torch.randn(q.shape, generator=generator)


def whole_map(q_ND: Tensor, k_ND: Tensor, permutation_N: Tensor) -> Tensor:
    p = ((q_ND @ k_ND.T).double() * q_ND.shape[-1] ** -0.5).softmax(-1)
    return p[permutation_N][:, permutation_N]


def blocks_of(p: Tensor) -> list[list[Tensor]]:
    return [list(rows.split(64, 1)) for rows in p.split(64, 0)]


@pytest.mark.parametrize("layout", LAYOUTS)
def test_metrics_and_mass_are_those_of_the_whole_map(layout: Layout) -> None:
    q, k = axis_heads(layout)
    metric = Metric()
    sparse, quant, held = order_metrics(Layer(q, k, layout), metric)
    assert sparse.shape == quant.shape == (len(q), len(layout.orders))
    for head, order in itertools.product(range(len(q)), range(len(layout.orders))):
        p = whole_map(q[head], k[head], layout.table()[order])
        found = [b for row in blocks_of(p) for b in row]
        share = [float((b < 17.8 / layout.num_tokens).double().mean()) for b in found]
        assert float(sparse[head, order]) == pytest.approx(sum(s >= 0.9 for s in share) / len(share), abs=1e-6)
        fullest = sorted((float(b.sum()) for b in found), reverse=True)[: max(1, round(0.3 * len(found)))]
        assert float(held[head, order]) == pytest.approx(sum(fullest) / float(p.sum()), abs=1e-5)
        psi = [float(b.max() / b.mean()) for b in found]
        assert float(quant[head, order]) == pytest.approx(sum(psi) / len(psi), rel=1e-4)
        mass = block_mass(Layer(q[head : head + 1], k[head : head + 1], layout), torch.tensor([order]))[0]
        wanted = torch.stack([torch.stack([b.sum() for b in row]) for row in blocks_of(p)])
        torch.testing.assert_close(mass.double(), wanted, atol=1e-4, rtol=1e-4)
        assert float(mass.sum()) == pytest.approx(layout.num_tokens, rel=1e-5)


def test_the_order_brings_the_axis_that_a_head_looks_along_into_a_block() -> None:
    layout = Layout((8, 8, 8))
    q, k = axis_heads(layout)
    sparse, quant, held = order_metrics(Layer(q, k, layout), Metric())
    for chosen in (choose_orders(sparse, quant, 0.0), held.argmax(1)):
        # a block is a plane of 8x8: the axis has to be one of its two
        assert all(layout.orders[int(order)][0] != axis for axis, order in enumerate(chosen))
    # a sharp diagonal in every block passes for sparse: by M_sparse alone the order is the wrong one
    assert [layout.orders[int(order)][0] for order in choose_orders(sparse, quant, 1.0)] == [0, 1, 2]
    # the sign that the paper prints would choose the least sparse
    assert int(sparse[0].argmax()) == int(order_scores(sparse, quant, 1.0)[0].argmin())
    # and the masks hold more for it
    kept = []
    for orders in (choose_orders(sparse, quant, 0.0), torch.zeros(3, dtype=torch.int64)):
        mass = block_mass(Layer(q, k, layout), orders)
        kept.append(recall_of(mass, masks_by_density(mass, layout, 0.4))[0].mean())
    assert kept[0] > kept[1] + 0.15


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("density", [0.2, 0.5, 0.9, 1.0])
def test_masks_have_the_density_and_keep_the_largest(layout: Layout, density: float) -> None:
    q, k = axis_heads(layout)
    mass = block_mass(Layer(q, k, layout), torch.zeros(len(q), dtype=torch.int64))
    keep = masks_by_density(mass, layout, density)
    forced = forced_blocks(layout)
    always = (forced | forced[:, None]).expand_as(keep)
    assert keep[always].all()
    least = float(always.float().mean())
    assert float(keep.float().mean()) == pytest.approx(max(density, least), abs=0.501 / keep.numel())
    chosen, left = mass[keep & ~always], mass[~keep]
    assert not len(chosen) or not len(left) or chosen.min() >= left.max()
    mean, worst = recall_of(mass, keep)
    p = [whole_map(q[h], k[h], layout.table()[0]) for h in range(len(q))]
    for head in range(len(q)):
        wide = keep[head].repeat_interleave(64, 0).repeat_interleave(64, 1)[: len(p[head]), : len(p[head])]
        rows = (p[head] * wide).sum(1)
        assert float(mean[head]) == pytest.approx(float(rows.mean()), abs=1e-5)
        assert float(worst[head]) == pytest.approx(min(float(r.mean()) for r in rows.split(64)), abs=1e-5)


@pytest.mark.parametrize("target", [0.3, 0.8, 0.99, 1.0])
def test_masks_by_recall_reach_it_with_no_block_to_spare(target: float) -> None:
    layout = Layout((6, 8, 8), 10, "suffix")
    q, k = axis_heads(layout)
    mass = block_mass(Layer(q, k, layout), torch.zeros(3, dtype=torch.int64))
    keep = masks_by_recall(mass, layout, target)
    mean, _ = recall_of(mass, keep)
    assert (mean >= target - 1e-5).all()
    forced = forced_blocks(layout)
    for head in range(3):
        own = keep[head] & ~(forced | forced[:, None])
        if own.any() and target < 1:
            least = float(mass[head][own].min())
            assert float((mass[head] * keep[head]).sum()) - least < target * float(mass[head].sum())


def test_heads_that_look_at_text_alone_are_empty() -> None:
    layout = Layout((4, 8, 8), 20, "prefix")
    q, k = axis_heads(layout)
    q[1], k[1] = 0.01 * q[1], 0.01 * k[1]
    k[1, :20] = k[1, :20] + 30 * q[1, 30:31].sign()
    q[1, 20:] = q[1, 30]
    q[1] = q[1] * 100
    mass = block_mass(Layer(q, k, layout), torch.zeros(3, dtype=torch.int64))
    empty = empty_heads(mass, layout, 0.01)
    assert empty.tolist() == [False, True, False]
    keep = masks_by_density(mass, layout, 0.8, empty)
    forced = forced_blocks(layout)
    assert torch.equal(keep[1], (forced | forced[:, None]))
    assert keep.float().mean() == pytest.approx(0.8, abs=0.02)
    assert not empty_heads(mass, Layout((4, 8, 9)), 1.0).any()


def test_bins() -> None:
    steps = [1000.0, 900.0, 800.0, 700.0, 600.0, 500.0, 400.0, 300.0, 200.0, 100.0]
    for num_bins, sizes in ((1, [10]), (2, [5, 5]), (3, [2, 3, 5]), (6, [1, 1, 1, 1, 1, 5]), (9, [1, 1, 1, 1, 1, 5])):
        edges = bins_of(steps, num_bins)
        found = [bin_of(step, edges) for step in steps]
        assert [found.count(b) for b in range(len(edges) + 1)] == sizes
        assert found == sorted(found)


def test_keys_that_nobody_sees_hold_nothing() -> None:
    layout = Layout((4, 8, 8), 80, "suffix")
    q, k = axis_heads(layout)
    seen = torch.arange(layout.num_tokens) < layout.num_tokens - 70
    k[:, ~seen] = 50.0
    mass = block_mass(Layer(q, k, layout, seen), torch.tensor([0, 1, 2]))
    for head in range(3):
        perm = layout.table()[head]
        scores = (q[head] @ k[head].T * 32**-0.5).masked_fill(~seen, float("-inf"))
        p = scores.softmax(-1)[perm][:, perm]
        wanted = torch.stack([torch.stack([b.sum() for b in row]) for row in blocks_of(p)])
        torch.testing.assert_close(mass[head], wanted, atol=1e-3, rtol=1e-3)
    assert mass[:, :, -1].sum() < 1e-6  # the last block holds padding alone


class LiveBytes(TorchDispatchMode):
    """Bytes of tensors made within the block that live at once, at most; and the largest tensor."""

    def __init__(self) -> None:
        super().__init__()
        self.live = self.peak = self.largest = 0
        self._seen: set[int] = set()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        out = func(*args, **(kwargs or {}))
        for tensor in out if isinstance(out, tuple | list) else [out]:
            if isinstance(tensor, Tensor):
                self._note(tensor.untyped_storage())
        return out

    def _note(self, storage: torch.UntypedStorage) -> None:
        key = storage._cdata
        if key not in self._seen:
            self._seen.add(key)
            size = storage.nbytes()
            self.live += size
            self.peak, self.largest = max(self.peak, self.live), max(self.largest, size)
            weakref.finalize(storage, self._gone, key, size)

    def _gone(self, key: int, size: int) -> None:
        self._seen.discard(key)
        self.live -= size


def test_memory_stays_below_the_estimate_and_no_map_is_held(monkeypatch: pytest.MonkeyPatch) -> None:
    layout = Layout((9, 16, 28), 16, "suffix")  # 4,048 tokens: a map has 66 MB
    monkeypatch.setattr(calibration, "STRIP_ELEMENTS", 1 << 19)
    torch.manual_seed(0)
    q, k = torch.randn(2, 2, layout.num_tokens, 32)
    with LiveBytes() as memory:
        sparse, quant, _ = order_metrics(Layer(q, k, layout), Metric())
        mass = block_mass(Layer(q, k, layout), choose_orders(sparse, quant, 0.5))
        keep = masks_by_density(mass, layout, 0.3)
        recall_of(mass, keep)
    estimate = peak_bytes(layout.num_tokens, 32, 2)
    assert memory.largest < 3e6
    assert estimate / 4 < memory.peak < estimate
    assert memory.peak < layout.num_tokens**2  # a quarter of one map
    # Wan2.1-14B at 720p: a layer of 40 heads, with the strips as they are
    monkeypatch.undo()
    assert 0.2e9 < peak_bytes(75600, 128, 40) < 8e9
