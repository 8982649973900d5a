"""4 bits: the emulation against a flash loop over real integers, and the table of groups and orders."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from torch import Tensor

from fulgurite.cli import main
from fulgurite.kernels.bench.numerics_command import heads_along_frames, random_heads
from fulgurite.kernels.paro.numerics import PRECISIONS, paro_attention

BLOCK = 64


@pytest.fixture(autouse=True)
def one_thread() -> None:
    torch.set_num_threads(1)


def integers(x: Tensor, top: int) -> tuple[Tensor, float]:
    """A tile as integers from -top to top, and its step."""
    step = float(x.abs().max()) / top
    return (x / step).round().to(torch.int32), step


def flash_loop(q_ND: Tensor, k_MD: Tensor, v_MD: Tensor, passes: int) -> Tensor:
    """What a kernel with 4-bit matrix units does, tile by tile, in integers.

    P of a tile is exp(S - maximum), unsigned, with the scale of the tile's own largest value; the sum of a row is that
    of the unrounded P. In one pass the maximum is that of the tiles so far, and the output is rescaled when it moves;
    in two passes the first finds the row's maximum.
    """
    k_MD = k_MD - k_MD.mean(0)
    keys = [(*integers(k, 7), *integers(v, 7)) for k, v in zip(k_MD.split(BLOCK), v_MD.split(BLOCK), strict=True)]
    parts = []
    for q_bD in q_ND.split(BLOCK):
        q, q_step = integers(q_bD, 7)
        top_b1, total_b1 = torch.full((len(q), 1), float("-inf")), torch.zeros(len(q), 1)
        out_bD = torch.zeros(len(q), v_MD.shape[1])
        if passes == 2:
            whole_map = [(q @ k.T).float() * (q_step * k_step * q.shape[1] ** -0.5) for k, k_step, _, _ in keys]
            top_b1 = torch.cat(whole_map, 1).amax(1, keepdim=True)
        for k, k_step, v, v_step in keys:
            scores = (q @ k.T).float() * (q_step * k_step * q.shape[1] ** -0.5)
            moved = torch.maximum(top_b1, scores.amax(1, keepdim=True))
            p = (scores - moved).exp()
            shrink = (top_b1 - moved).exp()
            p_step = float(p.max()) / 15
            whole = (p / p_step).round().to(torch.int32)
            assert int(whole.min()) >= 0 and int(whole.max()) <= 15 and int(k.abs().max()) <= 7
            out_bD = out_bD * shrink + (whole @ v).float() * (p_step * v_step)
            total_b1 = total_b1 * shrink + p.sum(1, keepdim=True)
            top_b1 = moved
        parts.append(out_bD / total_b1)
    return torch.cat(parts)


@pytest.mark.parametrize("kind", ["random", "along frames"])
def test_the_emulation_computes_a_kernel_s_integers_and_one_pass_errs_a_little_less(kind: str) -> None:
    """Stated in kernels/README.md: with the maxima so far, early tiles have finer scales."""
    heads = random_heads(0) if kind == "random" else heads_along_frames(0)
    q, k, v = (t[0, 0, :1024] for t in heads)
    exact = paro_attention(*(t[None, None].double() for t in (q, k, v)), precision=PRECISIONS["float"])[0, 0]
    emulated = paro_attention(*(t[None, None] for t in (q, k, v)), precision=PRECISIONS["int4"])[0, 0]
    one, two = (flash_loop(q, k, v, passes) for passes in (1, 2))
    errors = [float((out - exact).norm() / exact.norm()) for out in (emulated, one, two)]
    assert float((emulated - two).norm() / exact.norm()) < 0.002  # but for ties in rounding
    assert errors[0] == pytest.approx(errors[2], rel=0.01)
    assert 0.9 * errors[0] < errors[1] < errors[0]


@pytest.mark.slow
def test_the_table_says_what_groups_and_order_are_worth(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Stated in lightning_modules/paro/README.md."""
    assert main(["bench", "attention-numerics", "--json", str(tmp_path / "table.json")]) == 0
    assert "incoherence" in capsys.readouterr().out
    rows = json.loads((tmp_path / "table.json").read_text())["rows"]
    error = {(r["data"], r["order"], r["numbers"], r["P's scales"]): r["error"] for r in rows}
    spread = {(r["order"], r["P's scales"]): r["incoherence"] for r in rows if r["data"] == "along frames"}
    for numbers, gain in (("int8", 1.3), ("int4", 1.2)):
        lying, ordered = (error["along frames", order, numbers, "block"] for order in ("as they lie", "HWF"))
        by_row = error["along frames", "HWF", numbers, "row"]
        assert by_row > lying > gain * ordered
        random = [
            error["random", order, numbers, scales] for order in ("as they lie", "HWF") for scales in ("row", "block")
        ]
        assert max(random) < 1.05 * min(random)  # nothing to gain where there is no pattern
    assert spread["HWF", "row"] == pytest.approx(spread["as they lie", "row"])
    assert spread["HWF", "block"] < spread["as they lie", "block"] / 5 < spread["as they lie", "row"] / 9
