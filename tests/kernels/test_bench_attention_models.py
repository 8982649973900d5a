"""`fulgurite bench attention-models` without a GPU: its published sizes, its step and rows at small ones."""

from __future__ import annotations

import inspect
import json
import math
import weakref
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

pytest.importorskip("diffusers")

import diffusers

from fulgurite.cli import main
from fulgurite.kernels.adapters.follow import attention_layers
from fulgurite.kernels.bench import models_command
from fulgurite.kernels.bench.models import SPECS, ModelSpec, attention_inputs, build, make_step
from fulgurite.kernels.bench.models_command import measure_model
from fulgurite.kernels.bench.random_plan import random_plan
from fulgurite.kernels.paro.orders import Layout
from fulgurite.kernels.paro.plan import check

SMALL: dict[str, ModelSpec] = {
    "cogvideox": replace(
        SPECS["cogvideox"],
        config={
            "num_attention_heads": 2, "attention_head_dim": 32, "num_layers": 2, "text_embed_dim": 12,
            "time_embed_dim": 8, "use_rotary_positional_embeddings": True, "sample_width": 24, "sample_height": 16,
            "sample_frames": 9, "max_text_seq_length": 20,
        },
        layout=Layout((3, 8, 12), 20), latents=(3, 16, 16, 24), text=(20, 12),
    ),
    "wan480": replace(
        SPECS["wan480"],
        config={**SPECS["wan480"].config, "num_attention_heads": 2, "attention_head_dim": 32, "num_layers": 2,
                "ffn_dim": 32, "text_dim": 12, "freq_dim": 16},
        layout=Layout((3, 8, 12)), latents=(16, 3, 16, 24), text=(20, 12),
    ),
    "flux": replace(
        SPECS["flux"],
        config={**SPECS["flux"].config, "num_attention_heads": 2, "attention_head_dim": 32, "num_layers": 1,
                "num_single_layers": 1, "joint_attention_dim": 12, "pooled_projection_dim": 8, "in_channels": 4,
                "axes_dims_rope": (8, 12, 12)},
        layout=Layout((16, 18), 20), latents=(288, 4), text=(20, 12),
    ),
}  # fmt: skip


@pytest.fixture(autouse=True)
def one_thread() -> None:
    torch.set_num_threads(1)


@pytest.mark.parametrize(("name", "parameters"), [("cogvideox", 5.57e9), ("wan480", 14.3e9), ("flux", 11.9e9)])
def test_sizes_are_the_published_ones(name: str, parameters: float) -> None:
    """Counts of the released weights; the latents hold the grid's tokens, and the arguments are those of the class."""
    spec = SPECS[name]
    with torch.device("meta"):
        model = getattr(diffusers, spec.kind)(**spec.config)
    assert sum(p.numel() for p in model.parameters()) == pytest.approx(parameters, rel=0.005)
    assert len(attention_layers(model)) == spec.layers
    channels = {"cogvideox": spec.latents[1], "wan480": spec.latents[0], "flux": spec.latents[1]}[name]
    patch = 1 if name == "flux" else 4
    assert math.prod(spec.latents) == channels * patch * spec.layout.num_image
    if name == "cogvideox":
        return
    defaults = {k: p.default for k, p in inspect.signature(getattr(diffusers, spec.kind)).parameters.items()}
    others = {k for k, v in spec.config.items() if defaults[k] != v}
    assert others <= {"guidance_embeds"}


def test_720p_is_480p_with_larger_pictures() -> None:
    small, large = SPECS["wan480"], SPECS["wan720"]
    assert large.layout.num_tokens == 75_600 and small.layout.num_tokens == 32_760
    assert replace(large, layout=small.layout, latents=small.latents) == small


@pytest.mark.parametrize("name", SMALL)
def test_a_step_with_all_blocks_is_the_dense_step_and_guidance_has_its_passes(name: str) -> None:
    rows, failed = measure_model(name, SMALL[name], ["sdpa"], [1.0], 0, "cpu")
    assert not failed
    assert [row["who"] for row in rows] == ["sdpa", "paro", *(["auto"] if name == "flux" else [])]
    dense, paro = rows[:2]
    assert dense["distance"] == 0 and dense["x_dense"] is None and paro["x_dense"] == dense["step_ms"] / paro["step_ms"]
    assert 0 < paro["distance"] < 0.01
    assert all(row["attention_ms"] > 0 and row["step_ms"] > 0 and row["peak_gb"] is None for row in rows)
    if name == "flux":
        assert rows[2]["chose"] == "sdpa" and rows[2]["distance"] == 0
    model = build(SMALL[name], torch.device("cpu"), torch.bfloat16)
    sizes: list[int] = []
    model.register_forward_pre_hook(lambda m, a, k: sizes.append(len(k["hidden_states"])), with_kwargs=True)
    out = make_step(SMALL[name], model, 0)()
    assert sizes == {"cogvideox": [2], "wan480": [1, 1], "flux": [1]}[name]
    assert out.shape == (1, *SMALL[name].latents) and out.dtype == torch.bfloat16
    assert {p.dtype for p in model.parameters()} == {torch.bfloat16}


