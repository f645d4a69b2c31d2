"""What a network's convolutions alone cost: the limit of any way to run it with these kernels."""

from __future__ import annotations

import statistics

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from features import timed


def convolutions_alone(
    net: nn.Module, features: Tensor, *, precision: torch.dtype, backward: bool, repeats: int
) -> float:
    """Seconds for the convolutions of a pass of features (B, T, F), one after the other, and with `backward` of theirs.

    Each is timed by itself, the median of `repeats`, on tensors of its shapes in channels-last order that were there
    before: memory that must be found, and every other operation, come on top.
    """
    calls: list[tuple[nn.Conv2d, torch.Size, torch.Size]] = []
    hooks = [
        module.register_forward_hook(lambda m, given, out: calls.append((m, given[0].shape, out.shape)))
        for module in net.modules()
        if isinstance(module, nn.Conv2d)
    ]
    with torch.no_grad():
        net(features)
    for hook in hooks:
        hook.remove()
    cost: dict[tuple[torch.Size, torch.Size, torch.Size], float] = {}
    for module, given, out in calls:
        shape = module.weight.shape, given, out
        if shape not in cost:
            one = _Convolution(module, given, out, precision=precision, backward=backward)
            one()
            cost[shape] = statistics.median(timed(one) for _ in range(repeats))
    return sum(cost[module.weight.shape, given, out] for module, given, out in calls)


class _Convolution:
    """One of them, on tensors of its own."""

    def __init__(
        self, module: nn.Conv2d, given: torch.Size, out: torch.Size, *, precision: torch.dtype, backward: bool
    ) -> None:
        like = {"memory_format": torch.channels_last, "dtype": precision}
        self._images, self._gradient = torch.randn(given).to(**like), torch.randn(out).to(**like)
        self._weight = module.weight.detach().to(precision)
        self._where = module.stride, module.padding, module.dilation
        self._wanted = (
            [given[1] > 1, True, False] if backward else None
        )  # the first layer's input needs no gradient

    def __call__(self) -> None:
        F.conv2d(self._images, self._weight, None, *self._where)
        if self._wanted:
            torch.ops.aten.convolution_backward(
                self._gradient, self._images, self._weight, None, *self._where, False, (0, 0), 1, self._wanted
            )
