"""A recorded step does what the written one does, and a step that is recorded never waits for the device."""

import re
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from made_caches import cache_of
from torch.utils._python_dispatch import TorchDispatchMode

from makermark import backbones, losses
from makermark.backbones import BACKBONES
from makermark.losses import LOSSES
from makermark.params import read_params
from makermark.training.crops import DeviceCrops
from makermark.training.loop import Learners, build_optimizer, draw, take_step
from makermark.training.stepping import BROKEN, Captured, CudaGraph, Eager, first_cause

CPU = torch.device("cpu")
PARAMS = read_params(Path(__file__).parents[2] / "params.yaml")
WAITS = ("_local_scalar_dense", "nonzero", "_unique2", "unique_dim", "masked_select", "lift_fresh")


class Unrecorded:
    """Stands for a CUDA graph: keeps the work, and does it on every replay."""

    made = 0

    def __init__(self, work):
        self._work = work
        Unrecorded.made += 1

    def replay(self):
        return self._work()


class NoWaiting(TorchDispatchMode):
    """Refuses what would have the host wait for a device."""

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        assert func.overloadpacket._qualified_op_name.removeprefix("aten::") not in WAITS, func
        return func(*args, **(kwargs or {}))


def training(loss_name, *, backbone="resnet34", width=40, frames=30):
    """(work, draw a batch, network) of a small training with features on the device."""
    torch.manual_seed(0)
    settings = {"pooling": "mean"} if backbone == "resnet34" else PARAMS.settings("backbones", backbone)
    net = backbones.build(backbone, dim=8, width=width, encoder=None, **settings).train()
    loss = losses.build(loss_name, num_systems=4, dim=8, **PARAMS.losses[loss_name])
    learners = [*net.learners(1e-3), Learners([*loss.parameters()], 1e-3)]
    optimizer = build_optimizer(learners, weight_decay=0.0, rate_on=CPU)
    for group in optimizer.param_groups:
        group["lr"].fill_(1e-3)
    cache = cache_of(np.full(16, frames + 9), dtype=np.int16 if width == 1 else np.float16, width=width)
    crops = DeviceCrops(cache, np.arange(16), frames=frames, device=CPU)
    labels, rng = np.arange(16) % 4, np.random.default_rng(0)

    def work(parts):
        return take_step(net, loss, optimizer, crops, parts, device=CPU, precision=torch.float32)

    return work, lambda batch: draw(crops, loss, np.asarray(batch), labels=labels, rng=rng), net


@pytest.mark.parametrize("loss", ["softmax", "ge2e", "refd"])
def test_recorded_steps_leave_the_weights_of_written_ones(loss):
    even, odd = [0, 1, 2, 4, 5, 6], [8, 9, 10, 11, 12, 13, 14, 15]  # batches of two sizes
    batches = [even, odd, even, odd, even, even, odd, even, odd, odd]
    ends, values = [], []
    for kind in (lambda work: Eager(work, CPU), lambda work: Captured(work, CPU, record=Unrecorded)):
        work, drawn, net = training(loss)
        step = kind(work)
        values.append([step(drawn(batch)).item() for batch in batches])
        ends.append([*net.parameters(), *net.buffers()])
    assert values[0] == values[1]
    assert len(set(values[0])) == len(batches)
    assert all(torch.equal(first, second) for first, second in zip(*ends, strict=True))


def test_a_recording_is_made_once_for_each_shape_after_warming_up():
    seen, before = [], Unrecorded.made
    step = Captured(
        lambda parts: seen.append(parts[0][0].clone()) or parts[0][0].sum(), CPU, record=Unrecorded
    )
    for number in range(5):
        step(((torch.full((2,), number),),))
        assert Unrecorded.made - before == (number >= Captured.WARM_UP)
    step(((torch.zeros(3),),))
    assert Unrecorded.made - before == 1
    assert [s[0].item() for s in seen] == [0, 1, 2, 3, 4, 0]  # each call is one step, on what it was given


def test_where_no_recording_can_be_made_every_step_still_runs_once(caplog):
    def refuse(work):
        raise RuntimeError("operation not permitted when stream is capturing")

    work, drawn, net = training("ge2e")
    plain, drawn_plainly, plain_net = training("ge2e")
    step = Captured(work, CPU, record=refuse)
    for _ in range(6):
        assert step(drawn(range(8))).item() == Eager(plain, CPU)(drawn_plainly(range(8))).item()
    assert all(torch.equal(*both) for both in zip(net.parameters(), plain_net.parameters(), strict=True))
    assert caplog.text.count("not permitted when stream is capturing") == 1


