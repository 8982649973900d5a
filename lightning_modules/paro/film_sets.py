"""What `fulgurite paro quality` asks for: films of twelve actions from held-out starts, or single pictures.

Axis legend: N film, T frame, C colour, H W picture.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import torch
from torch import Tensor

from ..gamecraft.evaluation.chunks import Request
from ..gamecraft.evaluation.held_out import CounterfactualSet, draw_chunks
from ..gamecraft.inverse_dynamics import InverseDynamicsNet
from .fidelity import NUM_ACTIONS, Fidelity, FilmJudge, PictureJudge, request_of


@dataclass(frozen=True)
class FilmSet:
    """Films to be made again and again.

    Attributes:
        prefix: of their metrics' names.
        title: of their table.
        about: a sentence or two on them.
        names: which they are.
        folder: of the data that they were drawn from.
        real: what the engine truly answered, uint8 [N, T, 3, H, W]; None where nothing is to be answered.
        request: what is asked for, with noise of a seed.
        judge: from the dense films to what compares others with them.
    """

    prefix: str
    title: str
    about: str
    names: list[str]
    folder: Path
    real: Tensor | None
    request: Callable[[int], Request]
    judge: Callable[[Tensor], Callable[[Tensor], Fidelity]]


def films_of_actions(data: Path, idm: Path, num_starts: int, seed: int, device: torch.device) -> FilmSet:
    """Twelve films from each of some starts, drawn by seed.

    Raises:
        UserError: if a folder holds no starts, or no judge.
    """
    starts = list(CounterfactualSet(data / "counterfactual", num_starts, seed))
    net = InverseDynamicsNet.load(idm)[0].to(device)
    num_maps = len({start.map for start in starts})
    return FilmSet(
        "test",
        f"{NUM_ACTIONS * len(starts)} films under plans beside dense ones of the same start, keys and noise",
        f"Starts: {len(starts)}, of {num_maps} held-out maps; twelve actions each, 33 frames, without guidance.",
        [start.name for start in starts],
        data / "counterfactual",
        torch.cat([start.answers_ATCHW for start in starts]),
        partial(request_of, starts),
        lambda dense_NTCHW: FilmJudge(starts, dense_NTCHW, net),
    )


def single_pictures(data: Path, count: int, seed: int, device: torch.device) -> FilmSet:
    """Single pictures, from captions of held-out chunks drawn by seed.

    Raises:
        UserError: if the folder holds no chunks.
    """
    given = draw_chunks(data / "test", count, seed).request

    def request(noise: int) -> Request:
        return replace(given, seeds=[noise * 1_000_003 + number for number in range(len(given))])

    return FilmSet(
        "test/pictures",
        f"{len(given)} single pictures under plans beside dense ones of the same caption and noise",
        f"Captions of {len(given)} held-out chunks; no history, no camera, no guidance.",
        given.captions,
        data / "test",
        None,
        request,
        lambda dense_N1CHW: PictureJudge(dense_N1CHW, device),
    )
