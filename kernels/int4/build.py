"""Compiles kernel.py to the cubin and PTX files that the package ships: `python -m fulgurite.kernels.int4.build`.

Needs the package nvidia-cutlass-dsl (CUTLASS's Python DSL), no GPU and no CUDA toolkit. built.json says from which
source the files were made, and what their kernels are called.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import sys
import tempfile
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from ...registry import UserError

FOLDER = Path(__file__).parent / "built"
RECORD = FOLDER / "built.json"
SOURCE = Path(__file__).with_name("kernel.py")
WIDTHS = (64, 128)
# sm_80's file holds for all of 8.x; on 9.0 the 4-bit products are taken apart into 8-bit ones by the compiler
SHIPPED = ("sm_80", "sm_90")
PTX_OF = "sm_80"  # what the driver compiles for GPUs after 9.0, and what tests interpret


def source_hash() -> str:
    """sha256 of kernel.py."""
    return hashlib.sha256(SOURCE.read_bytes()).hexdigest()


def file_name(arch: str, width: int, kind: str = "cubin") -> str:
    """A compiled file's name in `FOLDER`; its kind is `cubin` or `ptx`."""
    return f"attention_int4_d{width}.{arch}.{kind}"


def compile_one(arch: str, width: int) -> tuple[bytes, str]:
    """The kernel for an architecture, such as `sm_86`, and a head width: cubin and PTX.

    Raises:
        UserError: without the DSL.
    """
    if find_spec("cutlass") is None or find_spec("cutlass.cute") is None:
        raise UserError("nvidia-cutlass-dsl is not installed\nThe kernels themselves need it only to be compiled anew.")
    from cutlass import Float32, Int32, cute
    from cutlass.cute.runtime import make_ptr

    from . import kernel

    def pointer(kind: Any) -> Any:
        return make_ptr(kind, 16, cute.AddressSpace.gmem, assumed_align=16)

    kinds = [Int32] * 3 + [Float32] * 3 + [Int32] * 3 + [Float32]
    with tempfile.TemporaryDirectory() as scratch:
        made = cute.compile(
            kernel.program(), *map(pointer, kinds), Int32(1), Int32(1), width,
            options=f"--gpu-arch {arch} --keep-cubin --keep-ptx --dump-dir={scratch}",
        )  # fmt: skip
        return made.__cubin__, made.__ptx__


def kernel_name(ptx: str) -> str:
    """The kernel's name in compiled files."""
    (name,) = re.findall(r"\.entry (\w+)\(", ptx)
    return str(name)


def build() -> None:
    """Compile all, and write down from what.

    Raises:
        UserError: as `compile_one`.
    """
    FOLDER.mkdir(exist_ok=True)
    names = {}
    for arch in SHIPPED:
        for width in WIDTHS:
            cubin, ptx = compile_one(arch, width)
            made = {file_name(arch, width): cubin}
            if arch == PTX_OF:
                made[file_name(arch, width, "ptx")] = ptx.encode()
            for name, content in made.items():
                temporary = FOLDER / f".{name}.tmp"
                temporary.write_bytes(content)
                os.replace(temporary, FOLDER / name)
                names[name] = kernel_name(ptx)
                print(f"{name}: {len(content)} bytes")
    record = {"schema_version": 1, "source": source_hash(), "kernels": names}
    RECORD.write_text(json.dumps(record, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    try:
        build()
    except UserError as error:
        sys.exit(str(error))
