"""How a training step runs: as it is written, or recorded once as a CUDA graph and replayed.

A step of a small network is some thousand kernels of a few microseconds; launched one by one they leave an
accelerator waiting. A graph launches them together.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from contextlib import suppress
from typing import Protocol

import torch
from torch import Tensor

log = logging.getLogger(__name__)

Parts = tuple[tuple[Tensor, ...], ...]
Work = Callable[[Parts], Tensor]


class Step(Protocol):
    """One training step on `parts`, tensors of the host; gives the loss, on the device."""

    def __call__(self, parts: Parts) -> Tensor: ...


class Eager:
    """Runs `work` on the parts, moved to the device."""

    def __init__(self, work: Work, device: torch.device) -> None:
        self._work, self._device = work, device

    def __call__(self, parts: Parts) -> Tensor:
        return self._work(tuple(tuple(tensor.to(self._device) for tensor in part) for part in parts))


class Recording(Protocol):
    """A step on fixed tensors, recorded without running it."""

    def replay(self) -> Tensor: ...


class CudaGraph:
    """A recording as a CUDA graph, on the current stream; `replay` gives a copy of what `work` returned.

    Raises RuntimeError where CUDA refuses; torch can be used as before then, but earlier recordings must be dropped.
    """

    def __init__(self, work: Callable[[], Tensor]) -> None:
        self._graph, pool = torch.cuda.CUDAGraph(), torch.cuda.graph_pool_handle()
        try:
            with torch.cuda.graph(
                self._graph,
                pool=pool,
                stream=torch.cuda.current_stream(),
                capture_error_mode="thread_local",
            ):
                self._value = work()
        except RuntimeError:
            clear_away(self._graph, pool)
            raise

    def replay(self) -> Tensor:
        self._graph.replay()
        return self._value.clone()


BROKEN: list[torch.cuda.CUDAGraph] = []  # kept: torch's allocator of page-locked memory goes on asking them


def clear_away(graph: torch.cuda.CUDAGraph, pool: tuple[int, int]) -> None:
    """Undo what a recording that CUDA refused leaves behind: torch 2.11 raises before it gets to that itself.

    The allocator would believe for ever that the recording goes on, and fail where it next empties its cache; the
    generator would refuse to draw.
    """
    BROKEN.append(graph)
    device = torch.cuda.current_device()
    with suppress(
        RuntimeError
    ):  # of the first, where torch had got to it: then `reset` gives back the memory
        torch._C._cuda_endAllocateToPool(device, pool)
        torch._C._cuda_releasePool(device, pool)
    graph.reset()
    generator = torch.cuda.default_generators[device]
    generator.graphsafe_set_state(generator.clone_state())  # same seed and place; a clone is not recording


class Captured:
    """Runs `work` as it is written on the first WARM_UP parts of each shape, then records it for that shape.

    Every call is one step. What the work draws at random, it must draw from torch's generator of the device; it must
    not wait for the device, and must do the same for every content of a shape. Nothing here waits for the device
    either: parts go through page-locked memory. Where recording fails, training goes on step by step, and says so once:
    nothing ran while it was recorded. Recordings of other shapes are given up with it (see CudaGraph).
    """

    WARM_UP = 3  # steps in which libraries choose their algorithms, and the optimizer makes its state

    def __init__(
        self, work: Work, device: torch.device, *, record: Callable[[Callable[[], Tensor]], Recording]
    ):
        self._work, self._device, self._record = work, device, record
        self._inputs: dict[object, Parts] = {}
        self._seen: dict[object, int] = {}
        self._recordings: dict[object, Recording] = {}
        self._records = True
        self._on_gpu = device.type == "cuda"
        self._stream = torch.cuda.Stream(device) if self._on_gpu else None  # type: ignore[no-untyped-call]

    def __call__(self, parts: Parts) -> Tensor:
        if self._stream is None:
            return self._step(parts)
        self._stream.wait_stream(torch.cuda.current_stream(self._device))
        with torch.cuda.stream(self._stream):
            value = self._step(parts)
        torch.cuda.current_stream(self._device).wait_stream(self._stream)
        return value

    def _step(self, parts: Parts) -> Tensor:
        shape = tuple(tuple((tuple(t.shape), t.dtype) for t in part) for part in parts)
        if shape not in self._inputs:
            self._inputs[shape] = tuple(
                tuple(torch.empty_like(t, device=self._device) for t in p) for p in parts
            )
            self._seen[shape] = 0
        inputs = self._inputs[shape]
        for fixed, given in zip(inputs, parts, strict=True):
            for to, tensor in zip(fixed, given, strict=True):
                to.copy_(tensor.pin_memory() if self._on_gpu else tensor, non_blocking=True)
        self._seen[shape] += 1
        if self._records and self._seen[shape] > self.WARM_UP and shape not in self._recordings:
            try:
                self._recordings[shape] = self._record(lambda: self._work(inputs))
            except RuntimeError as error:
                self._records = False
                self._recordings.clear()
                log.warning(
                    "training goes on step by step, slower: no CUDA graph of it could be made (%s)",
                    first_cause(error),
                )
        return self._recordings[shape].replay() if shape in self._recordings else self._work(inputs)


def first_cause(error: BaseException) -> str:
    """What went wrong first, in a line: the end of a recording only says that something did."""
    while error.__context__ is not None:
        error = error.__context__
    return str(error).partition("\n")[0]
