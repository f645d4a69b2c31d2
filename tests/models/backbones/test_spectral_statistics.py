"""The statistics of backbone spectral-statistics, against NumPy one utterance at a time."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from makermark.foundation.errors import ParamsError
from makermark.models import backbones
from makermark.models.backbones import Backbone

BANDS = 12


def network(*, width: int = BANDS, front_end: str = "linear-fbank", active_range_db: float = 0.0) -> Backbone:
    torch.manual_seed(0)
    return backbones.build(
        "spectral-statistics", dim=5, width=width, front_end=front_end, active_range_db=active_range_db
    )


def log_energies(utterances: int = 4, frames: int = 30, *, seed: int = 0) -> torch.Tensor:
    return 3 * torch.randn(utterances, frames, BANDS, generator=torch.Generator().manual_seed(seed)) - 5


def trained(net: Backbone) -> Backbone:
    """Return the network in evaluation mode, after passes that change its running statistics."""
    with torch.no_grad():
        for seed in range(5):
            net.train()(log_energies(seed=seed))
    return net.eval()


def embedding_by_formula(net: Backbone, x: np.ndarray, *, active_range_db: float = np.inf) -> np.ndarray:
    """Return the embedding of log energies (T, F), computed in float64.

    Frames more than `active_range_db` below the loudest are left out, and differences that involve one of them.
    """
    weights = {name: value.double().numpy() for name, value in net.state_dict().items()}

    def normalise(values: np.ndarray, name: str) -> np.ndarray:
        scaled = (values - weights[f"{name}.running_mean"]) / np.sqrt(weights[f"{name}.running_var"] + 1e-5)
        return scaled * weights.get(f"{name}.weight", 1) + weights.get(f"{name}.bias", 0)

    decibels = 10 * np.log10(np.exp(x.mean(axis=1)))
    active = decibels >= decibels.max() - active_range_db
    x = normalise(x - x[active].mean(), "bands_norm")
    pairs = [t for t in range(1, len(x)) if active[t] and active[t - 1]]
    triples = [t for t in pairs if t - 1 in pairs]
    change = np.array([x[t] - x[t - 1] for t in pairs])
    curvature = np.array([x[t] - 2 * x[t - 1] + x[t - 2] for t in triples])
    x = x[active]
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


def with_pauses(features: torch.Tensor, *, depth_db: float) -> torch.Tensor:
    """Return log energies whose frames 8 to 13 and 20 are `depth_db` lower."""
    paused = features.clone()
    paused[:, [8, 9, 10, 11, 12, 13, 20]] -= depth_db / 10 * np.log(10)
    return paused


@torch.no_grad()
@pytest.mark.parametrize("lengths", [None, [30, 18, 21, 12]])
def test_quiet_frames_are_left_out(lengths: list[int] | None) -> None:
    net = trained(network(active_range_db=40.0))
    features = with_pauses(log_energies(seed=9), depth_db=60)
    expected = [
        embedding_by_formula(net, x[:length], active_range_db=40.0)
        for x, length in zip(features.double().numpy(), lengths or [30] * 4, strict=True)
    ]
    embeddings = net(features, None if lengths is None else torch.tensor(lengths))
    np.testing.assert_allclose(embeddings, expected, rtol=1e-3, atol=1e-4)
    deeper = with_pauses(features, depth_db=20)
    torch.testing.assert_close(net(deeper, None if lengths is None else torch.tensor(lengths)), embeddings)


@torch.no_grad()
def test_louder_padding_is_not_the_loudest_frame() -> None:
    net, features = trained(network(active_range_db=40.0)), log_energies(seed=9)
    padded = features.clone()
    padded[0, 20:] += 30
    lengths = torch.tensor([20, 30, 30, 30])
    torch.testing.assert_close(net(padded, lengths), net(features, lengths))


@torch.no_grad()
@pytest.mark.parametrize("loud", [[4], [4, 5]])
def test_few_active_frames_give_a_finite_embedding(loud: list[int]) -> None:
    net, features = trained(network(active_range_db=40.0)), log_energies(seed=9)
    features[:, loud] += 30
    assert net(features).isfinite().all()


def test_build_raises_for_a_negative_range() -> None:
    with pytest.raises(ParamsError, match=r"active_range_db is -1\.0; it must be a range in dB, or 0"):
        network(active_range_db=-1.0)


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


def network_with_changes(*, changes: int) -> Backbone:
    torch.manual_seed(0)
    return backbones.build(
        "spectral-statistics",
        dim=5,
        width=BANDS + changes,
        bands=BANDS,
        front_end="linear-fbank-changes",
        active_range_db=20.0,
    )


@torch.no_grad()
def test_changes_add_their_mean_over_the_active_frames() -> None:
    """A linear layer of zeros but for the statistic of one value of the changes gives exactly this."""
    net = network_with_changes(changes=3)
    features = torch.cat([with_pauses(log_energies(frames=40), depth_db=60), torch.randn(4, 40, 3)], dim=2)
    for seed in range(3):
        net.train()(features + seed)
    net.eval()
    first = net.embedding.in_features - 3
    net.embedding.weight.zero_()
    net.embedding.bias.zero_()
    net.embedding.weight[0, first + 1] = 1.0
    for norm in (net.statistics_norm, net.embedding_norm):
        norm.running_mean.zero_()
        norm.running_var.fill_(1 - norm.eps)
    embeddings = net(features)
    x, changes = features[..., :BANDS].double().numpy(), features[..., BANDS:].double().numpy()
    scale = (net.changes_norm.running_var[1].double() + net.changes_norm.eps).sqrt().item()
    for row, energies, values in zip(embeddings, x, changes, strict=True):
        decibels = 10 * np.log10(np.exp(energies.mean(axis=1)))
        active = (
            values[decibels >= decibels.max() - 20, 1] - net.changes_norm.running_mean[1].item()
        ) / scale
        assert len(active) < len(values)
        np.testing.assert_allclose(row, [active.mean(), 0, 0, 0, 0], rtol=1e-3, atol=1e-4)


@torch.no_grad()
def test_padded_utterances_with_changes_equal_those_alone() -> None:
    net = network_with_changes(changes=3).eval()
    features, lengths = torch.cat([log_energies(), torch.randn(4, 30, 3)], dim=2), [30, 3, 17, 8]
    alone = torch.cat([net(x[None, :length]) for x, length in zip(features, lengths, strict=True)])
    torch.testing.assert_close(net(features, torch.tensor(lengths)), alone, rtol=1e-4, atol=1e-5)
