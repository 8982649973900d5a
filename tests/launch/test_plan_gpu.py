"""A plan against the same step on a real card: `pytest -m gpu -s tests/launch/test_plan_gpu.py` prints both."""

from __future__ import annotations

import statistics
import time

import pytest
import torch

from fulgurite.launch.config.experiment import parse_flags, resolve
from fulgurite.launch.plan.cards import CARDS, find_card
from fulgurite.launch.plan.plan import CONTEXT, StagePlan, _optimizer, plan_stage, stage_arguments
from fulgurite.lightning_modules.planned import PLANNERS

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="needs CUDA"),
]
STAGES = {  # planner, and settings for one device
    "gamecraft/gpu": ("teacher", "gamecraft", ()),
    "viki/gpu": ("sft", "viki_sft", ()),
    "dnd/paper": ("generator", "dnd", ("--generator.trainer.devices", "1", "--generator.data.batch_size", "4")),
}


def _card() -> str:
    name = torch.cuda.get_device_name().lower()
    return next((key for key in CARDS if key in name), "h100")


@pytest.mark.parametrize("experiment", STAGES)
def test_the_planned_peak_is_the_measured_one_within_15_percent(experiment: str) -> None:
    if experiment.startswith("gamecraft"):
        pytest.importorskip("diffusers")
    stage_name, name, flags = STAGES[experiment]
    resolved = resolve(experiment, parse_flags(list(flags)))
    stage = next(s for s in resolved.stages if s.name == stage_name)
    plan = plan_stage(stage, resolved, find_card(_card()), 1.0)
    assert isinstance(plan, StagePlan)
    model, data = (stage_arguments(stage, part) for part in ("model", "data"))
    torch.cuda.empty_cache()
    torch.cuda.reset_peak_memory_stats()
    before = torch.cuda.memory_allocated()
    half = plan.precision.startswith("bf16")
    with torch.device("cuda"):
        others = {s.name: s.settings.to_dict() for s in resolved.stages}
        planned = PLANNERS[name](model, data, stage.settings.get("trainer") or {}, others)
        planned.network.cuda()
        copies = [p.detach().clone() for p in planned.network.parameters() for _ in range(planned.copies)]
        optimizer = _optimizer(model)([p for p in planned.network.parameters() if p.requires_grad])
        seconds = []
        for _ in range(8):
            torch.cuda.synchronize()
            begun = time.perf_counter()
            optimizer.zero_grad(set_to_none=True)
            with torch.autocast("cuda", torch.bfloat16, enabled=half):
                loss = planned.loss()
            loss.backward()
            optimizer.step()
            torch.cuda.synchronize()
            seconds.append(time.perf_counter() - begun)
    measured = torch.cuda.max_memory_allocated() - before
    wanted = plan.peak_bytes - plan.memory[CONTEXT]
    median = statistics.median(seconds[3:])
    print(
        f"\n{experiment} {stage_name}: planned {wanted / 1e9:.2f} GB, measured {measured / 1e9:.2f} GB "
        f"({wanted / measured - 1:+.0%}); {median:.4f} s a step, {plan.step_seconds / median:.0%} of the card's peak"
    )
    del copies
    assert wanted == pytest.approx(measured, rel=0.15)
