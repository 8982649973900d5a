"""What is asked of a model (history, camera, caption), and models that answer with a chunk of frames.

Axis legend: B chunk, T frame, C channel, H height, W width.
"""

from __future__ import annotations

import json
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Protocol

import torch
from torch import Tensor

from ....registry import UserError
from ..captions_encoder import CaptionEncoder
from ..chunk_training import guided_samples
from ..conditions import Conditions, encode_history
from ..flow import sigmas
from ..fused_blocks import fuse_blocks
from ..pipeline import BANK
from ..release import SAMPLING
from ..transformer import GameCraftTransformer
from ..vae import CLIP_LATENTS, GameplayVAE, to_uint8


@dataclass(frozen=True)
class Request:
    """Chunks to generate; tensors on the CPU.

    Attributes:
        history_BTCHW: uint8; one frame (T = 1) or whole clips.
        intrinsics_BT33: float32, of the chunk's 33 frames.
        c2w_BT44: float32, relative to the chunk's first frame.
        captions: one a chunk.
        seeds: one a chunk: the noise is a function of it alone, whatever the batch.
    """

    history_BTCHW: Tensor
    intrinsics_BT33: Tensor
    c2w_BT44: Tensor
    captions: list[str]
    seeds: list[int]

    def __len__(self) -> int:
        return len(self.seeds)

    def part(self, first: int, last: int) -> Request:
        """Chunks `first` to `last` - 1."""
        cut = slice(first, last)
        return Request(
            self.history_BTCHW[cut], self.intrinsics_BT33[cut], self.c2w_BT44[cut], self.captions[cut], self.seeds[cut]
        )

    @classmethod
    def joined(cls, requests: Sequence[Request]) -> Request:
        """Several requests with histories of one length, in a row."""
        return cls(
            torch.cat([r.history_BTCHW for r in requests]),
            torch.cat([r.intrinsics_BT33 for r in requests]),
            torch.cat([r.c2w_BT44 for r in requests]),
            [c for r in requests for c in r.captions],
            [s for r in requests for s in r.seeds],
        )

    def batches(self, size: int) -> Iterator[Request]:
        """The same in parts of at most `size`."""
        for first in range(0, len(self), size):
            yield self.part(first, first + size)

    def from_one_frame(self) -> Request:
        """The same with the history's last frame alone."""
        return replace(self, history_BTCHW=self.history_BTCHW[:, -1:])

    def with_other_cameras(self) -> Request:
        """The control: each chunk with the camera of another, half of the list away."""
        by = max(1, len(self) // 2)
        return replace(self, intrinsics_BT33=self.intrinsics_BT33.roll(by, 0), c2w_BT44=self.c2w_BT44.roll(by, 0))


Cameras = tuple[Tensor, Tensor]  # K [B, 33, 3, 3] and c2w [B, 33, 4, 4] of a chunk's frames


class ChunkModel(Protocol):
    """Anything that answers a request: the diffusion models below, or a made-up one in a test.

    Attributes:
        name: for people.
        seconds: time spent on generating so far: sampling and decoding, as for every chunk in play whose history is
            the latents before it (the real history's encoding is left out); on a GPU without the first of each shape.
        num_chunks: chunks generated in that time.
    """

    name: str
    seconds: float
    num_chunks: int

    def __call__(self, request: Request) -> Tensor:
        """Frames uint8 [B, 33, 3, H, W] on the CPU, for as many chunks as fit the device at once."""
        ...

    def roll_out(self, request: Request, cameras: Sequence[Cameras]) -> Iterator[Tensor]:
        """One chunk after another as in play, each from what the model made before; the request's own camera is unused.

        Yields:
            Frames uint8 [B, 33, 3, H, W] on the CPU, for each of `cameras`.
        """
        ...


@dataclass
class DiffusionModel:
    """A transformer with its autoencoder, captions and way of sampling.

    Attributes:
        name: for people.
        transformer: on the device.
        vae: on the device.
        captions: their encoder.
        num_steps: Euler steps.
        shift: of the noise levels.
        guidance_scale: classifier-free guidance; 1 = none.
        guidance_w: weight given to a guidance-distilled network; None for a teacher.
        one_frame: show it the history's last frame alone.
    """

    name: str
    transformer: GameCraftTransformer
    vae: GameplayVAE
    captions: CaptionEncoder
    num_steps: int
    shift: float
    guidance_scale: float = 1.0
    guidance_w: float | None = None
    one_frame: bool = False
    seconds: float = 0.0
    num_chunks: int = 0
    _warm: set[tuple[int, ...]] = field(default_factory=set)

    @torch.no_grad()
    def __call__(self, request: Request) -> Tensor:
        """Frames uint8 [B, 33, 3, H, W] on the CPU."""
        device = self.transformer.device
        request = request.from_one_frame() if self.one_frame else request
        with self._precision():
            history = encode_history(self.vae, request.history_BTCHW.to(device)).float()
            start = _now(device)
            cameras = (request.intrinsics_BT33, request.c2w_BT44)
            latents = self._sample(history, cameras, request.captions, request.seeds)
            frames = to_uint8(self.vae.decode_clips(latents))
        spent, shape = _now(device) - start, tuple(request.history_BTCHW.shape)
        if shape in self._warm or device.type == "cpu":
            self.seconds, self.num_chunks = self.seconds + spent, self.num_chunks + len(request)
        self._warm.add(shape)
        return frames.cpu()

    @torch.no_grad()
    def roll_out(self, request: Request, cameras: Sequence[Cameras]) -> Iterator[Tensor]:
        """Chunk after chunk; the history is the last chunk's latents, never encoded again, as in play."""
        request = request.from_one_frame() if self.one_frame else request
        with self._precision():
            history = encode_history(self.vae, request.history_BTCHW.to(self.transformer.device)).float()
        for number, camera in enumerate(cameras):
            seeds = [seed + 7_919 * (number + 1) for seed in request.seeds]
            with self._precision():
                history = self._sample(history, camera, request.captions, seeds)
                frames = to_uint8(self.vae.decode_clips(history))
            yield frames.cpu()

    def _sample(self, history: Tensor, cameras: Cameras, captions: list[str], seeds: list[int]) -> Tensor:
        device = history.device
        shape = (history.shape[1], CLIP_LATENTS, *history.shape[3:])
        noise = torch.stack([torch.randn(shape, generator=_generator(seed)) for seed in seeds]).to(device)
        k, c2w = (x.to(device) for x in cameras)
        # the noise stands in for the latents that are asked for: only its shape is read
        given = Conditions(noise, history, k, c2w, self._caption_states(captions, device))
        return guided_samples(
            self.transformer, given, self._caption_states([""], device), noise,
            sigmas(self.num_steps, self.shift), self.guidance_scale, self.guidance_w,
        )  # fmt: skip

    def _caption_states(self, captions: Sequence[str], device: torch.device) -> tuple[Tensor, Tensor, Tensor]:
        states, mask, pooled = self.captions(captions)
        return states.to(device), mask.to(device), pooled.to(device)

    def _precision(self) -> torch.autocast:
        kind = self.transformer.device.type
        return torch.autocast(kind, torch.bfloat16, enabled=kind == "cuda")


def answer(model: ChunkModel, request: Request, batch_size: int) -> Tensor:
    """All chunks of a request, uint8 [B, 33, 3, H, W], in batches."""
    return torch.cat([model(part) for part in request.batches(batch_size)])


@torch.no_grad()
def reconstruct(vae: GameplayVAE, clips_BTCHW: Tensor, batch_size: int) -> Tensor:
    """Real chunks, encoded and decoded, uint8 on the CPU: the best that any model behind this autoencoder can do."""
    device = vae.device
    found = []
    for part in clips_BTCHW.split(batch_size):
        with torch.autocast(device.type, torch.bfloat16, enabled=device.type == "cuda"):
            found.append(to_uint8(vae.decode_clips(vae.encode_clips(part.to(device)))).cpu())
    return torch.cat(found)


@dataclass(frozen=True)
class Trained:
    """A trained transformer, the captions that it knows, and how its training says that it is sampled.

    Attributes:
        transformer: on the device, in eval mode.
        captions: the bank beside it, or MiniLM where there is none.
        sampling: num_inference_steps, guidance_scale, guidance_w, shift.
    """

    transformer: GameCraftTransformer
    captions: CaptionEncoder
    sampling: dict[str, Any]

    @classmethod
    def load(cls, folder: Path, device: torch.device) -> Trained:
        """Read `<stage>/transformer` and what lies beside it.

        Raises:
            UserError: if the folder holds no transformer, or nothing says how to sample it.
        """
        try:
            net = GameCraftTransformer.from_pretrained(folder)
            sampling = json.loads((folder.parent / SAMPLING).read_text(encoding="utf-8"))
            names = ("num_inference_steps", "guidance_scale", "guidance_w", "shift")
            sampling = {k: sampling[k] for k in names}
        except Exception as error:  # OSError, diffusers', JSON's and safetensors' own types
            reason = (str(error) or type(error).__name__).splitlines()[0]
            raise UserError(
                f"{folder}: no trained transformer with its {SAMPLING} here: {reason}\n"
                "fulgurite run gamecraft/tiny   trains one, in <run>/<stage>/transformer"
            ) from None
        bank = folder.parent / BANK
        captions = CaptionEncoder.load(bank) if bank.is_file() else CaptionEncoder()
        return cls(net.eval().requires_grad_(False).to(device), captions, sampling)

    def model(self, name: str, vae: GameplayVAE, num_steps: int, one_frame: bool = False) -> DiffusionModel:
        """This network at some number of steps, else sampled as its training says; `one_frame` hides older history."""
        scale, w, shift = (self.sampling[key] for key in ("guidance_scale", "guidance_w", "shift"))
        return DiffusionModel(name, self.transformer, vae, self.captions, num_steps, shift, scale, w, one_frame)


def load_vae(folder: Path, device: torch.device) -> GameplayVAE:
    """A trained autoencoder, on a GPU with fused blocks where it pads by zeros.

    Raises:
        UserError: if the folder holds none.
    """
    try:
        net = GameplayVAE.from_pretrained(folder)
    except Exception as error:  # OSError, diffusers' and safetensors' own types
        raise UserError(f"{folder}: no trained autoencoder here: {str(error).splitlines()[0]}") from None
    if device.type == "cuda" and net.config.spatial_padding == "zeros":
        fuse_blocks(net, any_batch=True)
    return net.eval().requires_grad_(False).to(device)


def _generator(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def _now(device: torch.device) -> float:
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    return time.perf_counter()
