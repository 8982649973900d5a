"""Compiled CUDA kernels (fatbin files) loaded and launched through the CUDA driver, without a toolchain.

PyTorch owns the context and the memory; kernels run in its current stream. Only libcuda is called, by ctypes.
"""

from __future__ import annotations

import ctypes
from functools import cache
from pathlib import Path

import torch

FOLDER = Path(__file__).parent / "cuda"
_MAX_DYNAMIC_SHARED = 8  # CU_FUNC_ATTRIBUTE_MAX_DYNAMIC_SHARED_SIZE_BYTES
_PREFERRED_CARVEOUT = 9


class CudaError(RuntimeError):
    """The driver refused a call."""


@cache
def _libcuda() -> ctypes.CDLL:
    return ctypes.CDLL("libcuda.so.1")


def _call(name: str, *arguments: object) -> None:
    code = getattr(_libcuda(), name)(*arguments)
    if code:
        text = ctypes.c_char_p()
        _libcuda().cuGetErrorString(code, ctypes.byref(text))
        raise CudaError(f"{name}: {(text.value or b'unknown error').decode()} ({code})")


@cache
def _module(file: str, device: int) -> ctypes.c_void_p:
    module = ctypes.c_void_p()
    with torch.cuda.device(device):
        torch.cuda.current_stream().synchronize()  # makes the context current
        _call("cuModuleLoadData", ctypes.byref(module), (FOLDER / file).read_bytes())
    return module


@cache
def why_not_loaded(file: str, device: int) -> str:
    """Why the driver can't load a compiled file, such as one older than the compiler; empty if it can."""
    try:
        _module(file, device)
    except (CudaError, OSError) as error:
        return f"{file}, {error}"
    return ""


@cache
def kernel(file: str, name: str, shared_bytes: int, device: int) -> ctypes.c_void_p:
    """A kernel of a compiled file, with room for that much dynamic shared memory.

    Raises:
        CudaError: if the driver can't load the file, or it holds no such kernel.
    """
    function = ctypes.c_void_p()
    _call("cuModuleGetFunction", ctypes.byref(function), _module(file, device), name.encode())
    if shared_bytes:
        _call("cuFuncSetAttribute", function, _MAX_DYNAMIC_SHARED, shared_bytes)
        _call("cuFuncSetAttribute", function, _PREFERRED_CARVEOUT, 100)  # per cent of the on-chip memory
    return function


def launch(
    function: ctypes.c_void_p,
    grid: tuple[int, int, int],
    threads: int,
    shared_bytes: int,
    *arguments: ctypes._SimpleCData | ctypes.Structure,
) -> None:
    """Run a kernel in PyTorch's current stream.

    Raises:
        CudaError: if the driver refuses the launch.
    """
    pointers = (ctypes.c_void_p * len(arguments))(*(ctypes.addressof(a) for a in arguments))
    stream = ctypes.c_void_p(torch.cuda.current_stream().cuda_stream)
    _call("cuLaunchKernel", function, *grid, threads, 1, 1, shared_bytes, stream, pointers, None)
