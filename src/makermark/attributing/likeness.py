"""How like a system a clip is, as a function of the bands that the network's first layer sees.

Legend of axes: B batch, T frames, F bands, D dimensions.
"""

from __future__ import annotations

import copy
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor, nn

from makermark.backbones import Backbone
from makermark.backbones.conformer import Conformer
from makermark.backbones.ecapa import Ecapa
from makermark.backbones.resnet import BLOCKS, ResNet34
from makermark.errors import AttributionError

# The layer that takes the normalised bands, as (B, F, T) or (B, 1, F, T).
FIRST_LAYER: dict[type[Backbone], str] = {
    ResNet34: "stem",
    Ecapa: "stem",
    Conformer: "front.0",
}
# The last convolution before the pooling, with shortcut and rectifier where it has them: (B, C, F', T') or (B, C, T').
LAST_MAPS: dict[type[Backbone], str] = {
    ResNet34: f"blocks.{sum(BLOCKS) - 1}",
    Ecapa: "aggregate",
}


class Likeness(nn.Module):
    """The cosine between a clip's embedding and the direction (D,) of a system.

    The networks over filterbanks first give every band of a clip mean 0 and variance 1 over its own frames. What
    changes here are the bands behind that step: 0 is the band's mean over the clip, and what is changed in one place
    does not rescale the others. (Before that step an attribution along the path from the mean would see nothing but
    the normalisation undoing the path.)

    It holds a copy of the network, so that its hooks are no business of whoever else uses that.
    """

    direction: Tensor

    def __init__(self, backbone: Backbone, direction: NDArray[np.floating[Any]], *, front_end: str) -> None:
        """`front_end`: the features that the network reads. Raises AttributionError for other than filterbanks."""
        super().__init__()
        if front_end != "fbank" or type(backbone) not in FIRST_LAYER:
            raise AttributionError(
                f"{type(backbone).__name__} reads {front_end}; what a network looked at can be shown for those over "
                f"fbank: {', '.join(each.__name__ for each in FIRST_LAYER)}"
            )
        self.network: Backbone = copy.deepcopy(backbone).eval().requires_grad_(False)
        self.first = self.network.get_submodule(FIRST_LAYER[type(backbone)])
        device = next(self.network.parameters()).device
        self.register_buffer("direction", F.normalize(torch.as_tensor(direction).float().to(device), dim=0))

    @property
    def has_maps(self) -> bool:
        """Whether it has the layer that Grad-CAM reads."""
        return type(self.network) in LAST_MAPS

    @property
    def last_maps(self) -> nn.Module:
        """The layer whose output is the last with channels, bands and time; raises AttributionError without one."""
        name = LAST_MAPS.get(type(self.network))
        if name is None:
            raise AttributionError(
                f"{type(self.network).__name__} has no convolution before its pooling, so no Grad-CAM; use "
                "integrated_gradients"
            )
        return self.network.get_submodule(name)

    def bands_of(self, features: NDArray[Any]) -> Tensor:
        """(1, T, F): what the first layer sees of features (T, F); no shorter than the network takes."""
        seen: list[Tensor] = []
        hook = self.first.register_forward_pre_hook(lambda _, given: seen.append(given[0]))
        repeats = -(-self.network.min_frames // len(features))
        try:
            with torch.no_grad():
                self.network(
                    torch.from_numpy(np.tile(features, (repeats, 1))[None]).to(self.direction.device)
                )
        finally:
            hook.remove()
        images = seen[0]
        return images.reshape(len(images), -1, images.shape[-1]).transpose(1, 2).clone()

    def forward(self, bands: Tensor) -> Tensor:
        """(B,): the cosines for bands (B, T, F) as `bands_of` gives them."""

        def instead(_: nn.Module, given: tuple[Tensor]) -> Tensor:
            signals = bands.transpose(1, 2).contiguous()  # (B, F, T)
            return signals if given[0].dim() == 3 else signals.unsqueeze(3).permute(0, 3, 1, 2)

        hook = self.first.register_forward_pre_hook(instead)
        try:
            embeddings = self.network(bands.detach())
        finally:
            hook.remove()
        return F.normalize(embeddings, dim=1) @ self.direction
