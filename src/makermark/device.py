"""Which processor computes, and in which precision."""

from __future__ import annotations

import ctypes
import os
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, cast

import torch

from makermark.errors import ParamsError

M_TRIM_THRESHOLD, M_MMAP_THRESHOLD = -1, -3  # malloc.h


def choose_device(wish: str) -> torch.device:
    """`cpu`, `cuda` or `mps` as wished, or with `auto` the fastest that is there.

    Raises ParamsError for an unknown device, and where the wished one is absent.
    """
    there = {"cuda": torch.cuda.is_available(), "mps": torch.backends.mps.is_available(), "cpu": True}
    if wish == "auto":
        return torch.device(next(name for name, present in there.items() if present))
    if wish not in there:
        raise ParamsError(f"unknown device {wish!r}; it is one of {['auto', *there]}")
    if not there[wish]:
        present = [name for name in there if there[name]]
        raise ParamsError(f"device is {wish!r}, which this machine does not have; it has {present} (or auto)")
    return torch.device(wish)


def choose_precision(wish: str, device: torch.device) -> torch.dtype:
    """The dtype of matrix products: `float32`, `bfloat16`, or with `auto` the fastest that is safe.

    `auto` is bfloat16 on CUDA devices that have it and on processors with AVX512-BF16 or AMX.
    """
    if wish == "auto":
        wish = "bfloat16" if _multiplies_bfloat16(device) else "float32"
    return {"float32": torch.float32, "bfloat16": torch.bfloat16}[wish]


def _multiplies_bfloat16(device: torch.device) -> bool:
    if device.type == "cuda":
        return bool(torch.cuda.is_bf16_supported(including_emulation=False))
    if device.type == "cpu":
        able = torch.cpu.get_capabilities()
        return bool(able.get("avx512_bf16") or able.get("amx_bf16"))
    return False


def autocast(device: torch.device, precision: torch.dtype) -> torch.autocast:
    """The autocast context for `precision`; float32 switches it off."""
    return torch.autocast(device.type, dtype=torch.bfloat16, enabled=precision == torch.bfloat16)


@contextmanager
def algorithms(*, deterministic: bool) -> Iterator[None]:
    """Inside, torch takes only algorithms that give the same bits every time, and refuses what has none; without
    `deterministic` CUDA convolutions take the fastest, found by trying."""
    cudnn, filling = torch.backends.cudnn, cast(Any, torch.utils.deterministic)
    before = (
        torch.are_deterministic_algorithms_enabled(),
        filling.fill_uninitialized_memory,
        cudnn.deterministic,
        cudnn.benchmark,
    )
    if deterministic:
        os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")  # read when CUDA first multiplies
    torch.use_deterministic_algorithms(deterministic)
    filling.fill_uninitialized_memory = False  # nothing here reads what was not written
    cudnn.deterministic, cudnn.benchmark = deterministic, not deterministic
    try:
        yield
    finally:
        torch.use_deterministic_algorithms(before[0])
        filling.fill_uninitialized_memory, cudnn.deterministic, cudnn.benchmark = before[1:]


def keep_freed_memory() -> None:
    """From here on, what this process frees stays its own, for the next tensors, where the C library is glibc.

    Else glibc gives blocks of a few MB back to the kernel, which clears them, page by page, for the next step: 5 % of a
    training step in float32 on a processor (benchmarks/README.md). The process stays as large as it once was.
    """
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None) if os.name == "posix" else None
    if mallopt is not None:
        mallopt(M_TRIM_THRESHOLD, 2**31 - 1)
        mallopt(
            M_MMAP_THRESHOLD, 2**25
        )  # the most that glibc takes; larger blocks go back to the kernel still
