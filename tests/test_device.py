"""Which processor is chosen, and what is said of one that is not there."""

import os
from types import SimpleNamespace

import pytest
import torch

from makermark.device import algorithms, choose_device, choose_precision
from makermark.errors import ParamsError


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
    with algorithms(deterministic=deterministic):
        assert torch.are_deterministic_algorithms_enabled() == deterministic
        assert torch.backends.cudnn.deterministic == deterministic
        assert torch.backends.cudnn.benchmark == (not deterministic)
        assert ("CUBLAS_WORKSPACE_CONFIG" in os.environ) == deterministic
    assert (torch.are_deterministic_algorithms_enabled(), torch.backends.cudnn.benchmark) == before
