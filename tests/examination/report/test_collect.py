"""Data of a report, each part against an independent computation."""

import dataclasses
import hashlib
import shutil
from types import SimpleNamespace

import numpy as np
import pytest
from sklearn.decomposition import PCA

from makermark.examination.report import collect_report_data, render_report
from makermark.examination.report.media import compute_spectrogram
from makermark.examination.report.neighbours import project_gallery
from makermark.examination.report.page import frequency_ticks
from makermark.examination.report.sensitivity import analyse_sensitivity, find_critical_prior
from makermark.foundation.errors import AudioError
from makermark.models.checkpoint import load_checkpoint
from makermark.tracing import Tracer
from makermark.tracing.bundle import read_bundle, write_bundle
from reading_html import Page

ALL = ("middle", "slow", "fast")
RATES = {
    "seen": (("correct", 40), ("family", 20), ("wrong", 1), ("unknown", 30), ("too_little", 9)),
    "unseen": (("correct", 0), ("family", 7), ("wrong", 13), ("unknown", 75), ("too_little", 5)),
}


def test_neighbours_are_the_nearest_by_cosine(world, report_data):
    embedding = world.tracer.embed_clip(world.long).embedding
    gallery = world.tracer.gallery
    cosines = dict(zip(gallery.clips["clip"], gallery.embeddings @ embedding, strict=True))
    best = sorted(cosines, key=lambda clip: -cosines[clip])[:5]
    assert [neighbour.clip for neighbour in report_data.neighbours[:5]] == best
    assert [neighbour.cosine for neighbour in report_data.neighbours[:5]] == pytest.approx(
        [cosines[clip] for clip in best]
    )
    assert {neighbour.system for neighbour in report_data.neighbours} == {"middle", "slow"}
    assert all(
        neighbour.mp3 and neighbour.language == "en" and neighbour.text == "la la"
        for neighbour in report_data.neighbours
    )


def test_report_without_corpus_lacks_only_the_sound_of_neighbours(world, tmp_path):
    report = collect_report_data(world.tracer, world.long, corpus=tmp_path, explain=False)
    assert report.trace == world.tracer.trace(world.long)
    assert not any(neighbour.mp3 for neighbour in report.neighbours)
    assert report.clip.mp3
    text = Page(render_report(report)).text
    assert f"No sound: {tmp_path}/manifest.parquet: No such file" in text


def test_changed_corpus_files_are_not_played(world, tmp_path):
    shutil.copytree(world.folder / "corpus", tmp_path / "corpus")
    for path in (tmp_path / "corpus/audio").glob("train-slow-*"):
        path.write_bytes(world.files["fast"][0].read_bytes())
    for path in (tmp_path / "corpus/audio").glob("train-middle-*"):
        path.unlink()
    report = collect_report_data(world.tracer, world.long, corpus=tmp_path / "corpus", explain=False)
    for neighbour in report.neighbours:
        assert not neighbour.mp3
        assert ("changed since" if neighbour.system == "slow" else "missing") in neighbour.missing


def test_enrolled_neighbour_has_no_sound(world):
    tracer = world.tracer.enroll("fast", world.files["fast"][:3])
    report = collect_report_data(
        tracer, world.files["fast"][3], corpus=world.folder / "corpus", explain=False
    )
    enrolled = [neighbour for neighbour in report.neighbours if neighbour.origin == "enrolled"]
    assert enrolled
    assert all(neighbour.missing == "enrolled; the gallery stores no sound" for neighbour in enrolled)


def test_corpus_file_is_recognised_by_its_content(world, tmp_path, report_data):
    copy = tmp_path / "renamed.flac"
    copy.write_bytes(world.files["slow"][-1].read_bytes())
    report = collect_report_data(world.tracer, copy, corpus=world.folder / "corpus", explain=False)
    assert report.clip.in_corpus == world.files["slow"][-1].stem
    assert report.clip.sha256 == hashlib.sha256(copy.read_bytes()).hexdigest()
    assert "is an utterance of the corpus" in Page(render_report(report)).text
    assert not report_data.clip.in_corpus


