"""How a training step runs: as it is written, or recorded once as a CUDA graph and replayed.

A step of a small network is some thousand kernels of a few microseconds; launched one by one they leave an
accelerator waiting. A graph launches them together.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
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
    """A recording as a CUDA graph, on the current stream; `replay` gives a copy of what `work` returned."""

    def __init__(self, work: Callable[[], Tensor]) -> None:
        self._graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(
            self._graph, stream=torch.cuda.current_stream(), capture_error_mode="thread_local"
        ):
            self._value = work()

    def replay(self) -> Tensor:
        self._graph.replay()
        return self._value.clone()


class Captured:
    """Runs `work` as it is written on the first WARM_UP parts of each shape, then records it for that shape.

    Every call is one step. What the work draws at random, it must draw from torch's generator of the device; it must
    not wait for the device, and must do the same for every content of a shape. Nothing here waits for the device
    either: parts go through page-locked memory. Where recording fails, training goes on step by step, and says so once:
    nothing ran while it was recorded.
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
                log.warning(
                    "training goes on step by step, slower: no CUDA graph of it could be made (%s)", error
                )
        return self._recordings[shape].replay() if shape in self._recordings else self._work(inputs)
