"""Published AASIST (Jung et al. 2022), node by node in NumPy and float64, with weights under their published names.

It shares no code with makermark. Images are (C, F, T), nodes (N, C).
"""

from __future__ import annotations

import itertools

import numpy as np
from numpy.typing import NDArray
from scipy.signal import firwin

Array = NDArray[np.float64]
EPSILON = 1e-5  # of the normalisations


def published_shapes(wide: int) -> dict[str, tuple[int, ...]]:
    """Return names and shapes of the published file; `wide` is 64 for AASIST and 24 for AASIST-L."""
    shapes: dict[str, tuple[int, ...]] = {
        "pos_S": (1, 23, wide),
        "master1": (1, 1, wide),
        "master2": (1, 1, wide),
    }

    def linear(name: str, inputs: int, outputs: int) -> None:
        shapes[f"{name}.weight"], shapes[f"{name}.bias"] = (outputs, inputs), (outputs,)

    def convolution(name: str, inputs: int, outputs: int, height: int) -> None:
        shapes[f"{name}.weight"], shapes[f"{name}.bias"] = (outputs, inputs, height, 3), (outputs,)

    def norm(name: str, width: int) -> None:
        for part in ("weight", "bias", "running_mean", "running_var"):
            shapes[f"{name}.{part}"] = (width,)
        shapes[f"{name}.num_batches_tracked"] = ()

    norm("first_bn", 1)
    for number, (inputs, outputs) in enumerate([(1, 32), (32, 32), (32, wide)] + 3 * [(wide, wide)]):
        block = f"encoder.{number}.0"
        if number:
            norm(f"{block}.bn1", inputs)
        convolution(f"{block}.conv1", inputs, outputs, 2)
        norm(f"{block}.bn2", outputs)
        convolution(f"{block}.conv2", outputs, outputs, 2)
        if inputs != outputs:
            convolution(f"{block}.conv_downsample", inputs, outputs, 1)
    for kind in "ST":
        layer = f"GAT_layer_{kind}"
        shapes[f"{layer}.att_weight"] = (wide, 1)
        for part in ("att_proj", "proj_with_att", "proj_without_att"):
            linear(f"{layer}.{part}", wide, wide)
        norm(f"{layer}.bn", wide)
        linear(f"pool_{kind}.proj", wide, 1)
    for branch in "12":
        for position, inputs in (("1", wide), ("2", 32)):
            layer = f"HtrgGAT_layer_ST{branch}{position}"
            for kind in ("11", "22", "12", "M"):
                shapes[f"{layer}.att_weight{kind}"] = (32, 1)
            for part in ("proj_type1", "proj_type2"):
                linear(f"{layer}.{part}", inputs, inputs)
            for part in ("att_proj", "proj_with_att", "proj_without_att"):
                linear(f"{layer}.{part}", inputs, 32)
                linear(f"{layer}.{part}M", inputs, 32)
            norm(f"{layer}.bn", 32)
        for kind in "ST":
            linear(f"pool_h{kind}{branch}.proj", 32, 1)
    linear("out_layer", 160, 2)
    return shapes


def readout(weights: dict[str, Array], waveform: Array, *, ratios: dict[str, float]) -> Array:
    """Return the input (160,) of the classifier for a waveform (T,); `ratios` are those of the graph poolings."""
    w = _Weights(weights)
    image = np.abs([np.convolve(waveform, h[::-1], mode="valid") for h in filters()])
    image = _selu(w.norm("first_bn", _max_pool(image[None], 3, 3)))
    for number in range(6):
        image = _block(w, f"encoder.{number}.0", image)
    bands = w.attention("GAT_layer_S", np.abs(image).max(axis=2).T + w["pos_S"][0])
    times = w.attention("GAT_layer_T", np.abs(image).max(axis=1).T)
    bands, times = w.pool("pool_S", bands, ratios["bands"]), w.pool("pool_T", times, ratios["times"])
    branches = []
    for branch in "12":
        layer = f"HtrgGAT_layer_ST{branch}"
        t, s, m = w.heterogeneous(f"{layer}1", times, bands, w[f"master{branch}"][0, 0])
        t, s = w.pool(f"pool_hT{branch}", t, ratios["mixed"]), w.pool(f"pool_hS{branch}", s, ratios["mixed"])
        branches.append(
            [a + b for a, b in zip((t, s, m), w.heterogeneous(f"{layer}2", t, s, m), strict=True)]
        )
    t, s, m = (np.maximum(a, b) for a, b in zip(*branches, strict=True))
    return np.concatenate([np.abs(t).max(axis=0), t.mean(axis=0), np.abs(s).max(axis=0), s.mean(axis=0), m])


def filters() -> list[Array]:
    """Return 70 band-pass filters of 129 samples at 16 kHz, with edges evenly spaced in mel, designed by scipy."""
    edges_hz = 700 * (10 ** (np.linspace(0, 2595 * np.log10(1 + 8000 / 700), 71) / 2595) - 1)
    design = {"numtaps": 129, "window": "hamming", "scale": False, "fs": 16000}
    first = firwin(cutoff=edges_hz[1], pass_zero=True, **design)
    last = firwin(cutoff=edges_hz[-2], pass_zero=False, **design)
    pairs = itertools.pairwise(edges_hz[1:-1])
    return [first, *(firwin(cutoff=pair, pass_zero=False, **design) for pair in pairs), last]