def test_samples_with_a_name_are_accepted(world):
    samples = world.tracer.load_clip(world.files["slow"][0]).waveform
    report = collect_report_data(world.tracer, (samples, 16000), corpus=None, name="call 7", explain=False)
    expected = world.tracer.trace(world.files["slow"][0])
    assert report.trace == dataclasses.replace(expected, file="call 7", sha256="", decoder="")
    assert "which system made “call 7”?" in Page(render_report(report)).text


def test_unusable_file_raises_audio_error(world, tmp_path):
    bad = tmp_path / "bad.wav"
    bad.write_bytes(b"no audio")
    with pytest.raises(AudioError, match="not audio"):
        collect_report_data(world.tracer, bad)


@pytest.mark.parametrize("rate", [0.05, 0.5])
def test_conclusion_changes_at_the_critical_prior_only(world, rate):
    grid = np.unique(np.concatenate([np.logspace(-7, -0.31, 20), 1 - np.logspace(-7, -0.31, 20)]))
    tracer = world.tracer.with_settings(false_accept_rate=rate)
    others = [tracer.with_settings(prior_known=float(prior)) for prior in grid]
    turned = 0
    for path in [world.files[system][0] for system in ALL]:
        clip = tracer.embed_clip(path)
        speech = np.array([clip.speech_s])
        conclusions = [other.decide(clip.embedding[None], speech).conclusions[0] for other in others]
        changes = [i for i in range(len(grid) - 1) if conclusions[i] != conclusions[i + 1]]
        prior = find_critical_prior(tracer, clip)
        if prior is None:
            assert not changes
        else:
            turned += 1
            (index,) = changes
            assert grid[index] <= prior <= grid[index + 1]
    assert turned or rate == 0.05


def test_critical_prior_beyond_float_precision_is_none():
    decisions = SimpleNamespace(
        in_set=np.array([[True]]), posteriors=np.array([[1e-20]]), posterior_unknown=np.array([1.0])
    )
    tracer = SimpleNamespace(
        settings=SimpleNamespace(prior_known=0.5), decide=lambda embeddings, speech: decisions
    )
    assert find_critical_prior(tracer, SimpleNamespace(embedding=np.ones(2), speech_s=1.0)) is None


def test_sensitivity_equals_tracers_with_other_settings(world):
    clip = world.tracer.embed_clip(world.long)
    sensitivity = analyse_sensitivity(world.tracer, clip)
    for name, rows in {
        "prior_known": sensitivity.priors,
        "false_accept_rate": sensitivity.false_accept_rates,
        "conformal_coverage": sensitivity.coverages,
    }.items():
        assert [row.value for row in rows if row.is_current] == [getattr(world.tracer.settings, name)]
        for row in rows:
            trace = world.tracer.with_settings(**{name: row.value}).trace(world.long)
            assert (row.conclusion, row.name) == (trace.conclusion, trace.name)
    assert sensitivity.lengths_from == "dev"
    for row in sensitivity.lengths:
        shares = row.correct_percent, row.family_percent, row.unnamed_percent, row.wrong_percent
        assert sum(shares) == pytest.approx(100)
        shares = row.outside_family_percent, row.outside_unnamed_percent, row.outside_wrong_percent
        assert sum(shares) == pytest.approx(100)
    runner_up = world.tracer.trace(world.long).candidates[1]
    assert runner_up.in_set == (sensitivity.runner_up_cosine >= sensitivity.runner_up_threshold)


@pytest.mark.parametrize("system", ALL)
def test_threshold_cosines_decide_as_the_tracer_does(world, system):
    clip = world.tracer.embed_clip(world.files[system][0])
    sensitivity, speech = analyse_sensitivity(world.tracer, clip), np.array([clip.speech_s])
    calibration = world.tracer.calibration
    index = calibration.systems.index(sensitivity.best)
    cosines = clip.embedding @ calibration.centroids.T
    rival = max([cosine for other, cosine in enumerate(cosines) if other != index], default=-1.0)
    score = sensitivity.threshold + 0.75 * (sensitivity.threshold - rival)
    assert score == pytest.approx(calibration.interpolate(calibration.system_threshold, speech)[0, index])
    assert sensitivity.best_cosine == pytest.approx(cosines[index])


