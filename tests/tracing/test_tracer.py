"""A tracer of a small model on tones: the same vectors as the embed stage, what is said, and the commands."""

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

from makermark.checkpoint import load_checkpoint
from makermark.cli import app
from makermark.errors import AudioError, CalibrationError, TracerError
from makermark.reporting import tracer_line
from makermark.tracing import Tracer, read_gallery, write_gallery
from makermark.tracing.calibrating import Clips, Lines
from makermark.tracing.hearing import speech_seconds, windows
from makermark.tracing.kept import read_kept, write_none
from makermark.tracing.measuring import measure, measure_enrolment, measure_pairs
from makermark.vectors import read_embeddings
from tests_support import tone


def test_a_file_has_the_vector_that_the_embed_stage_gave_it(world, tracer):
    found = tracer.vectors(list(world.files.values()))
    np.testing.assert_allclose(found, np.stack(list(world.stage_vectors.values())), rtol=1e-4, atol=1e-5)


def test_on_the_local_corpus_too():
    folder = Path(__file__).parents[2]
    if not (folder / "data/embeddings/model.arrow").exists() or not (folder / "models/best.json").exists():
        pytest.skip("the pipeline has not run here")
    from makermark.corpora.rows import read_manifest
    from makermark.tracing.hearing import Hearing

    checkpoint = load_checkpoint(folder / "models/best")
    found = read_embeddings(folder / "data/embeddings/model.arrow")
    if found.metadata["model_sha256"] != checkpoint.digest:
        pytest.skip("embeddings of another model lie here")
    manifest = read_manifest(folder / "data/corpus/manifest.parquet")
    places = np.arange(0, len(found.labels), 300)
    paths = manifest.rows.set_index("utterance_id")["path"]
    hearing = Hearing(checkpoint, device="cpu")
    heard = [hearing.read(manifest.file(paths[found.labels["utterance_id"][place]])) for place in places]
    np.testing.assert_allclose(hearing.vectors(heard), found.vectors[places], rtol=1e-3, atol=1e-4)


def test_samples_say_what_their_file_says(world, tracer):
    path = world.of("slow")[0]
    samples, rate = soundfile.read(path)
    from_file, from_samples = tracer.trace(path), tracer.trace((samples, rate))
    assert from_samples.candidates == from_file.candidates
    stereo = np.stack([samples, samples], axis=1)
    assert tracer.trace((stereo, rate)).verdict == from_file.verdict


def test_posteriors_share_one_and_follow_the_prior(world):
    path = world.of("slow")[0]
    for prior in (0.01, 0.99):
        told = Tracer.load(world.folder / "models", prior_known=prior).trace(path)
        assert sum(c.posterior for c in told.candidates) + told.posterior_unknown == pytest.approx(1)
        assert told.prior_known == prior
    assert told.posterior_unknown < 0.5
    with pytest.raises(TracerError, match=r"prior_known is 1.0; it lies between 0 and 1"):
        Tracer.load(world.folder / "models", prior_known=1.0)


def test_nothing_is_named_where_none_of_the_gallery_is_more_probable(world):
    named = {}
    for prior in (1e-6, 0.99):
        told = list(map(Tracer.load(world.folder / "models", prior_known=prior).trace, world.of("slow")))
        named[prior] = [each for each in told if each.verdict in ("one system", "a family")]
        for each in named[prior]:
            assert sum(c.posterior for c in each.candidates if c.in_set) > each.posterior_unknown
    assert named[0.99]
    assert not named[1e-6]


def test_ratios_go_no_further_than_dev_can_vouch_for(world, tracer):
    bounds = tracer.calibrated.lowest / np.log(10), tracer.calibrated.highest / np.log(10)
    for path in world.files.values():
        assert all(bounds[0] <= c.log10_lr <= bounds[1] for c in tracer.trace(path).candidates)


def test_too_little_speech_is_said(tracer):
    samples = np.concatenate([tone(5.0, np.random.default_rng(1))[:3200], np.zeros(32000)])
    told = tracer.trace((samples, 16000))
    assert told.verdict == "too little speech to say"
    assert told.speech_s == pytest.approx(0.2, abs=0.05)


def test_a_long_file_is_told_along_time(tracer):
    rng = np.random.default_rng(2)
    joined = np.concatenate([tone(1.5, rng), tone(14.0, rng)])
    told = tracer.trace((joined, 16000))
    assert told.windows[0].start_s == 0
    assert told.windows[-1].end_s == pytest.approx(told.duration_s)
    assert 0 <= told.agreement <= 1
    assert tracer.trace((joined[:12000], 16000)).windows == []


def test_windows_by_hand():
    assert windows(10, size=4, hop=2) == [(0, 4), (2, 6), (4, 8), (6, 10)]
    assert windows(11, size=4, hop=2)[-1] == (7, 11)
    assert windows(5, size=4, hop=2) == [(0, 5)]


