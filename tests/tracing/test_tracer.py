"""Tracer of a small model on vowels: embeddings, conclusions, enrolment, comparison, evaluation and commands."""

import dataclasses
import json
import os
import pty
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import soundfile
from typer.testing import CliRunner

from makermark.cli.main import app
from makermark.cli.tracing_commands import describe_trace
from makermark.foundation.embeddings import read_embeddings
from makermark.foundation.errors import AudioError, CalibrationError, TracerError
from makermark.models.checkpoint import load_checkpoint
from makermark.reporting.tables import describe_tracer
from makermark.tracing import Tracer, read_gallery, write_gallery
from makermark.tracing.bundle import read_bundle, write_unavailable
from makermark.tracing.calibration import ScoreCalibrator
from makermark.tracing.decision import TOO_LITTLE_SPEECH
from makermark.tracing.enrolment_evaluation import evaluate_enrolment
from makermark.tracing.evaluation import evaluate_comparison, evaluate_tracer
from makermark.tracing.extractor import split_windows
from tests_support import speak


def test_extractor_reproduces_the_embed_stage(world, tracer):
    embeddings = tracer.extractor.embed([tracer.load_clip(path).waveform for path in world.files.values()])
    expected = np.stack(list(world.stage_embeddings.values()))
    np.testing.assert_allclose(embeddings, expected, rtol=1e-4, atol=1e-5)


def test_extractor_reproduces_the_embed_stage_on_the_local_corpus():
    folder = Path(__file__).parents[2]
    if not (folder / "data/embeddings/model.arrow").exists() or not (folder / "models/best.json").exists():
        pytest.skip("the pipeline has not been run in this repository")
    from makermark.foundation.manifest import read_manifest
    from makermark.tracing.extractor import ClipExtractor

    checkpoint = load_checkpoint(folder / "models/best")
    table = read_embeddings(folder / "data/embeddings/model.arrow")
    if table.metadata["model_sha256"] != checkpoint.digest:
        pytest.skip("the embeddings are of another model")
    manifest = read_manifest(folder / "data/corpus/manifest.parquet")
    rows = np.arange(0, len(table.labels), 300)
    paths = manifest.rows.set_index("utterance_id")["path"]
    extractor = ClipExtractor(checkpoint, device="cpu")
    waveforms = [
        extractor.read(manifest.audio_path(paths[table.labels["utterance_id"][row]])) for row in rows
    ]
    np.testing.assert_allclose(extractor.embed(waveforms), table.embeddings[rows], rtol=1e-3, atol=1e-4)


def test_trace_of_samples_equals_trace_of_their_file(world, tracer):
    path = world.of("slow")[0]
    samples, rate = soundfile.read(path)
    from_file, from_samples = tracer.trace(path), tracer.trace((samples, rate))
    assert from_samples.candidates == from_file.candidates
    stereo = np.stack([samples, samples], axis=1)
    assert tracer.trace((stereo, rate)).conclusion == from_file.conclusion


def test_posteriors_sum_to_one_and_follow_the_prior(world):
    path = world.of("slow")[0]
    unknown = []
    for prior in (0.01, 0.99):
        tracer = Tracer.load(world.folder / "models", prior_known=prior)
        clip = tracer.embed_clip(path)
        decisions = tracer.decide(clip.embedding[None], np.array([clip.speech_s]))
        assert decisions.posteriors.sum() + decisions.posterior_unknown[0] == pytest.approx(1)
        assert tracer.trace(path).prior_known == prior
        unknown.append(decisions.posterior_unknown[0])
    assert unknown[1] < 0.5 < unknown[0]
    with pytest.raises(TracerError, match=r"prior_known is 1.0; it must be between 0 and 1"):
        Tracer.load(world.folder / "models", prior_known=1.0)


def test_no_system_is_named_if_an_unknown_system_is_more_probable(world):
    named = {}
    for prior in (1e-6, 0.99):
        traces = list(map(Tracer.load(world.folder / "models", prior_known=prior).trace, world.of("slow")))
        named[prior] = [trace for trace in traces if trace.conclusion in ("one system", "a family")]
        for trace in named[prior]:
            assert sum(c.posterior for c in trace.candidates if c.in_set) > trace.posterior_unknown
    assert named[0.99]
    assert not named[1e-6]


