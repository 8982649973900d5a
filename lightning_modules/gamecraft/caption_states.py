"""Captions' token states on the device, for trainings that meet the same few captions over and over."""

from __future__ import annotations

import torch
from torch import Tensor

from .captions_encoder import CaptionEncoder
from .sampling import Captions


class CaptionStates:
    """Keeps every caption's states on the device from its first use on."""

    def __init__(self) -> None:
        self._rows: dict[str, int] = {}
        self._bank: tuple[Tensor, ...] = ()

    def __call__(self, encoder: CaptionEncoder, captions: list[str], device: torch.device) -> Captions:
        """Token states, mask and pooled vectors on the device; the encoder, the same at each call, makes new ones."""
        new = [caption for caption in dict.fromkeys(captions) if caption not in self._rows]
        if new:
            with torch.random.fork_rng(devices=[]):  # a resumed run meets its first caption elsewhere
                added = encoder(new)
            held = self._bank
            self._bank = tuple(
                torch.cat([*([held[i]] if held else []), part.to(device)]) for i, part in enumerate(added)
            )
            self._rows |= {caption: len(self._rows) + i for i, caption in enumerate(new)}
        rows_B = torch.tensor([self._rows[caption] for caption in captions])
        if device.type == "cuda":  # from pinned memory, so that nothing waits for the device
            rows_B = rows_B.pin_memory().to(device, non_blocking=True)
        states, mask, pooled = (part[rows_B] for part in self._bank)
        return states, mask, pooled