def test_speech_is_what_is_loud_enough():
    loud = tone(5.0, np.random.default_rng(0))[:16000]
    assert speech_seconds(np.concatenate([loud, np.zeros(16000)]).astype(np.float32), 16000) == pytest.approx(
        1, abs=0.05
    )


def test_enrolling_makes_a_system_nameable_and_leaves_the_others(world, tracer):
    after = tracer.enroll("fast", world.of("fast")[:5], family="tone")
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
    ("count", "same", "said"), [(1, False, "give 2 or more"), (2, True, "two of the clips are the same")]
)
def test_clips_that_say_too_little_of_a_system_are_refused(world, tracer, count, same, said):
    files = world.of("fast")[:1] * 2 if same else world.of("fast")[:count]
    with pytest.raises(TracerError, match=said):
        tracer.enroll("fast", files)


def test_comparing_is_symmetric_and_a_clip_is_most_like_itself(world, tracer):
    a, b = world.of("slow")[0], world.of("fast")[0]
    assert tracer.compare(a, b).log10_lr == pytest.approx(tracer.compare(b, a).log10_lr)
    assert tracer.compare(a, a).cosine == pytest.approx(1, abs=1e-5)
    assert tracer.compare(a, a).log10_lr >= tracer.compare(a, b).log10_lr


@pytest.mark.parametrize(
    ("samples", "rate_hz", "said"),
    [
        (np.zeros(16000), 16000, "silent"),
        (np.full(16000, np.nan), 16000, "NaN"),
        (np.arange(10.0), 16000, "too short"),
        (np.empty(0), 16000, "silent"),
        (np.arange(16000, dtype=np.int16), 16000, "not .* floating-point"),
        (np.arange(16000.0), 0, "rate of 0 Hz"),
    ],
)
def test_samples_that_are_no_speech_are_refused(tracer, samples, rate_hz, said):
    with pytest.raises(AudioError, match=said):
        tracer.trace((samples, rate_hz))


def test_a_tracer_of_another_model_is_refused(world, tmp_path):
    shutil.copytree(world.folder / "models", tmp_path / "models")
    told = json.loads((tmp_path / "models/tracer/tracer.json").read_text())
    (tmp_path / "models/tracer/tracer.json").write_text(json.dumps(told | {"model_sha256": "f" * 64}))
    with pytest.raises(TracerError, match="made by model ffffffffffff"):
        Tracer.load(tmp_path / "models")


def test_the_report_counts_every_clip_once(world, tracer):
    told = measure(tracer, world.made.test, bootstrap_samples=20, seed=0)
    assert set(told) == {"0.5s", "1s", "whole"}
    for part in told.values():
        for group in ("seen", "unseen"):
            kinds = ("correct", "family", "wrong", "unknown", "too_little")
            assert sum(part[f"{group}_{kind}_percent"] for kind in kinds) == pytest.approx(100)
        low, high = part["cllr_ci95"]
        assert low <= high
        assert part["min_cllr"] <= part["cllr"] + 1e-9
    pairs = measure_pairs(tracer, world.made.test, bootstrap_samples=20, seed=0)
    assert pairs["1s"]["same_system_pairs"] > 0
    enrolment = measure_enrolment(tracer, world.made.test, clips=3, draws=2, bootstrap_samples=20, seed=0)
    assert list(enrolment["by_system"]) == ["fast"]


def command(world, *arguments):
    model = ["--model", str(world.folder / "models")]
    return CliRunner().invoke(app, [*map(str, arguments), *model])


def test_trace_writes_json_lines_and_passes_over_what_is_bad(world, tmp_path):
    bad = tmp_path / "bad.wav"
    bad.write_bytes(b"no audio")
    good = world.of("slow")[:2]
    done = command(world, "trace", good[0], bad, good[1], "--json")
    told = [json.loads(line) for line in done.stdout.splitlines()]
    assert [each["file"] for each in told] == [str(path) for path in good]
    assert f"{bad}: not audio" in done.stderr
    assert "1 of 3 files could not be heard" in done.stderr
    assert done.exit_code == 1
    assert command(world, "trace", good[0]).exit_code == 0


def test_results_go_to_their_file_while_the_bar_is_shown_on_a_terminal(world, tmp_path):
    terminal, end = pty.openpty()
    program = [sys.executable, "-c", "from makermark.cli import main; main()", "trace", "--json"]
    command = [*program, "--model", world.folder / "models", *world.of("slow")[:2]]
    with (tmp_path / "told.jsonl").open("wb") as out:
        subprocess.run(command, stdout=out, stderr=end, check=True, env=os.environ | {"TERM": "xterm"})
    os.close(end)
    assert b"2/2" in os.read(terminal, 1 << 16)
    os.close(terminal)
    lines = (tmp_path / "told.jsonl").read_text().splitlines()
    assert [json.loads(line)["file"] for line in lines] == list(map(str, world.of("slow")[:2]))


