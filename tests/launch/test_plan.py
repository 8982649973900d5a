"""`fulgurite plan`: counts that can be checked by hand, every `paper` experiment, and what is said of the rest."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import nn

from fulgurite.cli import main
from fulgurite.launch.config.experiment import parse_flags, resolve
from fulgurite.launch.plan.cards import CARDS, find_card
from fulgurite.launch.plan.count import count
from fulgurite.launch.plan.plan import StagePlan, plan_stage
from fulgurite.lightning_modules.planned import Planned

B, N, D = 4, 32, 64


def _planned(network: nn.Module, **more: Any) -> Planned:
    x = torch.randn(B, N, D)
    return Planned(network, lambda: network(x).sum(), B, "tokens", N, 10, **more)


def _plan(experiment: str, stage: str, *flags: str) -> StagePlan | str:
    resolved = resolve(experiment, parse_flags(list(flags)))
    return plan_stage(next(s for s in resolved.stages if s.name == stage), resolved, find_card("h100"), 0.4)


def test_a_linear_layer_takes_the_operations_and_bytes_that_one_counts_by_hand() -> None:
    _, counted = count(lambda: _planned(nn.Linear(D, D, bias=False)), torch.optim.AdamW, "32-true")
    product = 2 * B * N * D * D
    assert counted.trained == D * D and counted.forward_flops == product
    assert counted.step_flops == 2 * product  # the input needs no gradient
    assert counted.weight_bytes == 4 * D * D and counted.state_bytes == pytest.approx(8 * D * D, abs=8)
    assert counted.kept_bytes == 4 * B * N * D


def test_attention_counts_and_its_map_is_not_kept() -> None:
    class Attention(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.qkv = nn.Linear(D, 3 * D, bias=False)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            q, k, v = self.qkv(x).unflatten(-1, (3, 2, D // 2)).permute(2, 0, 3, 1, 4)
            return nn.functional.scaled_dot_product_attention(q, k, v)

    _, counted = count(lambda: _planned(Attention()), torch.optim.SGD, "32-true")
    products, attention = 2 * B * N * D * 3 * D, 4 * B * N * N * D
    assert counted.forward_flops == products + attention
    assert counted.step_flops == products + products + attention + 2.5 * attention
    assert counted.kept_bytes < 4 * B * N * (D + 3 * D + D + 2) + 1 and counted.state_bytes == 0


def test_checkpointed_blocks_keep_their_inputs_and_one_whole_block_and_work_again() -> None:
    def make(checkpointed: bool) -> Planned:
        layers = [nn.Sequential(nn.Linear(D, 4 * D), nn.GELU(), nn.Linear(4 * D, D)) for _ in range(6)]
        network = nn.Sequential(nn.Linear(D, D), *layers)
        return _planned(network, blocks=tuple(layers) if checkpointed else ())

    whole = count(lambda: make(False), torch.optim.AdamW, "32-true")[1]
    thin = count(lambda: make(True), torch.optim.AdamW, "32-true")[1]
    inputs = 4 * B * N * D
    assert thin.kept_bytes < whole.kept_bytes / 2 and thin.kept_bytes > 6 * inputs
    assert thin.step_flops == whole.step_flops + whole.forward_flops


def test_mixed_precision_keeps_half_the_bytes_of_activations() -> None:
    def make() -> Planned:
        return _planned(nn.Sequential(*(nn.Linear(D, D, bias=False) for _ in range(20))))

    full, mixed = (count(make, torch.optim.AdamW, p)[1] for p in ("32-true", "bf16-mixed"))
    assert mixed.weight_bytes == full.weight_bytes and mixed.step_flops == full.step_flops
    copies = 20 * 2 * D * D  # of the weights, in half precision
    assert mixed.kept_bytes - copies == pytest.approx(full.kept_bytes / 2, rel=0.1)


def test_the_plan_of_hello_has_the_parameters_of_its_module() -> None:
    from fulgurite.lightning_modules.hello import HelloModule

    found = _plan("hello", "fit", "--model.width", "12", "--trainer.max_epochs", "3")
    assert isinstance(found, StagePlan)
    assert found.counted.trained == sum(p.numel() for p in HelloModule(12).parameters())
    assert found.planned.steps == 300 and found.precision == "32-true"
    assert found.hours == pytest.approx(300 * found.step_seconds / 3600)
    assert found.step_seconds == pytest.approx(found.counted.step_flops / (67e12 * 0.4))


def test_ddp_holds_all_on_each_device_and_fsdp_a_part() -> None:
    strategy = "lightning.pytorch.strategies.ModelParallelStrategy"
    one = _plan("hello", "fit")
    ddp = _plan("hello", "fit", "--trainer.devices", "4", "--trainer.strategy", "ddp")
    parts = _plan("hello", "fit", "--trainer.devices", "4", "--trainer.num_nodes", "2", "--trainer.strategy", strategy)
    assert isinstance(one, StagePlan) and isinstance(ddp, StagePlan) and isinstance(parts, StagePlan)
    assert ddp.memory["optimiser"] == one.memory["optimiser"] and ddp.memory["buckets"] == ddp.memory["gradients"]
    assert parts.devices == parts.sharded == 8 and parts.memory["optimiser"] == one.memory["optimiser"] / 8
    assert "gathered blocks" in parts.memory and parts.memory["weights"] == one.memory["weights"] / 8


def test_a_stage_of_the_same_step_is_not_counted_again_and_another_is() -> None:
    made: list[int] = []
    known: dict[Any, Any] = {}

    def plan(width: int, steps: int, kind: str = "adam") -> tuple[Planned, Any]:
        def loss() -> torch.Tensor:
            made.append(width)
            return network(torch.randn(B, N, D)).sum()

        network = nn.Linear(D, width)
        return count(lambda: Planned(network, loss, B, "tokens", N, steps), torch.optim.AdamW, "32-true", known, kind)

    first, again, wider = plan(8, 10), plan(8, 70), plan(9, 10)
    assert first[1] == again[1] != wider[1] and again[0].steps == 70
    plan(8, 10, kind="sgd")
    assert made == [8, 9, 8]


@pytest.mark.slow
def test_the_published_settings_have_the_published_sizes() -> None:
    dnd = _plan("dnd/paper", "generator")
    assert isinstance(dnd, StagePlan) and dnd.counted.trained == pytest.approx(1.11e9, rel=0.01)
    assert dnd.hours * 60 < resolve("dnd/paper").meta["estimate"]["minutes"]
    lora = _plan("dnd/paper", "collect")
    assert isinstance(lora, StagePlan) and lora.counted.frozen == 494_032_768 and lora.planned.steps == 7 * 125
    viki = _plan("viki/paper", "sft")
    assert isinstance(viki, StagePlan)
    assert viki.counted.trained + viki.counted.frozen == 3_754_622_976  # as tests/…/viki/policy/test_policy.py has it


@pytest.mark.slow
def test_gamecraft_at_the_published_size_is_thirteen_billion_and_fits_the_cards_that_its_file_names() -> None:
    pytest.importorskip("diffusers")
    found = _plan("gamecraft/paper", "teacher")
    assert isinstance(found, StagePlan) and found.counted.trained == pytest.approx(12.82e9, rel=0.005)
    assert found.sharded == 8 and found.planned.blocks
    both = found.hours * (180_000 + 120_000) / 180_000  # the second phase has the same step
    assert both * 60 < resolve("gamecraft/paper").meta["estimate"]["minutes"] < both * 60 * 1.5
    assert found.counted.frozen == pytest.approx(
        7.5e9 + 0.25e9, rel=0.03
    )  # Llama 3 without its last layer, and the VAE
    assert found.peak_bytes < CARDS["h200"].memory_gb * 1e9  # the file asks for 141 GB


@pytest.mark.slow
def test_paro_at_the_published_size_trains_nothing() -> None:
    pytest.importorskip("diffusers")
    found = _plan("paro/paper", "capture")
    assert isinstance(found, StagePlan) and found.counted.trained == 0
    assert found.counted.frozen == pytest.approx(5.57e9, rel=0.01)
    assert set(found.memory) <= {"frozen weights", "context"}


def test_what_is_not_planned_says_why_and_a_card_has_the_nearest_name(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["plan", "chunking/rag"]) == 0
    assert "not planned: nobody has said what command chunking" in capsys.readouterr().out
    assert main(["plan", "hello", "--card", "h10"]) == 2
    assert "no card 'h10'" in capsys.readouterr().err
    assert main(["plan", "hello", "--utilisation", "35"]) == 2
    assert "a share of the card's peak" in capsys.readouterr().err
    assert main(["plan", "hello", "--trainer.devices", "auto"]) == 0
    assert "a plan needs their number" in capsys.readouterr().out


def test_the_plan_prints_memory_work_and_hours(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["plan", "hello", "--card", "h200"]) == 0
    out = capsys.readouterr().out
    assert "hello on NVIDIA H200 SXM, at 35% of its peak" in out
    for word in ("parameters", "a step", "all steps", "memory: optimiser", "peak of a device", "card hours"):
        assert word in out
