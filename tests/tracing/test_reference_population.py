"""Human speech in the reference population: calibration, thresholds, bundle, evaluation and report."""

import dataclasses

import numpy as np
import pytest
import soundfile
from test_tracer_calibration import calibrator, clip_set, cosine, dev, gallery

from makermark.corpora.bonafide_recordings import build_bonafide_corpus
from makermark.examination.report.collect import collect_report_data
from makermark.examination.report.text import describe_threshold, describe_top_ratio
from makermark.foundation.manifest import read_manifest
from makermark.reporting.tables import describe_tracer
from makermark.scoring.calibration import fit_calibration
from makermark.tracing.build import CLIPS_PER_SPEAKER
from makermark.tracing.bundle import ClipSet, read_bundle, write_bundle
from makermark.tracing.calibration import HUMAN_SPEECH, NO_RIVAL, calibrate_gallery
from makermark.tracing.decision import FAMILY, LOG10, ONE_SYSTEM
from makermark.tracing.evaluation import evaluate_bonafide
from makermark.tracing.tracer import Tracer
from tests_support import recorded_speech
from tracer_support import make_world

ANGLES = [85, 40, 95]  # of human clips: two lie beside the training system b
SPEAKERS = 6


def human_clips(seconds=1.0):
    return clip_set([(HUMAN_SPEECH, angle, 0.5, [f"h{angle}"]) for angle in ANGLES], seconds=seconds)


def test_human_clips_are_non_target_trials_of_every_training_system():
    clips = dev()
    angles = [0, 10, 20, 50, 90, 80, 55, 45, 60, 30, 20, 200, *ANGLES]
    cosines = np.array([[cosine(angle), cosine(angle - 90)] for angle in angles])
    systems = np.array([*clips.systems, *[HUMAN_SPEECH] * len(ANGLES)])
    expected = fit_calibration(cosines.ravel(), (systems[:, None] == np.array(["a", "b"])).ravel(), prior=0.5)
    (fitted,) = calibrator(clips, bonafide=human_clips()).training_systems
    assert fitted == pytest.approx(expected, rel=1e-4)
    (without,) = calibrator(clips).training_systems
    assert sum(fitted) < sum(without)  # at cosine 1: the evidence is weaker where people score like b


def test_human_clips_have_a_threshold_of_their_own_and_leave_pairs_and_enrolment_population_alone():
    """They are rivals, each without itself in the mean, and of 3 clips a rate of 0.2 lets none be named."""
    with_people, without = calibrator(bonafide=human_clips()), calibrator()
    fitted = calibrate_gallery(gallery(), with_people, false_accept_rate=0.2, coverage=0.9)

    def top_score(angle, people):
        towards = np.sum([[cosine(other), cosine(90 - other)] for other in people], axis=0)
        rival = cosine(angle - np.degrees(np.arctan2(towards[1], towards[0])))
        both = cosine(angle), cosine(angle - 90)
        return max(own + 0.75 * (own - max(other, rival)) for own, other in (both, both[::-1]))

    of_u = sorted(top_score(angle, ANGLES) for angle in (45, 60, 30, 20, 200))
    of_people = [top_score(angle, [other for other in ANGLES if other != angle]) for angle in ANGLES]
    assert fitted.system_threshold[0, 0] == pytest.approx(max(of_u[-2], *of_people), abs=1e-5)
    assert fitted.human_cosines(np.eye(2))[1] > 0.9
    assert without.human_centroid is None
    assert with_people.pairs == without.pairs
    assert with_people.llr_range == without.llr_range
    assert with_people.speech_seconds.tolist() == without.speech_seconds.tolist()
    assert with_people.enrolled_systems(1) != without.enrolled_systems(1)


def people(speakers, *, seconds=1.0):
    """Clips of people at angles in degrees, by speaker: two utterances of one speaker have no common source."""
    clips = clip_set(
        [
            (HUMAN_SPEECH, angle, 0.5, [f"{name}{number}"])
            for name, angles in speakers.items()
            for number, angle in enumerate(angles)
        ],
        seconds=seconds,
    )
    names = [name for name, angles in speakers.items() for _ in angles]
    return ClipSet(clips.rows.assign(speaker=names), clips.embeddings)


def mean_direction(angles):
    return np.degrees(np.arctan2(sum(cosine(90 - angle) for angle in angles), sum(map(cosine, angles))))


