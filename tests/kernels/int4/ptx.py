"""Enough of a PTX machine to run the compiled 4-bit kernel on a CPU: threads as an axis, branches all alike."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

THREADS = torch.arange(128)
SHARED = "__static_shmem__0"
SPAN = 1 << 40  # addresses of an array
LANE = torch.arange(32)
G, T = LANE // 4, LANE % 4


def numbers(register_L: Tensor, signed: bool) -> Tensor:
    """The eight 4-bit numbers of each lane's register, [32, 8]."""
    found = (register_L.to(torch.int64)[:, None] >> (4 * torch.arange(8))) & 15
    return found - 16 * (found >= 8) if signed else found


def product(unsigned: bool, a: list[Tensor], b: list[Tensor], c: list[Tensor]) -> list[Tensor]:
    """mma.m16n8k64 of a warp: registers to matrices, as the PTX ISA says where each number stands, and back."""
    left, right = torch.zeros(16, 64, dtype=torch.int64), torch.zeros(64, 8, dtype=torch.int64)
    for i in range(32):  # the 32 numbers of A in a lane
        row = G + (0 if i < 8 or 16 <= i < 24 else 8)
        left[row, T * 8 + i % 8 + (32 if i >= 16 else 0)] = numbers(a[i // 8], not unsigned)[:, i % 8]
    for i in range(16):
        right[T * 8 + i % 8 + (32 if i >= 8 else 0), G] = numbers(b[i // 8], True)[:, i % 8]
    made = left @ right
    return [c[i] + made[G + (8 if i >= 2 else 0), 2 * T + i % 2] for i in range(4)]


def run_block(ptx: str, arrays: Sequence[Tensor], numbers: Sequence[int], block: tuple[int, int]) -> None:
    """Run one thread block; arrays of 32-bit numbers, which it reads and writes, come before the plain arguments."""
    Machine(ptx, arrays, numbers, block).run()


class Machine:
    """Registers hold int64 [128]: 32-bit ones their bits, unsigned; 64-bit ones whole."""

    def __init__(self, ptx: str, arrays: Sequence[Tensor], numbers: Sequence[int], block: tuple[int, int]) -> None:
        body = ptx[ptx.index("\n{") + 2 : ptx.rindex("}")]
        body = re.sub(r"//.*", "", body)
        pieces = re.findall(r"(\$\w+):|([^;:{}]*(?:\{[^{}]*\}[^;{}]*)*);", body)
        self.code = [label + ":" if label else " ".join(text.split()) for label, text in pieces]
        self.labels = {line[:-1]: i for i, line in enumerate(self.code) if line.endswith(":")}
        self.memory = [a.flatten().view(torch.int32) for a in arrays]
        self.shared = torch.zeros(4, dtype=torch.int32)
        self.parameters = [(i + 1) * SPAN for i in range(len(arrays))] + list(numbers)
        zero = torch.zeros(128, dtype=torch.int64)
        self.r: dict[str, Tensor] = {"%tid.x": THREADS, "%ctaid.x": zero + block[0], "%ctaid.y": zero + block[1]}

    def run(self) -> None:
        """From the first line to `ret`."""
        at = 0
        while self.code[at] != "ret":
            line = self.code[at]
            at += 1
            if line.endswith(":") or line.startswith((".reg", ".shared", "bar.sync")) or not line:
                continue
            if line.startswith("@"):
                guard, line = line.split(" ", 1)
                taken = self.r[guard.strip("@!")] != 0
                assert bool((taken == taken[0]).all()), "threads part ways"
                if bool(taken[0]) == guard.startswith("@!"):
                    continue
            name, _, rest = line.partition(" ")
            if name in ("bra", "bra.uni"):
                at = self.labels[rest]
                continue
            groups = [g.strip() for g in re.findall(r"\{[^}]*\}|\[[^\]]*\]|[^,{}\[\]]+", rest) if g.strip()]
            self._do(name, groups)

    def _value(self, text: str, signed: bool = True) -> Tensor:
        if text.startswith("%"):
            found = self.r[text]
            narrow = text.startswith("%r") and not text.startswith("%rd")
            return torch.where(found >= 1 << 31, found - (1 << 32), found) if signed and narrow else found
        if text == SHARED:  # its addresses begin at 0
            return torch.zeros(128, dtype=torch.int64)
        number = int(text[2:], 16) if text.startswith("0f") else int(text, 0)
        return torch.full((128,), number, dtype=torch.int64)

    def _float(self, text: str) -> Tensor:
        bits = self._value(text)
        return torch.where(bits >= 1 << 31, bits - (1 << 32), bits).to(torch.int32).view(torch.float32)

    def _set(self, name: str, value: Tensor) -> None:
        if value.dtype == torch.float32:
            value = value.view(torch.int32).to(torch.int64)
        if name.startswith("%r") and not name.startswith("%rd"):
            value = value & 0xFFFFFFFF
        self.r[name] = value.to(torch.int64)

    def _names(self, group: str) -> list[str]:
        return [n.strip() for n in group.strip("{}").split(",")]

    def _address(self, group: str, shared: bool) -> tuple[Tensor, Tensor]:
        """The memory that an address lies in, and its place there in numbers."""
        base, _, offset = group.strip("[]").partition("+")
        address = self._value(base) + int(offset or 0)
        assert bool((address % 4 == 0).all())
        if shared:
            return self.shared, address // 4
        array = int(address[0]) // SPAN
        assert bool((address // SPAN == array).all())
        return self.memory[array - 1], address % SPAN // 4

    def _do(self, name: str, g: list[str]) -> Any:
        kind = name.split(".")
        if name.startswith("ld.param"):
            number = int(re.findall(r"_param_(\d+)", g[1])[0])
            return self._set(g[0], torch.full((128,), self.parameters[number], dtype=torch.int64))
        if name.startswith("mma.sync"):
            made = [[self.r[n] if n.startswith("%") else self._value(n) for n in self._names(part)] for part in g[1:]]
            a, b, c = made
            c = [torch.where(x >= 1 << 31, x - (1 << 32), x) for x in c]
            for i, target in enumerate(self._names(g[0])):
                lanes = [
                    product(kind[-3] == "u4", *([x[w : w + 32] for x in part] for part in (a, b, c)))[i]
                    for w in range(0, 128, 32)
                ]
                self._set(target, torch.cat(lanes))
            return None
        if kind[0] in ("ld", "st"):
            return self._move(kind, g)
        if name == "shfl.sync.bfly.b32":
            other = (THREADS ^ int(g[2])).clamp(0, 127)
            return self._set(g[0], self.r[g[1]][other])
        return self._set(g[0], self._compute(name, kind, g))

    def _move(self, kind: list[str], g: list[str]) -> None:
        load = kind[0] == "ld"
        names = self._names(g[0] if load else g[1])
        memory, index = self._address(g[1] if load else g[0], kind[1] == "shared")
        if len(names) == 2:
            assert bool((index % 2 == 0).all()), "a pair that is not aligned"
        for i, name in enumerate(names):
            if load:
                self._set(name, memory[index + i].to(torch.int64))
            else:
                memory[index + i] = self._value(name).to(torch.int32)

    def _compute(self, name: str, kind: list[str], g: list[str]) -> Tensor:
        if kind[-1] == "f32" and kind[0] != "cvt":
            x = [self._float(t) for t in g[1:]]
            match kind[0]:
                case "mul":
                    return x[0] * x[1]
                case "add":
                    return x[0] + x[1]
                case "sub":
                    return x[0] - x[1]
                case "max":
                    return torch.maximum(x[0], x[1])
                case "fma":
                    return (x[0].double() * x[1].double() + x[2].double()).float()
                case "div":
                    return x[0] / x[1]
                case "rcp":
                    return 1 / x[0]
                case "neg":
                    return -x[0]
                case "ex2":
                    return torch.exp2(x[0])
        n = [self._value(t) for t in g[1:]] if kind[0] != "cvt" else []
        match name:
            case "mov.b32" | "mov.u32" | "mov.b64":
                return n[0]
            case "cvt.rn.f32.s32":
                return self._value(g[1]).float()
            case "cvt.rn.f32.u32":
                return self._value(g[1], signed=False).float()
            case "cvt.rzi.s32.f32":
                return self._float(g[1]).trunc().to(torch.int64)
            case "and.b32":
                return n[0] & n[1]
            case "or.b32":
                return n[0] | n[1]
            case "shl.b32":
                return (n[0] & 0xFFFFFFFF) << n[1]
            case "shr.u32":
                return (n[0] & 0xFFFFFFFF) >> n[1]
            case "add.s32" | "add.s64":
                return n[0] + n[1]
            case "neg.s32":
                return -n[0]
            case "mul.lo.s32" | "mul.wide.s32":
                return n[0] * n[1]
            case "mad.lo.s32":
                return n[0] * n[1] + n[2]
            case "setp.lt.s32":
                return (n[0] < n[1]).long()
            case "setp.ne.b32":
                return (n[0] != n[1]).long()
        raise NotImplementedError(name)  # fmt: skip
