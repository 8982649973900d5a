"""Chunks of recorded play as what attention is captured on: histories and cameras of maps that trained nothing."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from ...datamodules.paro.captures import Film
from ...registry import COMMANDS

if TYPE_CHECKING:
    from ..gamecraft.evaluation.chunks import DiffusionModel, Request

FOLDERS = {"calibrate": "val", "test": "test"}  # split of captures -> split of the data


class ChunkSubject:
    """Samples single chunks that follow a recorded clip.

    Args:
        model: the sampler.
        requests: what is asked for, by film; one chunk each.
    """

    grid = None

    def __init__(self, model: DiffusionModel, requests: dict[Film, Request]) -> None:
        self._model, self._requests = model, requests

    @property
    def transformer(self) -> nn.Module:
        """The sampler's."""
        found: nn.Module = self._model.transformer
        return found

    @property
    def films(self) -> tuple[Film, ...]:
        """All of them."""
        return tuple(self._requests)

    def run(self, film: Film) -> Tensor:
        """Frames uint8 [1, 33 or 1, 3, H, W]."""
        return self._model(self._requests[film])


def open_model(
    transformer: Path, vae: Path, device: torch.device, num_steps: int, pictures: bool = False
) -> DiffusionModel:
    """A trained transformer that samples without classifier-free guidance, in bfloat16 on a GPU.

    Args:
        transformer: folder of a training's `<stage>/transformer`.
        vae: folder of the autoencoder.
        device: where it runs.
        num_steps: Euler steps.
        pictures: it makes single pictures, from captions alone.

    Raises:
        UserError: if a folder holds no such weights.
    """
    from ..gamecraft.evaluation.chunks import Trained, load_vae
    from ..gamecraft.pictures import PictureModel

    trained = Trained.load(transformer, device)
    if device.type == "cuda":
        torch.nn.Module.to(trained.transformer, torch.bfloat16)
    autoencoder = load_vae(vae, device)
    if pictures:
        shift = trained.sampling["shift"]
        return PictureModel(
            "dense", trained.transformer, autoencoder, trained.captions, num_steps, shift, one_frame=True
        )
    return replace(trained.model("dense", autoencoder, num_steps), guidance_scale=1.0)


def chunk_films(data: Path, counts: dict[str, int], seed: int) -> dict[Film, Request]:
    """Chunks drawn by seed from the folders that trained nothing, by film.

    Args:
        data: folder of the data set.
        counts: chunks of each split, `calibrate` and `test`.
        seed: of the draws and the noise.

    Raises:
        UserError: if a folder has no episode of two clips.
    """
    from ..gamecraft.evaluation.held_out import draw_chunks

    made: dict[Film, Request] = {}
    for split, count in counts.items():
        request = draw_chunks(data / FOLDERS[split], count, seed).request
        for number in range(len(request)):
            film = Film(f"{FOLDERS[split]} {number}: {request.captions[number]}", split, request.seeds[number])
            made[film] = request.part(number, number + 1)
    return made


@COMMANDS.register("paro capture-chunks", paper="2506.16054")
def capture_chunks(
    transformer: Path, vae: Path, data: Path, out: Path, num_calibrate: int = 8, num_test: int = 4, num_bins: int = 4,
    num_steps: int = 8, pictures: bool = False, seed: int = 0,
) -> None:  # fmt: skip
    """Capture attention of a GameCraft transformer in chunks that follow recorded clips; goes on where it stopped.

    Chunks of the data's val folder make plans, those of its test folder test them. Sampling is without guidance.
    With `pictures` the transformer makes single pictures, from the chunks' captions alone.

    Args:
        transformer: folder of the trained transformer, `<stage>/transformer`.
        vae: folder of the autoencoder.
        data: folder of the data set.
        out: folder for the captures.
        num_calibrate: chunks that plans are made from.
        num_test: chunks that they are tested on.
        num_bins: timestep bins; the first half of the steps shares num_bins - 1, the second half one.
        num_steps: Euler steps a chunk.
        pictures: the transformer makes single pictures.
        seed: of the draws and the noise.
    """
    from .capture import capture_films

    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    model = open_model(transformer, vae, device, num_steps, pictures)
    subject = ChunkSubject(model, chunk_films(data, {"calibrate": num_calibrate, "test": num_test}, seed))
    capture_films(subject, subject.films, out, num_bins)
