"""Explanations by a tracer of a small model on tones: of a clip, and of the clips of test."""

import hashlib
import json
import shutil
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import soundfile
import yaml
from matplotlib.image import imread
from typer.testing import CliRunner

from makermark.attributing import METHODS
from makermark.cli import app
from makermark.corpora.rows import Manifest, read_manifest, write_manifest
from makermark.errors import AudioError, ManifestError, TracerError
from makermark.reporting.attribution import plot_attribution
from makermark.tracing.explained import PARTS, by_part, chosen_clips, explain_test, figures_of, of_systems
from makermark.tracing.explaining import explain_clip
from tracer_support import CONTENT

EXPLAIN = {"clips_per_system": 2, "longest_seconds": 0.6, "draws": 2, "seed": 0}
REPOSITORY = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def manifest_path(world, tmp_path_factory):
    """The world's audio as a manifest: what was train's in test as well, of all three systems."""
    rows = [
        {"utterance_id": name, "path": path.name, "system": name.split("-")[1], "duration_s": 1.0,
         "split": "train" if name.endswith("-0") and "fast" not in name else "test",
         "sha256": hashlib.sha256(path.read_bytes()).hexdigest()}
        for name, path in world.files.items()
    ]  # fmt: skip
    empty = dict.fromkeys(("family", "acoustic_model", "vocoder", "voice", "text"), "")
    path = tmp_path_factory.mktemp("corpus") / "manifest.parquet"
    root = next(iter(world.files.values())).parent
    write_manifest(path, pd.DataFrame(rows).assign(language="en", **empty), corpus="tones", root=str(root))
    return path


@pytest.fixture(scope="module")
def manifest(manifest_path):
    return read_manifest(manifest_path)


@pytest.mark.parametrize("method", METHODS)
def test_a_clip_is_laid_out_with_its_axes_and_its_score(world, tracer, method):
    path = world.of("slow")[0]
    told = explain_clip(tracer, path, system="slow", method=method, draws=2)
    frames = 1 + soundfile.info(path).frames // 160
    assert told.attribution.shape == told.log_mel.shape == (frames, 40)
    assert told.times_s.shape == (frames,)
    assert told.times_s[1] == pytest.approx(0.01)
    assert told.bands_hz.shape == (40,)
    assert (np.diff(told.bands_hz) > 0).all()
    candidates = {each.system: each.cosine for each in tracer.trace(path).candidates}
    assert told.cosine == pytest.approx(candidates["slow"], abs=1e-4)
    assert told.deletion.attributed[0] == pytest.approx(told.cosine, abs=1e-5)
    if method == "integrated_gradients":
        gained = told.cosine - told.baseline_cosine
        assert told.attribution.sum() == pytest.approx(gained + told.completeness_gap, abs=1e-4)
    else:
        assert told.completeness_gap is None
        assert told.attribution.min() >= 0


def test_a_stretch_is_explained_as_a_clip_of_its_own(world, tracer):
    samples, rate = soundfile.read(world.of("slow")[0], dtype="float32")
    part = explain_clip(tracer, (samples, rate), system="slow", start_s=0.25, longest_s=0.5, draws=1)
    alone = explain_clip(tracer, (samples[4000:12000], rate), system="slow", draws=1)
    np.testing.assert_array_equal(part.attribution, alone.attribution)
    np.testing.assert_allclose(part.times_s, alone.times_s + 0.25)
    assert len(part.times_s) == 51


def test_what_cannot_be_asked_says_so(world, tracer):
    path = world.of("slow")[0]
    with pytest.raises(TracerError, match="'nobody' is not in the gallery"):
        explain_clip(tracer, path, system="nobody")
    with pytest.raises(TracerError, match="nothing to explain from 9 s on"):
        explain_clip(tracer, path, system="slow", start_s=9.0)
    with pytest.raises(AudioError):
        explain_clip(tracer, (np.zeros(16000), 16000), system="slow")
    with pytest.raises(ValueError, match="method"):
        explain_clip(tracer, path, system="slow", method="guess")


