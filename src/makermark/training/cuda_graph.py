"""Training steps captured once as a CUDA graph and replayed.

A step of a small network launches about a thousand kernels of a few microseconds each. Launched one by one, they leave
the GPU waiting for the host; a CUDA graph launches them together.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Protocol

import torch
from torch import Tensor

from makermark.training.step import StepFunction, StepInputs

log = logging.getLogger(__name__)

FAILED_CAPTURES: list[torch.cuda.CUDAGraph] = []  # torch's pinned-memory allocator still refers to them


class Graph(Protocol):
    """A step on fixed tensors, captured without running it."""

    def replay(self) -> Tensor: ...


class CudaGraph:
    """A captured CUDA graph on the current stream; `replay` returns a copy of the result of `function`.

    Raises RuntimeError if CUDA refuses the capture. The generator can be used again after that, but earlier graphs
    must be dropped. What torch's public interface cannot undo: the allocator may refuse to empty its cache.
    """

    def __init__(self, function: Callable[[], Tensor]) -> None:
        self._graph = torch.cuda.CUDAGraph()
        try:
            with torch.cuda.graph(
                self._graph, stream=torch.cuda.current_stream(), capture_error_mode="thread_local"
            ):
                self._result = function()
        except RuntimeError:
            FAILED_CAPTURES.append(self._graph)
            self._graph.reset()
            restore_generator()
            raise

    def replay(self) -> Tensor:
        self._graph.replay()
        return self._result.clone()


def restore_generator() -> None:
    """Let the current device's generator draw again after a failed capture, with the same seed and offset."""
    generator = torch.cuda.default_generators[torch.cuda.current_device()]
    generator.graphsafe_set_state(generator.clone_state())  # the clone is not part of the capture


class GraphedStep:
    """Runs a step function eagerly WARM_UP times for each shape of inputs, then captures and replays it.

    Every call performs one step. The function must draw random numbers from torch's generator of the device, must not
    synchronise with the host, and must launch the same kernels for all inputs of a shape. This class does not
    synchronise either: inputs are copied through pinned memory. If a capture fails, a warning is logged once and all
    further steps run eagerly. The failed capture has not run the step; graphs of other shapes are dropped.
    """

    WARM_UP = 3  # steps in which libraries choose their algorithms and the optimizer creates its state

    def __init__(
        self,
        function: StepFunction,
        device: torch.device,
        *,
        capture: Callable[[Callable[[], Tensor]], Graph] = CudaGraph,
    ) -> None:
        self._function, self._device, self._capture = function, device, capture
        self._inputs: dict[object, StepInputs] = {}  # fixed tensors on the device, by shape
        self._calls: dict[object, int] = {}
        self._graphs: dict[object, Graph] = {}
        self._captures = True
        self._on_gpu = device.type == "cuda"
        self._stream = torch.cuda.Stream(device) if self._on_gpu else None  # type: ignore[no-untyped-call]

    def __call__(self, inputs: StepInputs) -> Tensor:
        if self._stream is None:
            return self._step(inputs)
        self._stream.wait_stream(torch.cuda.current_stream(self._device))
        with torch.cuda.stream(self._stream):
            loss = self._step(inputs)
        torch.cuda.current_stream(self._device).wait_stream(self._stream)
        return loss

    def _step(self, inputs: StepInputs) -> Tensor:
        shape = tuple((tuple(tensor.shape), tensor.dtype) for tensor in inputs.tensors())
        fixed = self._fixed_inputs(shape, inputs)
        self._calls[shape] += 1
        if self._captures and self._calls[shape] > self.WARM_UP and shape not in self._graphs:
            self._capture_step(shape)
        return self._graphs[shape].replay() if shape in self._graphs else self._function(fixed)

    def _fixed_inputs(self, shape: object, inputs: StepInputs) -> StepInputs:
        """Copy the inputs into the fixed tensors of their shape, and return those."""
        if shape not in self._inputs:
            self._inputs[shape] = inputs.apply(lambda tensor: torch.empty_like(tensor, device=self._device))
            self._calls[shape] = 0
        fixed = self._inputs[shape]
        for target, source in zip(fixed.tensors(), inputs.tensors(), strict=True):
            target.copy_(source.pin_memory() if self._on_gpu else source, non_blocking=True)
        return fixed

    def _capture_step(self, shape: object) -> None:
        fixed = self._inputs[shape]
        try:
            self._graphs[shape] = self._capture(lambda: self._function(fixed))
        except RuntimeError as error:
            self._captures = False
            self._graphs.clear()
            log.warning(
                "the training step could not be captured as a CUDA graph (%s); training continues eagerly and slower",
                root_cause(error),
            )


def root_cause(error: BaseException) -> str:
    """Return the first line of the error that came first: the end of a capture only reports that something failed."""
    while error.__context__ is not None:
        error = error.__context__
    return str(error).partition("\n")[0]
