"""Device, precision and determinism of the computations of PyTorch."""

from __future__ import annotations

import ctypes
import os
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, cast

import torch

from makermark.foundation.errors import ParamsError

M_TRIM_THRESHOLD, M_MMAP_THRESHOLD = -1, -3  # malloc.h


def choose_device(name: str) -> torch.device:
    """Return the device `cpu`, `cuda` or `mps`, or for `auto` the fastest one that is available.

    Raises ParamsError for an unknown device, and for one that is not available.
    """
    is_available = {"cuda": torch.cuda.is_available(), "mps": torch.backends.mps.is_available(), "cpu": True}
    available = [device for device, present in is_available.items() if present]
    if name == "auto":
        return torch.device(available[0])
    if name not in is_available:
        raise ParamsError(f"unknown device {name!r}; it is one of {['auto', *is_available]}")
    if name not in available:
        raise ParamsError(
            f"device is {name!r}, which this machine does not have; it has {available} (or auto)"
        )
    return torch.device(name)


def choose_precision(name: str, device: torch.device) -> torch.dtype:
    """Return the dtype of matrix products for `float32`, `bfloat16` or `auto`.

    `auto` is bfloat16 on CUDA devices with native support and on processors with AVX512-BF16 or AMX, else float32.
    """
    if name == "auto":
        name = "bfloat16" if _multiplies_bfloat16(device) else "float32"
    return {"float32": torch.float32, "bfloat16": torch.bfloat16}[name]


def _multiplies_bfloat16(device: torch.device) -> bool:
    if device.type == "cuda":
        return bool(torch.cuda.is_bf16_supported(including_emulation=False))
    if device.type == "cpu":
        capabilities = torch.cpu.get_capabilities()
        return bool(capabilities.get("avx512_bf16") or capabilities.get("amx_bf16"))
    return False


def autocast(device: torch.device, precision: torch.dtype) -> torch.autocast:
    """Return the autocast context for `precision`; it is disabled for float32."""
    return torch.autocast(device.type, dtype=torch.bfloat16, enabled=precision == torch.bfloat16)


@contextmanager
def select_algorithms(*, deterministic: bool) -> Iterator[None]:
    """Select the algorithms of PyTorch inside the context; the previous selection is restored afterwards.

    - `deterministic`: bit-identical results on every run; PyTorch raises RuntimeError for an operation without such an
      algorithm. Otherwise cuDNN benchmarks the convolutions and uses the fastest algorithm.
    """
    cudnn, memory = torch.backends.cudnn, cast(Any, torch.utils.deterministic)
    before = (
        torch.are_deterministic_algorithms_enabled(),
        memory.fill_uninitialized_memory,
        cudnn.deterministic,
        cudnn.benchmark,
    )
    if deterministic:
        os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")  # cuBLAS reads it at its first use
    torch.use_deterministic_algorithms(deterministic)
    memory.fill_uninitialized_memory = False  # no code here reads uninitialised memory
    cudnn.deterministic, cudnn.benchmark = deterministic, not deterministic
    try:
        yield
    finally:
        torch.use_deterministic_algorithms(before[0])
        memory.fill_uninitialized_memory, cudnn.deterministic, cudnn.benchmark = before[1:]


def keep_freed_memory() -> None:
    """Make glibc keep freed memory in the process, for later tensors; other C libraries are left unchanged.

    By default glibc returns blocks of a few MB to the kernel, which clears them page by page for the next step: 5 % of
    a training step in float32 on a CPU (benchmarks/README.md). The process stays as large as its largest state.
    """
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None) if os.name == "posix" else None
    if mallopt is not None:
        mallopt(M_TRIM_THRESHOLD, 2**31 - 1)
        mallopt(M_MMAP_THRESHOLD, 2**25)  # the maximum of glibc; larger blocks still return to the kernel
