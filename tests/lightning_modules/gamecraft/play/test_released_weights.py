"""The released weights: small enough, and they turn and look the way that keys say."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

from fulgurite.lightning_modules.gamecraft.metrics.flow_metrics import pair_flow
from fulgurite.lightning_modules.gamecraft.pipeline import GameCraftPipeline
from fulgurite.lightning_modules.gamecraft.play.starts import bundled_starts

ROOT = Path(__file__).resolve().parents[4]
FOLDER = ROOT / "weights" / "gamecraft-doom"
KEYS = ("left", "right", "up", "down")
NUM_STARTS = 4


def test_the_files_are_small_and_have_a_card() -> None:
    sizes = [f.stat().st_size for f in (ROOT / "weights").rglob("*") if f.is_file()]
    assert max(sizes) <= 16_000_000 and sum(sizes) <= 32_000_000
    card = (FOLDER / "README.md").read_text(encoding="utf-8")
    assert "Freedoom" in card and "PSNR" in card
    captions = json.loads((FOLDER / "starts" / "starts.json").read_text(encoding="utf-8"))["captions"]
    assert {s.name for s in bundled_starts(FOLDER)} == captions.keys()


@pytest.mark.slow
def test_keys_turn_the_view_the_way_they_say() -> None:
    pipeline = GameCraftPipeline.from_pretrained(FOLDER)
    pipeline.set_progress_bar_config(disable=True)
    starts = bundled_starts(FOLDER)[:NUM_STARTS]
    images = [s.image for s in starts for _ in KEYS]
    prompts = [s.caption for s in starts for _ in KEYS]
    generator = torch.Generator().manual_seed(0)
    films = pipeline(images, [f"{key}:33" for _ in starts for key in KEYS], prompts, generator=generator)
    flow = pair_flow(films.permute(0, 1, 4, 2, 3), stride=4)
    right = dict(zip(KEYS, flow.right.mean(1).view(NUM_STARTS, len(KEYS)).mean(0).tolist(), strict=True))
    down = dict(zip(KEYS, flow.down.mean(1).view(NUM_STARTS, len(KEYS)).mean(0).tolist(), strict=True))
    assert right["left"] > 0.5 and right["right"] < -0.5, right
    assert down["up"] > 0.1 and down["down"] < -0.1, down
