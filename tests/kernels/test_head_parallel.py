"""Heads are placed by what they cost, and two processes together give what one gives, to the bit."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.multiprocessing as mp
from hypothesis import given
from hypothesis import strategies as st

from fulgurite.kernels.bench.parallel_command import Row, bench, densities
from fulgurite.kernels.head_parallel import HeadExchange, imbalance, place_by_cost, place_evenly
from fulgurite.registry import UserError


@given(st.lists(st.floats(0, 1e6), min_size=1, max_size=48), st.integers(1, 8))
def test_every_head_is_placed_once_and_no_rank_is_idle(cost: list[float], ranks: int) -> None:
    if ranks > len(cost):
        with pytest.raises(ValueError, match="every rank needs a head"):
            place_by_cost(cost, ranks)
        return
    placement = place_by_cost(cost, ranks)
    assert sorted(head for heads in placement for head in heads) == list(range(len(cost)))
    assert all(placement)


def test_cost_is_spread_where_neighbours_are_not_alike() -> None:
    cost = [8.0, 8, 8, 8, 1, 1, 1, 1]
    assert imbalance(cost, place_evenly(8, 2)) == pytest.approx(32 / 18)
    assert imbalance(cost, place_by_cost(cost, 2)) == 1.0


def _attend(rank: int, meeting: str, answers: str) -> None:
    import torch.distributed as dist

    dist.init_process_group("gloo", init_method=f"file://{meeting}", rank=rank, world_size=2)
    torch.manual_seed(0)
    q, k, v = (torch.randn(2, 5, 70, 8) for _ in range(3))
    sizes = (40, 30)
    exchange = HeadExchange(place_by_cost([9.0, 1, 1, 4, 4], 2), sizes)
    own = slice(0, 40) if rank == 0 else slice(40, 70)
    q_h, k_h, v_h = (exchange.to_heads(x[:, :, own]) for x in (q, k, v))
    out = exchange.to_tokens(torch.nn.functional.scaled_dot_product_attention(q_h, k_h, v_h))
    torch.save((q_h, out), f"{answers}{rank}.pt")
    dist.destroy_process_group()


def test_two_processes_give_what_one_gives(tmp_path: Path) -> None:
    mp.spawn(_attend, (str(tmp_path / "meeting"), str(tmp_path / "answer")), nprocs=2)
    torch.manual_seed(0)
    q, k, v = (torch.randn(2, 5, 70, 8) for _ in range(3))
    whole = torch.nn.functional.scaled_dot_product_attention(q, k, v)
    found = [torch.load(tmp_path / f"answer{rank}.pt") for rank in range(2)]
    placement = place_by_cost([9.0, 1, 1, 4, 4], 2)
    for rank, (q_h, _) in enumerate(found):
        assert torch.equal(q_h, q[:, list(placement[rank])])
    assert torch.equal(torch.cat([out for _, out in found], 2), whole)


def test_the_bench_refuses_what_it_cannot_compare() -> None:
    with pytest.raises(UserError, match="--shape wan: one of cogvideox"):
        bench(shape="wan")
    with pytest.raises(UserError, match=r"--density 0\.7: above 0 and at most 0\.60"):
        bench(density=0.7)
    if torch.cuda.device_count() < 2:
        with pytest.raises(UserError, match="compares several GPUs with one"):
            bench()


def test_the_bench_wants_a_head_for_each_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 64)
    with pytest.raises(UserError, match="--shape wan720: 40 heads for 64 GPUs, and each needs one"):
        bench()


def test_the_numbers_tell_what_they_were_measured_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def spawn(rank: object, args: tuple[Any, ...], nprocs: int) -> None:
        torch.save([asdict(Row("by cost", nprocs, 1.0, 0.1, 1.0, 2.0, True))], Path(args[1]) / "rows.pt")

    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda: "a GPU")
    monkeypatch.setattr(torch.multiprocessing, "spawn", spawn)
    assert bench(shape="small", density=0.5, json=tmp_path / "numbers.json") == 0
    told = json.loads((tmp_path / "numbers.json").read_text())
    assert (told["device"], told["torch"], told["shape"], told["density"]) == ("a GPU", torch.__version__, "small", 0.5)
    assert told["rows"][0]["ranks"] == 2


def test_heads_of_the_bench_keep_a_third_to_five_thirds_of_the_density() -> None:
    found = densities(40, 0.3, 0)
    assert min(found) == pytest.approx(0.1)
    assert max(found) == pytest.approx(0.5)
    assert sum(found) / 40 == pytest.approx(0.3)
    assert found != sorted(found)


@pytest.mark.gpu
@pytest.mark.skipif(torch.cuda.device_count() < 2, reason="needs two GPUs")
def test_two_gpus_give_what_one_gives(capsys: pytest.CaptureFixture[str]) -> None:
    assert bench(shape="small", density=0.5) == 0
    assert "NO" not in capsys.readouterr().out