def test_human_speech_is_compared_with_other_speakers_only():
    bonafide = people({"x": [85, 87], "y": [40], "z": [95, 100]})
    (values,) = calibrator(bonafide=bonafide).human_cosines_by_length
    others = {
        85: [40, 95, 100],
        87: [40, 95, 100],
        40: [85, 87, 95, 100],
        95: [85, 87, 40],
        100: [85, 87, 40],
    }
    expected = [cosine(angle - mean_direction(rest)) for angle, rest in others.items()]
    np.testing.assert_allclose(values[-5:], expected, atol=1e-6)
    everybody = mean_direction(others)
    np.testing.assert_allclose(
        values[:4], [cosine(angle - everybody) for angle in (0, 10, 20, 50)], atol=1e-6
    )
    (alone,) = calibrator(bonafide=people({"x": [85, 87]})).human_cosines_by_length
    assert alone[-2:].tolist() == [NO_RIVAL, NO_RIVAL]  # there is no other speaker to compare with


def test_clips_of_a_bundle_without_speakers_are_connected_by_their_utterances():
    clips = clip_set([(HUMAN_SPEECH, 0, 0.5, names) for names in (["u", "v"], ["w"], ["v", "x"], ["x"])])
    speakers = clips.with_speakers().rows["speaker"]
    assert speakers[0] == speakers[2] == speakers[3] != speakers[1]
    named = people({"x": [85, 87]})
    assert named.with_speakers() is named


def test_threshold_of_human_speech_leaves_out_whole_speakers():
    """Of 10 speakers with 5 clips each, x alone lies at b: all of its clips exceed whatever the other speakers give.

    That is 10 % on average over the speakers; so a rate of 9 % needs a threshold that no clip of x exceeds, while 4 of
    50 single clips would be allowed.
    """
    towards_b = [86, 88, 90, 92, 94]
    angles = {f"s{number}": [40 + number] * 5 for number in range(9)} | {"x": towards_b}
    fitted = calibrate_gallery(
        gallery(), calibrator(bonafide=people(angles)), false_accept_rate=0.09, coverage=0.9
    )
    scores = [cosine(x - 90) + 0.75 * (cosine(x - 90) - cosine(x - 44)) for x in towards_b]
    assert fitted.system_threshold[0, 0] == pytest.approx(max(scores), abs=1e-6)
    assert min(scores) < max(scores) - 0.01


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    """A tracer whose reference population has the speech of dev's speakers."""
    folder = tmp_path_factory.mktemp("population")
    rng = np.random.default_rng(0)
    (folder / "recordings").mkdir()
    for speaker in range(SPEAKERS):
        path = folder / "recordings" / f"speaker {speaker}.wav"
        soundfile.write(path, recorded_speech(9.0, 16000, rng), 16000)
    build_bonafide_corpus(
        folder / "bonafide", source=str(folder / "recordings"), seed=0, dev_fraction=0.34, test_fraction=0.34
    )
    return make_world(folder)


def test_dev_speakers_calibrate_and_test_speakers_evaluate(world):
    rows = read_manifest(world.folder / "bonafide/manifest.parquet").rows
    for clips, split in ((world.built.bundle.bonafide, "dev"), (world.built.bonafide_test, "test")):
        part = rows[rows["split"] == split]
        speakers = part["voice"].nunique()
        assert set(clips.systems) == {HUMAN_SPEECH}
        assert clips.lengths == [0.5, 1.0]
        counts = clips.rows["seconds"].value_counts()
        assert set(counts) == {CLIPS_PER_SPEAKER * speakers}
        sources = {name for text in clips.rows["sources"] for name in text.split("\n")}
        assert sources <= set(part["utterance_id"])
        voices = dict(zip(part["utterance_id"], part["voice"], strict=True))
        for speaker, text in zip(clips.rows["speaker"], clips.rows["sources"], strict=True):
            assert {voices[name] for name in text.split("\n")} == {speaker}
        np.testing.assert_allclose(np.linalg.norm(clips.embeddings, axis=1), 1, rtol=1e-5)


