"""Attribution and deletion against formulas written out, and on networks of which is known where they look."""

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import nn
from torchaudio.functional import melscale_fbanks

from makermark import backbones
from makermark.attributing import (
    Likeness,
    band_centres_hz,
    delete,
    grad_cam,
    integrated_gradients,
    methods_for,
    whole_and_baseline,
)
from makermark.attributing.deleting import highest, region
from makermark.attributing.likeness import FIRST_LAYER, LAST_MAPS
from makermark.backbones import BACKBONES
from makermark.errors import AttributionError

BANDS, DIM = 40, 6
SMALL = {
    "resnet34": {"pooling": "sap"},
    "ecapa": {"channels": 16, "pooling": "asp"},
    "conformer": {"front_end": "fbank", "layers": 1, "heads": 2, "model_width": 16, "feed_forward": 16,
                  "kernel": 3, "dropout": 0.1, "pooling": "asp"},
}  # fmt: skip
over_filterbanks = pytest.mark.parametrize("name", SMALL)


def network_of(name):
    torch.manual_seed(0)
    return backbones.build(name, dim=DIM, width=BANDS, **SMALL[name]).eval()


def likeness_of(name):
    direction = np.random.default_rng(1).normal(size=DIM)
    return Likeness(network_of(name), direction, front_end="fbank")


def speech_like(frames=60, seed=0):
    rng = np.random.default_rng(seed)
    return (2 * rng.normal(size=(frames, BANDS)) + 3 * rng.normal(size=BANDS) - 8).astype(np.float16)


def test_every_backbone_over_filterbanks_can_be_explained():
    assert {BACKBONES[name] for name in SMALL} == set(FIRST_LAYER)
    over = [name for name, kind in BACKBONES.items() if getattr(kind, "front_end", "fbank") == "fbank"]
    assert sorted(over) == sorted(SMALL)


@over_filterbanks
def test_the_likeness_is_the_cosine_of_the_network_itself(name):
    network, direction, features = network_of(name), np.arange(1.0, 1 + DIM), speech_like()
    likeness = Likeness(network, direction, front_end="fbank")
    bands = likeness.bands_of(features)
    embedding = network(torch.from_numpy(features)[None])[0].detach().numpy()
    wanted = embedding @ direction / np.linalg.norm(embedding) / np.linalg.norm(direction)
    assert likeness(bands).item() == pytest.approx(wanted, abs=1e-5)
    seen = features.astype(np.float64)
    np.testing.assert_allclose(bands[0], (seen - seen.mean(axis=0)) / seen.std(axis=0), atol=2e-3)
    assert not any(module._forward_pre_hooks for module in network.modules())


@over_filterbanks
def test_integrated_gradients_add_up_to_what_the_likeness_gained(name):
    likeness = likeness_of(name)
    bands = likeness.bands_of(speech_like())
    attribution = integrated_gradients(likeness, bands, steps=200)
    whole, baseline = whole_and_baseline(likeness, bands)
    assert attribution.shape == (60, BANDS)
    assert abs(whole - baseline) > 0.01  # else nothing is shown
    tolerance = 0.01 * abs(whole - baseline) + 1e-4
    assert attribution.sum() == pytest.approx(whole - baseline, abs=tolerance)


def test_integrated_gradients_are_the_integral_written_out():
    likeness = likeness_of("ecapa")
    bands = likeness.bands_of(speech_like(frames=20))
    points = (np.arange(400) + 0.5) / 400
    total = torch.zeros_like(bands)
    for point in points:
        at = (float(point) * bands).requires_grad_()
        total += torch.autograd.grad(likeness(at).sum(), at)[0] / len(points)
    wanted = (total * bands)[0].numpy()
    np.testing.assert_allclose(
        integrated_gradients(likeness, bands, steps=100), wanted, atol=0.02 * np.abs(wanted).max()
    )


def test_grad_cam_is_its_formula():
    likeness = likeness_of("resnet34")
    bands = likeness.bands_of(speech_like())
    kept = []

    def keep(_, __, output):
        output[0].retain_grad()
        kept.append(output[0])

    hook = likeness.network.blocks[-1].register_forward_hook(keep)
    likeness(bands.clone().requires_grad_()).sum().backward()
    hook.remove()
    (maps,) = kept  # (1, C, F', T')
    weights = maps.grad.mean(dim=(2, 3), keepdim=True)
    wanted = F.relu((weights * maps.detach()).sum(dim=1, keepdim=True))
    wanted = F.interpolate(wanted, size=(BANDS, 60), mode="bilinear", align_corners=False)[0, 0].T
    found = grad_cam(likeness, bands)
    np.testing.assert_allclose(found, wanted.numpy(), rtol=1e-4, atol=1e-7)
    assert found.max() > 0


def test_grad_cam_of_maps_without_bands_is_the_same_for_all_bands_of_a_frame():
    likeness = likeness_of("ecapa")
    found = grad_cam(likeness, likeness.bands_of(speech_like()))
    assert found.shape == (60, BANDS)
    assert found.max() > 0
    assert np.ptp(found, axis=1).max() < 1e-5 * found.max()  # but for rounding


def test_what_cannot_be_explained_says_so():
    with pytest.raises(AttributionError, match=r"reads wav2vec2; .* fbank"):
        Likeness(network_of("conformer"), np.ones(DIM), front_end="wav2vec2")
    aasist = nn.Module()  # any network that is not over filterbanks
    with pytest.raises(AttributionError, match="reads waveform"):
        Likeness(aasist, np.ones(DIM), front_end="waveform")
    likeness = likeness_of("conformer")
    assert methods_for(likeness) == ["integrated_gradients"]
    assert set(LAST_MAPS) < set(FIRST_LAYER)
    with pytest.raises(AttributionError, match="use integrated_gradients"):
        grad_cam(likeness, likeness.bands_of(speech_like()))


