"""Flow measures on textures whose motion is known."""

from __future__ import annotations

import pytest
import torch

from fulgurite.lightning_modules.gamecraft.metrics.flow_metrics import (
    VideoDynamics,
    correlation,
    is_rising,
    pair_flow,
)


def sliding(pixels_per_frame: int, frames: int = 9, number: int = 0) -> torch.Tensor:
    """The camera turns right: everything slides to the left. uint8 [1, T, 3, 64, 112]."""
    g = torch.Generator().manual_seed(number)
    wide = torch.nn.functional.interpolate(torch.rand(1, 3, 16, 60, generator=g), (64, 240), mode="bicubic")[0]
    clip = torch.stack([wide[..., t * pixels_per_frame : t * pixels_per_frame + 112] for t in range(frames)])
    return (clip.clamp(0, 1) * 255).to(torch.uint8)[None]


@pytest.mark.parametrize("pixels", [1, 3])
def test_flow_is_the_slide(pixels: int) -> None:
    found = pair_flow(sliding(pixels))
    assert found.right.mean().item() == pytest.approx(-pixels, rel=0.15)
    assert found.down.abs().mean().item() < 0.2
    assert found.warp_error.mean() < 0.35 * found.still_error.mean()


def test_a_still_clip_does_not_move_and_is_consistent() -> None:
    found = pair_flow(sliding(0))
    assert found.magnitude.max() < 0.05 and found.consistency.min() > 0.999


def test_frames_in_a_wrong_order_are_less_consistent() -> None:
    clip = sliding(3)
    order = torch.tensor([0, 5, 2, 8, 1, 7, 3, 6, 4])
    assert pair_flow(clip[:, order]).consistency.mean() < pair_flow(clip).consistency.mean() - 0.01


def test_a_jump_at_the_seam_shows_there_and_nowhere_else() -> None:
    clip = sliding(2, frames=10)
    follows, jumps = VideoDynamics(stride=2), VideoDynamics(stride=2)
    follows.update(clip[:, 1:], clip[:, :1])
    jumps.update(clip[:, 1:], sliding(2, frames=1, number=5))
    a, b = follows.compute(), jumps.compute()
    assert a["dynamics"] == b["dynamics"] and a["consistency"] == b["consistency"]
    assert b["seam"] < a["seam"] - 0.02
    assert float(a["dynamics"]) == pytest.approx(2, rel=0.15)


def test_speed_response() -> None:
    commanded = torch.tensor([0.25, 0.5, 0.75, 1.0])
    measured = torch.stack([pair_flow(sliding(n)).magnitude.mean() for n in (1, 2, 3, 4)])
    assert is_rising(measured) and correlation(commanded, measured) > 0.98
    assert not is_rising(measured.flip(0)) and correlation(commanded, torch.ones(4)) == 0.0