def test_report_prints_the_rates_of_test_for_known_and_unknown_systems(world, tmp_path):
    test = {
        name: {
            "median_speech_s": 1.0, "seen_clips": 20, "unseen_clips": 10, "seen_systems": 2, "unseen_systems": 1,
            "posterior_error_percent": 21.0,
            **{f"{group}_{outcome}_percent": value for group, values in RATES.items() for outcome, value in values},
            **{f"{group}_{outcome}_percent_ci95": [value / 2, 2 * value]
               for group, values in RATES.items() for outcome, value in values},
        }
        for name in ("1s", "whole")
    }  # fmt: skip
    bundle = dataclasses.replace(make_bundle(world), test_metrics=test)
    shutil.copytree(world.folder / "models", tmp_path / "models")
    write_bundle(tmp_path / "models/tracer", bundle)
    tracer = Tracer.load(tmp_path / "models", device="cpu", prior_known=0.9)
    assert tracer.test_metrics == test
    report = collect_report_data(tracer, world.long, corpus=None, explain=False)
    text = Page(render_report(report)).text
    assert (
        "of the utterances by 2 known systems, 40 % [20, 80] get the right system, 20 % [10, 40] the right family, "
        "1 % [0, 2] a wrong name, and 30 % [15, 60] are called unknown; of the utterances by 1 unknown system, 13 % "
        "[6, 26] get a wrong name, 7 % [4, 14] the right family, and 75 % [38, 150] are called unknown."
    ) in text
    assert "1.0 s 40 20 39 1 80 7 13" in text
    assert "The model was trained on 2 systems of the built-in corpus." in text


def make_bundle(world):
    checkpoint = load_checkpoint(world.folder / "models/best")
    return read_bundle(
        world.folder / "models/tracer", model_sha256=checkpoint.digest, dim=checkpoint.metadata.dim
    )


def test_pca_map_equals_principal_components(world):
    gallery, clip = world.tracer.gallery, world.tracer.embed_clip(world.long)
    pca_map = project_gallery(gallery, clip.embedding, clip.window_embeddings)
    reference = PCA(2).fit(gallery.embeddings)  # as many utterances of gallery system: they count alike
    np.testing.assert_allclose(
        np.abs(pca_map.points), np.abs(reference.transform(gallery.embeddings)), atol=1e-4
    )
    np.testing.assert_allclose(
        np.abs(pca_map.clip), np.abs(reference.transform(clip.embedding[None])[0]), atol=1e-4
    )
    assert pca_map.windows.shape == (len(clip.window_embeddings), 2)
    assert pca_map.explained_variance_percent == pytest.approx(
        100 * reference.explained_variance_ratio_.sum(), rel=1e-3
    )


def test_systems_have_equal_weight_in_the_pca_map(world):
    gallery, clip = world.tracer.gallery, world.tracer.embed_clip(world.long)
    slow = np.flatnonzero(gallery.clips["system"] == "slow")
    rows = np.concatenate([np.arange(len(gallery.clips)), slow, slow])
    more = dataclasses.replace(
        gallery, clips=gallery.clips.iloc[rows].reset_index(drop=True), embeddings=gallery.embeddings[rows]
    )
    first, second = (
        project_gallery(systems, clip.embedding, clip.window_embeddings) for systems in (gallery, more)
    )
    np.testing.assert_allclose(first.clip, second.clip, atol=1e-5)


@pytest.mark.parametrize("tone_hz", [500, 1000, 4000])
def test_tone_is_at_its_tick_in_the_spectrogram(tone_hz):
    time = np.arange(16000) / 16000
    spectrogram = compute_spectrogram(np.sin(2 * np.pi * tone_hz * time).astype(np.float32), 16000)
    loudest = int(spectrogram.level_db.mean(axis=1).argmax())
    tick = {label: share for share, label in frequency_ticks(spectrogram.top_hz)}[f"{tone_hz / 1000:g}"]
    assert 100 * (loudest + 0.5) / len(spectrogram.level_db) == pytest.approx(tick, abs=2)


def test_long_sound_is_drawn_in_part(world):
    noise = np.random.default_rng(0).standard_normal(70 * 16000).astype(np.float32)
    spectrogram = compute_spectrogram(noise, 16000)
    assert spectrogram.seconds == 60
    assert 900 <= spectrogram.level_db.shape[1] <= 1001
    assert spectrogram.level_db.max() == 0