def test_names_that_are_no_utf8_come_from_a_list_and_stand_in_json(world, tmp_path):
    odd = tmp_path / os.fsdecode(b"caf\xe9.flac")
    shutil.copy(world.of("slow")[0], odd)
    options = ["trace", "-", "--json", "--model", str(world.folder / "models")]
    done = CliRunner().invoke(app, options, input=os.fsencode(odd) + b"\n")
    assert json.loads(done.stdout)["file"] == str(odd)
    assert done.stdout_bytes.isascii()


@pytest.mark.parametrize("name", ["l" * 220, " two\nlines ", os.fsdecode(b"caf\xe9"), "\u200b"])
def test_a_gallery_can_be_read_whatever_the_clips_are_called(world, tmp_path, name):
    clips = [tmp_path / f"{name}{number}.flac" for number in range(3)]
    for clip, sound in zip(clips, world.of("fast"), strict=False):
        shutil.copy(sound, clip)
    gallery = tmp_path / "gallery.arrow"
    assert command(world, "enroll", "fast", *clips, "--gallery", gallery).exit_code == 0
    assert "fast" in command(world, "gallery", "list", "--gallery", gallery).stdout


def test_a_gallery_that_could_not_be_read_is_not_written(world, tmp_path):
    of_train = world.made.kept.gallery
    torn = of_train.clips.assign(family=["other", *of_train.clips["family"][1:]])
    for clips, said in (
        (torn, f"system {of_train.clips['system'][0]!r} has two families"),
        (of_train.clips.assign(clip="l" * 201), "a name has 1 to 200"),
    ):
        with pytest.raises(TracerError, match=said):
            write_gallery(tmp_path / "gallery.arrow", dataclasses.replace(of_train, clips=clips))
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("arguments", [["trace", "CLIP"], ["report", "CLIP"], ["gallery", "list"]])
def test_a_gallery_that_is_asked_for_and_missing_is_told(world, tmp_path, arguments):
    arguments = [world.of("slow")[0] if each == "CLIP" else each for each in arguments]
    done = command(world, *arguments, "--gallery", tmp_path / "mistyped.arrow")
    assert "mistyped.arrow: missing" in str(done.exception)


def test_a_gallery_goes_from_one_project_to_another(world, tmp_path):
    here, there, export = (tmp_path / name for name in ("here.arrow", "there.arrow", "sent.arrow"))
    assert command(world, "enroll", "fast", *world.of("fast")[:5], "--gallery", here).exit_code == 0
    assert "fast" in command(world, "gallery", "list", "--gallery", here).stdout
    assert command(world, "gallery", "export", export, "--gallery", here).exit_code == 0
    assert command(world, "gallery", "import", export, "--gallery", there).exit_code == 0
    assert there.read_bytes() == here.read_bytes()
    again = command(world, "gallery", "import", export, "--gallery", there)
    assert "system 'fast' stands in both galleries" in str(again.exception)
    assert command(world, "gallery", "remove", "fast", "--gallery", there).exit_code == 0
    sha = json.loads((world.folder / "models/best.json").read_text())["weights_sha256"]
    assert read_gallery(there, model_sha256=sha, dim=8).systems == []


def test_compare_says_a_ratio(world):
    done = command(world, "compare", world.of("slow")[0], world.of("fast")[0], "--json")
    assert {"log10_lr", "posterior_same", "prior_same"} <= set(json.loads(done.stdout))


def test_dev_without_a_system_of_train_teaches_nothing_and_is_told_where_the_tracer_would_be(world, tmp_path):
    kept = read_kept(world.folder / "models/tracer", model_sha256=world.made.tracer.model_sha256, dim=8)
    fast = (kept.dev.rows["system"] == "fast").to_numpy()
    strange = Clips(kept.dev.rows[fast].reset_index(drop=True), kept.dev.vectors[fast])
    with pytest.raises(CalibrationError, match="no clip of a system of train") as told:
        Lines(strange, kept.gallery, prior=0.5, seed=0)
    shutil.copytree(world.folder / "models", tmp_path / "models")
    write_none(tmp_path / "models/tracer", str(told.value))
    with pytest.raises(TracerError, match=r"models/tracer: dev holds no clip"):
        Tracer.load(tmp_path / "models")
    assert "No tracer: dev holds no clip" in tracer_line({"reason": str(told.value)})


def test_the_figures_of_test_are_a_sentence(world):
    figures = measure(world.made.tracer, world.made.test, bootstrap_samples=0, seed=0)
    said = tracer_line({"test": figures})
    assert f"named right {figures['whole']['seen_correct_percent']:.1f} %" in said
    unseen = (world.made.test.rows["system"] == "fast").to_numpy()
    strange = Clips(world.made.test.rows[unseen].reset_index(drop=True), world.made.test.vectors[unseen])
    none = tracer_line({"test": measure(world.made.tracer, strange, bootstrap_samples=0, seed=0)})
    assert "named right -" in none
