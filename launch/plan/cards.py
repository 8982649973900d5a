"""Cards by name: memory and dense peak rates from the makers' data sheets (without sparsity)."""

from __future__ import annotations

from dataclasses import dataclass

from ...registry import UserError, did_you_mean


@dataclass(frozen=True)
class Card:
    """A card.

    Attributes:
        title: as people call it.
        memory_gb: in units of 1e9 bytes.
        bf16: dense peak in TFLOP/s of bfloat16 and float16.
        fp32: peak in TFLOP/s of float32 outside the tensor cores, which torch's default precision uses.
    """

    title: str
    memory_gb: float
    bf16: float
    fp32: float


CARDS = {
    "h100": Card("NVIDIA H100 SXM", 85.0, 989.0, 67.0),
    "h200": Card("NVIDIA H200 SXM", 150.0, 989.0, 67.0),
    "h800": Card("NVIDIA H800 SXM", 85.0, 989.0, 67.0),
    "b200": Card("NVIDIA B200 SXM", 192.0, 2250.0, 75.0),
    "a100": Card("NVIDIA A100 SXM 80 GB", 85.0, 312.0, 19.5),
    "l40s": Card("NVIDIA L40S", 51.0, 362.0, 91.6),
    "rtx4090": Card("NVIDIA GeForce RTX 4090", 25.0, 165.0, 82.6),
}


def find_card(name: str) -> Card:
    """A card by its name.

    Raises:
        UserError: for one that is not in the table.
    """
    if name.lower() in CARDS:
        return CARDS[name.lower()]
    hint = did_you_mean(name.lower(), list(CARDS), f"Known: {', '.join(CARDS)}.")
    raise UserError(f"no card '{name}'\n{hint}")
