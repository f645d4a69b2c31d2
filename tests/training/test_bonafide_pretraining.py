"""Two-stage training with refd, from bona fide recordings to a checkpoint; a killed run ends with the same bits."""

import os
import subprocess
import sys
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest
import soundfile as sf
import torch

from makermark import features
from makermark.corpora.bonafide_recordings import build_bonafide_corpus
from makermark.features.cache import FeatureCache
from makermark.features.cache_writer import write_cache
from makermark.foundation.errors import CorpusError, FeatureCacheError
from makermark.foundation.files import read_json
from makermark.foundation.manifest import read_bonafide_manifest, write_manifest
from makermark.foundation.params import read_params
from makermark.foundation.tracking.tracker import NoTracker
from makermark.models.checkpoint import load_checkpoint
from makermark.models.losses.real_vs_spoof import BONAFIDE, SYNTHETIC
from makermark.training import run
from makermark.training.bonafide_pretraining import read_pretraining_data
from tests_support import FBANK, LOG_MELS, recorded_speech, speech_corpus

REPOSITORY = Path(__file__).parents[2]
PARAMS = read_params(REPOSITORY / "params.yaml")
REFD = {**PARAMS.losses["refd"], "emphasis_epochs": 2, "emphasis_batch": 8}
SMALL = PARAMS.replace(
    backbone="ecapa",
    backbones={"ecapa": {**LOG_MELS, "channels": 16, "pooling": "mean"}},
    loss="refd",
    dim=8,
    losses={**PARAMS.losses, "refd": REFD},
    samplers={"balanced": {"batch_systems": 3, "utterances_per_system": 4}},
    train=PARAMS.train.replace(
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
    """(manifest, folder): vowels as the synthetic corpus, noise as bona fide speech, and the caches of both."""
    folder = tmp_path_factory.mktemp("data")
    manifest, front_end = speech_corpus(folder)
    for speaker in range(6):
        file = folder / "recordings" / f"speaker {speaker}.wav"
        file.parent.mkdir(exist_ok=True)
        sf.write(file, recorded_speech(9.0, 16000, np.random.default_rng(speaker)), 16000)
    source = str(folder / "recordings")
    build_bonafide_corpus(folder / "bonafide", source=source, seed=0, dev_fraction=0.3, test_fraction=0.2)
    caches = {"features": manifest, "features/bonafide": read_bonafide_manifest(folder / "bonafide")}
    for cache_folder, rows in caches.items():
        write_cache(
            rows,
            front_end,
            folder / cache_folder,
            shard_utterances=10,
            max_bad_fraction=0,
            min_seconds=0.1,
            max_seconds=10,
            workers=1,
        )
    return manifest, folder


def train(data, models, params=SMALL, *, kill_at=None, bonafide_folder=None, tracker=None):
    """Train into `models`; `kill_at` is (stage, epoch): killed when that epoch is shown, after it was saved."""
    manifest, folder = data
    tracker = tracker or NoTracker()
    report_epochs = run.report_epochs

    @contextmanager
    def report_or_die(tracker, stage, **settings):
        with report_epochs(tracker, stage, **settings) as report:

            def show(metrics):
                report(metrics)
                if kill_at == (stage, metrics["epoch"]):
                    raise Killed

            yield show

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(run, "report_epochs", report_or_die)
        patch.setattr(run.tracking, "open_run", lambda *_, **__: tracker)
        run.train_experiment(
            params,
            manifest,
            folder / "features",
            bonafide_folder=bonafide_folder or folder / "bonafide",
            models=models,
        )


class RecordingTracker(NoTracker):
    """A tracker that stores (name, step) of every metric."""

    def __init__(self):
        self.steps = []

    def log_metrics(self, values, *, step=0):
        self.steps += [(name, step) for name in values]


def run_stage(name, *arguments):
    command = [sys.executable, REPOSITORY / "stages" / f"{name}.py", *arguments]
    environment = {**os.environ, "PYTHONPATH": str(REPOSITORY / "src")}
    return subprocess.run(
        command, cwd=REPOSITORY, env=environment, capture_output=True, text=True, check=False
    )


@pytest.fixture(scope="module")
def tracker():
    return RecordingTracker()


@pytest.fixture(scope="module")
def uninterrupted(data, tracker, tmp_path_factory):
    models = tmp_path_factory.mktemp("uninterrupted") / "models"
    train(data, models, tracker=tracker)
    return models


def test_two_stage_training_writes_a_classifier_of_systems_and_the_history_of_both_stages(uninterrupted):
    model = load_checkpoint(uninterrupted / "best")
    assert model.metadata.systems == ["fast", "middle", "slow"]
    assert model.loss.logits(torch.zeros(2, 8)).shape == (2, 3)
    pretraining = model.metadata.emphasis
    assert [epoch["epoch"] for epoch in pretraining] == [1, 2]
    assert 0 <= pretraining[-1]["dev_eer_percent"] <= 100
    assert [epoch["epoch"] for epoch in read_json(uninterrupted / "history.json")] == [1, 2]
    assert not list(uninterrupted.glob("*resume*"))
    assert not (uninterrupted / "emphasis.safetensors").exists()


@pytest.mark.parametrize("kill_at", [("pre-training", 1), ("pre-training", 2), ("training", 1)])
def test_two_stage_training_killed_in_either_stage_ends_with_the_same_bits(
    data, tmp_path, uninterrupted, kill_at
):
    with pytest.raises(Killed):
        train(data, tmp_path / "models", kill_at=kill_at)
    assert not (tmp_path / "models" / "best.safetensors").exists()
    train(data, tmp_path / "models")
    for name in ("best", "last"):
        assert (tmp_path / "models" / f"{name}.safetensors").read_bytes() == (
            uninterrupted / f"{name}.safetensors"
        ).read_bytes()


def test_pretraining_changes_the_initial_weights_of_the_second_stage(data, tmp_path, uninterrupted):
    longer = {**SMALL.losses, "refd": {**REFD, "emphasis_epochs": 3}}
    train(data, tmp_path / "models", SMALL.replace(losses=longer))
    assert (tmp_path / "models" / "last.safetensors").read_bytes() != (
        uninterrupted / "last.safetensors"
    ).read_bytes()


def test_both_stages_are_recorded_in_one_run_under_different_names(uninterrupted, tracker):
    for name in ("emphasis.dev_eer_percent", "emphasis.loss", "dev_eer_percent", "loss"):
        assert [step for metric, step in tracker.steps if metric == name] == [1, 2], name


def test_one_stage_loss_needs_no_bona_fide_speech(data, tmp_path):
    source = PARAMS.bonafide.replace(source="none")
    params = SMALL.replace(loss="softmax", bonafide=source)
    train(data, tmp_path / "models", params, bonafide_folder=tmp_path / "nothing")
    assert load_checkpoint(tmp_path / "models" / "best").metadata.emphasis == []


def test_two_stage_training_without_bona_fide_speech_is_refused_before_any_work(data, tmp_path):
    build_bonafide_corpus(tmp_path / "bonafide", source="none", seed=0, dev_fraction=0.2, test_fraction=0.2)
    with pytest.raises(CorpusError, match="no bona fide speech"):
        train(data, tmp_path / "models", bonafide_folder=tmp_path / "bonafide")
    assert not (tmp_path / "models").exists()


def test_pretraining_data_has_every_utterance_of_both_classes(data):
    manifest, folder = data
    cache = FeatureCache.open(folder / "features" / "fbank", FRONT_END.parameters())
    synthetic = {split: manifest.rows[manifest.rows["split"] == split] for split in ("train", "dev")}
    joined = read_pretraining_data(
        cache,
        synthetic,
        bonafide_folder=folder / "bonafide",
        bonafide_features=folder / "features" / "bonafide",
        front_end=FRONT_END,
    )
    bonafide_cache = FeatureCache.open(folder / "features" / "bonafide" / "fbank", FRONT_END.parameters())
    recordings = read_bonafide_manifest(folder / "bonafide").rows
    for split, part in (("train", joined.train), ("dev", joined.dev)):
        of_split = recordings[recordings["split"] == split]
        for row, label in zip(part.rows, part.classes, strict=True):
            name = joined.cache.utterance_ids[row]
            source, rows = (cache, synthetic[split]) if label == SYNTHETIC else (bonafide_cache, of_split)
            assert name in set(rows["utterance_id"])
            (source_row,) = source.find_rows([name])
            np.testing.assert_array_equal(
                joined.cache.read_utterance(int(row)), source.read_utterance(int(source_row))
            )
        assert (part.classes == SYNTHETIC).sum() == len(synthetic[split])
        assert (part.classes == BONAFIDE).sum() == len(of_split)
    with pytest.raises(FeatureCacheError, match="is in two caches"):
        cache.concatenate(cache)


def test_features_stage_writes_bona_fide_caches_and_deletes_them_without_bona_fide_speech(data, tmp_path):
    manifest, folder = data
    write_manifest(
        tmp_path / "manifest.parquet", manifest.rows.head(6), corpus="vowels", root=str(manifest.root)
    )
    build_bonafide_corpus(tmp_path / "none", source="none", seed=0, dev_fraction=0.2, test_fraction=0.2)
    for bonafide_folder, exists in ((folder / "bonafide", True), (tmp_path / "none", False)):
        result = run_stage("features", tmp_path / "manifest.parquet", bonafide_folder, tmp_path / "features")
        assert result.returncode == 0, result.stderr
        assert (tmp_path / "features" / "fbank" / "index.json").exists()
        assert (tmp_path / "features" / "bonafide" / "fbank" / "index.json").exists() == exists