class _Weights:
    """The weights, and layers that look them up by name."""

    def __init__(self, weights: dict[str, Array]) -> None:
        self._weights = weights

    def __getitem__(self, name: str) -> Array:
        return self._weights[name]

    def linear(self, name: str, x: Array) -> Array:
        return self[f"{name}.weight"] @ x + self[f"{name}.bias"]

    def norm(self, name: str, image: Array) -> Array:
        """Normalise along the first axis of an image with the running statistics."""
        mean, variance, scale, shift = (
            self[f"{name}.{part}"].reshape(-1, *[1] * (image.ndim - 1))
            for part in ("running_mean", "running_var", "weight", "bias")
        )
        return (image - mean) / np.sqrt(variance + EPSILON) * scale + shift

    def convolution(self, name: str, image: Array, above_and_below: int) -> Array:
        kernel, bias = self[f"{name}.weight"], self[f"{name}.bias"]
        padded = np.pad(image, ((0, 0), (above_and_below, above_and_below), (1, 1)))
        height, width = padded.shape[1] - kernel.shape[2] + 1, padded.shape[2] - 2
        out = np.zeros((len(kernel), height, width)) + bias[:, None, None]
        for i in range(kernel.shape[2]):
            for j in range(3):
                out += np.tensordot(kernel[:, :, i, j], padded[:, i : i + height, j : j + width], axes=1)
        return out

    def attention(self, name: str, nodes: Array) -> Array:
        out = []
        for node in nodes:
            scores = [
                np.tanh(self.linear(f"{name}.att_proj", node * other)) @ self[f"{name}.att_weight"][:, 0] / 2
                for other in nodes
            ]
            attended = sum(share * other for share, other in zip(_softmax(scores), nodes, strict=True))
            out.append(
                self.linear(f"{name}.proj_with_att", attended) + self.linear(f"{name}.proj_without_att", node)
            )
        return _selu(self.norm(f"{name}.bn", np.array(out).T)).T

    def heterogeneous(
        self, name: str, first: Array, second: Array, master: Array
    ) -> tuple[Array, Array, Array]:
        nodes = [self.linear(f"{name}.proj_type1", node) for node in first]
        nodes += [self.linear(f"{name}.proj_type2", node) for node in second]
        kinds = [1] * len(first) + [2] * len(second)
        out = []
        for kind, node in zip(kinds, nodes, strict=True):
            scores = []
            for other_kind, other in zip(kinds, nodes, strict=True):
                direction = self[f"{name}.att_weight{min(kind, other_kind)}{max(kind, other_kind)}"][:, 0]
                scores.append(np.tanh(self.linear(f"{name}.att_proj", node * other)) @ direction / 100)
            attended = sum(share * other for share, other in zip(_softmax(scores), nodes, strict=True))
            out.append(
                self.linear(f"{name}.proj_with_att", attended) + self.linear(f"{name}.proj_without_att", node)
            )
        direction = self[f"{name}.att_weightM"][:, 0]
        scores = [
            np.tanh(self.linear(f"{name}.att_projM", node * master)) @ direction / 100 for node in nodes
        ]
        attended = sum(share * node for share, node in zip(_softmax(scores), nodes, strict=True))
        master = self.linear(f"{name}.proj_with_attM", attended) + self.linear(
            f"{name}.proj_without_attM", master
        )
        updated = _selu(self.norm(f"{name}.bn", np.array(out).T)).T
        return updated[: len(first)], updated[len(first) :], master

    def pool(self, name: str, nodes: Array, ratio: float) -> Array:
        scores = [1 / (1 + np.exp(-self.linear(f"{name}.proj", node)[0])) for node in nodes]
        best = sorted(range(len(nodes)), key=lambda n: -scores[n])[: max(1, int(len(nodes) * ratio))]
        return np.array([scores[n] * nodes[n] for n in best])


def _block(w: _Weights, name: str, image: Array) -> Array:
    """Apply a residual block; the bn1 of the published block has no effect."""
    x = w.convolution(f"{name}.conv1", image, 1)
    x = w.convolution(f"{name}.conv2", _selu(w.norm(f"{name}.bn2", x)), 0)
    if len(x) != len(image):
        image = w.convolution(f"{name}.conv_downsample", image, 0)
    return _max_pool(x + image, 1, 3)


def _max_pool(image: Array, height: int, width: int) -> Array:
    """Max pool over rectangles of height x width; incomplete rectangles are dropped."""
    channels, rows, columns = len(image), image.shape[1] // height, image.shape[2] // width
    whole = image[:, : rows * height, : columns * width]
    return whole.reshape(channels, rows, height, columns, width).max(axis=(2, 4))


def _selu(x: Array) -> Array:
    return 1.0507009873554805 * np.where(x > 0, x, 1.6732632423543772 * np.expm1(np.minimum(x, 0)))


def _softmax(scores: list[float]) -> Array:
    shares = np.exp(np.array(scores) - max(scores))
    return shares / shares.sum()
