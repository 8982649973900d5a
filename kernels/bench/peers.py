"""The contestants of `fulgurite bench attention`.

Each makes ready whatever a call with the same shapes and mask may keep, and gives back the calls to be timed. What a
call cannot keep (reordering, rounding) is in its `all_in`.

Axis legend: B batch, H head, N token, D channel, R query block, C key block.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.nn.attention import SDPBackend, sdpa_kernel

from ..int4 import native as int4_native
from ..masks import BlockMask
from ..paro import native
from ..paro.orders import inverse, reorder
from ..paro.plan import pack


@dataclass(frozen=True)
class Task:
    """What is to be computed.

    Attributes:
        q_BHND, k_BHND, v_BHND: inputs in the tokens' own order.
        permutation_HN: int32, which token each place of the mask's order holds.
        keep_1HRC: bool, blocks of 64; None = all.
    """

    q_BHND: Tensor
    k_BHND: Tensor
    v_BHND: Tensor
    permutation_HN: Tensor
    keep_1HRC: Tensor | None


@dataclass(frozen=True)
class Contestant:
    """Calls that compute a task.

    Attributes:
        kernel: attention alone, on inputs that lie ready, with the output as the kernel leaves it.
        all_in: from the inputs as a model has them to the output [B, H, N, D] as it wants it.
        mask: what was computed; None = dense.
        parts: further calls to be timed.
    """

    kernel: Callable[[], Tensor]
    all_in: Callable[[], Tensor]
    mask: BlockMask | None
    parts: dict[str, Callable[[], object]]


def cudnn(task: Task) -> Contestant:
    """Dense attention of cuDNN through PyTorch, in bf16."""
    return _dense(task, SDPBackend.CUDNN_ATTENTION)


def flash(task: Task) -> Contestant:
    """PyTorch's own flash attention, dense."""
    return _dense(task, SDPBackend.FLASH_ATTENTION)


def flash4(task: Task) -> Contestant:
    """FlashAttention-4 (flash_attn.cute), dense."""
    from flash_attn.cute import flash_attn_func

    q, k, v = (t.transpose(1, 2).contiguous() for t in (task.q_BHND, task.k_BHND, task.v_BHND))

    def run() -> Tensor:
        made = flash_attn_func(q, k, v)
        return (made[0] if isinstance(made, tuple) else made).transpose(1, 2)

    return Contestant(run, run, None, {})


