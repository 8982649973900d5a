"""kernel.py's walk with a warp's lanes as a tensor's axis, and its product by the fragments' layout of the PTX ISA."""

from __future__ import annotations

import torch
from torch import Tensor

LANE = torch.arange(32)
G, T = LANE // 4, LANE % 4


def numbers(register_L: Tensor, signed: bool) -> Tensor:
    """The eight 4-bit numbers of each lane's register, [32, 8]."""
    found = (register_L.to(torch.int64)[:, None] >> (4 * torch.arange(8))) & 15
    return found - 16 * (found >= 8) if signed else found


def product(unsigned: bool, a: list[Tensor], b: list[Tensor], c: list[Tensor]) -> list[Tensor]:
    """mma.m16n8k64: registers to matrices, as the PTX ISA says where each number stands, and back."""
    left, right = torch.zeros(16, 64, dtype=torch.int64), torch.zeros(64, 8, dtype=torch.int64)
    for i in range(32):  # the 32 numbers of A in a lane
        row = G + (0 if i < 8 or 16 <= i < 24 else 8)
        left[row, T * 8 + i % 8 + (32 if i >= 16 else 0)] = numbers(a[i // 8], not unsigned)[:, i % 8]
    for i in range(16):
        right[T * 8 + i % 8 + (32 if i >= 8 else 0), G] = numbers(b[i // 8], True)[:, i % 8]
    made = left @ right
    return [c[i] + made[G + (8 if i >= 2 else 0), 2 * T + i % 2] for i in range(4)]


def walk(arguments: list[Tensor], blocks: int, width: int) -> Tensor:
    """The kernel's output [B * H, R * 64, D] from its operands, warps and lanes as the kernel has them."""
    q, k, v, q_step, k_step, v_step, seen, count, column = (t.flatten() for t in arguments)
    heads, steps = len(count) // blocks, width // 64
    out = torch.zeros(heads * blocks * 64, width)
    for row in range(heads * blocks):
        head = row // blocks
        warps = [[q[((row * 4 + warp) * steps * 4 + i) * 32 + LANE] for i in range(4 * steps)] for warp in range(4)]
        tiles = [head * blocks + int(column[row * blocks + i]) for i in range(int(count[row]))]
        maps = []
        for registers in warps:
            of_tiles = []
            for tile in tiles:
                s = []
                for eight in range(8):
                    c = [torch.zeros(32, dtype=torch.int64)] * 4
                    for step in range(steps):
                        at = ((tile * 8 + eight) * steps + step) * 64 + LANE
                        c = product(False, registers[4 * step : 4 * step + 4], [k[at], k[at + 32]], c)
                    bits = seen[2 * tile + eight // 4].to(torch.int64)
                    for i in range(4):
                        shown = ((bits >> (8 * (eight % 4) + i % 2 + 2 * T)) & 1).float()
                        s.append((c[i].float() * q_step[row] * k_step[tile] * shown + (1 - shown) * -1e30, shown))
                of_tiles.append(s)
            maps.append(of_tiles)
        tops = []
        for of_tiles in maps:
            top = torch.full((2, 32), -1e30)
            for s in of_tiles:
                for j in range(32):
                    top[j % 4 // 2] = torch.maximum(top[j % 4 // 2], s[j][0])
            tops.append(top.view(2, 8, 4).amax(2, keepdim=True).expand(2, 8, 4).reshape(2, 32))
        o = [torch.zeros(width // 2, 32) for _ in range(4)]
        total = [torch.zeros(2, 32) for _ in range(4)]
        for number, tile in enumerate(tiles):
            ps = [
                torch.stack([torch.exp2(s - top[j % 4 // 2]) * shown for j, (s, shown) in enumerate(of_tiles[number])])
                for of_tiles, top in zip(maps, tops, strict=True)
            ]
            most = max(float(p.max()) for p in ps) or 1e-30
            for warp, p in enumerate(ps):
                for j in range(32):
                    total[warp][j % 4 // 2] += p[j]
                registers = []
                for register in range(4):
                    packed = torch.zeros(32, dtype=torch.int64)
                    for i in range(8):
                        chosen = p[4 * (4 * (register // 2) + i // 2) + 2 * (register % 2) + i % 2]
                        packed |= (chosen * (15 / most) + 0.5).long() << (4 * i)
                    registers.append(packed)
                for eight in range(width // 8):
                    at = (tile * (width // 8) + eight) * 64 + LANE
                    c = product(True, registers, [v[at], v[at + 32]], [torch.zeros(32, dtype=torch.int64)] * 4)
                    for j in range(4):
                        o[warp][4 * eight + j] += c[j].float() * (most / 15 * v_step[tile * steps + eight // 8])
        for warp in range(4):
            whole = total[warp].view(2, 8, 4).sum(2, keepdim=True).expand(2, 8, 4).reshape(2, 32).clamp_min(1e-30)
            for eight in range(width // 8):
                for j in range(4):
                    token = row * 64 + warp * 16 + G + 8 * (j // 2)
                    out[token, eight * 8 + 2 * T + j % 2] = o[warp][4 * eight + j] / whole[j // 2]
    return out.view(heads, blocks * 64, width)
