"""Explanations by a small tracer on vowels: of one clip and of test."""

import hashlib
import importlib.util
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

from makermark.cli.main import app
from makermark.examination.attribution.clip_explanation import explain_clip
from makermark.examination.attribution.explanation_study import (
    TIME_PARTS,
    draw_clips,
    explain_test,
    explanation_metrics,
    mean_system_profiles,
    sum_by_time_part,
)
from makermark.examination.attribution.methods import METHODS
from makermark.foundation.errors import AudioError, ManifestError, TracerError
from makermark.foundation.manifest import Manifest, read_manifest, write_manifest
from tracer_support import CONTENT

EXPLAIN = {"clips_per_system": 2, "longest_seconds": 0.6, "draws": 2, "seed": 0}
REPOSITORY = Path(__file__).parents[3]


@pytest.fixture(scope="module")
def manifest_path(world, tmp_path_factory):
    """A manifest of all audio files, where most utterances of all three systems are in test."""
    rows = [
        {"utterance_id": name, "path": path.name, "system": name.split("-")[1], "duration_s": 1.0,
         "split": "train" if name.endswith("-0") and "fast" not in name else "test",
         "sha256": hashlib.sha256(path.read_bytes()).hexdigest()}
        for name, path in world.files.items()
    ]  # fmt: skip
    empty = dict.fromkeys(("family", "acoustic_model", "vocoder", "voice", "text"), "")
    path = tmp_path_factory.mktemp("corpus") / "manifest.parquet"
    root = next(iter(world.files.values())).parent
    write_manifest(path, pd.DataFrame(rows).assign(language="en", **empty), corpus="vowels", root=str(root))
    return path


@pytest.fixture(scope="module")
def manifest(manifest_path):
    return read_manifest(manifest_path)


def test_script_of_the_documentation_draws_an_explanation(world, tracer, tmp_path):
    spec = importlib.util.spec_from_file_location("draw", REPOSITORY / "docs/images/draw.py")
    script = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(script)
    explanation = explain_clip(tracer, world.of("slow")[0], system="slow", draws=2)
    script.plot_explanation(tmp_path / "clip.png", explanation)
    image = imread(tmp_path / "clip.png")
    assert image.shape[1] > 800
    assert image.std() > 0.05


@pytest.mark.parametrize("method", METHODS)
def test_explanation_has_consistent_axes_and_cosine(world, tracer, method):
    path = world.of("slow")[0]
    explanation = explain_clip(tracer, path, system="slow", method=method, draws=2)
    frames = 1 + soundfile.info(path).frames // 160
    assert explanation.attribution.shape == explanation.log_energies.shape == (frames, 40)
    assert explanation.times_s.shape == (frames,)
    assert explanation.times_s[1] == pytest.approx(0.01)
    assert explanation.bands_hz.shape == (40,)
    assert (np.diff(explanation.bands_hz) > 0).all()
    candidates = {candidate.system: candidate.cosine for candidate in tracer.trace(path).candidates}
    assert explanation.cosine == pytest.approx(candidates["slow"], abs=1e-4)
    assert explanation.deletion.attributed[0] == pytest.approx(explanation.cosine, abs=1e-5)
    if method == "integrated_gradients":
        gained = explanation.cosine - explanation.baseline_cosine
        assert explanation.attribution.sum() == pytest.approx(gained + explanation.completeness_gap, abs=1e-4)
    else:
        assert explanation.completeness_gap is None
        assert explanation.attribution.min() >= 0


def test_segment_is_explained_as_a_clip_of_its_own(world, tracer):
    samples, rate = soundfile.read(world.of("slow")[0], dtype="float32")
    part = explain_clip(tracer, (samples, rate), system="slow", start_s=0.25, longest_s=0.5, draws=1)
    alone = explain_clip(tracer, (samples[4000:12000], rate), system="slow", draws=1)
    np.testing.assert_array_equal(part.attribution, alone.attribution)
    np.testing.assert_allclose(part.times_s, alone.times_s + 0.25)
    assert len(part.times_s) == 51


def test_invalid_request_raises_an_error(world, tracer):
    path = world.of("slow")[0]
    with pytest.raises(TracerError, match="'nobody' is not in the gallery"):
        explain_clip(tracer, path, system="nobody")
    with pytest.raises(TracerError, match="nothing to explain from 9 s on"):
        explain_clip(tracer, path, system="slow", start_s=9.0)
    with pytest.raises(AudioError):
        explain_clip(tracer, (np.zeros(16000), 16000), system="slow")
    with pytest.raises(ValueError, match="method"):
        explain_clip(tracer, path, system="slow", method="guess")


def test_explanation_does_not_change_the_tracer(world, tracer):
    path = world.of("slow")[0]
    before = tracer.trace(path)
    explain_clip(tracer, path, system="slow", draws=1)
    assert tracer.trace(path) == before


def test_explain_test_returns_profiles_and_metrics(tracer, manifest):
    explained = explain_test(tracer, manifest, **EXPLAIN)
    assert explained.systems.tolist() == ["middle", "middle", "slow", "slow"]
    assert set(explained.deletions) == {(m, u) for m in METHODS for u in ("cells", "frames")}
    metrics = explanation_metrics(explained, bootstrap_samples=20, seed=0)
    cells = [result.area for result in explained.deletions["integrated_gradients", "cells"]]
    assert metrics["integrated_gradients"]["cells"]["area"] == pytest.approx(np.mean(cells))
    assert metrics["clips"] == 4
    low, high = metrics["integrated_gradients"]["cells"]["fall_beyond_moved_ci95"]
    assert low <= metrics["integrated_gradients"]["cells"]["fall_beyond_moved"] <= high
    names, bands = mean_system_profiles(explained.systems, explained.band_profiles)
    assert names == ["middle", "slow"]
    assert bands.shape == (2, 40)
    np.testing.assert_allclose(
        explained.band_profiles.sum(axis=1), explained.time_profiles.sum(axis=1), rtol=1e-6
    )
    again = explain_test(tracer, manifest, **EXPLAIN)
    np.testing.assert_array_equal(again.band_profiles, explained.band_profiles)


def test_time_parts_preserve_sum_and_order():
    attribution = np.zeros((47, 3))
    attribution[0], attribution[-1] = 1.0, 2.0
    sums = sum_by_time_part(attribution)
    assert sums.shape == (TIME_PARTS,)
    assert (sums[0], sums[-1], sums.sum()) == (3.0, 6.0, 9.0)


def test_only_clips_of_gallery_systems_are_drawn(tracer, manifest):
    assert set(draw_clips(tracer, manifest, clips_per_system=99, seed=0)["system"]) == {"middle", "slow"}
    others = Manifest("test", manifest.root, manifest.rows[manifest.rows["system"] == "fast"])
    with pytest.raises(ManifestError, match="nothing to explain"):
        draw_clips(tracer, others, clips_per_system=1, seed=0)


def test_explain_command_writes_metrics_and_plots(world, manifest_path, tmp_path, monkeypatch):
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
    metrics = json.loads((tmp_path / "metrics/explain.json").read_text())
    assert metrics["by_system"]["slow"]["strongest_band_hz"] > 0
    assert 0 <= metrics["by_system"]["slow"]["outside_telephone_band_percent"] <= 100
    for name in ("bands", "time", "deletion"):
        assert imread(tmp_path / f"plots/explain/{name}.png").shape[0] > 100
    lines = (tmp_path / "plots/explain/bands.csv").read_text().splitlines()
    assert lines[0] == "system,band_hz,percent"
    assert len(lines) == 1 + 2 * 40
