"""The feature distance: its layers, padding and embedding, and with the real weights that it ranks corruptions."""

from __future__ import annotations

import pytest
import torch

from fulgurite.datamodules.sources.download import is_cached
from fulgurite.lightning_modules.gamecraft.metrics.perceptual import (
    TAPS,
    EfficientNetLite0,
    FeatureDistance,
    clip_embedding,
)
from fulgurite.registry import UserError


@pytest.fixture(scope="module")
def net() -> EfficientNetLite0:
    torch.manual_seed(0)
    return EfficientNetLite0().eval().requires_grad_(False)


def clips(count: int = 2, frames: int = 5) -> torch.Tensor:
    g = torch.Generator().manual_seed(0)
    small = torch.rand(count * frames, 3, 8, 14, generator=g)
    big = torch.nn.functional.interpolate(small, (64, 112), mode="bicubic").clamp(0, 1)
    return (big * 255).to(torch.uint8).unflatten(0, (count, frames))


def test_the_maps_halve_and_their_channels_are_the_architecture_s(net: EfficientNetLite0) -> None:
    shapes = [tuple(m.shape[1:]) for m in net.maps(clips()[0])]
    assert shapes == [(16, 32, 56), (24, 16, 28), (40, 8, 14), (112, 4, 7), (320, 2, 4)]
    assert len(shapes) == len(TAPS) and net(clips()[0]).shape == (5, 1280)
    assert 3_350_000 < sum(p.numel() for p in net.parameters()) < 3_400_000  # 4.65 M with its classifier


def test_the_embedding_s_distance_is_the_mean_over_layers_and_places(net: EfficientNetLite0) -> None:
    a, b = clips()
    by_layer = []
    for x, y in zip(net.maps(a), net.maps(b), strict=True):
        cosine = torch.nn.functional.cosine_similarity(x, y, dim=1)
        by_layer.append((2 - 2 * cosine).mean((1, 2)))
    wanted = torch.stack(by_layer).mean(0)
    assert (net.embed(a) - net.embed(b)).square().sum(1).numpy() == pytest.approx(wanted.numpy(), rel=1e-3)


def test_clips_are_compared_frame_by_frame(net: EfficientNetLite0) -> None:
    x = clips()
    metric = FeatureDistance(net, frame_stride=2)
    metric.update(x, x)
    metric.update(x, x.flip(0))
    assert metric.per_clip()[:2].tolist() == [0, 0]
    frames = torch.stack([(net.embed(x[0, t, None]) - net.embed(x[1, t, None])).square().sum() for t in (0, 2, 4)])
    assert metric.per_clip()[2:].numpy() == pytest.approx(frames.mean().expand(2).numpy(), rel=1e-3)
    assert clip_embedding(net.embed, x, 4, batch_size=3).shape[0] == 2


def test_a_folder_without_the_weights_is_refused(tmp_path: object) -> None:
    with pytest.raises(UserError, match="not the weights of EfficientNet-Lite0"):
        EfficientNetLite0.pretrained(tmp_path)  # type: ignore[arg-type]


@pytest.mark.skipif(not is_cached("efficientnet-lite0"), reason="needs `fulgurite fetch efficientnet-lite0`")
def test_with_the_real_weights_worse_pictures_are_farther() -> None:
    net, x = EfficientNetLite0.pretrained(), clips()
    noise = torch.randn(x.shape, generator=torch.Generator().manual_seed(1))

    def distance(level: float) -> float:
        metric = FeatureDistance(net)
        metric.update((x + level * noise).clamp(0, 255).to(torch.uint8), x)
        return float(metric.compute())

    found = [distance(level) for level in (0, 5, 15, 40)]
    assert found == sorted(found) and found[0] < 1e-6 < found[1]
