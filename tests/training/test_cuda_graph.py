"""A captured step computes what the eager step computes, and a step that is captured never synchronises."""

import re
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from memory_caches import memory_cache
from torch.utils._python_dispatch import TorchDispatchMode

from makermark.foundation.params import read_params
from makermark.models import backbones, losses
from makermark.models.backbones import BACKBONES
from makermark.models.losses import LOSSES
from makermark.training.crops import DeviceCrops
from makermark.training.cuda_graph import (
    FAILED_CAPTURES,
    CudaGraph,
    GraphedStep,
    root_cause,
)
from makermark.training.loop import ParamGroup, build_optimizer
from makermark.training.step import EagerStep, StepInputs, draw_inputs, take_step
from tests_support import LOG_MELS

CPU = torch.device("cpu")
PARAMS = read_params(Path(__file__).parents[2] / "params.yaml")
SYNCHRONISING = ("_local_scalar_dense", "nonzero", "_unique2", "unique_dim", "masked_select", "lift_fresh")


class FakeGraph:
    """Stands for a CUDA graph: stores the function, and calls it on every replay."""

    captures = 0

    def __init__(self, function):
        self._function = function
        FakeGraph.captures += 1

    def replay(self):
        return self._function()


class RefuseSynchronisation(TorchDispatchMode):
    """Fails on operations that make the host wait for a device."""

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        assert func.overloadpacket._qualified_op_name.removeprefix("aten::") not in SYNCHRONISING, func
        return func(*args, **(kwargs or {}))


SMALL_BACKBONE = {**LOG_MELS, "channels": 16, "pooling": "mean"}


def small_training(loss_name, *, backbone="", width=40, frames=30):
    """Return (step function, function that draws inputs, network) of a training with features on the device.

    Without the name of a backbone it is a small ECAPA.
    """
    torch.manual_seed(0)
    settings = PARAMS.settings("backbones", backbone) if backbone else SMALL_BACKBONE
    backbone = backbone or "ecapa"
    network = backbones.build(backbone, dim=8, width=width, encoder=None, **settings).train()
    loss = losses.build(loss_name, num_systems=4, dim=8, **PARAMS.losses[loss_name])
    groups = [*network.param_groups(1e-3), ParamGroup([*loss.parameters()], 1e-3)]
    optimizer = build_optimizer(groups, weight_decay=0.0, rate_on=CPU)
    for group in optimizer.param_groups:
        group["lr"].fill_(1e-3)
    cache = memory_cache(np.full(16, frames + 9), dtype=np.int16 if width == 1 else np.float16, width=width)
    crops = DeviceCrops(cache, np.arange(16), frames=frames, device=CPU)
    labels, rng = np.arange(16) % 4, np.random.default_rng(0)

    def function(inputs):
        return take_step(network, loss, optimizer, crops, inputs, device=CPU, precision=torch.float32)

    def draw(batch):
        return draw_inputs(crops, loss, np.asarray(batch), labels=labels, rng=rng)

    return function, draw, network


@pytest.mark.parametrize("loss", ["softmax", "ge2e", "refd"])
def test_graphed_steps_leave_the_weights_of_eager_steps(loss):
    small, large = [0, 1, 2, 4, 5, 6], [8, 9, 10, 11, 12, 13, 14, 15]
    batches = [small, large, small, large, small, small, large, small, large, large]
    weights, values = [], []
    for build in (
        lambda function: EagerStep(function, CPU),
        lambda function: GraphedStep(function, CPU, capture=FakeGraph),
    ):
        function, draw, network = small_training(loss)
        step = build(function)
        values.append([step(draw(batch)).item() for batch in batches])
        weights.append([*network.parameters(), *network.buffers()])
    assert values[0] == values[1]
    assert len(set(values[0])) == len(batches)
    assert all(torch.equal(first, second) for first, second in zip(*weights, strict=True))


def inputs_of(crops):
    return StepInputs((crops,), torch.zeros(1), None)


def test_graphed_step_captures_each_shape_once_after_warm_up():
    received, before = [], FakeGraph.captures
    step = GraphedStep(
        lambda inputs: received.append(inputs.crops[0].clone()) or inputs.crops[0].sum(),
        CPU,
        capture=FakeGraph,
    )
    for number in range(5):
        step(inputs_of(torch.full((2,), number)))
        assert FakeGraph.captures - before == (number >= GraphedStep.WARM_UP)
    step(inputs_of(torch.zeros(3)))
    assert FakeGraph.captures - before == 1
    assert [crops[0].item() for crops in received] == [
        0,
        1,
        2,
        3,
        4,
        0,
    ]  # every call is one step on its inputs


