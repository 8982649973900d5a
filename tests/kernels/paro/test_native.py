"""The compiled kernels without a GPU: who is chosen and why, that files are those of the sources, that all compiles."""

from __future__ import annotations

import ctypes
import json
import re
import subprocess
from pathlib import Path
from shutil import which

import pytest
import torch

from fulgurite.kernels.paro import build, driver, native, portable
from fulgurite.kernels.paro.driver import FOLDER
from fulgurite.kernels.paro.op import kernels_for
from fulgurite.registry import UserError

GPU = torch.device("cuda", 0)
OTHER_CHIP = "needs compute capability"
SHARED_OF_A_BLOCK = 227 * 1024  # compute capability 9.0
REGISTERS_OF_A_MULTIPROCESSOR = 65536


def pretend(monkeypatch, capability: tuple[int, int], triton: bool = True) -> None:
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device=None: capability)
    monkeypatch.setattr(portable, "find_spec", lambda name: object() if triton else None)
    monkeypatch.setattr(native, "why_not_loaded", lambda file, device: "")


@pytest.mark.parametrize("capability,triton,dtype,width,chosen,reason", [
    ((9, 0), True, torch.bfloat16, 64, "hopper", ""),
    ((9, 0), False, torch.float16, 128, "hopper", ""),
    ((9, 0), True, torch.float32, 64, "triton", "the Hopper kernel takes bfloat16 and float16, not float32"),
    ((9, 0), True, torch.bfloat16, 32, "triton", "the Hopper kernel takes heads of 64 or 128 channels, not 32"),
    ((10, 0), True, torch.bfloat16, 64, "triton", f"the Hopper kernel {OTHER_CHIP} 9.0, and this GPU has 10.0"),
    ((8, 0), False, torch.bfloat16, 64, "", "the Triton kernel needs the package triton, which is not installed"),
    ((7, 5), True, torch.float16, 64, "", f"the Triton kernel {OTHER_CHIP} 8.0 or more, and this GPU has 7.5"),
    ((8, 0), True, torch.bfloat16, 80, "", "the Triton kernel takes heads of 32, 64 or 128 channels, not 80"),
    ((8, 0), True, torch.float64, 64, "", "the Triton kernel takes bfloat16, float16 and float32, not float64"),
])  # fmt: skip
def test_which_kernels_compute_a_call(monkeypatch, capability, triton, dtype, width, chosen, reason) -> None:
    pretend(monkeypatch, capability, triton)
    assert kernels_for(GPU, dtype, width) == (chosen, reason)


def test_no_kernels_on_a_cpu_or_without_the_files(monkeypatch, tmp_path) -> None:
    assert kernels_for(torch.device("cpu"), torch.bfloat16, 64) == ("", "the Triton kernel runs on CUDA, not on cpu")
    pretend(monkeypatch, (9, 0))
    monkeypatch.setattr(native, "FOLDER", tmp_path)
    assert "is not compiled in this installation (prepass.fatbin, " in native.why_not(GPU, torch.bfloat16, 64)


def test_a_driver_that_cannot_load_the_files_leaves_the_call_to_triton(monkeypatch) -> None:
    pretend(monkeypatch, (9, 0))
    monkeypatch.setattr(native, "why_not_loaded", driver.why_not_loaded)

    def refuse(file: str, device: int) -> None:
        raise driver.CudaError("cuModuleLoadData: device kernel image is invalid (200)")

    monkeypatch.setattr(driver, "_module", refuse)
    driver.why_not_loaded.cache_clear()
    try:
        chosen, reason = kernels_for(GPU, torch.bfloat16, 64)
    finally:
        driver.why_not_loaded.cache_clear()
    assert chosen == "triton" and "does not load: prepass.fatbin, cuModuleLoadData" in reason


@pytest.mark.parametrize("start,copied", [(0, False), (8, False), (3, True)])
def test_rows_that_do_not_start_at_16_bytes_are_copied(start, copied) -> None:
    x = torch.arange(1 * 2 * 4 * 64 + 8, dtype=torch.bfloat16)[start : start + 512].view(1, 2, 4, 64)
    made = native._rows_at_16_bytes(x)
    assert made.data_ptr() % 16 == 0 and torch.equal(made, x)
    assert (made.data_ptr() != x.data_ptr()) == copied


def test_the_shipped_files_were_made_from_these_sources() -> None:
    assert json.loads(build.RECORD.read_text())["sources"] == build.sources(), "python -m fulgurite.kernels.paro.build"
    assert all((FOLDER / f"{name}.fatbin").is_file() for name in build.NAMES)


