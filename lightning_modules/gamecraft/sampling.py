"""From noise to the latents of one chunk, by Euler steps on the chunk beside its clean history.

Axis legend: B batch, C latent channel (16), N history latent, T chunk latent (9), H W latent size, F frame (33), P 6
Pluecker channels, Y X pixel size, L caption token, D caption width.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from .flow import TIMESTEPS, guided

if TYPE_CHECKING:
    from .transformer import GameCraftTransformer

Captions = tuple[Tensor, Tensor, Tensor]  # states [B, L, D], mask [B, L] bool, pooled [B, D]


@torch.no_grad()
def denoise(
    transformer: GameCraftTransformer,
    history_BCNHW: Tensor,
    noise_BCTHW: Tensor,
    plucker_BFPYX: Tensor,
    static_plucker_BFPYX: Tensor | None,
    captions: Captions,
    null_captions: Captions | None,
    sigmas: Tensor | Sequence[float],
    guidance_scale: float = 1.0,
    guidance_w: float | None = None,
) -> Tensor:
    """Denoise a chunk that follows its history (arXiv 2506.17201, sections 3.3 to 3.5).

    The history is clean at every step, in the noise channels as in the condition channels, and no step is applied to
    it. Camera tokens are computed once. The chunk is held in float32 whatever the network's dtype.

    Args:
        transformer: the network.
        history_BCNHW: scaled latents of what came before; N is 1 (a frame), 9 (a clip) or 18 (two clips).
        noise_BCTHW: standard normal noise.
        plucker_BFPYX: rays of the chunk's frames, [B, 33, 6, height, width].
        static_plucker_BFPYX: rays of a camera that stands still; needed where `guidance_scale` is not 1.
        captions: token states, their mask and pooled vectors.
        null_captions: the same of the empty caption; needed where `guidance_scale` is not 1.
        sigmas: falling noise levels, first 1, last 0 (`flow.sigmas`).
        guidance_scale: weight of the step with caption and camera over the one without both; 1 = no guidance, and
            half of the work.
        guidance_w: the weight (scale - 1) that a guidance-distilled network takes as an input; None for others.

    Returns:
        Latents [B, 16, 9, H, W], float32.

    Raises:
        ValueError: if guidance is asked for without what it steers away from.
    """
    guide = guidance_scale != 1.0
    if guide and (static_plucker_BFPYX is None or null_captions is None):
        raise ValueError("guidance_scale other than 1 needs static_plucker and null_captions")
    size, dtype = len(noise_BCTHW), transformer.dtype
    history_BCNHW, num_history = history_BCNHW.to(dtype), history_BCNHW.shape[2]
    copies = 1
    if guide:
        assert static_plucker_BFPYX is not None and null_captions is not None
        copies = 2
        plucker_BFPYX = torch.cat([static_plucker_BFPYX, plucker_BFPYX])
        captions = tuple(torch.cat(pair) for pair in zip(null_captions, captions, strict=True))  # type: ignore[assignment]
        history_BCNHW = torch.cat([history_BCNHW] * 2)
    camera_tokens = transformer.camera_tokens(plucker_BFPYX.to(dtype), num_history)
    states, mask, pooled = captions
    states, pooled = states.to(dtype), pooled.to(dtype)
    w = None
    if guidance_w is not None:
        w = torch.full((copies * size,), guidance_w * TIMESTEPS, device=noise_BCTHW.device)
    levels = sigmas.tolist() if isinstance(sigmas, Tensor) else list(sigmas)
    x_BCTHW = noise_BCTHW.float()
    for level, lower in pairwise(levels):
        chunk = x_BCTHW.to(dtype)
        hidden = transformer.model_input(torch.cat([chunk] * copies) if guide else chunk, history_BCNHW)
        timestep = torch.full((copies * size,), level * TIMESTEPS, device=x_BCTHW.device)
        out = transformer(hidden, timestep, states, mask, pooled, camera_tokens=camera_tokens, guidance=w)
        v_BCTHW = out[:, :, num_history:].float()
        if guide:
            away, towards = v_BCTHW.chunk(2)
            v_BCTHW = guided(towards, away, guidance_scale - 1)
        x_BCTHW = x_BCTHW + (lower - level) * v_BCTHW
    return x_BCTHW
