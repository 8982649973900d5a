"""From a batch of gameplay to what the transformer is conditioned on: history, rays of a camera, captions.

Axis legend: B batch, F frame (33), C latent channel (16), N history latent, T chunk latent (9), H W latent size, P 6
Pluecker channels, Y X pixel size.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from ...datamodules.gamecraft.camera import plucker_rays, static_camera
from .sampling import Captions
from .vae import CLIP_FRAMES, GameplayVAE

PIXELS = 8  # pixels along the side of a latent


@dataclass(frozen=True)
class Conditions:
    """A batch on the device, as the trainings use it.

    Attributes:
        x0_BCTHW: scaled latents of the chunk.
        history_BCNHW: scaled latents of what came before; each clip encoded by itself, a single frame as one.
        intrinsics_BF33: K of the chunk's frames, in pixels.
        c2w_BF44: poses relative to the chunk's first frame.
        captions: token states, mask and pooled vectors.
    """

    x0_BCTHW: Tensor
    history_BCNHW: Tensor
    intrinsics_BF33: Tensor
    c2w_BF44: Tensor
    captions: Captions

    def rays(self) -> Tensor:
        """Pluecker rays [B, F, P, Y, X] float32."""
        height, width = (PIXELS * side for side in self.x0_BCTHW.shape[-2:])
        return plucker_rays(self.intrinsics_BF33, self.c2w_BF44, height, width)

    def without(self, null: Captions, drop_B: Tensor | None = None) -> Conditions:
        """The same with empty caption and static camera, both together, where `drop_B` (default: everywhere).

        A camera that stands still keeps the intrinsics of its first frame, for in those lies the pitch of some engines.
        """
        still_K = self.intrinsics_BF33[:, :1].expand_as(self.intrinsics_BF33)
        still_c2w = static_camera(self.intrinsics_BF33).to(self.c2w_BF44.dtype)
        everywhere = self.x0_BCTHW.new_ones(len(self.x0_BCTHW), dtype=torch.bool)
        drop_B = everywhere if drop_B is None else drop_B
        states, mask, pooled = (
            torch.where(drop_B.view(-1, *(1,) * (own.ndim - 1)), none.expand_as(own), own)
            for none, own in zip(null, self.captions, strict=True)
        )
        drop_B111 = drop_B.view(-1, 1, 1, 1)
        return replace(
            self,
            intrinsics_BF33=torch.where(drop_B111, still_K, self.intrinsics_BF33),
            c2w_BF44=torch.where(drop_B111, still_c2w, self.c2w_BF44),
            captions=(states, mask, pooled),
        )

    def first(self, size: int) -> Conditions:
        """The first samples alone."""
        states, mask, pooled = self.captions
        return Conditions(
            self.x0_BCTHW[:size],
            self.history_BCNHW[:size],
            self.intrinsics_BF33[:size],
            self.c2w_BF44[:size],
            (states[:size], mask[:size], pooled[:size]),
        )

    def with_other_cameras(self) -> Conditions:
        """The same, each sample with its neighbour's camera: the control for a model that ignores it."""
        return replace(self, intrinsics_BF33=self.intrinsics_BF33.roll(1, 0), c2w_BF44=self.c2w_BF44.roll(1, 0))


def encode_batch(batch: dict[str, Any], vae: GameplayVAE | None) -> tuple[Tensor, Tensor]:
    """Latents of chunk and history in float32, out of the batch or made by the autoencoder from its frames.

    Raises:
        ValueError: if the batch holds frames and there is no autoencoder.
    """
    if "latents" in batch:
        return batch["latents"].float(), batch["history_latents"].float()
    if vae is None:
        raise ValueError("the batch holds frames, and no autoencoder was named (vae)")
    with torch.no_grad():
        return vae.encode_clips(batch["frames"]).float(), encode_history(vae, batch["history"]).float()


def encode_history(vae: GameplayVAE, history_BFCYX: Tensor) -> Tensor:
    """Latents [B, C, N, H, W] of one frame (N = 1) or of whole clips, each clip by itself (N = 9 a clip)."""
    if history_BFCYX.shape[1] == 1:
        return vae.encode_clips(history_BFCYX)
    clips = history_BFCYX.unflatten(1, (-1, CLIP_FRAMES))
    latents = vae.encode_clips(clips.flatten(0, 1)).unflatten(0, clips.shape[:2])
    return latents.transpose(1, 2).flatten(2, 3)
