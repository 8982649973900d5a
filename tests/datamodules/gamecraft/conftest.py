"""Tiny made-up episodes."""

from collections.abc import Callable

import numpy
import pytest

from fulgurite.datamodules.gamecraft.shards import Episode


def _episode(
    key: str,
    num_clips: int = 2,
    seed: int = 0,
    size: tuple[int, int] = (8, 16),
    step: tuple[float, float, float] = (0, 0, 0.02),
    turn_deg: float = 0.0,
    **meta: object,
) -> Episode:
    """Random pictures from a camera that moves `step` along its own axes and turns right, every frame."""
    rng = numpy.random.default_rng(seed)
    n = 33 * num_clips
    cos, sin = numpy.cos(numpy.radians(turn_deg)), numpy.sin(numpy.radians(turn_deg))
    motion = numpy.array([[cos, 0, sin, step[0]], [0, 1, 0, step[1]], [-sin, 0, cos, step[2]], [0, 0, 0, 1]])
    poses = [numpy.linalg.matrix_power(motion, seed)]
    for _ in range(n - 1):
        poses.append(poses[-1] @ motion)
    return Episode(
        key,
        rng.integers(0, 256, (n, *size, 3), dtype=numpy.uint8),
        (numpy.eye(3) + numpy.arange(n)[:, None, None] / 100).astype(numpy.float32),
        numpy.stack(poses),
        numpy.zeros(n, numpy.float32),
        rng.random((num_clips, 8)).astype(numpy.float32),
        f"caption of {key}",
        "a hall with a lamp",
        {"game": "freedoom2", "map": "MAP01", "kind": "recorded", **meta},
    )


@pytest.fixture
def episode() -> Callable[..., Episode]:
    """Makes an episode: `episode(key, num_clips, seed, size, step, turn_deg, **meta)`."""
    return _episode
