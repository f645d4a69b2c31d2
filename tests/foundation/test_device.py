"""Which processor is chosen, and what is said of one that is not there."""

import os
import platform
import subprocess
import sys
from types import SimpleNamespace

import pytest
import torch

from makermark.foundation.device import choose_device, choose_precision, select_algorithms
from makermark.foundation.errors import ParamsError


def test_an_unknown_device_is_answered_with_the_choices():
    with pytest.raises(
        ParamsError, match=r"unknown device 'gpu'; it is one of \['auto', 'cuda', 'mps', 'cpu'\]"
    ):
        choose_device("gpu")


def test_a_device_that_is_not_there_is_answered_with_those_that_are(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(ParamsError, match=r"'cuda', which this machine does not have; it has \[.*'cpu'\]"):
        choose_device("cuda")
    assert choose_device("cpu") == torch.device("cpu")


@pytest.mark.parametrize(("major", "precision"), [(7, torch.float32), (8, torch.bfloat16)])
def test_auto_takes_bfloat16_where_a_gpu_multiplies_it_and_not_where_it_is_emulated(
    major, precision, monkeypatch
):
    for name, value in {
        "is_available": lambda: True,
        "current_device": lambda: 0,
        "get_device_properties": lambda device: SimpleNamespace(major=major),
        "_check_bf16_tensor_supported": lambda device: True,
    }.items():
        monkeypatch.setattr(torch.cuda, name, value)
    assert choose_precision("auto", torch.device("cuda")) == precision
    assert choose_precision("float32", torch.device("cuda")) == torch.float32


@pytest.mark.parametrize("deterministic", [True, False])
def test_algorithms_are_chosen_inside_and_as_before_outside(deterministic, monkeypatch):
    monkeypatch.delenv("CUBLAS_WORKSPACE_CONFIG", raising=False)
    before = torch.are_deterministic_algorithms_enabled(), torch.backends.cudnn.benchmark
    with select_algorithms(deterministic=deterministic):
        assert torch.are_deterministic_algorithms_enabled() == deterministic
        assert torch.backends.cudnn.deterministic == deterministic
        assert torch.backends.cudnn.benchmark == (not deterministic)
        assert ("CUBLAS_WORKSPACE_CONFIG" in os.environ) == deterministic
    assert (torch.are_deterministic_algorithms_enabled(), torch.backends.cudnn.benchmark) == before


FREE_AND_TAKE = """
import ctypes, resource
from makermark.foundation.device import keep_freed_memory
if {keep}:
    keep_freed_memory()
c, size = ctypes.CDLL(None), 20_000_000
c.malloc.restype, c.malloc.argtypes = ctypes.c_void_p, [ctypes.c_size_t]
c.memset.argtypes, c.free.argtypes = [ctypes.c_void_p, ctypes.c_int, ctypes.c_size_t], [ctypes.c_void_p]
for turn in range(4):
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    held = [c.malloc(size) for _ in range(10)]  # of 4,883 pages each
    for block in held:
        c.memset(block, 1, size)
    for block in held:
        c.free(block)
print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="what it asks for is glibc's")
def test_freed_memory_is_taken_again_without_the_kernel():
    faults = {}
    for keep in (False, True):
        command = [sys.executable, "-c", FREE_AND_TAKE.format(keep=keep)]
        faults[keep] = int(subprocess.run(command, check=True, capture_output=True, text=True).stdout)
    assert faults[True] < 100
    assert faults[False] > 40_000
