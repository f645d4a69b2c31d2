"""The statistics of backbone spectral-statistics, against NumPy one utterance at a time."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from makermark.foundation.errors import ParamsError
from makermark.models import backbones
from makermark.models.backbones import Backbone

BANDS = 12


def network(*, width: int = BANDS, front_end: str = "linear-fbank") -> Backbone:
    torch.manual_seed(0)
    return backbones.build("spectral-statistics", dim=5, width=width, front_end=front_end)


def log_energies(utterances: int = 4, frames: int = 30, *, seed: int = 0) -> torch.Tensor:
    return 3 * torch.randn(utterances, frames, BANDS, generator=torch.Generator().manual_seed(seed)) - 5


def trained(net: Backbone) -> Backbone:
    """Return the network in evaluation mode, after passes that change its running statistics."""
    with torch.no_grad():
        for seed in range(5):
            net.train()(log_energies(seed=seed))
    return net.eval()


def embedding_by_formula(net: Backbone, x: np.ndarray) -> np.ndarray:
    """Return the embedding of log energies (T, F), computed in float64."""
    weights = {name: value.double().numpy() for name, value in net.state_dict().items()}

    def normalise(values: np.ndarray, name: str) -> np.ndarray:
        scaled = (values - weights[f"{name}.running_mean"]) / np.sqrt(weights[f"{name}.running_var"] + 1e-5)
        return scaled * weights.get(f"{name}.weight", 1) + weights.get(f"{name}.bias", 0)

    x = normalise(x - x.mean(), "bands_norm")
    change = x[1:] - x[:-1]
    curvature = x[2:] - 2 * x[1:-1] + x[:-2]
    shape = x[:, 2:] - 2 * x[:, 1:-1] + x[:, :-2]
    deviations = [np.sqrt(part.var(axis=0) + 1e-5) for part in (x, change, curvature, shape)]
    statistics = np.concatenate([x.mean(axis=0), *deviations[:3], shape.mean(axis=0), deviations[3]])
    linear = (
        weights["embedding.weight"] @ normalise(statistics, "statistics_norm") + weights["embedding.bias"]
    )
    return normalise(linear, "embedding_norm")


@torch.no_grad()
def test_embeddings_equal_the_formula() -> None:
    net, features = trained(network()), log_energies(seed=9)
    expected = [embedding_by_formula(net, x) for x in features.double().numpy()]
    np.testing.assert_allclose(net(features), expected, rtol=1e-3, atol=1e-4)


@torch.no_grad()
def test_padded_utterances_equal_the_formula() -> None:
    net, features, lengths = trained(network()), log_energies(seed=9), [30, 3, 17, 8]
    expected = [
        embedding_by_formula(net, x[:length])
        for x, length in zip(features.double().numpy(), lengths, strict=True)
    ]
    np.testing.assert_allclose(net(features, torch.tensor(lengths)), expected, rtol=1e-3, atol=1e-4)


@torch.no_grad()
def test_gain_does_not_change_the_embedding() -> None:
    net, features = trained(network()), log_energies(seed=9)
    torch.testing.assert_close(net(features + 4.6), net(features), rtol=1e-3, atol=1e-4)


def test_size_is_that_of_one_linear_layer() -> None:
    """Six statistics of 80 bands, two of which have no values at the two outermost bands: 476."""
    net = network(width=80)
    assert net.embedding.in_features == 476
    assert sum(p.numel() for p in net.parameters()) == 476 * 5 + 5 + 2 * 476 + 2 * 5


def test_build_raises_for_a_front_end_without_bands() -> None:
    with pytest.raises(ParamsError, match=r"spectral-statistics: front_end is 'waveform'; it must be one of"):
        network(front_end="waveform")
