"""The 4-bit attention kernel, in CUTLASS's CuTe DSL.

The file can be imported without the package nvidia-cutlass-dsl, but not used.

A thread block has 64 queries, a warp 16 of them. It walks the list of kept key blocks twice: once for each row's
maximum, so that P is rounded as numerics.py has it, and once for the output. No tile is staged: every lane reads its
own registers' numbers, which fragments.py has laid side by side. It is there for its numbers, and for the 4-bit matrix
units of compute capability 8.x; no speed is claimed.
"""

from __future__ import annotations

from contextlib import suppress
from functools import cache
from typing import Any

with suppress(ImportError):
    import cutlass
    from cutlass import Float32, Int32, cute
    from cutlass._mlir.dialects import llvm
    from cutlass.cutlass_dsl import T
    from cutlass.experimental.primitives import nvvm_wrapper as nvvm

EIGHTS = 8  # groups of eight keys in a block
HIDDEN = -1e30  # the score of a key that is not seen
LARGE = 1 << 30  # nominal size of the arrays


def product(unsigned, a, b, c):  # type: ignore[no-untyped-def]
    """One 16 x 8 x 64 product of a warp, c + a b: four int32 a lane."""
    kind = nvvm.MMAType.U4 if unsigned else nvvm.MMAType.S4
    made = nvvm.mma_sync(
        llvm.StructType.get_literal([T.i32()] * 4), (16, 8, 64), nvvm.MMALayout.ROW, nvvm.MMALayout.COL,
        [x.ir_value() for x in a], [x.ir_value() for x in b], [x.ir_value() for x in c],
        int_overflow_behavior=nvvm.MMAIntOverflow.SATFINITE, multiplicand_a_ptx_type=kind,
        multiplicand_b_ptx_type=nvvm.MMAType.S4,
    )  # fmt: skip
    return [Int32(llvm.extractvalue(T.i32(), made, [i])) for i in range(4)]


def array(pointer):  # type: ignore[no-untyped-def]
    """A flat tensor at a pointer."""
    return cute.make_tensor(pointer, cute.make_layout(LARGE))


def scores(s, seen_bits, q_registers, k, k_step, seen, tile, lane, scale, width):  # type: ignore[no-untyped-def]
    """The tile's 32 scores of this lane into `s`, hidden keys at HIDDEN; the lane's 16 bits of seen keys."""
    steps = width // 64
    factor = scale * k_step[tile]
    for half in range(2):
        seen_bits[half] = seen[2 * tile + half]
    for eight in range(EIGHTS):
        c = [Int32(0)] * 4
        for step in range(steps):
            at = ((tile * EIGHTS + eight) * steps + step) * 64 + lane
            c = product(False, [q_registers[4 * step + i] for i in range(4)], [k[at], k[at + 32]], c)
        for i in range(4):
            shown = visible(seen_bits, eight, lane, i)
            s[4 * eight + i] = Float32(c[i]) * factor * shown + (Float32(1.0) - shown) * Float32(HIDDEN)