def test_the_tracer_hears_as_before(world, tracer):
    path = world.of("slow")[0]
    before = tracer.trace(path)
    explain_clip(tracer, path, system="slow", draws=1)
    assert tracer.trace(path) == before


def test_clips_of_test_are_explained_and_measured(tracer, manifest):
    explained = explain_test(tracer, manifest, **EXPLAIN)
    assert explained.systems.tolist() == ["middle", "middle", "slow", "slow"]
    assert set(explained.deletions) == {(m, u) for m in METHODS for u in ("cells", "frames")}
    told = figures_of(explained, bootstrap_samples=20, seed=0)
    cells = [each.area for each in explained.deletions["integrated_gradients", "cells"]]
    assert told["integrated_gradients"]["cells"]["area"] == pytest.approx(np.mean(cells))
    assert told["clips"] == 4
    low, high = told["integrated_gradients"]["cells"]["fall_beyond_moved_ci95"]
    assert low <= told["integrated_gradients"]["cells"]["fall_beyond_moved"] <= high
    names, bands = of_systems(explained, explained.bands)
    assert names == ["middle", "slow"]
    assert bands.shape == (2, 40)
    np.testing.assert_allclose(explained.bands.sum(axis=1), explained.times.sum(axis=1), rtol=1e-6)
    again = explain_test(tracer, manifest, **EXPLAIN)
    np.testing.assert_array_equal(again.bands, explained.bands)


def test_parts_of_time_hold_all_of_it_in_order():
    attribution = np.zeros((47, 3))
    attribution[0], attribution[-1] = 1.0, 2.0
    found = by_part(attribution)
    assert found.shape == (PARTS,)
    assert (found[0], found[-1], found.sum()) == (3.0, 6.0, 9.0)


def test_only_systems_of_the_gallery_are_chosen(tracer, manifest):
    assert set(chosen_clips(tracer, manifest, clips_per_system=99, seed=0)["system"]) == {"middle", "slow"}
    others = Manifest("test", manifest.root, manifest.rows[manifest.rows["system"] == "fast"])
    with pytest.raises(ManifestError, match="nothing to explain"):
        chosen_clips(tracer, others, clips_per_system=1, seed=0)


def test_the_command_writes_figures_and_pictures(world, manifest_path, tmp_path, monkeypatch):
    shutil.copytree(world.folder / "models", tmp_path / "models")
    (tmp_path / "data/corpus").mkdir(parents=True)
    shutil.copy(manifest_path, tmp_path / "data/corpus/manifest.parquet")
    for name in ("stages", "src"):
        (tmp_path / name).symlink_to(REPOSITORY / name)
    params = CONTENT | {"explain": EXPLAIN | {"bootstrap_samples": 5}}
    (tmp_path / "params.yaml").write_text(yaml.safe_dump(params))
    monkeypatch.chdir(tmp_path)
    result = CliRunner().invoke(app, ["explain"])
    assert result.exit_code == 0
    told = json.loads((tmp_path / "metrics/explain.json").read_text())
    assert told["by_system"]["slow"]["strongest_band_hz"] > 0
    for name in ("bands", "time", "deletion"):
        assert imread(tmp_path / f"plots/explain/{name}.png").shape[0] > 100
    lines = (tmp_path / "plots/explain/bands.csv").read_text().splitlines()
    assert lines[0] == "system,band_hz,percent"
    assert len(lines) == 1 + 2 * 40


def test_a_clip_is_drawn_low_bands_below_and_red_for_it(tmp_path):
    attribution = np.zeros((30, 40))
    attribution[:, :20] = 1.0
    plot_attribution(
        tmp_path / "clip.png", np.ones((30, 40)), attribution,
        times_s=np.arange(30) / 100, bands_hz=np.linspace(100, 7800, 40), title="clip",
    )  # fmt: skip
    picture = imread(tmp_path / "clip.png")[:, :700, :3]
    red = (picture[..., 0] > 0.35) & (picture[..., 1:].max(axis=2) < 0.2)
    rows = np.flatnonzero(red.any(axis=1))
    assert red.sum() > 1000
    assert rows.min() > 0.6 * len(picture)  # the lower half of the lower panel
