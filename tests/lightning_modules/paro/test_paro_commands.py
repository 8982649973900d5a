"""`fulgurite paro calibrate` and `paro show`: plans from GameCraft and from diffusers, and their picture."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from fulgurite.datamodules.paro.captures import CaptureStore, Film
from fulgurite.kernels.adapters.serve import serve
from fulgurite.kernels.api import make_backend
from fulgurite.kernels.paro.plan import Plan
from fulgurite.lightning_modules.paro.calibrate import calibrate
from fulgurite.lightning_modules.paro.capture import capture_films
from fulgurite.lightning_modules.paro.planning import Target, build_plans, measure_layer
from fulgurite.lightning_modules.paro.show import show
from fulgurite.lightning_modules.paro.subjects import DiffusersSubject
from fulgurite.registry import UserError


def test_from_weights_to_a_picture(weights: Path, captures: Path, tmp_path: Path, capsys: Any) -> None:
    out = tmp_path / "plan.safetensors"
    calibrate(weights, out, captures=captures, num_bins=3, recall=0.9)
    plan = Plan.load(out)
    assert plan.meta.target == {"recall": 0.9} and plan.meta.model == "GameCraftTransformer"
    assert (plan.recall >= 0.9 - 1e-5).all()
    show(out, captures=captures)
    said = capsys.readouterr().out.replace("\n", " ")
    assert "for GameCraftTransformer, grid 18x2x3, 16 text tokens as suffix" in said
    assert "3 layers of 2 heads, 3 timestep bins" in said and "2 films, steps 0, 1, 2 of 4" in said
    assert (tmp_path / "plan.png").stat().st_size > 10_000
    show(out, out=tmp_path / "alone.png")
    assert 5_000 < (tmp_path / "alone.png").stat().st_size < (tmp_path / "plan.png").stat().st_size
    (tmp_path / "broken.safetensors").write_bytes(out.read_bytes()[:-9])
    with pytest.raises(UserError, match="can't be read as a plan"):
        show(tmp_path / "broken.safetensors")


def test_wrong_options_are_told_before_the_work(tmp_path: Path) -> None:
    absent, out = tmp_path / "absent", tmp_path / "plan"
    for options, match in (
        ({"density": 0.3, "recall": 0.9}, "not both"),
        ({"density": 1.5}, "--density is a share above 0 and up to 1, not 1.5"),
        ({"order": "best"}, "no arm 'best' of orders"),
        ({}, r"absent: holds no pipeline \(model_index.json is missing\)"),
    ):
        with pytest.raises(UserError, match=match):
            calibrate(absent, out, **options)  # type: ignore[arg-type]


class WanSampler:
    """The least of a pipeline: a transformer that denoises, with both halves of the guidance one after the other."""

    def __init__(self) -> None:
        from diffusers import WanTransformer3DModel

        torch.manual_seed(0)
        self.transformer = WanTransformer3DModel(
            patch_size=(1, 2, 2), num_attention_heads=2, attention_head_dim=16, in_channels=4, out_channels=4,
            text_dim=12, freq_dim=16, ffn_dim=32, num_layers=2, rope_max_seq_len=32,
        ).eval()  # fmt: skip

    def set_progress_bar_config(self, **options: Any) -> None: ...

    @torch.no_grad()
    def __call__(self, prompt: str, generator: torch.Generator, output_type: str, num_frames: int = 5) -> torch.Tensor:
        x = torch.randn(1, 4, num_frames, 12, 16, generator=generator)
        for timestep in (900.0, 700.0, 400.0, 100.0):
            for strength in (1.0, 0.0):
                text = torch.full((1, 5, 12), strength * len(prompt))
                x = x - 0.1 * self.transformer(x, torch.tensor([timestep]), text, return_dict=False)[0]
        return x


def test_a_diffusers_transformer(tmp_path: Path) -> None:
    subject = DiffusersSubject(WanSampler(), {"num_frames": 5})
    films = (Film("a cat", "calibrate", 0), Film("a dog", "test", 1))
    store = capture_films(subject, films, tmp_path / "captures", 3)
    assert isinstance(store, CaptureStore)
    assert store.meta.grid == (5, 6, 8) and store.meta.text == 0 and store.meta.num_layers == 2
    assert store.meta.timesteps == (900.0, 700.0, 400.0, 100.0) and store.meta.edges == (800.0, 550.0)
    layers = [
        (n, [(store.timestep(h), lambda h=h: store.load(h)) for h in store.select(n, "calibrate")]) for n in range(2)
    ]
    from fulgurite.kernels.paro.calibration import Metric

    metrics = torch.stack([measure_layer(found, Metric()) for _, found in layers], 1)
    plan = build_plans(store.meta, layers, metrics, ["paro"], [Target("density", 0.5)], Metric())[("paro", "d0.5")]
    dense = subject.run(films[1])
    with serve(subject.transformer, make_backend("paro", plan=plan)):
        sparse = subject.run(films[1])
    assert 0 < (sparse - dense).norm() / dense.norm() < 0.5
    assert torch.equal(subject.run(films[1]), dense)
    with pytest.raises(UserError, match="WanSampler takes no colour"):
        DiffusersSubject(WanSampler(), {"colour": 1})
