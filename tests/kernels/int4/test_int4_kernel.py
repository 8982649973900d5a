"""The 4-bit kernel: its operands' layout, its compiled code on a CPU, its compilation, and its numbers on a GPU."""

from __future__ import annotations

import json
import re
import subprocess
from pathlib import Path
from shutil import which

import pytest
import torch
from torch import Tensor

from fulgurite.kernels.api import attention, make_backend
from fulgurite.kernels.int4 import build
from fulgurite.kernels.int4.fragments import KEY_OF, to_key_fragments, to_query_fragments, to_value_fragments
from fulgurite.kernels.int4.native import int4_forward, operands, why_not
from fulgurite.kernels.paro.numerics import PRECISIONS, paro_attention
from fulgurite.kernels.paro.orders import inverse, reorder
from fulgurite.kernels.paro.plan import pack
from fulgurite.registry import UserError

from .ptx import LANE, product, run_block


@pytest.fixture(autouse=True)
def quiet() -> None:
    torch.set_num_threads(1)
    torch.manual_seed(0)


@pytest.mark.parametrize("width", [64, 128])
def test_fragments_hold_what_the_instruction_multiplies(width: int) -> None:
    """Scores and P V of one tile by 16 x 8 x 64 products of a warp's registers are those of whole matrices."""
    q, k, v = (torch.randint(-7, 8, (64, width), dtype=torch.int8) for _ in range(3))
    qf, kf, vf = to_query_fragments(q), to_key_fragments(k), to_value_fragments(v)
    assert (
        qf.shape == (4, width // 64, 4, 32) and kf.shape == (8, width // 64, 2, 32) and vf.shape == (width // 8, 2, 32)
    )
    assert {t.dtype for t in (qf, kf, vf)} == {torch.int32}
    zeros = [torch.zeros(32, dtype=torch.int64)] * 4
    wanted = q.long() @ k.long().T
    for warp in range(4):
        for eight in range(8):
            c = zeros
            for step in range(width // 64):
                c = product(False, list(qf[warp, step]), list(kf[eight, step]), c)
            for i in range(4):
                rows, columns = 16 * warp + LANE // 4 + 8 * (i // 2), 8 * eight + 2 * (LANE % 4) + i % 2
                assert torch.equal(c[i], wanted[rows, columns])
    assert sorted(KEY_OF) == list(range(64))


def case(size: int, width: int, batch: int = 1, heads: int = 2) -> tuple[list[Tensor], Tensor, Tensor]:
    """q, k, v, kept blocks (a row of one head keeps none) and orders."""
    tensors = [torch.randn(batch, heads, size, width) for _ in range(3)]
    tensors[1] += 2.0
    blocks = -(-size // 64)
    keep = torch.rand(1, heads, blocks, blocks) < 0.6
    keep[0, 0, 0] = False
    orders = torch.stack([torch.randperm(size) for _ in range(heads)])
    return tensors, keep, orders


def emulated(tensors: list[Tensor], keep: Tensor, orders: Tensor, key_mask: Tensor | None, scale: float) -> Tensor:
    ordered = [reorder(t, orders) for t in tensors]
    keys = None if key_mask is None else key_mask[:, orders].unsqueeze(2)
    out = paro_attention(*ordered, keep, key_mask_B11M=keys, scale=scale, precision=PRECISIONS["int4"])
    return reorder(out, inverse(orders))


@pytest.mark.parametrize(("size", "width", "padded"), [(64 + 48, 64, True), (64 + 16, 128, False)])
def test_the_compiled_code_run_on_a_cpu_is_the_emulation(size: int, width: int, padded: bool) -> None:
    """The shipped PTX, instruction by instruction, over whole thread blocks."""
    ptx = (build.FOLDER / build.file_name(build.PTX_OF, width, "ptx")).read_text()
    tensors, keep, orders = case(size, width)
    key_mask = torch.arange(size)[None] < size - 9 if padded else None
    given, blocks = operands(*tensors, pack(keep), orders, key_mask, 0.1)
    out = torch.full((2, blocks * 64, width), float("nan"))
    for head in range(2):
        for row in range(blocks):
            run_block(ptx, [*given, out], [blocks], (row, head))
    found = reorder(out[:, :size].view(1, 2, size, width), inverse(orders))
    wanted = emulated(tensors, keep, orders, key_mask, 0.1)
    assert (found - wanted).norm() / wanted.norm() < 0.005  # ties in rounding
    assert torch.equal(found[0, 0, orders[0, :64]], torch.zeros(64, width))  # the row that keeps no block


def test_the_shipped_files_are_those_of_the_source() -> None:
    record = json.loads(build.RECORD.read_text())
    assert record["source"] == build.source_hash(), "python -m fulgurite.kernels.int4.build"
    for arch in build.SHIPPED:
        for width in build.WIDTHS:
            name = build.file_name(arch, width)
            assert (build.FOLDER / name).read_bytes().startswith(b"\x7fELF")
            assert record["kernels"][name].encode() in (build.FOLDER / name).read_bytes()
    assert {path.name for path in build.FOLDER.iterdir()} == {*record["kernels"], build.RECORD.name}


@pytest.mark.parametrize("arch", ["sm_80", "sm_86", "sm_89"])
def test_it_compiles_to_4_bit_products_without_a_gpu(arch: str, tmp_path: Path) -> None:
    pytest.importorskip("cutlass.cute", reason="needs the package nvidia-cutlass-dsl")
    cubin, ptx = build.compile_one(arch, 64)
    assert re.search(rf"\.target {arch}", ptx)
    assert ptx.count("mma.sync.aligned.m16n8k64.row.col.satfinite.s32.s4.s4.s32") == 16
    assert ptx.count("mma.sync.aligned.m16n8k64.row.col.satfinite.s32.u4.s4.s32") == 8
    if which("nvdisasm"):
        (tmp_path / "made.cubin").write_bytes(cubin)
        sass = subprocess.run(["nvdisasm", tmp_path / "made.cubin"], capture_output=True, text=True, check=True).stdout
        assert sass.count("IMMA.16864.S4.S4") == 16 and sass.count("IMMA.16864.U4.S4") == 8
        assert "STL" not in sass  # nothing spills


def test_without_the_dsl_the_build_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(build, "find_spec", lambda name: None)
    with pytest.raises(UserError, match="nvidia-cutlass-dsl is not installed"):
        build.compile_one("sm_80", 64)


def test_why_not_on_a_cpu() -> None:
    assert why_not(torch.device("cpu"), 64) == "runs on CUDA, not on cpu"


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs CUDA")
@pytest.mark.parametrize("width", [64, 128])
@pytest.mark.parametrize("size", [64, 64 * 5 + 48, 64 * 3 + 16])
def test_its_numbers_on_a_gpu_are_the_emulation_s(size: int, width: int) -> None:
    assert why_not(torch.device("cuda"), width) == ""
    tensors, keep, orders = case(size, width, batch=2, heads=3)
    key_mask = torch.arange(size)[None] < torch.tensor([[size], [size - 9]])
    arguments = [*tensors, pack(keep), orders, key_mask]
    found = int4_forward(*(t.cuda() for t in arguments), 0.1)
    wanted = emulated(tensors, keep, orders, key_mask, 0.1)
    assert (found.cpu() - wanted).norm() / wanted.norm() < 0.01
    assert torch.equal(found, int4_forward(*(t.cuda() for t in arguments), 0.1))


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs CUDA")
def test_where_a_gpu_has_the_units_the_backend_takes_the_kernel(monkeypatch: pytest.MonkeyPatch) -> None:
    from fulgurite.kernels.bench.random_plan import random_plan
    from fulgurite.kernels.paro import backend as paro_backend
    from fulgurite.kernels.paro.orders import Layout

    plan = random_plan(Layout((3, 8, 12), 7, "suffix"), 2, 3, 0.7)
    q, k, v = (torch.randn(1, 3, plan.meta.layout.num_tokens, 64, device="cuda") for _ in range(3))
    made = []
    for units in (False, True):
        monkeypatch.setattr(paro_backend, "has_units", lambda *call, units=units: units)
        backend = make_backend("int4", plan=plan)
        backend.place.layer = 1
        made.append(attention(q, k, v, backend=backend))
    assert not torch.equal(*made)
    assert (made[1] - made[0]).norm() / made[0].norm() < 0.01
    compiled = torch.compile(lambda *t: attention(*t, backend=backend), fullgraph=True)
    torch.testing.assert_close(compiled(q, k, v), made[1])