def test_graphed_step_runs_every_step_once_if_no_capture_succeeds(caplog):
    def refuse(function):
        raise RuntimeError("operation not permitted when stream is capturing")

    function, draw, network = small_training("ge2e")
    eager_function, eager_draw, eager_network = small_training("ge2e")
    step = GraphedStep(function, CPU, capture=refuse)
    for _ in range(6):
        eager = EagerStep(eager_function, CPU)(eager_draw(range(8)))
        assert step(draw(range(8))).item() == eager.item()
    pairs = zip(network.parameters(), eager_network.parameters(), strict=True)
    assert all(torch.equal(*pair) for pair in pairs)
    assert caplog.text.count("not permitted when stream is capturing") == 1


def test_graphed_step_drops_all_graphs_after_a_failed_capture(caplog):
    """Their random numbers would continue from the generator that the failure broke."""

    def fail_second_capture(function):
        if FakeGraph.captures > before:
            raise RuntimeError("operation failed due to a previous error during capture")
        return FakeGraph(function)

    small, large, before = [0, 1, 4, 5], [8, 9, 10, 12, 13, 14], FakeGraph.captures
    function, draw, network = small_training("ge2e")
    eager_function, eager_draw, eager_network = small_training("ge2e")
    step = GraphedStep(function, CPU, capture=fail_second_capture)
    for batch in [small] * 5 + [large] * 5 + [small] * 2:
        assert step(draw(batch)).item() == EagerStep(eager_function, CPU)(eager_draw(batch)).item()
    assert FakeGraph.captures == before + 1
    assert not step._graphs
    pairs = zip(network.parameters(), eager_network.parameters(), strict=True)
    assert all(torch.equal(*pair) for pair in pairs)
    assert len(caplog.records) == 1


def test_cuda_graph_resets_the_graph_and_the_generator_after_a_failed_capture(monkeypatch):
    calls = []

    @contextmanager
    def failing_capture(graph, *, stream, capture_error_mode):
        yield
        raise RuntimeError("operation failed due to a previous error during capture")

    generator = SimpleNamespace(
        clone_state=lambda: "clone", graphsafe_set_state=lambda state: calls.append(state)
    )
    graph = SimpleNamespace(reset=lambda: calls.append("reset"))
    replacements = {
        "CUDAGraph": lambda: graph,
        "graph": failing_capture,
        "current_stream": lambda: None,
        "current_device": lambda: 1,
        "default_generators": (None, generator),
    }
    for name, value in replacements.items():
        monkeypatch.setattr(torch.cuda, name, value)
    with pytest.raises(RuntimeError, match="previous error during capture"):
        CudaGraph(lambda: torch.zeros(()))
    assert calls == ["reset", "clone"]
    assert FAILED_CAPTURES.pop() is graph


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_cuda_graph_replays_a_step_and_survives_a_failed_capture():
    device = torch.device("cuda")
    value = torch.ones(4, device=device)
    step = GraphedStep(lambda inputs: (inputs.crops[0] * 2).sum(), device)
    for number in range(6):
        inputs = StepInputs((torch.full((4,), float(number)),), torch.zeros(1), None)
        assert step(inputs).item() == 8 * number
    assert len(step._graphs) == 1
    with torch.cuda.stream(torch.cuda.Stream()), pytest.raises(RuntimeError):
        CudaGraph(lambda: value.sum().item())
    assert torch.rand(3, device=device).shape == (3,)


def test_root_cause_is_the_first_line_of_the_first_error():
    first = RuntimeError("out of memory\nCompile with `TORCH_USE_CUDA_DSA`")
    last = RuntimeError("operation failed due to a previous error during capture")
    last.__context__ = first
    assert root_cause(last) == "out of memory"


def test_training_docs_name_the_backbones_that_are_captured():
    page = (Path(__file__).parents[2] / "docs" / "training.md").read_text()
    sentence = re.search(
        r"For ([^.]*?), the whole step [^.]*? is captured as a CUDA graph", page, flags=re.DOTALL
    )
    assert set(re.findall("`(.*?)`", sentence[1])) == {
        name for name, kind in BACKBONES.items() if kind.supports_cuda_graph
    }


@pytest.mark.parametrize("loss", LOSSES)
def test_step_does_not_synchronise_with_any_loss(loss):
    function, draw, _ = small_training(loss)
    for batch in (range(16), [0, 1, 2, 4, 5, 6, 8]):  # systems of equal and of unequal sizes
        inputs = draw(batch)
        with RefuseSynchronisation():
            function(inputs)


@pytest.mark.parametrize("name", [name for name, kind in BACKBONES.items() if kind.supports_cuda_graph])
def test_step_does_not_synchronise_with_any_capturable_backbone(name):
    waveform = BACKBONES[name].front_end == "waveform"
    function, draw, _ = small_training(
        "ge2e", backbone=name, width=1 if waveform else 40, frames=9000 if waveform else 30
    )
    inputs = draw([0, 1, 4, 5])
    with RefuseSynchronisation():
        function(inputs)


def test_refuse_synchronisation_notices_a_synchronising_operation():
    with pytest.raises(AssertionError, match="_local_scalar_dense"), RefuseSynchronisation():
        torch.ones(2).max().item()
