"""Attribution methods and deletion test against written-out formulas, and on models with known attributions."""

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import nn

from makermark.examination.attribution.deletion_test import (
    highest_mask,
    random_region_mask,
    run_deletion_test,
)
from makermark.examination.attribution.methods import (
    SimilarityModel,
    cosine_and_baseline,
    grad_cam,
    integrated_gradients,
    supported_methods,
)
from makermark.foundation.errors import AttributionError
from makermark.models import backbones
from makermark.models.backbones import BACKBONES
from makermark.models.backbones.base import CHANGES, FILTER_BANKS
from tests_support import LOG_MELS

BANDS, DIM = 40, 6
SMALL = {
    "resnet34": {**LOG_MELS, "pooling": "sap", "stem_order": "norm-relu"},
    "ecapa": {**LOG_MELS, "channels": 16, "pooling": "asp"},
    "conformer": {**LOG_MELS, "layers": 1, "heads": 2, "model_width": 16, "feed_forward": 16,
                  "kernel": 3, "dropout": 0.1, "pooling": "asp"},
    "spectral-statistics": {"front_end": "fbank", "active_range_db": 40.0},
}  # fmt: skip
for_each_backbone = pytest.mark.parametrize("name", SMALL)


def build_backbone(name):
    torch.manual_seed(0)
    return backbones.build(name, dim=DIM, width=BANDS, **SMALL[name]).eval()


def build_model(name):
    centroid = np.random.default_rng(1).normal(size=DIM)
    return SimilarityModel(build_backbone(name), centroid, front_end="fbank")


def random_features(frames=60, seed=0):
    rng = np.random.default_rng(seed)
    return (2 * rng.normal(size=(frames, BANDS)) + 3 * rng.normal(size=BANDS) - 8).astype(np.float16)


def test_every_filterbank_backbone_supports_attribution():
    assert sorted(SMALL) == sorted(name for name, kind in BACKBONES.items() if kind.first_layer)
    over = [name for name, kind in BACKBONES.items() if kind.front_end in (*FILTER_BANKS, CHANGES)]
    assert sorted(over) == sorted(SMALL)


@for_each_backbone
def test_similarity_is_the_cosine_of_the_backbone_embedding(name):
    backbone, centroid, features = build_backbone(name), np.arange(1.0, 1 + DIM), random_features()
    model = SimilarityModel(backbone, centroid, front_end="fbank")
    bands = model.normalised_bands(features)
    embedding = backbone(torch.from_numpy(features)[None])[0].detach().numpy()
    expected = embedding @ centroid / np.linalg.norm(embedding) / np.linalg.norm(centroid)
    assert model(bands).item() == pytest.approx(expected, abs=1e-5)
    seen = features.astype(np.float64)
    over_time = (seen - seen.mean(axis=0)) / seen.std(axis=0)
    untrained_statistics = seen - seen.mean()  # running means of 0 and variances of 1
    np.testing.assert_allclose(
        bands[0], untrained_statistics if name == "spectral-statistics" else over_time, atol=2e-3
    )
    assert not any(module._forward_pre_hooks for module in backbone.modules())


def test_attribution_keeps_what_the_front_end_gives_besides_the_bands():
    """The changes of short windows stay those of the clip: the bands alone are attributed."""
    torch.manual_seed(0)
    backbone = backbones.build(
        "spectral-statistics",
        dim=DIM,
        width=BANDS + 4,
        bands=BANDS,
        front_end="linear-fbank-changes",
        active_range_db=40.0,
    ).eval()
    centroid = np.arange(1.0, 1 + DIM)
    changes = np.random.default_rng(3).normal(size=(60, 4)).astype(np.float16)
    features = np.concatenate([random_features(), changes], axis=1)
    model = SimilarityModel(backbone, centroid, front_end="linear-fbank-changes")
    bands = model.normalised_bands(features)
    embedding = backbone(torch.from_numpy(features)[None])[0].detach().numpy()
    expected = embedding @ centroid / np.linalg.norm(embedding) / np.linalg.norm(centroid)
    assert bands.shape == (1, 60, BANDS)
    assert model(bands).item() == pytest.approx(expected, abs=1e-5)
    attribution = integrated_gradients(model, bands)
    cosine, baseline = cosine_and_baseline(model, bands)
    assert attribution.shape == (60, BANDS)
    assert attribution.sum() == pytest.approx(cosine - baseline, abs=0.02)