@pytest.mark.parametrize("structure,file", [
    (native.Arguments, "walk.cuh"), (native.PrepassArguments, "prepass.cuh"), (native.Source, "prepass.cuh"),
])  # fmt: skip
def test_arguments_have_the_same_fields_in_c_and_here(structure, file) -> None:
    text = re.sub(r"//.*", "", (FOLDER / file).read_text())
    body = re.search(rf"struct {structure.__name__} {{(.*?)}};", text, re.DOTALL)
    assert body is not None
    fields = []
    for line in filter(None, (part.strip() for part in body[1].split(";"))):
        kind, names = re.fullmatch(r"(?:const )?(\w+)\s*(.*)", line, re.DOTALL).groups()
        for name in names.split(","):
            pointer = "*" in name or line.split(name.strip())[0].rstrip().endswith("*")
            size = 8 if pointer else {"int64_t": 8, "int": 4, "float": 4, "Source": ctypes.sizeof(native.Source)}[kind]
            fields.append((name.strip(" *"), size))
    assert fields == [(name, ctypes.sizeof(kind)) for name, kind in structure._fields_]


@pytest.mark.parametrize("variant", [
    *native.VARIANTS.values(), *native.CONTROLS.values(),
], ids=lambda v: v.name)  # fmt: skip
def test_each_variant_is_compiled_and_fits_a_multiprocessor(variant) -> None:
    assert variant.shared_bytes <= SHARED_OF_A_BLOCK
    compiled = (FOLDER / f"attention_{variant.numbers}.cu").read_text()
    form = f"{variant.slots}, {variant.groups}"
    blocks = f"{variant.blocks}, " if variant.numbers == "int8" else ""
    assert f"VARIANT({variant.width}, {blocks}{form}" in compiled


@pytest.mark.parametrize("groups", [2, 3])
def test_warpgroups_share_out_the_registers_of_a_multiprocessor(groups) -> None:
    """`setmaxnreg` waits for ever for registers that the thread block was not given at its launch."""
    text = (FOLDER / "stream.cuh").read_text()
    given = [re.search(kind + r"_REGISTERS\[\] = {0, 0, (\d+), (\d+)}", text) for kind in ("LOAD", "COMPUTE")]
    load, compute = (int(found[groups - 1]) for found in given if found)
    at_launch = REGISTERS_OF_A_MULTIPROCESSOR // (128 * (groups + 1)) // 8 * 8
    assert load + groups * compute <= at_launch * (groups + 1)


@pytest.mark.parametrize("name", build.NAMES)
def test_the_sources_compile_without_spills_or_serialised_products(name, tmp_path: Path) -> None:
    if which("nvcc") is None:
        pytest.skip("needs CUDA's compiler, nvcc")
    said = build.compile_one(name, tmp_path / "made", "-cubin", "-Xptxas", "-v")
    assert not re.search(r"C75(?!19)", said), said  # ptxas: wgmma instructions are serialised; 19: a fence was missing
    assert set(re.findall(r"(\d+) bytes spill", said)) == {"0"}
    if which("nvdisasm"):
        sass = subprocess.run(["nvdisasm", "-c", tmp_path / "made"], capture_output=True, text=True, check=True).stdout
        wanted = {
            "attention_int8": "IGMMA.64x128x32.U8.S8",
            "attention_bf16": "HGMMA",
            "prepass": "STG",
            "units": "IGMMA",
        }
        assert wanted[name] in sass


def test_without_a_compiler_the_build_says_so(monkeypatch, tmp_path) -> None:
    monkeypatch.setattr(build, "which", lambda name: None)
    with pytest.raises(UserError, match="nvcc is not on the path"):
        build.compile_one("prepass", tmp_path / "made")


@pytest.mark.parametrize("capability", [80, 90])
def test_the_triton_kernel_compiles_without_a_gpu(capability) -> None:
    triton = pytest.importorskip("triton", reason="needs the package triton")
    from triton.backends.compiler import GPUTarget
    from triton.compiler import ASTSource

    attend = portable._kernel()
    pointers = dict(q="i8", k="i8", v="fp16", q_step="fp32", k_step="fp32", v_step="fp32", seen="i8", count="i32",
                    column="i32", out="fp32")  # fmt: skip
    signature = {f"{name}_ptr": f"*{kind}" for name, kind in pointers.items()}
    signature |= dict.fromkeys(("size", "heads", "blocks", "mask_batches", "mask_heads"), "i32")
    signature |= dict.fromkeys(("D", "BLOCK"), "constexpr")
    source = ASTSource(attend, signature=signature, constexprs={"D": 64, "BLOCK": 64})
    made = triton.compile(source, target=GPUTarget("cuda", capability, 32), options={"num_warps": 4, "num_stages": 2})
    assert ("wgmma" if capability == 90 else "mma.sync.aligned.m16n8k32") in made.asm["ptx"]