class Looker(nn.Module):
    """A likeness that looks at some cells alone: tanh of their weighted mean."""

    def __init__(self, weights):
        super().__init__()
        self.weights = torch.as_tensor(weights, dtype=torch.float32)

    def forward(self, bands):
        return torch.tanh((bands * self.weights).mean(dim=(1, 2)) * 10)


def at_one_band(band, sign=1.0):
    weights = np.zeros((50, BANDS))
    weights[:, band] = sign
    bands = torch.full((1, 50, BANDS), 0.5) + torch.rand(
        1, 50, BANDS, generator=torch.Generator().manual_seed(0)
    )
    return Looker(weights), bands


@pytest.mark.parametrize("band", [0, 17, 39])
def test_a_model_that_looks_at_one_band_is_found_out(band):
    likeness, bands = at_one_band(band)
    attribution = integrated_gradients(likeness, bands)
    share = attribution[:, band].sum() / attribution.sum()
    assert share == pytest.approx(1, abs=1e-5)
    found = delete(likeness, bands, attribution, seed=0, shares=(1 / BANDS, 0.3), draws=20)
    assert found.attributed[0] > 0.2
    np.testing.assert_allclose(found.attributed[1:], 0, atol=1e-6)  # the band is gone, and with it all
    assert found.beats_regions > 0.9
    assert found.beats_moved > 0.9


def test_what_speaks_against_is_negative_and_deleted_last():
    likeness, bands = at_one_band(5, sign=-1.0)
    attribution = integrated_gradients(likeness, bands)
    assert attribution[:, 5].max() < 0
    assert not highest(attribution, 0.5, unit="cells")[:, 5].any()
    weights = np.zeros((50, BANDS))
    weights[:25, 3], weights[25:, 3] = 1.0, -1.0
    two_sided = Looker(weights)
    attribution = integrated_gradients(two_sided, bands)
    found = delete(two_sided, bands, attribution, seed=0, shares=(25 / 50 / BANDS,), draws=5)
    assert (
        found.attributed[1] < found.attributed[0]
    )  # what speaks for it is gone, what speaks against has stayed
    opposite = delete(two_sided, bands, -attribution, seed=0, shares=(25 / 50 / BANDS,), draws=5)
    assert opposite.attributed[1] > opposite.attributed[0]


def test_an_attribution_at_random_beats_nothing():
    likeness, bands = at_one_band(11)
    rng = np.random.default_rng(0)
    shares = [
        delete(likeness, bands, rng.normal(size=(50, BANDS)), seed=n, shares=(0.1, 0.3), draws=8).beats_moved
        for n in range(20)
    ]
    assert np.mean(shares) == pytest.approx(0.5, abs=0.2)


def test_frames_are_deleted_whole_and_the_right_ones():
    weights = np.zeros((50, BANDS))
    weights[30:35] = 1.0
    likeness, (_, bands) = Looker(weights), at_one_band(0)
    attribution = integrated_gradients(likeness, bands)
    chosen = highest(attribution, 0.1, unit="frames")
    assert sorted(np.flatnonzero(chosen.all(axis=1))) == [30, 31, 32, 33, 34]
    assert chosen.sum() == 5 * BANDS
    found = delete(likeness, bands, attribution, seed=0, unit="frames", shares=(0.1,), draws=10)
    assert found.attributed[1] == pytest.approx(0, abs=1e-6)


@pytest.mark.parametrize("unit", ["cells", "frames"])
def test_regions_are_in_one_piece_as_large_as_what_they_stand_against_and_anywhere(unit):
    rng, attribution = np.random.default_rng(0), np.random.default_rng(1).normal(size=(23, 7))
    touched = np.zeros((23, 7))
    for share in (0.01, 0.1, 0.37, 0.9, 1.0):
        wanted = highest(attribution, share, unit=unit).sum()
        for _ in range(100):
            mask = region((23, 7), share, unit=unit, rng=rng)
            touched += mask
            assert mask.sum() == wanted
            rows, columns = np.flatnonzero(mask.any(axis=1)), np.flatnonzero(mask.any(axis=0))
            assert np.ptp(rows) == len(rows) - 1
            assert np.ptp(columns) == len(columns) - 1
            box = len(rows) * len(columns)
            assert box - mask.sum() < len(columns)  # only the last frame is cut
            assert unit == "cells" or len(columns) == 7
    assert touched.min() > 0


def test_areas_by_hand():
    likeness, bands = at_one_band(0)
    found = delete(likeness, bands, np.ones((50, BANDS)), seed=0, shares=(0.5, 1.0), draws=3)
    a, b, c = found.attributed
    assert found.area == pytest.approx(((a + b) / 2 * 0.5 + (b + c) / 2 * 0.5) / 1.0)
    assert found.regions.shape == found.moved.shape == (3, 3)
    assert found.shares.tolist() == [0.0, 0.5, 1.0]
    np.testing.assert_array_equal(found.regions[:, 0], a)
    again = delete(likeness, bands, np.ones((50, BANDS)), seed=0, shares=(0.5, 1.0), draws=3)
    np.testing.assert_array_equal(found.regions, again.regions)


def test_band_centres_are_where_the_filters_are_highest():
    filters = melscale_fbanks(8001, 0.0, 8000.0, 40, 16000, norm=None, mel_scale="htk")  # 1 Hz apart
    np.testing.assert_allclose(band_centres_hz(40, sample_rate_hz=16000), filters.argmax(dim=0), atol=1.0)