def test_attribution_keeps_the_frames_that_the_backbone_selects():
    """Pauses 60 dB below the speech, in bands whose deviation in training was 5: normalised, they are 3 below."""
    backbone, centroid, features = (
        build_backbone("spectral-statistics"),
        np.arange(1.0, 1 + DIM),
        random_features(),
    )
    backbone.bands_norm.running_var.fill_(25.0)
    features[20:35] -= np.float16(13.8)
    model = SimilarityModel(backbone, centroid, front_end="fbank")
    bands = model.normalised_bands(features)
    embedding = backbone(torch.from_numpy(features)[None])[0].detach().numpy()
    expected = embedding @ centroid / np.linalg.norm(embedding) / np.linalg.norm(centroid)
    assert model(bands).item() == pytest.approx(expected, abs=1e-5)
    paused = bands.clone()
    paused[:, 20:35] = 0
    assert model(torch.cat([bands, paused])).tolist() == pytest.approx([expected] * 2, abs=1e-5)
    assert not any(module._forward_hooks for module in backbone.modules())


@for_each_backbone
def test_integrated_gradients_sum_to_the_difference_from_the_baseline(name):
    model = build_model(name)
    bands = model.normalised_bands(random_features())
    attribution = integrated_gradients(model, bands, steps=200)
    cosine, baseline = cosine_and_baseline(model, bands)
    assert attribution.shape == (60, BANDS)
    assert abs(cosine - baseline) > 0.01  # else the test shows nothing
    tolerance = 0.01 * abs(cosine - baseline) + 1e-4
    assert attribution.sum() == pytest.approx(cosine - baseline, abs=tolerance)


def test_integrated_gradients_equal_the_written_out_integral():
    model = build_model("ecapa")
    bands = model.normalised_bands(random_features(frames=20))
    points = (np.arange(400) + 0.5) / 400
    total = torch.zeros_like(bands)
    for point in points:
        at = (float(point) * bands).requires_grad_()
        total += torch.autograd.grad(model(at).sum(), at)[0] / len(points)
    expected = (total * bands)[0].numpy()
    np.testing.assert_allclose(
        integrated_gradients(model, bands, steps=100), expected, atol=0.02 * np.abs(expected).max()
    )


def test_grad_cam_equals_its_formula():
    model = build_model("resnet34")
    bands = model.normalised_bands(random_features())
    activations = []

    def record(_, __, output):
        output[0].retain_grad()
        activations.append(output[0])

    hook = model.backbone.blocks[-1].register_forward_hook(record)
    model(bands.clone().requires_grad_()).sum().backward()
    hook.remove()
    (maps,) = activations  # (1, C, F', T')
    weights = maps.grad.mean(dim=(2, 3), keepdim=True)
    expected = F.relu((weights * maps.detach()).sum(dim=1, keepdim=True))
    expected = F.interpolate(expected, size=(BANDS, 60), mode="bilinear", align_corners=False)[0, 0].T
    attribution = grad_cam(model, bands)
    np.testing.assert_allclose(attribution, expected.numpy(), rtol=1e-4, atol=1e-7)
    assert attribution.max() > 0


def test_grad_cam_of_maps_without_frequency_axis_is_constant_over_bands():
    model = build_model("ecapa")
    attribution = grad_cam(model, model.normalised_bands(random_features()))
    assert attribution.shape == (60, BANDS)
    assert attribution.max() > 0
    assert np.ptp(attribution, axis=1).max() < 1e-5 * attribution.max()  # but for rounding


def test_unsupported_backbone_raises_attribution_error():
    with pytest.raises(AttributionError, match=r"reads wav2vec2; .* filter banks"):
        SimilarityModel(build_backbone("conformer"), np.ones(DIM), front_end="wav2vec2")
    aasist = nn.Module()  # any backbone that does not read filterbanks
    with pytest.raises(AttributionError, match="reads waveform"):
        SimilarityModel(aasist, np.ones(DIM), front_end="waveform")
    model = build_model("conformer")
    assert supported_methods(model) == ["integrated_gradients"]
    assert all(kind.first_layer for kind in BACKBONES.values() if kind.last_convolution)
    with pytest.raises(AttributionError, match="use integrated_gradients"):
        grad_cam(model, model.normalised_bands(random_features()))


class WeightedCells(nn.Module):
    """A similarity that depends on some cells only: tanh of their weighted mean."""

    def __init__(self, weights):
        super().__init__()
        self.weights = torch.as_tensor(weights, dtype=torch.float32)

    def forward(self, bands):
        return torch.tanh((bands * self.weights).mean(dim=(1, 2)) * 10)


def one_band_model(band, sign=1.0):
    weights = np.zeros((50, BANDS))
    weights[:, band] = sign
    bands = torch.full((1, 50, BANDS), 0.5) + torch.rand(
        1, 50, BANDS, generator=torch.Generator().manual_seed(0)
    )
    return WeightedCells(weights), bands


