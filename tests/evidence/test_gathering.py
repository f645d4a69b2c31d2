"""What is gathered: the nearest utterances, the plane, what would change the verdict; each worked out another way."""

import dataclasses
import hashlib
import shutil
from types import SimpleNamespace

import numpy as np
import pytest
from sklearn.decomposition import PCA

from makermark.errors import AudioError
from makermark.evidence import gather, html_report
from makermark.evidence.changing import changes, turning_prior
from makermark.evidence.page import hertz_ticks
from makermark.evidence.plane import place
from makermark.evidence.sounds import spectrogram
from reading_html import Page

ALL = ("middle", "slow", "fast")


def test_the_nearest_are_the_nearest(world, evidence):
    vector = world.tracer.hear(world.long).vector
    gallery = world.tracer.gallery
    cosines = dict(zip(gallery.clips["clip"], gallery.vectors @ vector, strict=True))
    best = sorted(cosines, key=lambda clip: -cosines[clip])[:5]
    assert [each.clip for each in evidence.neighbours[:5]] == best
    assert [each.cosine for each in evidence.neighbours[:5]] == pytest.approx(
        [cosines[clip] for clip in best]
    )
    assert {each.system for each in evidence.neighbours} == {"middle", "slow"}
    assert all(each.sound and each.language == "en" and each.text == "la la" for each in evidence.neighbours)


def test_without_the_corpus_there_is_all_but_its_sounds(world, tmp_path):
    found = gather(world.tracer, world.long, corpus=tmp_path, explain=False)
    assert found.trace == world.tracer.trace(world.long)
    assert not any(each.sound for each in found.neighbours)
    assert found.clip.sound
    text = Page(html_report(found)).text
    assert f"Without sound: {tmp_path}/manifest.parquet: No such file" in text


def test_another_corpus_gives_no_wrong_sounds(world, tmp_path):
    shutil.copytree(world.folder / "corpus", tmp_path / "corpus")
    for path in (tmp_path / "corpus/audio").glob("train-slow-*"):
        path.write_bytes(world.files["fast"][0].read_bytes())
    for path in (tmp_path / "corpus/audio").glob("train-middle-*"):
        path.unlink()
    found = gather(world.tracer, world.long, corpus=tmp_path / "corpus", explain=False)
    for each in found.neighbours:
        assert not each.sound
        assert ("changed since" if each.system == "slow" else "missing") in each.missing


def test_an_enrolled_system_has_no_sound_and_says_so(world):
    tracer = world.tracer.enroll("fast", world.files["fast"][:3])
    found = gather(tracer, world.files["fast"][3], corpus=world.folder / "corpus", explain=False)
    enrolled = [each for each in found.neighbours if each.origin == "enrolled"]
    assert enrolled
    assert all(each.missing == "enrolled here; the gallery keeps no sound" for each in enrolled)


def test_a_file_of_the_corpus_is_known_by_its_bytes(world, tmp_path, evidence):
    copy = tmp_path / "renamed.flac"
    copy.write_bytes(world.files["slow"][-1].read_bytes())
    found = gather(world.tracer, copy, corpus=world.folder / "corpus", explain=False)
    assert found.clip.in_corpus == world.files["slow"][-1].stem
    assert found.clip.sha256 == hashlib.sha256(copy.read_bytes()).hexdigest()
    assert "is an utterance of the corpus" in Page(html_report(found)).text
    assert not evidence.clip.in_corpus


def test_samples_and_a_given_name_do(world):
    samples = world.tracer.waveform(world.files["slow"][0])
    found = gather(world.tracer, (samples, 16000), corpus=None, name="call 7", explain=False)
    assert found.trace == dataclasses.replace(world.tracer.trace(world.files["slow"][0]), file="call 7")
    assert "which system made “call 7”?" in Page(html_report(found)).text


def test_what_cannot_be_heard_is_refused(world, tmp_path):
    bad = tmp_path / "bad.wav"
    bad.write_bytes(b"no audio")
    with pytest.raises(AudioError, match="not audio"):
        gather(world.tracer, bad)


