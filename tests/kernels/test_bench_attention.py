"""`fulgurite bench attention` without a GPU: what it refuses; its masks, its measure of error."""

from __future__ import annotations

import json

import pytest
import torch

from fulgurite.cli import main
from fulgurite.kernels.bench import contest
from fulgurite.kernels.bench.front import write_numbers
from fulgurite.kernels.masks import BlockMask
from fulgurite.kernels.paro.numerics import PRECISIONS, paro_attention
from fulgurite.kernels.paro.orders import inverse, reorder


@pytest.mark.parametrize("flags,text", [
    (["--shapes", "wan"], "--shapes wan: 'wan' is none of cogvideox, wan480"),
    (["--peers", ""], "--peers : 'nothing' is none of cudnn"),
    (["--masks", "band,stripe"], "--masks band,stripe: 'stripe' is none of random, band"),
    (["--densities", "0.5,2"], "--densities 0.5,2: numbers above 0, at most 1, with commas"),
    (["--densities", "half"], "--densities half: numbers above 0"),
])  # fmt: skip
def test_wrong_arguments_are_refused(flags, text, capsys) -> None:
    assert main(["bench", "attention", *flags]) == 2
    assert text in capsys.readouterr().err


def test_without_a_gpu_it_says_so(monkeypatch, capsys) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert main(["bench", "attention"]) == 2
    assert "PyTorch sees no CUDA GPU here" in capsys.readouterr().err


@pytest.mark.parametrize("density", [0.2, 0.5])
def test_masks_have_the_density_that_is_asked(density) -> None:
    cpu = torch.device("cpu")
    for keep in (contest.random_mask(4, 100, density, 0, cpu), contest.band_mask(4, 100, density, cpu)):
        assert abs(float(keep.float().mean()) - density) < 0.015
        assert keep.shape == (1, 4, 100, 100) and keep.diagonal(dim1=2, dim2=3).all()
        wide = contest.coarsened(keep, 2)
        assert (wide.repeat_interleave(2, 2).repeat_interleave(2, 3) | ~keep).all()
        assert wide.sum() <= keep.sum()


def test_error_is_that_of_the_heads_own_orders_and_mask() -> None:
    torch.manual_seed(0)
    shape = contest.SHAPES["small"]
    q, k, v = (torch.randn(1, shape.heads, shape.tokens, shape.width) for _ in range(3))
    perm = shape.layout.table().int()[torch.arange(shape.heads) % 6]
    keep = contest.random_mask(shape.heads, -(-shape.tokens // 64), 0.5, 0, torch.device("cpu"))
    ordered = [reorder(t, perm.long()) for t in (q, k, v)]
    out = reorder(paro_attention(*ordered, keep, precision=PRECISIONS["float"]), inverse(perm.long()))
    assert contest.error(out, q, k, v, BlockMask(keep), perm) < 1e-6
    assert contest.error(out, q, k, v, None, perm) > 0.1
    assert contest.error(out, q, k, v, BlockMask(keep), perm.flip(0)) > 0.1


def test_a_bench_file_names_its_bench_and_the_versions_of_what_ran_on_a_device(tmp_path) -> None:
    rows = [{"who": "cudnn", "ms": 1.5, "x_cudnn": None}]
    write_numbers(tmp_path / "gpu.json", "attention", 3, rows, device="a GPU", failed={"flash": "no"})
    found = json.loads((tmp_path / "gpu.json").read_text())
    assert found == {
        "schema_version": 1, "bench": "attention", "device": "a GPU", "torch": torch.__version__,
        "cudnn": torch.backends.cudnn.version(), "seed": 3, "rows": rows, "failed": {"flash": "no"},
    }  # fmt: skip
    write_numbers(tmp_path / "cpu.json", "attention-numerics", 0, rows)
    assert json.loads((tmp_path / "cpu.json").read_text()).keys() == {"schema_version", "bench", "seed", "rows"}