@pytest.mark.parametrize("band", [0, 17, 39])
def test_attribution_of_a_model_of_one_band_is_in_that_band(band):
    model, bands = one_band_model(band)
    attribution = integrated_gradients(model, bands)
    share = attribution[:, band].sum() / attribution.sum()
    assert share == pytest.approx(1, abs=1e-5)
    result = run_deletion_test(model, bands, attribution, seed=0, shares=(1 / BANDS, 0.3), draws=20)
    assert result.attributed[0] > 0.2
    np.testing.assert_allclose(result.attributed[1:], 0, atol=1e-6)  # the whole band is deleted
    assert np.mean(result.region_areas > result.area) > 0.9
    assert np.mean(result.moved_areas > result.area) > 0.9


def test_opposing_cells_are_negative_and_deleted_last():
    model, bands = one_band_model(5, sign=-1.0)
    attribution = integrated_gradients(model, bands)
    assert attribution[:, 5].max() < 0
    assert not highest_mask(attribution, 0.5, unit="cells")[:, 5].any()
    weights = np.zeros((50, BANDS))
    weights[:25, 3], weights[25:, 3] = 1.0, -1.0
    two_sided = WeightedCells(weights)
    attribution = integrated_gradients(two_sided, bands)
    result = run_deletion_test(two_sided, bands, attribution, seed=0, shares=(25 / 50 / BANDS,), draws=5)
    assert result.attributed[1] < result.attributed[0]  # only supporting cells are deleted
    opposite = run_deletion_test(two_sided, bands, -attribution, seed=0, shares=(25 / 50 / BANDS,), draws=5)
    assert opposite.attributed[1] > opposite.attributed[0]


def test_random_attribution_does_not_beat_random_deletion():
    model, bands = one_band_model(11)
    rng = np.random.default_rng(0)
    beaten = []
    for seed in range(20):
        result = run_deletion_test(
            model, bands, rng.normal(size=(50, BANDS)), seed=seed, shares=(0.1, 0.3), draws=8
        )
        beaten.append(np.mean(result.moved_areas > result.area))
    assert np.mean(beaten) == pytest.approx(0.5, abs=0.2)


def test_frames_are_deleted_whole():
    weights = np.zeros((50, BANDS))
    weights[30:35] = 1.0
    model, (_, bands) = WeightedCells(weights), one_band_model(0)
    attribution = integrated_gradients(model, bands)
    chosen = highest_mask(attribution, 0.1, unit="frames")
    assert sorted(np.flatnonzero(chosen.all(axis=1))) == [30, 31, 32, 33, 34]
    assert chosen.sum() == 5 * BANDS
    result = run_deletion_test(model, bands, attribution, seed=0, unit="frames", shares=(0.1,), draws=10)
    assert result.attributed[1] == pytest.approx(0, abs=1e-6)


@pytest.mark.parametrize("unit", ["cells", "frames"])
def test_random_regions_are_connected_have_the_same_size_and_cover_the_clip(unit):
    rng, attribution = np.random.default_rng(0), np.random.default_rng(1).normal(size=(23, 7))
    touched = np.zeros((23, 7))
    for share in (0.01, 0.1, 0.37, 0.9, 1.0):
        expected_size = highest_mask(attribution, share, unit=unit).sum()
        for _ in range(100):
            mask = random_region_mask((23, 7), share, unit=unit, rng=rng)
            touched += mask
            assert mask.sum() == expected_size
            rows, columns = np.flatnonzero(mask.any(axis=1)), np.flatnonzero(mask.any(axis=0))
            assert np.ptp(rows) == len(rows) - 1
            assert np.ptp(columns) == len(columns) - 1
            box = len(rows) * len(columns)
            assert box - mask.sum() < len(columns)  # only the last frame may be incomplete
            assert unit == "cells" or len(columns) == 7
    assert touched.min() > 0


def test_areas_worked_by_hand():
    model, bands = one_band_model(0)
    result = run_deletion_test(model, bands, np.ones((50, BANDS)), seed=0, shares=(0.5, 1.0), draws=3)
    a, b, c = result.attributed
    assert result.area == pytest.approx(((a + b) / 2 * 0.5 + (b + c) / 2 * 0.5) / 1.0)
    assert result.regions.shape == result.moved.shape == (3, 3)
    assert result.shares.tolist() == [0.0, 0.5, 1.0]
    np.testing.assert_array_equal(result.regions[:, 0], a)
    again = run_deletion_test(model, bands, np.ones((50, BANDS)), seed=0, shares=(0.5, 1.0), draws=3)
    np.testing.assert_array_equal(result.regions, again.regions)