def test_posteriors_are_given_only_with_a_conclusion_that_names(world, tracer):
    generous = tracer.with_settings(false_accept_rate=0.9, prior_known=0.9)
    traces = [one.trace(path) for one in (tracer, generous) for path in world.files.values()]
    assert {bool(trace.name) for trace in traces} == {True, False}
    for trace in traces:
        posteriors = [trace.posterior_unknown, *(candidate.posterior for candidate in trace.candidates)]
        assert [value is None for value in posteriors] == [not trace.name] * len(posteriors)
        assert any("posterior" in line for line in describe_trace(trace)) == bool(trace.name)


def test_likelihood_ratios_are_limited_to_the_range_that_dev_supports(world, tracer):
    bounds = tracer.calibration.min_llr / np.log(10), tracer.calibration.max_llr / np.log(10)
    for path in world.files.values():
        assert all(bounds[0] <= c.log10_lr <= bounds[1] for c in tracer.trace(path).candidates)


def test_clip_with_too_little_speech_gets_no_conclusion(tracer):
    samples = np.concatenate([speak("middle", np.random.default_rng(1), 0.2), np.zeros(32000)])
    trace = tracer.trace((samples, 16000))
    assert trace.conclusion == "too little speech to say"
    assert trace.speech_s == pytest.approx(0.2, abs=0.05)


def test_long_file_is_assessed_in_windows(tracer):
    rng = np.random.default_rng(2)
    joined = np.concatenate([speak("slow", rng), speak("fast", rng)])
    trace = tracer.trace((joined, 16000))
    assert trace.windows[0].start_s == 0
    assert trace.windows[-1].end_s == pytest.approx(trace.duration_s)
    assert 0 <= trace.agreement <= 1
    assert tracer.trace((joined[:12000], 16000)).windows == []


def test_windows_worked_by_hand():
    assert split_windows(10, size=4, hop=2) == [(0, 4), (2, 6), (4, 8), (6, 10)]
    assert split_windows(11, size=4, hop=2)[-1] == (7, 11)
    assert split_windows(5, size=4, hop=2) == [(0, 5)]


def test_pure_tone_gets_no_conclusion(tracer):
    time = np.arange(5 * 16000) / 16000
    trace = tracer.trace((0.5 * np.sin(2 * np.pi * 440 * time), 16000))
    assert (trace.speech_s, trace.conclusion, trace.name) == (0, TOO_LITTLE_SPEECH, "")
    assert {window.conclusion for window in trace.windows} == {TOO_LITTLE_SPEECH}
    assert trace.agreement is None


def test_windows_count_the_speech_within_them(tracer):
    speech = speak("slow", np.random.default_rng(4), 2.0)
    clip = tracer.embed_waveforms([np.concatenate([speech, np.zeros(32000)]).astype(np.float32)])[0]
    overlap = [min(end, 2.0) - min(start, 2.0) for start, end in clip.window_spans_s]
    np.testing.assert_allclose(clip.window_speech_s, overlap, atol=0.1)
    assert clip.window_speech_s[-1] == 0


def test_enrolment_adds_a_candidate_and_leaves_the_others_unchanged(world, tracer):
    after = tracer.enroll("fast", world.of("fast")[:5], family="vowel")
    assert tracer.gallery.systems == ["middle", "slow"]
    assert after.gallery.systems == ["fast", "middle", "slow"]
    own = after.trace(world.of("fast")[0]).candidates
    assert {c.system for c in own} == {"fast", "middle", "slow"}
    assert next(c for c in own if c.system == "fast").cosine > 0.9
    middle = [c for c in after.trace(world.of("middle")[0]).candidates if c.system == "middle"]
    assert middle[0].cosine == pytest.approx(
        next(c.cosine for c in tracer.trace(world.of("middle")[0]).candidates if c.system == "middle")
    )


@pytest.mark.parametrize(
    ("count", "same", "message"), [(1, False, "give at least 2"), (2, True, "two of the clips are identical")]
)
def test_enrolment_refuses_too_few_or_identical_clips(world, tracer, count, same, message):
    files = world.of("fast")[:1] * 2 if same else world.of("fast")[:count]
    with pytest.raises(TracerError, match=message):
        tracer.enroll("fast", files)


def test_comparison_is_symmetric_and_highest_for_identical_clips(world, tracer):
    # the ratio depends on the amount of speech of the shorter clip, so that clip is `a` in both comparisons
    a = min(world.of("slow"), key=lambda clip: tracer.trace(clip).speech_s)
    b = max(world.of("fast"), key=lambda clip: tracer.trace(clip).speech_s)
    assert np.argmin(tracer.compare(a, b).speech_s) == 0
    assert tracer.compare(a, b).log10_lr == pytest.approx(tracer.compare(b, a).log10_lr)
    assert tracer.compare(a, a).cosine == pytest.approx(1, abs=1e-5)
    assert tracer.compare(a, a).log10_lr >= tracer.compare(a, b).log10_lr


