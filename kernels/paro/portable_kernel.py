"""The Triton kernel of portable.py, which compiles it. The file can be imported without triton, but not used."""

from __future__ import annotations

from contextlib import suppress

with suppress(ImportError):
    import triton.language as tl


def attend(  # type: ignore[no-untyped-def]
    q_ptr, k_ptr, v_ptr, q_step_ptr, k_step_ptr, v_step_ptr, seen_ptr, count_ptr, column_ptr, out_ptr,
    size, heads, blocks, mask_batches, mask_heads, D: tl.constexpr, BLOCK: tl.constexpr,
):  # fmt: skip
    """One row of query blocks: int8 q, k and fp16 v [B * H, N, D], steps and lists as `portable_forward` makes them."""
    row, bh = tl.program_id(0), tl.program_id(1)
    mask_list = bh // heads % mask_batches * mask_heads + bh % heads % mask_heads
    list_row = (mask_list * blocks + row).to(tl.int64)
    place = tl.arange(0, BLOCK)
    channel = tl.arange(0, D)
    base = bh.to(tl.int64) * size
    rows = row * BLOCK + place
    inside = rows < size
    q = tl.load(q_ptr + (base + rows)[:, None] * D + channel, mask=inside[:, None], other=0)
    q_step = tl.load(q_step_ptr + bh * blocks + row)
    top = tl.full([BLOCK], -1e30, tl.float32)
    total = tl.zeros([BLOCK], tl.float32)
    out = tl.zeros([BLOCK, D], tl.float32)
    count = tl.load(count_ptr + list_row)
    for i in tl.range(0, count):
        block = tl.load(column_ptr + list_row * blocks + i)
        keys = block * BLOCK + place
        there = keys < size
        k = tl.load(k_ptr + (base + keys)[:, None] * D + channel, mask=there[:, None], other=0)
        v = tl.load(v_ptr + (base + keys)[:, None] * D + channel, mask=there[:, None], other=0.0)
        seen = tl.load(seen_ptr + base + keys, mask=there, other=0)
        step = q_step * tl.load(k_step_ptr + bh * blocks + block)
        scores = tl.dot(q, tl.trans(k), out_dtype=tl.int32).to(tl.float32) * step
        scores = tl.where(seen[None, :] != 0, scores, float("-inf"))
        now = tl.maximum(top, tl.max(scores, 1))
        shrink = tl.exp2(top - now)
        p = tl.exp2(scores - now[:, None])
        total = total * shrink + tl.sum(p, 1)
        ints = tl.floor(p * 255.0 + 0.5).to(tl.float16)
        out = out * shrink[:, None] + tl.dot(ints, v)
        top = now
    total = tl.where(total > 0, total, 1.0)
    out = out / (total * 255.0)[:, None] * tl.load(v_step_ptr + bh * D + channel)[None, :]
    tl.store(out_ptr + (base + rows)[:, None] * D + channel, out, mask=inside[:, None])