def test_bundle_keeps_the_human_clips_and_earlier_bundles_have_none(world, tmp_path):
    bundle = world.built.bundle
    write_bundle(tmp_path / "tracer", bundle)
    read = read_bundle(tmp_path / "tracer", model_sha256=bundle.gallery.model_sha256, dim=8)
    assert read.bonafide.rows.equals(bundle.bonafide.rows)
    assert np.array_equal(read.bonafide.embeddings, bundle.bonafide.embeddings)
    loaded = Tracer.load(world.folder / "models", device="cpu")
    np.testing.assert_array_equal(
        loaded.calibration.system_threshold, world.built.tracer.calibration.system_threshold
    )
    unnamed = ClipSet(bundle.bonafide.rows.drop(columns="speaker"), bundle.bonafide.embeddings)
    write_bundle(tmp_path / "tracer", dataclasses.replace(bundle, bonafide=unnamed))
    earlier = read_bundle(tmp_path / "tracer", model_sha256=bundle.gallery.model_sha256, dim=8)
    assert earlier.bonafide.rows.equals(unnamed.rows)
    write_bundle(tmp_path / "tracer", dataclasses.replace(bundle, bonafide=None))
    assert read_bundle(tmp_path / "tracer", model_sha256=bundle.gallery.model_sha256, dim=8).bonafide is None


def test_evaluation_of_human_speech_counts_what_the_tracer_says_of_each_file(world):
    tracer, clips = world.built.tracer, world.built.bonafide_test
    manifest = read_manifest(world.folder / "bonafide/manifest.parquet")
    paths = dict(zip(manifest.rows["utterance_id"], manifest.rows["path"], strict=True))
    traces = [tracer.trace(manifest.audio_path(paths[name])) for name in clips.of_length(0.0).rows["sources"]]
    whole = evaluate_bonafide(tracer, clips)["whole"]
    ratios = [trace.candidates[0].log10_lr for trace in traces]
    assert whole["clips"] == len(traces)
    named = [trace.conclusion in (ONE_SYSTEM, FAMILY) for trace in traces]
    assert whole["named_percent"] == pytest.approx(100 * np.mean(named))
    assert whole["ratio_above_1_percent"] == pytest.approx(100 * np.mean(np.array(ratios) > 0))
    assert whole["largest_log10_lr"] == pytest.approx(max(ratios), abs=1e-3)
    assert whole["largest_log10_lr"] <= tracer.calibration.max_llr / LOG10 + 1e-9
    assert evaluate_bonafide(tracer, None) is None


def test_report_and_results_say_whether_people_are_among_the_alternatives(world, tmp_path_factory):
    clip = next(iter(world.files.values()))
    report = collect_report_data(world.built.tracer, clip, corpus=None, explain=False)
    assert report.human_clips == len(world.built.bundle.bonafide.of_length(0.5).systems)
    assert "or a person" in describe_top_ratio(report)
    assert "Human speech and systems" not in describe_top_ratio(report)
    clips = report.sensitivity.false_accepts
    assert clips.systems == 1
    calibration, best = (
        world.built.tracer.calibration,
        world.built.tracer.gallery.systems.index(report.sensitivity.best),
    )
    length = calibration.speech_seconds.tolist().index(report.sensitivity.false_accepts_speech_s)
    assert clips.threshold == calibration.system_threshold[length, best]
    unknown = world.built.tracer.dev_by_length[length]
    unknown = unknown.select(unknown.systems == "fast")
    scores = world.built.tracer.decide(unknown.embeddings, unknown.speech_seconds).naming_scores.max(axis=1)
    assert clips.above == np.sum(scores > clips.threshold + 1e-5)
    assert f"{clips.above} of the {clips.clips} clips exceed it" in describe_threshold(report)
    assert f"{clips.clips} clips by 1 unknown system exceed it there" in describe_threshold(report)
    assert "nor more than 5 % of the clips of human speech" in describe_threshold(report)
    without = dataclasses.replace(report, human_clips=0)
    assert "Human speech and systems unlike those of the development data" in describe_top_ratio(without)
    names = ("identification", "seen_correct", "seen_family", "seen_wrong", "seen_unknown", "unseen_correct",
             "unseen_family", "unseen_wrong", "unseen_unknown")  # fmt: skip
    whole = {f"{name}_percent": 50.0 for name in names} | {"cllr": 0.1, "min_cllr": 0.1}
    people = {"whole": {"clips": 28, "named_percent": 3.57, "ratio_above_1_percent": 7.14}}
    *_, line = describe_tracer({"test": {"whole": whole}, "bonafide": people})
    assert line == "  28 utterances by people: 3.6 % named, 7.1 % with a ratio above 1."
    assert "people" not in "".join(describe_tracer({"test": {"whole": whole}, "bonafide": None}))
