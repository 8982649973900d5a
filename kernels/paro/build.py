"""Compiles cuda/*.cu to the fatbin files that the package ships: `python -m fulgurite.kernels.paro.build`.

Needs nvcc 13.0 or later on the path (the wheels nvidia-cuda-nvcc, -crt, -nvvm, -runtime and -cccl hold it), no GPU.
cuda/built.json says from which sources the files were made.
"""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from shutil import which

from ...registry import UserError
from .driver import FOLDER

NAMES = ("prepass", "attention_int8", "attention_bf16", "units")
OPTIONS = ("-std=c++17", "-O3", "-gencode", "arch=compute_90a,code=sm_90a")
RECORD = FOLDER / "built.json"


def sources() -> Mapping[str, str]:
    """Names of all source files, and their sha256."""
    files = sorted([*FOLDER.glob("*.cu"), *FOLDER.glob("*.cuh")])
    return {file.name: hashlib.sha256(file.read_bytes()).hexdigest() for file in files}


def compile_one(name: str, out: Path, *more: str) -> str:
    """Compile a file to a fatbin, or with `-cubin` among `more` to a cubin; gives what the compiler said.

    Raises:
        UserError: without nvcc, or if the compiler refuses.
    """
    nvcc = which("nvcc")
    if nvcc is None:
        raise UserError(
            "nvcc is not on the path\nInstall CUDA's compiler 13.0 or later; the kernels themselves need none."
        )
    kind = () if "-cubin" in more else ("-fatbin", "-Xfatbin", "-compress-all")
    command = [nvcc, *OPTIONS, *kind, *more, str(FOLDER / f"{name}.cu"), "-o", str(out)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise UserError(f"nvcc refuses {name}.cu:\n" + "\n".join(done.stderr.strip().splitlines()[:4]))
    return done.stderr


def build() -> None:
    """Compile all, and write down from what.

    Raises:
        UserError: as `compile_one`.
    """
    for name in NAMES:
        temporary = FOLDER / f".{name}.tmp"
        said = compile_one(name, temporary, "-Xptxas", "-v")
        os.replace(temporary, FOLDER / f"{name}.fatbin")
        spills = [line.strip() for line in said.splitlines() if "spill" in line and " 0 bytes spill stores" not in line]
        print(f"{name}: {(FOLDER / f'{name}.fatbin').stat().st_size} bytes{', spills: ' + spills[0] if spills else ''}")
    RECORD.write_text(json.dumps({"schema_version": 1, "sources": dict(sources())}, indent=1) + "\n")


if __name__ == "__main__":
    try:
        build()
    except UserError as error:
        sys.exit(str(error))
