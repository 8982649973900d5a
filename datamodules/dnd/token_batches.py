"""Batches of weight tokens as adapters, with gradients; and adapters turned so that what LoRA leaves open is gone.

Axis legend: B batch, T weight token, H rank + 2, W chunk + 2, R LoRA rank, I width in, O width out.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping

import torch
from torch import Tensor

from .lora_layout import matrix_side, matrix_width
from .weight_tokens import WeightTokenizer


def untokenize_batch(tokenizer: WeightTokenizer, tokens_BTHW: Tensor) -> dict[str, Tensor]:
    """Tokens to B adapters, differentiable: PEFT key -> A [B, R, I] or B [B, O, R], fp32.

    As `WeightTokenizer.detokenize`, in fp32 instead of float64: a std of 1e-4 is off by about 1e-3 of itself.

    Args:
        tokenizer: whose layout the tokens have.
        tokens_BTHW: generated tokens.

    Raises:
        ValueError: if the tokens don't have the layout's shape.
    """
    expected = (tokenizer.num_tokens, *tokenizer.token_shape)
    if tuple(tokens_BTHW.shape[1:]) != expected:
        raise ValueError(f"tokens must be [B, {', '.join(map(str, expected))}], got {list(tokens_BTHW.shape)}")
    rank, tokens_BTHW = tokenizer.rank, tokens_BTHW.float()
    row_BTW, column_BTHX = tokens_BTHW[:, :, rank:].mean(2), tokens_BTHW[..., tokenizer.chunk :]
    by_rows = _decode(row_BTW[..., 0::2].mean(-1), row_BTW[..., 1::2].mean(-1))
    by_columns = _decode(column_BTHX[..., 0].mean(-1), column_BTHX[..., 1].mean(-1))
    mean_BT = (by_rows[0] + by_columns[0]) / 2
    std_BT = ((by_rows[1] + by_columns[1]) / 2).clamp_min(0)
    piece_BTRC = tokens_BTHW[:, :, :rank, : tokenizer.chunk] * std_BT[..., None, None] + mean_BT[..., None, None]
    state, start = {}, 0
    for key, shape in tokenizer.shapes.items():
        stop = start + matrix_width(key, shape) // tokenizer.chunk
        matrix_BRD = piece_BTRC[:, start:stop].transpose(1, 2).flatten(2)
        state[key] = matrix_BRD if matrix_side(key) == "A" else matrix_BRD.transpose(1, 2)
        start = stop
    return state


def _decode(mean_code: Tensor, std_code: Tensor) -> tuple[Tensor, Tensor]:
    return mean_code / 8, ((std_code - 1.6).exp() - 0.1) / 0.9


def product_error(made: Mapping[str, Tensor], wanted: Mapping[str, Tensor]) -> Tensor:
    """Mean over modules and batch of ||B A - B* A*||^2 / ||B* A*||^2, with no matrix larger than R x R or the factors.

    Args:
        made: as `untokenize_batch` gives it.
        wanted: the same of the targets.

    Returns:
        Scalar, fp32; 1 for made updates of zero.
    """
    errors = []
    for key, a in made.items():
        if matrix_side(key) == "B":
            continue
        b, c, d = made[_other(key)], wanted[key], wanted[_other(key)]
        own = _inner(a, b, a, b)
        cross = _inner(a, b, c, d)
        target = _inner(c, d, c, d)
        errors.append((own - 2 * cross + target) / target.clamp_min(1e-12))
    return torch.stack(errors).mean()


def _inner(a: Tensor, b: Tensor, c: Tensor, d: Tensor) -> Tensor:
    """<b a, d c> for [B, R, I] and [B, O, R]: the sum over entries of (b^T d) * (a c^T)."""
    return (torch.bmm(b.transpose(1, 2), d) * torch.bmm(a, c.transpose(1, 2))).sum((1, 2))


def align(state: Mapping[str, Tensor], reference: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The same adapter in the coordinates of another: A' = G A nearest to the reference's A, B' = B G^-1.

    B A is what the model sees; G is free, and a regression onto raw weights has to learn it too. G is the least
    squares solution, module by module, in float64.

    Args:
        state: PEFT key -> A [R, I] or B [O, R].
        reference: the same keys.

    Returns:
        PEFT key -> fp32; the product B A is that of `state`.
    """
    alike: dict[tuple[int, ...], list[str]] = defaultdict(list)
    for key, matrix in state.items():
        if matrix_side(key) == "A":
            alike[(*matrix.shape, *state[_other(key)].shape)].append(key)
    aligned = {}
    for keys in alike.values():  # one solve for all modules of a shape
        a, wanted = (torch.stack([found[k] for k in keys]).double() for found in (state, reference))
        b = torch.stack([state[_other(k)] for k in keys]).double()
        turn = torch.linalg.solve(a @ a.mT, a @ wanted.mT).mT
        turned_a, turned_b = (turn @ a).float(), torch.linalg.solve(turn.mT, b.mT).mT.float()
        for i, key in enumerate(keys):
            aligned[key], aligned[_other(key)] = turned_a[i], turned_b[i].contiguous()
    return aligned


def _other(key: str) -> str:
    return key.replace(".lora_A.", ".lora_B.")
