"""Attribution of a likeness to bands and moments: integrated gradients and Grad-CAM, both by Captum.

Legend of axes: T frames, F bands, C channels.
"""

from __future__ import annotations

from collections.abc import Callable
from types import ModuleType
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor, nn

from makermark.attributing.likeness import Likeness
from makermark.errors import AttributionError, how_to_add

STEPS = 24  # points of the Gauss-Legendre rule along the path
TOGETHER = 2000  # frames in one pass

Map = NDArray[np.float32]  # (T, F)


def integrated_gradients(likeness: Likeness, bands: Tensor, *, steps: int = STEPS) -> Map:
    """What each cell of bands (1, T, F) adds to the cosine: (T, F), positive where it speaks for the system.

    Sundararajan, Taly & Yan 2017, eq. 1, from the baseline of every band at its mean. The sum over all cells is the
    cosine of the clip less that of the baseline (completeness), but for what `steps` points leave of the integral:
    `whole_and_baseline` gives both.
    """
    gradients = _captum().IntegratedGradients(likeness)
    together = max(1, TOGETHER // bands.shape[1])
    found = gradients.attribute(
        bands, baselines=0.0, n_steps=steps, method="gausslegendre", internal_batch_size=together
    )
    return _as_map(found[0])


def whole_and_baseline(likeness: Likeness, bands: Tensor) -> tuple[float, float]:
    """The cosine of bands (1, T, F), and of every band at its mean throughout."""
    with torch.inference_mode():
        whole, baseline = likeness(torch.cat([bands, torch.zeros_like(bands)])).tolist()
    return whole, baseline


def grad_cam(likeness: Likeness, bands: Tensor) -> Map:
    """Where the last convolution finds what raises the cosine: (T, F), never negative, in no unit.

    Selvaraju et al. 2017, eq. 1-2: its maps, each weighted by the mean of the cosine's gradient over it, summed and
    rectified, spread over the cells of bands (1, T, F). Maps without bands (ECAPA) give all bands of a frame the same.
    Raises AttributionError for a network without such maps.
    """
    layer, tap = (
        likeness.last_maps,
        nn.Identity(),
    )  # a block's output may be a tuple, which Captum does not take

    def through(_: nn.Module, __: Any, output: Any) -> Any:
        return (tap(output[0]), *output[1:]) if isinstance(output, tuple) else tap(output)

    hook = layer.register_forward_hook(through)
    try:
        maps = (
            _captum()
            .LayerGradCam(likeness, tap)
            .attribute(bands.clone().requires_grad_(), relu_attributions=True)
        )
    finally:
        hook.remove()
    images = maps if maps.dim() == 4 else maps.unsqueeze(2)  # (1, 1, F', T')
    spread = F.interpolate(
        images, size=(bands.shape[2], bands.shape[1]), mode="bilinear", align_corners=False
    )
    return _as_map(spread[0, 0].T)


METHODS: dict[str, Callable[[Likeness, Tensor], Map]] = {
    "integrated_gradients": integrated_gradients,
    "grad_cam": grad_cam,
}


def methods_for(likeness: Likeness) -> list[str]:
    """The names of those METHODS that this network allows."""
    return [name for name in METHODS if name != "grad_cam" or likeness.has_maps]


def _as_map(found: Tensor) -> Map:
    return np.ascontiguousarray(found.detach().float().cpu().numpy())


def _captum() -> ModuleType:
    try:
        from captum import attr  # costs a second
    except ImportError as error:
        raise AttributionError(
            f"what the network looked at is computed by Captum; {how_to_add('explain')}"
        ) from error
    return attr  # type: ignore[no-any-return]
