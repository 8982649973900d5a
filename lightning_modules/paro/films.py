"""Films with a plan beside the dense film of the same start, keys and noise: PSNR and SSIM.

Axis legend: B film, F frame, C colour, H W picture.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import torch
from torch import Tensor

from ...datamodules.paro.captures import Film
from ...kernels.adapters.serve import serve
from ...kernels.api import AttentionBackend, make_backend
from ..gamecraft.metrics.baselines import FrameErrors
from .subjects import GameCraftSubject


@dataclass(frozen=True)
class Fidelity:
    """How near films are to the dense ones.

    Attributes:
        psnr: dB [B], of all frames after the first chunk; 60 where equal.
        ssim: structural similarity [B].
    """

    psnr: Tensor
    ssim: Tensor


class DenseFilms:
    """Dense films and the states that they go on from: the first chunk is dense for every arm.

    Args:
        subject: the pipeline.
        films: what is played.
    """

    def __init__(self, subject: GameCraftSubject, films: Iterable[Film]) -> None:
        self._subject, self._films = subject, list(films)
        self._begun = [subject.begin(film) for film in self._films]
        self._dense = self._play(None)

    def compare(self, backend: AttentionBackend) -> Fidelity:
        """The same films with a backend in the layers that a plan counts."""
        errors = FrameErrors()
        for made, dense in zip(self._play(backend), self._dense, strict=True):
            errors.update(made.movedim(-1, 2), dense.movedim(-1, 2))
        num_frames = self._dense[0].shape[1]
        return Fidelity(errors.psnr_B(1, num_frames), errors.ssim_B(1, num_frames))

    def noise_floor(self) -> Fidelity:
        """Dense films by another kernel: what the order of sums alone changes."""
        return self.compare(make_backend("reference"))

    def _play(self, backend: AttentionBackend | None) -> list[Tensor]:
        made = []
        for film, (state, chunks) in zip(self._films, self._begun, strict=True):
            if backend is None:
                made.append(self._subject.go_on(state, chunks, film.seed))
            else:
                with serve(self._subject.transformer, backend), torch.no_grad():
                    made.append(self._subject.go_on(state, chunks, film.seed))
        return made