@pytest.mark.parametrize(
    ("samples", "rate_hz", "message"),
    [
        (np.zeros(16000), 16000, "silent"),
        (np.full(16000, np.nan), 16000, "NaN"),
        (np.arange(10.0), 16000, "too short"),
        (np.empty(0), 16000, "silent"),
        (np.arange(16000, dtype=np.int16), 16000, "not a floating-point array"),
        (np.arange(16000.0), 0, "sample rate 0 Hz"),
    ],
)
def test_invalid_samples_are_refused(tracer, samples, rate_hz, message):
    with pytest.raises(AudioError, match=message):
        tracer.trace((samples, rate_hz))


def test_bundle_of_another_model_is_refused(world, tmp_path):
    shutil.copytree(world.folder / "models", tmp_path / "models")
    content = json.loads((tmp_path / "models/tracer/tracer.json").read_text())
    (tmp_path / "models/tracer/tracer.json").write_text(json.dumps(content | {"model_sha256": "f" * 64}))
    with pytest.raises(TracerError, match="made by model ffffffffffff"):
        Tracer.load(tmp_path / "models")


def test_outcome_percentages_sum_to_100(world, tracer):
    metrics = evaluate_tracer(tracer, world.built.test, bootstrap_samples=20, seed=0)
    assert set(metrics) == {"0.5s", "1s", "whole"}
    for part in metrics.values():
        for group in ("seen", "unseen"):
            kinds = ("correct", "family", "wrong", "unknown", "too_little")
            assert sum(part[f"{group}_{kind}_percent"] for kind in kinds) == pytest.approx(100)
        low, high = part["cllr_ci95"]
        assert low <= high
        assert part["min_cllr"] <= part["cllr"] + 1e-9
    pairs = evaluate_comparison(tracer, world.built.test, bootstrap_samples=20, seed=0)
    assert pairs["1s"]["same_system_pairs"] > 0
    enrolment = evaluate_enrolment(tracer, world.built.test, clips=3, draws=2, bootstrap_samples=20, seed=0)
    assert list(enrolment["by_system"]) == ["fast"]


def command(world, *arguments):
    model = ["--model", str(world.folder / "models")]
    return CliRunner().invoke(app, [*map(str, arguments), *model])


def test_trace_command_writes_json_lines_and_skips_unusable_files(world, tmp_path):
    bad = tmp_path / "bad.wav"
    bad.write_bytes(b"no audio")
    good = world.of("slow")[:2]
    done = command(world, "trace", good[0], bad, good[1], "--json")
    traces = [json.loads(line) for line in done.stdout.splitlines()]
    assert [trace["file"] for trace in traces] == [str(path) for path in good]
    assert f"{bad}: not audio" in done.stderr
    assert "1 of 3 files are unusable" in done.stderr
    assert done.exit_code == 1
    assert command(world, "trace", good[0]).exit_code == 0


def test_trace_command_writes_results_to_a_file_while_the_terminal_shows_progress(world, tmp_path):
    terminal, end = pty.openpty()
    program = [sys.executable, "-c", "from makermark.cli.main import main; main()", "trace", "--json"]
    command = [*program, "--model", world.folder / "models", *world.of("slow")[:2]]
    with (tmp_path / "traces.jsonl").open("wb") as out:
        subprocess.run(command, stdout=out, stderr=end, check=True, env=os.environ | {"TERM": "xterm"})
    os.close(end)
    assert b"2/2" in os.read(terminal, 1 << 16)
    os.close(terminal)
    lines = (tmp_path / "traces.jsonl").read_text().splitlines()
    assert [json.loads(line)["file"] for line in lines] == list(map(str, world.of("slow")[:2]))


def test_trace_command_accepts_file_names_that_are_not_utf8(world, tmp_path):
    odd = tmp_path / os.fsdecode(b"caf\xe9.flac")
    shutil.copy(world.of("slow")[0], odd)
    options = ["trace", "-", "--json", "--model", str(world.folder / "models")]
    done = CliRunner().invoke(app, options, input=os.fsencode(odd) + b"\n")
    assert json.loads(done.stdout)["file"] == str(odd)
    assert done.stdout_bytes.isascii()