def visible(seen_bits, eight, lane, i):  # type: ignore[no-untyped-def]
    """1.0 if the key of this lane's number `i` of a group of eight is seen, else 0.0."""
    return Float32((seen_bits[eight // 4] >> (Int32(8 * (eight % 4) + i % 2) + 2 * (lane % 4))) & Int32(1))


@cache
def program() -> Any:
    """What `cute.compile` compiles; made when it is asked for, since the DSL reads its decorators' functions then."""

    @cute.kernel
    def attend(
        q: cute.Pointer,
        k: cute.Pointer,
        v: cute.Pointer,
        q_step: cute.Pointer,
        k_step: cute.Pointer,
        v_step: cute.Pointer,
        seen: cute.Pointer,
        count: cute.Pointer,
        column: cute.Pointer,
        out: cute.Pointer,
        blocks: Int32,
        width: cutlass.Constexpr,
    ) -> None:
        """One block of queries of one head; arrays as `native.py` lays them."""
        thread, _, _ = cute.arch.thread_idx()
        row_block, head, _ = cute.arch.block_idx()
        lane, warp = thread % 32, thread // 32
        steps = width // 64
        k_all, v_all, seen_all = array(k), array(v), array(seen)
        k_steps, v_steps, columns = array(k_step), array(v_step), array(column)
        row = head * blocks + row_block
        num_kept = array(count)[row]
        scale = array(q_step)[row]

        registers = cute.make_rmem_tensor(4 * steps, Int32)
        for i in cutlass.range_constexpr(4 * steps):
            registers[i] = array(q)[((row * 4 + warp) * steps * 4 + i) * 32 + lane]
        s = cute.make_rmem_tensor(32, Float32)
        bits = cute.make_rmem_tensor(2, Int32)
        top = cute.make_rmem_tensor(2, Float32)
        total = cute.make_rmem_tensor(2, Float32)
        o = cute.make_rmem_tensor(width // 2, Float32)
        for i in cutlass.range_constexpr(2):
            top[i], total[i] = Float32(HIDDEN), Float32(0.0)
        for i in cutlass.range_constexpr(width // 2):
            o[i] = Float32(0.0)

        for i in cutlass.range(num_kept):
            tile = head * blocks + columns[row * blocks + i]
            scores(s, bits, registers, k_all, k_steps, seen_all, tile, lane, scale, width)
            for j in cutlass.range_constexpr(32):
                top[j % 4 // 2] = cute.arch.fmax(top[j % 4 // 2], s[j])
        for i in cutlass.range_constexpr(2):
            for far in cutlass.range_constexpr(2):
                top[i] = cute.arch.fmax(top[i], cute.arch.shuffle_sync_bfly(top[i], offset=1 << far))

        largest = cute.make_tensor(cute.arch.alloc_smem(Float32, 4), cute.make_layout(4))
        p_registers = cute.make_rmem_tensor(4, Int32)
        for i in cutlass.range(num_kept):
            tile = head * blocks + columns[row * blocks + i]
            scores(s, bits, registers, k_all, k_steps, seen_all, tile, lane, scale, width)
            most = Float32(1e-30)
            for j in cutlass.range_constexpr(32):
                p = cute.math.exp2(s[j] - top[j % 4 // 2], fastmath=True) * visible(bits, j // 4, lane, j % 4)
                total[j % 4 // 2] = total[j % 4 // 2] + p
                most = cute.arch.fmax(most, p)
                s[j] = p
            for far in cutlass.range_constexpr(5):
                most = cute.arch.fmax(most, cute.arch.shuffle_sync_bfly(most, offset=1 << far))
            largest[warp] = most
            cute.arch.sync_threads()
            for j in cutlass.range_constexpr(4):
                most = cute.arch.fmax(most, largest[j])
            cute.arch.sync_threads()  # before the next tile's maxima are written
            finer = Float32(15.0) / most
            for register in cutlass.range_constexpr(4):  # 2 a + b: half a of the keys, row 8 b on
                packed = Int32(0)
                for number in cutlass.range_constexpr(8):
                    p = s[4 * (4 * (register // 2) + number // 2) + 2 * (register % 2) + number % 2]
                    packed = packed | (Int32(p * finer + Float32(0.5)) << Int32(4 * number))
                p_registers[register] = packed
            for eight in cutlass.range_constexpr(width // 8):
                at = (tile * (width // 8) + eight) * 64 + lane
                c = product(True, [p_registers[j] for j in range(4)], [v_all[at], v_all[at + 32]], [Int32(0)] * 4)
                factor = most / Float32(15.0) * v_steps[tile * steps + eight // 8]
                for j in cutlass.range_constexpr(4):
                    o[4 * eight + j] = o[4 * eight + j] + Float32(c[j]) * factor

        for i in cutlass.range_constexpr(2):
            for far in cutlass.range_constexpr(2):
                total[i] = total[i] + cute.arch.shuffle_sync_bfly(total[i], offset=1 << far)
            total[i] = Float32(1.0) / cute.arch.fmax(total[i], Float32(1e-30))
        out_all = array(out)
        for eight in cutlass.range_constexpr(width // 8):
            for j in cutlass.range_constexpr(4):
                token = row * 64 + warp * 16 + lane // 4 + 8 * (j // 2)
                out_all[token * width + eight * 8 + 2 * (lane % 4) + j % 2] = o[4 * eight + j] * total[j // 2]

    @cute.jit
    def launch(
        q: cute.Pointer,
        k: cute.Pointer,
        v: cute.Pointer,
        q_step: cute.Pointer,
        k_step: cute.Pointer,
        v_step: cute.Pointer,
        seen: cute.Pointer,
        count: cute.Pointer,
        column: cute.Pointer,
        out: cute.Pointer,
        blocks: Int32,
        heads: Int32,
        width: cutlass.Constexpr,
    ) -> None:
        """The kernel over all blocks of queries of all heads."""
        attend(q, k, v, q_step, k_step, v_step, seen, count, column, out, blocks, width).launch(
            grid=(blocks, heads, 1), block=(128, 1, 1)
        )

    return launch