def test_a_recording_that_fails_takes_the_others_with_it(caplog):
    """Their chance would go on from the generator that it broke."""

    def twice(work):
        if Unrecorded.made > before:
            raise RuntimeError("operation failed due to a previous error during capture")
        return Unrecorded(work)

    even, odd, before = [0, 1, 4, 5], [8, 9, 10, 12, 13, 14], Unrecorded.made
    work, drawn, net = training("ge2e")
    plain, drawn_plainly, plain_net = training("ge2e")
    step = Captured(work, CPU, record=twice)
    for batch in [even] * 5 + [odd] * 5 + [even] * 2:
        assert step(drawn(batch)).item() == Eager(plain, CPU)(drawn_plainly(batch)).item()
    assert Unrecorded.made == before + 1
    assert not step._recordings
    assert all(torch.equal(*both) for both in zip(net.parameters(), plain_net.parameters(), strict=True))
    assert len(caplog.records) == 1


@pytest.mark.parametrize("ended", [True, False])
def test_what_a_refused_recording_leaves_in_torch_is_cleared_away(monkeypatch, ended):
    """Of CUDA only what torch is asked for; torch 2.11 does not end its allocations itself (ended False)."""
    asked = []

    @contextmanager
    def refused(graph, *, pool, stream, capture_error_mode):
        yield
        raise RuntimeError("operation failed due to a previous error during capture")

    def end(device, pool):
        asked.append(("end", device, pool))
        if ended:
            raise RuntimeError("endAllocatePool: not currently recording to mempool_id")

    def release(device, pool):
        asked.append(("release", device, pool))

    generator = SimpleNamespace(
        clone_state=lambda: "clone", graphsafe_set_state=lambda state: asked.append(state)
    )
    graph = SimpleNamespace(reset=lambda: asked.append("reset"))
    for name, value in {
        "CUDAGraph": lambda: graph,
        "graph": refused,
        "graph_pool_handle": lambda: (0, 7),
        "current_stream": lambda: None,
        "current_device": lambda: 1,
        "default_generators": (None, generator),
    }.items():
        monkeypatch.setattr(torch.cuda, name, value)
    monkeypatch.setattr(torch._C, "_cuda_endAllocateToPool", end, raising=False)
    monkeypatch.setattr(torch._C, "_cuda_releasePool", release, raising=False)
    with pytest.raises(RuntimeError, match="previous error during capture"):
        CudaGraph(lambda: torch.zeros(()))
    assert asked == [("end", 1, (0, 7)), *([] if ended else [("release", 1, (0, 7))]), "reset", "clone"]
    assert BROKEN.pop() is graph


def test_what_went_wrong_first_is_told_in_a_line():
    first = RuntimeError("out of memory\nCompile with `TORCH_USE_CUDA_DSA`")
    ended = RuntimeError("operation failed due to a previous error during capture")
    ended.__context__ = first
    assert first_cause(ended) == "out of memory"


def test_the_networks_that_the_docs_name_are_recorded():
    page = (Path(__file__).parents[2] / "docs" / "training.md").read_text()
    named = re.search(r"recorded as a CUDA graph.*? for (.*?)\.", page, flags=re.DOTALL)
    assert set(re.findall("`(.*?)`", named[1])) == {
        name for name, kind in BACKBONES.items() if kind.capturable
    }


@pytest.mark.parametrize("loss", LOSSES)
def test_no_loss_makes_a_step_wait(loss):
    work, drawn, _ = training(loss)
    for batch in (range(16), [0, 1, 2, 4, 5, 6, 8]):  # systems of one size, and not
        parts = drawn(batch)
        with NoWaiting():
            work(parts)


@pytest.mark.parametrize("name", [name for name, kind in BACKBONES.items() if kind.capturable])
def test_no_capturable_backbone_makes_a_step_wait(name):
    waveform = BACKBONES[name].front_end == "waveform"
    work, drawn, _ = training(
        "ge2e", backbone=name, width=1 if waveform else 40, frames=9000 if waveform else 30
    )
    parts = drawn([0, 1, 4, 5])
    with NoWaiting():
        work(parts)


def test_waiting_is_noticed():
    with pytest.raises(AssertionError, match="_local_scalar_dense"), NoWaiting():
        torch.ones(2).max().item()