def flash4_blocks(task: Task, block: int) -> Contestant:
    """FlashAttention-4 under the mask, in its blocks of 64 or coarsened to 128; reordered by PyTorch's gather.

    Its tiles are as wide as the blocks: by itself it would take others, which allow no such mask at 64 channels.
    """
    from flash_attn.cute.block_sparsity import BlockSparseTensorsTorch
    from flash_attn.cute.interface import _flash_attn_fwd

    keep, count, index = _lists(task, block)
    mask = BlockSparseTensorsTorch(torch.zeros_like(count), index, count, index, block_size=(block, block))

    def run(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        views = (t.transpose(1, 2) for t in (q, k, v))
        made: Tensor = _flash_attn_fwd(*views, tile_mn=(block, block), block_sparse_tensors=mask)[0]
        return made.transpose(1, 2)

    return _reordering(task, BlockMask(keep, block), run)


def flex(task: Task, block: int) -> Contestant:
    """FlexAttention under the mask, in its blocks of 64 or coarsened to 128; reordered by PyTorch's gather."""
    from torch.nn.attention.flex_attention import BlockMask as FlexMask

    keep, count, index = _lists(task, block)
    size = task.q_BHND.shape[2]
    mask = FlexMask.from_kv_blocks(
        torch.zeros_like(count), index, count, index, BLOCK_SIZE=block, seq_lengths=(size, size), compute_q_blocks=False
    )
    options: dict[str, Any] = {"BLOCK_M": 64, "BLOCK_N": 64} if block == 64 else {}

    def run(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        return _flex()(q, k, v, block_mask=mask, kernel_options=options)

    return _reordering(task, BlockMask(keep, block), run)


def paro(task: Task, variant: native.Variant) -> Contestant:
    """Our kernels for Hopper: pre-pass and attention. The mask's bits lie ready; `all_in` makes its lists."""
    if reason := native.why_not(task.q_BHND.device, task.q_BHND.dtype, task.q_BHND.shape[3]):
        raise RuntimeError(f"the Hopper kernel {reason}")
    batch, heads, size, width = task.q_BHND.shape
    blocks = -(-size // native.BLOCK)
    keep = task.keep_1HRC
    if keep is None:
        keep = torch.ones(1, 1, blocks, blocks, dtype=torch.bool, device=task.q_BHND.device)
    bits, perm, scale = pack(keep), task.permutation_HN, width**-0.5
    inputs = (task.q_BHND, task.k_BHND, task.v_BHND)
    given = native.quantise(*inputs, perm, None, scale, numbers=variant.numbers)
    lists = native.lists_of(bits, batch, heads)
    out = torch.empty_like(task.q_BHND)

    def kernel() -> Tensor:
        native.attend(given, lists, perm, out, variant)
        return out

    def all_in() -> Tensor:
        return native.paro_forward(*inputs, bits, perm, None, scale, variant=variant)

    parts = {
        "pre-pass": lambda: native.quantise(*inputs, perm, None, scale, numbers=variant.numbers),
        "lists": lambda: native.lists_of(bits, batch, heads),
    }
    return Contestant(kernel, all_in, None if task.keep_1HRC is None else BlockMask(keep), parts)


def int4(task: Task) -> Contestant:
    """Our kernel at 4 bits. Hopper has no 4-bit products: there its numbers count, and its time does not."""
    if reason := int4_native.why_not(task.q_BHND.device, task.q_BHND.shape[3]):
        raise RuntimeError(f"the 4-bit kernel {reason}")
    batch, heads, size, width = task.q_BHND.shape
    blocks, keep = -(-size // native.BLOCK), task.keep_1HRC
    if keep is None:
        keep = torch.ones(1, 1, blocks, blocks, dtype=torch.bool, device=task.q_BHND.device)
    inputs, bits = (task.q_BHND, task.k_BHND, task.v_BHND), pack(keep)
    given, _ = int4_native.operands(*inputs, bits, task.permutation_HN.long(), None, width**-0.5)
    out = torch.empty(batch, heads, blocks * native.BLOCK, width, device=task.q_BHND.device)

    def kernel() -> Tensor:
        int4_native.attend(given, out)
        return out

    def all_in() -> Tensor:
        return int4_native.int4_forward(*inputs, bits, task.permutation_HN, None, width**-0.5)

    return Contestant(kernel, all_in, None if task.keep_1HRC is None else BlockMask(keep), {})


def _dense(task: Task, backend: SDPBackend) -> Contestant:
    def run() -> Tensor:
        with sdpa_kernel(backend):
            return F.scaled_dot_product_attention(task.q_BHND, task.k_BHND, task.v_BHND)

    return Contestant(run, run, None, {})


def _lists(task: Task, block: int) -> tuple[Tensor, Tensor, Tensor]:
    """The mask in blocks of `block`; for each of its rows how many are kept, and which, the kept ones first (int32)."""
    from .contest import coarsened

    assert task.keep_1HRC is not None
    keep = task.keep_1HRC if block == 64 else coarsened(task.keep_1HRC, block // 64)
    return keep, keep.sum(-1, dtype=torch.int32), keep.int().argsort(dim=-1, descending=True, stable=True).int()


def _reordering(task: Task, mask: BlockMask, run: Callable[[Tensor, Tensor, Tensor], Tensor]) -> Contestant:
    """A contestant that computes tokens in the mask's order, and has PyTorch bring them into it and back."""
    perm = task.permutation_HN.long()
    back = inverse(perm)
    ready = [reorder(t, perm) for t in (task.q_BHND, task.k_BHND, task.v_BHND)]

    def all_in() -> Tensor:
        q, k, v = (reorder(t, perm) for t in (task.q_BHND, task.k_BHND, task.v_BHND))
        return reorder(run(q, k, v), back)

    return Contestant(lambda: run(*ready), all_in, mask, {})


@cache
def _flex() -> Callable[..., Tensor]:
    from torch.nn.attention.flex_attention import flex_attention

    compiled: Callable[..., Tensor] = torch.compile(flex_attention, dynamic=False)
    return compiled
