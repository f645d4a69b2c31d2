"""Time of a network's convolutions alone: a lower bound for every implementation that uses these kernels."""

from __future__ import annotations

import statistics

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from features import timed


def convolutions_alone(
    net: nn.Module, features: Tensor, *, precision: torch.dtype, backward: bool, repeats: int
) -> float:
    """Return the seconds of all convolutions of a forward pass of features (B, T, F), with `backward` of both passes.

    Each convolution is timed alone, as the median of `repeats`, on existing tensors of its shapes in channels-last
    order. Memory allocation and all other operations are not included.
    """
    calls: list[tuple[nn.Conv2d, torch.Size, torch.Size]] = []
    hooks = [
        module.register_forward_hook(lambda m, inputs, out: calls.append((m, inputs[0].shape, out.shape)))
        for module in net.modules()
        if isinstance(module, nn.Conv2d)
    ]
    with torch.no_grad():
        net(features)
    for hook in hooks:
        hook.remove()
    cost: dict[tuple[torch.Size, torch.Size, torch.Size], float] = {}
    for module, input_shape, output_shape in calls:
        key = module.weight.shape, input_shape, output_shape
        if key not in cost:
            convolution = _Convolution(
                module, input_shape, output_shape, precision=precision, backward=backward
            )
            convolution()
            cost[key] = statistics.median(timed(convolution) for _ in range(repeats))
    return sum(cost[module.weight.shape, inputs, outputs] for module, inputs, outputs in calls)


class _Convolution:
    """One convolution on its own tensors."""

    def __init__(
        self,
        module: nn.Conv2d,
        input_shape: torch.Size,
        output_shape: torch.Size,
        *,
        precision: torch.dtype,
        backward: bool,
    ) -> None:
        settings = {"memory_format": torch.channels_last, "dtype": precision}
        self._images = torch.randn(input_shape).to(**settings)
        self._gradient = torch.randn(output_shape).to(**settings)
        self._weight = module.weight.detach().to(precision)
        self._geometry = module.stride, module.padding, module.dilation
        self._output_mask = (
            [input_shape[1] > 1, True, False] if backward else None
        )  # no gradient for the features

    def __call__(self) -> None:
        F.conv2d(self._images, self._weight, None, *self._geometry)
        if self._output_mask:
            torch.ops.aten.convolution_backward(
                self._gradient,
                self._images,
                self._weight,
                None,
                *self._geometry,
                False,
                (0, 0),
                1,
                self._output_mask,
            )
