"""One training step: its inputs, mixup, its loss, and the update of the weights.

Legend of axes: B batch, T frames, F bands.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple, cast

import numpy as np
import torch
from torch import Tensor

from makermark.foundation.arrays import IntArray
from makermark.foundation.device import autocast
from makermark.models.backbones.base import Backbone, to_float
from makermark.models.losses.base import Groups, Loss
from makermark.training.crops import Crops


class Mixture(NamedTuple):
    """Mixup: the second utterance and the weight of the first, for each row of a batch."""

    partner: Tensor  # (B,) int64: the row of the second utterance
    share: Tensor  # (B,) float32: the weight of the row's own utterance, between 0 and 1


def draw_mixture(size: int, *, alpha: float, rng: np.random.Generator) -> Mixture:
    """Draw a partner for each of `size` rows by a random permutation, and shares from Beta(alpha, alpha)."""
    partner = torch.from_numpy(rng.permutation(size))
    return Mixture(partner, torch.from_numpy(rng.beta(alpha, alpha, size).astype(np.float32)))


def mix(features: Tensor, mixture: Mixture) -> Tensor:
    """Return share x_i + (1 - share) x_partner of features (B, T, F), float32. Zhang et al. 2018 (mixup), eq. 1."""
    x, share = to_float(features), mixture.share[:, None, None]
    return share * x + (1 - share) * x[mixture.partner]


class StepInputs(NamedTuple):
    """The tensors of one training step."""

    crops: tuple[Tensor, ...]  # as returned by `Crops.draw`
    targets: Tensor | Groups
    mixture: Mixture | None  # None for a loss without mixup

    def tensors(self) -> list[Tensor]:
        """Return all tensors, in a fixed order."""
        targets = self.targets if isinstance(self.targets, Groups) else (self.targets,)
        return [*self.crops, *targets, *(self.mixture or ())]

    def apply(self, function: Callable[[Tensor], Tensor]) -> StepInputs:
        """Return the same inputs with `function` applied to every tensor."""
        targets = (
            Groups(*map(function, self.targets))
            if isinstance(self.targets, Groups)
            else function(self.targets)
        )
        mixture = None if self.mixture is None else Mixture(*map(function, self.mixture))
        return StepInputs(tuple(map(function, self.crops)), targets, mixture)


StepFunction = Callable[[StepInputs], Tensor]  # performs one step and returns its loss


class EagerStep:
    """Runs a step function on inputs moved to the device."""

    def __init__(self, function: StepFunction, device: torch.device) -> None:
        self._function, self._device = function, device

    def __call__(self, inputs: StepInputs) -> Tensor:
        return self._function(inputs.apply(lambda tensor: tensor.to(self._device)))


def draw_inputs(
    crops: Crops, loss: Loss, batch: IntArray, *, labels: IntArray, rng: np.random.Generator
) -> StepInputs:
    """Draw the inputs of a step on the utterances at positions `batch` (B,), on the CPU."""
    drawn = crops.draw(batch, rng)
    targets = loss.prepare_labels(torch.from_numpy(labels[batch]))
    mixture = draw_mixture(len(batch), alpha=loss.mixup_alpha, rng=rng) if loss.mixup_alpha > 0 else None
    return StepInputs(drawn, targets, mixture)


def take_step(
    backbone: Backbone,
    loss: Loss,
    optimizer: torch.optim.Optimizer,
    crops: Crops,
    inputs: StepInputs,
    *,
    device: torch.device,
    precision: torch.dtype,
) -> Tensor:
    """Update the weights once; return the loss before the update."""
    optimizer.zero_grad(set_to_none=True)
    with autocast(device, precision):
        value = batch_loss(backbone, loss, crops.cut(inputs.crops), inputs.targets, inputs.mixture)
    value.backward()  # type: ignore[no-untyped-call]
    optimizer.step()
    return value.detach()


def batch_loss(
    backbone: Backbone, loss: Loss, crops: Tensor, targets: Tensor | Groups, mixture: Mixture | None
) -> Tensor:
    """Return the loss of crops (B, T, F), plus the mixup loss of their mixture; both use one forward pass."""
    if mixture is None:
        return cast(Tensor, loss(backbone(crops), targets))
    systems = targets.systems if isinstance(targets, Groups) else targets
    clean, mixed = backbone(torch.cat([to_float(crops), mix(crops, mixture)])).chunk(2)
    mixed_loss = loss.mixup_loss(mixed, systems, systems[mixture.partner], mixture.share)
    return cast(Tensor, loss(clean, targets)) + mixed_loss