def test_no_step_has_the_lone_calls_inputs_beside_it_in_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    """They would be counted in peak_gb."""
    given: list[weakref.ref[torch.Tensor]] = []
    made, beside = [], []

    def inputs(*arguments: Any) -> list[torch.Tensor]:
        tensors = attention_inputs(*arguments)
        made.append(len(tensors))
        given.extend(weakref.ref(tensor) for tensor in tensors)
        return tensors

    def watched(*arguments: Any) -> Callable[[], torch.Tensor]:
        step = make_step(*arguments)

        def run() -> torch.Tensor:
            beside.append(sum(tensor() is not None for tensor in given))
            return step()

        return run

    monkeypatch.setattr(models_command, "attention_inputs", inputs)
    monkeypatch.setattr(models_command, "make_step", watched)
    measure_model("wan480", SMALL["wan480"], ["sdpa"], [0.8], 0, "cpu")
    assert made == [3, 3] and len(beside) >= 6 and set(beside) == {0}


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs CUDA")
@pytest.mark.parametrize("name", SMALL)
def test_on_a_gpu_all_of_them_run(name: str) -> None:
    """Before the published sizes are tried, which take minutes."""
    rows, failed = measure_model(name, SMALL[name], ["cudnn", "flash", "sdpa"], [1.0, 0.8], 0, "cuda")
    assert not failed
    assert {row["who"] for row in rows} >= {"cudnn", "flash", "sdpa", "paro"}
    assert all(row["distance"] < 0.02 for row in rows if row["density"] == 1.0)
    assert all(row["x_cudnn"] > 0 and row["peak_gb"] > 0 for row in rows)


def test_what_fails_is_named_and_the_others_run() -> None:
    rows, failed = measure_model("wan480", SMALL["wan480"], ["sdpa", "cudnn"], [0.8], 0, "cpu")
    assert [row["who"] for row in rows] == ["sdpa", "paro"]  # no cuDNN on a CPU
    assert list(failed) == ["cudnn at 1.0 on wan480"]


def test_random_plans_have_the_density_asked_and_other_masks_for_every_head() -> None:
    layout = Layout((5, 20, 30), 20)
    plan = random_plan(layout, 2, 3, 0.4)
    check(plan, "the plan")
    assert float(plan.density.mean()) == pytest.approx(0.4, abs=0.02)
    masks = plan.masks[0].flatten(0, 1)
    assert len({tuple(mask.flatten().tolist()) for mask in masks}) == 6
    assert float(random_plan(layout, 1, 1, 1.0).density) == 1.0


@pytest.mark.parametrize(("flags", "text"), [
    (["--models", "wan"], "--models wan: 'wan' is none of cogvideox, wan480, wan720, flux"),
    (["--dense", "flash4"], "--dense flash4: 'flash4' is none of cudnn, flash, sdpa"),
    (["--densities", "0"], "--densities 0: numbers above 0"),
])  # fmt: skip
def test_wrong_arguments_are_refused(flags: list[str], text: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["bench", "attention-models", *flags]) == 2
    assert text in capsys.readouterr().err


def test_each_model_has_a_process_and_one_that_dies_does_not_end_the_rest(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda: "a GPU")
    monkeypatch.setattr(models_command, "ProcessPoolExecutor", _Pool)
    out, picture = tmp_path / "numbers.json", tmp_path / "picture.png"
    asked = ["--models", "cogvideox,flux", "--json", str(out), "--plot", str(picture)]
    assert main(["bench", "attention-models", *asked]) == 0
    found = json.loads(out.read_text())
    assert found["rows"][0]["model"] == "flux" and list(found["failed"]) == ["cogvideox"]
    assert "cogvideox did not run: its process ended without a word" in capsys.readouterr().out
    assert picture.read_bytes().startswith(b"\x89PNG")


class _Pool:
    """Stands for a pool: the first model's process dies."""

    def __init__(self, *options: Any, **named: Any) -> None:
        pass

    def __enter__(self) -> _Pool:
        return self

    def __exit__(self, *error: object) -> None:
        pass

    def submit(self, function: Any, name: str, *rest: Any) -> _Pool:
        self.name = name
        return self

    def result(self) -> Any:
        if self.name == "cogvideox":
            raise models_command.BrokenProcessPool
        row = {"model": self.name, "who": "cudnn", "density": 1.0, "attention_ms": 1.0, "step_ms": 2.0}
        return [row], {}