@pytest.mark.parametrize("name", ["l" * 220, " two\nlines ", os.fsdecode(b"caf\xe9"), "\u200b"])
def test_enrolled_gallery_is_readable_for_unusual_clip_names(world, tmp_path, name):
    clips = [tmp_path / f"{name}{number}.flac" for number in range(3)]
    for clip, sound in zip(clips, world.of("fast"), strict=False):
        shutil.copy(sound, clip)
    gallery = tmp_path / "gallery.arrow"
    assert command(world, "enroll", "fast", *clips, "--gallery", gallery).exit_code == 0
    assert "fast" in command(world, "gallery", "list", "--gallery", gallery).stdout


def test_invalid_gallery_is_not_written(world, tmp_path):
    of_train = world.built.bundle.gallery
    torn = of_train.clips.assign(family=["other", *of_train.clips["family"][1:]])
    for clips, message in (
        (torn, f"system {of_train.clips['system'][0]!r} has two families"),
        (of_train.clips.assign(clip="l" * 201), "a name has 1 to 200"),
    ):
        with pytest.raises(TracerError, match=message):
            write_gallery(tmp_path / "gallery.arrow", dataclasses.replace(of_train, clips=clips))
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("arguments", [["trace", "CLIP"], ["report", "CLIP"], ["gallery", "list"]])
def test_missing_gallery_file_is_reported(world, tmp_path, arguments):
    arguments = [world.of("slow")[0] if argument == "CLIP" else argument for argument in arguments]
    done = command(world, *arguments, "--gallery", tmp_path / "mistyped.arrow")
    assert "mistyped.arrow: missing" in str(done.exception)


def test_gallery_export_and_import_between_projects(world, tmp_path):
    here, there, export = (tmp_path / name for name in ("here.arrow", "there.arrow", "sent.arrow"))
    assert command(world, "enroll", "fast", *world.of("fast")[:5], "--gallery", here).exit_code == 0
    assert "fast" in command(world, "gallery", "list", "--gallery", here).stdout
    assert command(world, "gallery", "export", export, "--gallery", here).exit_code == 0
    assert command(world, "gallery", "import", export, "--gallery", there).exit_code == 0
    assert there.read_bytes() == here.read_bytes()
    again = command(world, "gallery", "import", export, "--gallery", there)
    assert "system 'fast' is in both galleries" in str(again.exception)
    assert command(world, "gallery", "remove", "fast", "--gallery", there).exit_code == 0
    sha = json.loads((world.folder / "models/best.json").read_text())["weights_sha256"]
    assert read_gallery(there, model_sha256=sha, dim=8).systems == []


def test_compare_command_writes_json(world):
    done = command(world, "compare", world.of("slow")[0], world.of("fast")[0], "--json")
    assert {"log10_lr", "posterior_same", "prior_same"} <= set(json.loads(done.stdout))


def test_dev_without_training_system_cannot_calibrate_and_the_bundle_states_why(world, tmp_path):
    bundle = read_bundle(world.folder / "models/tracer", model_sha256=world.built.tracer.model_sha256, dim=8)
    fast = (bundle.dev.rows["system"] == "fast").to_numpy()
    unseen = bundle.dev.select(fast)
    with pytest.raises(CalibrationError, match="no clip of a training system") as error:
        ScoreCalibrator(unseen, bundle.gallery, prior=0.5, seed=0)
    shutil.copytree(world.folder / "models", tmp_path / "models")
    write_unavailable(tmp_path / "models/tracer", str(error.value))
    with pytest.raises(TracerError, match=r"models/tracer: dev has no clip"):
        Tracer.load(tmp_path / "models")
    assert "No tracer: dev has no clip" in describe_tracer({"reason": str(error.value)})[0]


def test_tracer_metrics_are_described_in_a_table_of_80_columns(world):
    figures = evaluate_tracer(world.built.tracer, world.built.test, bootstrap_samples=0, seed=0)
    _, header, seen, unseen, *_ = lines = describe_tracer({"test": figures})
    assert max(map(len, lines)) <= 80
    assert header.split() == ["correct", "system", "correct", "family", "wrong", "unknown"]
    names = ("correct", "family", "wrong", "unknown")
    assert seen.split() == [
        "seen",
        "systems",
        *(f"{figures['whole'][f'seen_{n}_percent']:.1f}" for n in names),
    ]
    assert unseen.split() == [
        "unseen", "systems", *(f"{figures['whole'][f'unseen_{n}_percent']:.1f}" for n in names)
    ]  # fmt: skip
    only_unseen = world.built.test.select((world.built.test.rows["system"] == "fast").to_numpy())
    none = describe_tracer(
        {"test": evaluate_tracer(world.built.tracer, only_unseen, bootstrap_samples=0, seed=0)}
    )
    assert none[2].split() == ["seen", "systems", "-", "-", "-", "-"]
