"""Attribution methods, computed by Captum, and the function that they differentiate: the similarity to a system.

Legend of axes: B batch, T frames, F bands, C channels, D dimensions.
"""

from __future__ import annotations

import copy
from collections.abc import Callable
from types import ModuleType
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor, nn

from makermark.foundation.arrays import Float32Array, FloatArray
from makermark.foundation.errors import AttributionError, install_hint
from makermark.models.backbones import BACKBONES, Backbone
from makermark.models.backbones.base import CHANGES, FILTER_BANKS

INTEGRATION_STEPS = 24  # points of the Gauss-Legendre rule along the path
BATCH_FRAMES = 2000  # frames in one forward pass

AttributionMap = Float32Array  # (T, F)


class SimilarityModel(nn.Module):
    """Cosine between the embedding of a clip and the centroid (D,) of a system.

    The backbones over filterbanks first normalise each band of a clip over its frames, so that its mean is 0;
    spectral-statistics does so over the training frames. The input of this model are the normalised bands: 0 is the
    mean of a band, and a change of one cell does not rescale other cells. (Before the normalisation, a path from the
    mean to the clip would only be rescaled by it.)

    Two things are those of the clip whose bands were computed last, and changed bands do not change them: the frames
    that the backbone selects by their log energies, if it does, and what the front end gives besides the bands.

    It uses a copy of the backbone, so that its hooks do not affect other users of the backbone.
    """

    centroid: Tensor
    _features: Tensor | None = None  # (1, T, F or more): of the clip
    _selected: Tensor | None = None  # (1, T) bool: of the clip, if the backbone selects frames

    def __init__(self, backbone: Backbone, centroid: FloatArray, *, front_end: str) -> None:
        """`front_end` is the name of the front end of the backbone.

        Raises AttributionError for a backbone that does not read filterbanks.
        """
        super().__init__()
        if front_end not in (*FILTER_BANKS, CHANGES) or not backbone.first_layer:
            raise AttributionError(
                f"{type(backbone).__name__} reads {front_end}; attribution supports backbones that read filter banks: "
                f"{', '.join(kind.__name__ for kind in BACKBONES.values() if kind.first_layer)}"
            )
        self.backbone: Backbone = copy.deepcopy(backbone).eval().requires_grad_(False)
        self.first_layer = self.backbone.get_submodule(backbone.first_layer)
        device = next(self.backbone.parameters()).device
        self.register_buffer("centroid", F.normalize(torch.as_tensor(centroid).float().to(device), dim=0))

    @property
    def has_convolution(self) -> bool:
        """Whether the backbone has a convolution before its pooling, which Grad-CAM needs."""
        return bool(self.backbone.last_convolution)

    @property
    def last_convolution(self) -> nn.Module:
        """The last layer whose output has channels and time; raises AttributionError without one."""
        name = self.backbone.last_convolution
        if not name:
            raise AttributionError(
                f"{type(self.backbone).__name__} has no convolution before its pooling, so Grad-CAM does not apply; "
                "use integrated_gradients"
            )
        return self.backbone.get_submodule(name)

    def normalised_bands(self, features: NDArray[np.floating[Any]]) -> Tensor:
        """Return the input (1, T, F) of the first layer for features (T, F or more); short clips are repeated."""
        inputs: list[Tensor] = []
        hooks = [self.first_layer.register_forward_pre_hook(lambda _, args: inputs.append(args[0]))]
        if self.frame_selection is not None:
            hooks.append(self.frame_selection.register_forward_hook(self._record_selection))
        repeats = -(-self.backbone.min_frames // len(features))
        try:
            with torch.no_grad():
                self._features = torch.from_numpy(np.tile(features, (repeats, 1))[None]).to(
                    self.centroid.device
                )
                self.backbone(self._features)
        finally:
            for hook in hooks:
                hook.remove()
        images = inputs[0]
        return images.reshape(len(images), -1, images.shape[-1]).transpose(1, 2).clone()

    @property
    def frame_selection(self) -> nn.Module | None:
        """The layer that selects frames by their log energies; None if the backbone reads all frames."""
        name = self.backbone.frame_selection
        return self.backbone.get_submodule(name) if name else None

    def _record_selection(self, _: nn.Module, __: object, selected: Tensor) -> None:
        self._selected = selected

    def forward(self, bands: Tensor) -> Tensor:
        """Return the cosines (B,) of normalised bands (B, T, F), changed or not, of the clip of `normalised_bands`."""

        def replace_input(_: nn.Module, args: tuple[Tensor]) -> Tensor:
            transposed = bands.transpose(1, 2).contiguous()  # (B, F, T)
            return transposed if args[0].dim() == 3 else transposed.unsqueeze(3).permute(0, 3, 1, 2)

        hooks = [self.first_layer.register_forward_pre_hook(replace_input)]
        if self.frame_selection is not None and self._selected is not None:
            selected = self._selected.expand(len(bands), -1)
            hooks.append(self.frame_selection.register_forward_hook(lambda *_: selected))
        try:
            features = bands.detach() if self._features is None else self._features.expand(len(bands), -1, -1)
            embeddings = self.backbone(features)
        finally:
            for hook in hooks:
                hook.remove()
        return F.normalize(embeddings, dim=1) @ self.centroid


def integrated_gradients(
    model: SimilarityModel, bands: Tensor, *, steps: int = INTEGRATION_STEPS
) -> AttributionMap:
    """Return the contribution of each cell of `bands` (1, T, F) to the cosine, (T, F); positive supports the system.

    Sundararajan, Taly & Yan 2017, eq. 1; in the baseline every band has its mean value throughout. The contributions
    sum to the cosine of the clip minus that of the baseline (completeness), up to the error of the numerical integral;
    `cosine_and_baseline` returns both cosines.
    """
    method = _import_captum().IntegratedGradients(model)
    batch_size = max(1, BATCH_FRAMES // bands.shape[1])
    attributions = method.attribute(
        bands, baselines=0.0, n_steps=steps, method="gausslegendre", internal_batch_size=batch_size
    )
    return _to_map(attributions[0])


def cosine_and_baseline(model: SimilarityModel, bands: Tensor) -> tuple[float, float]:
    """Return the cosine of `bands` (1, T, F), and the cosine with every band at its mean."""
    with torch.inference_mode():
        cosine, baseline = model(torch.cat([bands, torch.zeros_like(bands)])).tolist()
    return cosine, baseline


def grad_cam(model: SimilarityModel, bands: Tensor) -> AttributionMap:
    """Return the Grad-CAM of the last convolution, over the cells of `bands` (1, T, F): (T, F), not negative.

    Selvaraju et al. 2017, eq. 1-2: the activation maps, each weighted by the mean gradient of the cosine over the map,
    are summed, rectified and interpolated. The values have no unit. If the maps have no frequency axis (ECAPA), all
    bands of a frame have one value. Raises AttributionError for a backbone without a suitable convolution.
    """
    layer = model.last_convolution
    tap = nn.Identity()  # the output of a block may be a tuple, which Captum does not support

    def route_through_tap(_: nn.Module, __: Any, output: Any) -> Any:
        return (tap(output[0]), *output[1:]) if isinstance(output, tuple) else tap(output)

    hook = layer.register_forward_hook(route_through_tap)
    try:
        method = _import_captum().LayerGradCam(model, tap)
        maps = method.attribute(bands.clone().requires_grad_(), relu_attributions=True)
    finally:
        hook.remove()
    images = maps if maps.dim() == 4 else maps.unsqueeze(2)  # (1, 1, F', T')
    interpolated = F.interpolate(
        images, size=(bands.shape[2], bands.shape[1]), mode="bilinear", align_corners=False
    )
    return _to_map(interpolated[0, 0].T)


METHODS: dict[str, Callable[[SimilarityModel, Tensor], AttributionMap]] = {
    "integrated_gradients": integrated_gradients,
    "grad_cam": grad_cam,
}


def supported_methods(model: SimilarityModel) -> list[str]:
    """Return the names of the METHODS that apply to this backbone."""
    return [name for name in METHODS if name != "grad_cam" or model.has_convolution]


def _to_map(attributions: Tensor) -> AttributionMap:
    return np.ascontiguousarray(attributions.detach().float().cpu().numpy())


def _import_captum() -> ModuleType:
    try:
        from captum import attr  # imported late: the import takes a second
    except ImportError as error:
        raise AttributionError(f"attribution needs Captum; {install_hint('explain')}") from error
    return attr  # type: ignore[no-any-return]