@pytest.mark.parametrize("rate", [0.05, 0.5])
def test_the_verdict_turns_at_the_prior_that_is_said_and_at_no_other(world, rate):
    grid = np.unique(np.concatenate([np.logspace(-7, -0.31, 20), 1 - np.logspace(-7, -0.31, 20)]))
    tracer = world.tracer.with_settings(false_accept_rate=rate)
    others = [tracer.with_settings(prior_known=float(prior)) for prior in grid]
    turned = 0
    for path in [world.files[system][0] for system in ALL]:
        heard = tracer.hear(path)
        speech = np.array([heard.speech_s])
        kinds = [other.decide(heard.vector[None], speech).kinds[0] for other in others]
        places = [i for i in range(len(grid) - 1) if kinds[i] != kinds[i + 1]]
        found = turning_prior(tracer, heard)
        if found is None:
            assert not places
        else:
            turned += 1
            (only,) = places
            assert grid[only] <= found <= grid[only + 1]
    assert turned or rate == 0.05


def test_no_prior_is_said_that_no_number_holds():
    told = SimpleNamespace(in_set=np.array([[True]]), posteriors=np.array([[1e-20]]), unknown=np.array([1.0]))
    tracer = SimpleNamespace(settings=SimpleNamespace(prior_known=0.5), decide=lambda vectors, speech: told)
    assert turning_prior(tracer, SimpleNamespace(vector=np.ones(2), speech_s=1.0)) is None


def test_other_settings_are_what_a_tracer_with_them_says(world):
    heard = world.tracer.hear(world.long)
    found = changes(world.tracer, heard)
    for name, rows in {
        "prior_known": found.priors,
        "false_accept_rate": found.false_accept_rates,
        "conformal_coverage": found.coverages,
    }.items():
        assert [row.value for row in rows if row.stated] == [getattr(world.tracer.settings, name)]
        for row in rows:
            told = world.tracer.with_settings(**{name: row.value}).trace(world.long)
            assert (row.verdict, row.name) == (told.verdict, told.name)
    for row in found.lengths:
        shares = row.right_percent, row.family_percent, row.unnamed_percent, row.wrong_percent
        assert sum(shares) == pytest.approx(100)
    assert found.behind_log10 >= 0


def test_the_plane_is_that_of_the_principal_components(world):
    gallery, heard = world.tracer.gallery, world.tracer.hear(world.long)
    found = place(gallery, heard.vector, heard.window_vectors)
    reference = PCA(2).fit(gallery.vectors)  # as many utterances of each system: they count alike
    np.testing.assert_allclose(np.abs(found.points), np.abs(reference.transform(gallery.vectors)), atol=1e-4)
    np.testing.assert_allclose(
        np.abs(found.clip), np.abs(reference.transform(heard.vector[None])[0]), atol=1e-4
    )
    assert found.windows.shape == (len(heard.window_vectors), 2)
    assert found.shown_percent == pytest.approx(100 * reference.explained_variance_ratio_.sum(), rel=1e-3)


def test_each_system_counts_alike_on_the_plane(world):
    gallery, heard = world.tracer.gallery, world.tracer.hear(world.long)
    slow = np.flatnonzero(gallery.clips["system"] == "slow")
    rows = np.concatenate([np.arange(len(gallery.clips)), slow, slow])
    more = dataclasses.replace(
        gallery, clips=gallery.clips.iloc[rows].reset_index(drop=True), vectors=gallery.vectors[rows]
    )
    first, second = (place(each, heard.vector, heard.window_vectors) for each in (gallery, more))
    np.testing.assert_allclose(first.clip, second.clip, atol=1e-5)


@pytest.mark.parametrize("tone_hz", [500, 1000, 4000])
def test_a_tone_lies_where_the_axis_says(tone_hz):
    time = np.arange(16000) / 16000
    found = spectrogram(np.sin(2 * np.pi * tone_hz * time).astype(np.float32), 16000)
    loudest = int(found.level_db.mean(axis=1).argmax())
    said = {label: share for share, label in hertz_ticks(found.top_hz)}[f"{tone_hz / 1000:g}"]
    assert 100 * (loudest + 0.5) / len(found.level_db) == pytest.approx(said, abs=2)


def test_a_long_sound_is_drawn_in_part(world):
    noise = np.random.default_rng(0).standard_normal(70 * 16000).astype(np.float32)
    found = spectrogram(noise, 16000)
    assert found.seconds == 60
    assert 900 <= found.level_db.shape[1] <= 1001
    assert found.level_db.max() == 0
