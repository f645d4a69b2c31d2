"""Cross-corpus: a small model of two systems scored on the manifest of another corpus, its training corpus absent."""

import dataclasses
import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
import yaml
from typer.testing import CliRunner

from makermark import backbones, features, losses
from makermark.checkpoint import Description, load_checkpoint, save_checkpoint
from makermark.cli import app
from makermark.corpora.rows import read_manifest, write_manifest
from makermark.errors import CheckpointError, CorpusError, ManifestError, ParamsError, ScoringError
from makermark.evaluating import evaluate, read_corpus, seen_by
from makermark.scoring import score_set
from makermark.training import weights_of
from makermark.vectors import read_embeddings
from tests_support import FBANK, tone_corpus

PARAMS = yaml.safe_load((Path(__file__).parents[1] / "params.yaml").read_text())
PARAMS["score"]["bootstrap_samples"] = 20
PARAMS["features"]["min_seconds"] = 0.1
SETTINGS = {"ge2e": {"scale": 10.0, "bias": -5.0}, "amsoftmax": {"margin": 0.2, "scale": 30.0}}


def checkpoint(stem: Path, *, loss: str = "amsoftmax", **changes) -> Path:
    """A checkpoint trained on systems `slow` and `unknown here`, in English, with initial weights."""
    torch.manual_seed(0)
    front_end = features.build("fbank", **FBANK)
    description = Description(
        backbone="resnet34",
        backbone_settings={"pooling": "sap"},
        dim=10,
        loss=loss,
        loss_settings=SETTINGS[loss],
        systems=["slow", "unknown here"],
        languages=["en"],
        front_end="fbank",
        width=40,
        front_end_parameters=dict(front_end.parameters()),
        feature_fingerprint="of another corpus",
        params=PARAMS,
        epoch=1,
        dev_eer_percent=50.0,
        git_commit="c" * 40,
        versions={},
    )
    parts = {
        "backbone": backbones.build("resnet34", dim=10, width=40, pooling="sap"),
        "loss": losses.build(loss, num_systems=2, dim=10, **SETTINGS[loss]),
    }
    save_checkpoint(stem, weights_of(parts), dataclasses.replace(description, **changes))
    return stem


@pytest.fixture(scope="module")
def corpus(tmp_path_factory):
    """The manifest of the tones; dev is half German, and one of its files is broken."""
    folder = tmp_path_factory.mktemp("other")
    manifest, _ = tone_corpus(folder)
    rows = manifest.rows.assign(
        language=np.where(manifest.rows["path"].str.contains("-[01].flac"), "de", "en"),
        family=manifest.rows["system"].map({"slow": "a", "middle": "a", "fast": "b"}),
    )
    write_manifest(folder / "manifest.parquet", rows, corpus="tones", root="audio")
    return folder / "manifest.parquet"


@pytest.fixture(scope="module")
def evaluated(corpus, tmp_path_factory):
    folder = tmp_path_factory.mktemp("evaluated")
    model = checkpoint(folder / "best")
    told = evaluate(
        model,
        read_corpus(corpus, folder=folder),
        folder / "out",
        baselines=["untrained", "logmel_stats"],
        device="cpu",
    )
    return model, folder / "out", told


def test_every_split_of_the_file_is_scored_as_its_vectors_say(evaluated):
    _, out, told = evaluated
    assert json.loads((out / "score.json").read_text()) == told
    for name, figures in {"model": told, **told["baselines"]}.items():
        vectors = read_embeddings(out / f"embeddings/{name}.arrow")
        for split, count in (("train", 24), ("dev", 12)):
            part = vectors.of_split(split)
            expected = score_set(part.vectors, part.systems, bootstrap_samples=0, seed=0)
            assert figures[split]["utterances"] == count
            assert figures[split]["eer_micro_percent"] == pytest.approx(expected.eer_micro_percent)
    assert "test" not in told


def test_seen_is_what_the_checkpoint_has_seen_not_what_stands_in_the_other_train(evaluated):
    _, out, told = evaluated
    labels = read_embeddings(out / "embeddings/model.arrow").labels
    assert set(labels["system"][labels["system_seen"]]) == {"slow"}
    assert set(labels["language"][labels["language_seen"]]) == {"en"}
    assert told["dev"]["strata"]["seen_system_seen_language"]["utterances"] == 2
    assert told["dev"]["strata"]["unseen_system_unseen_language"]["utterances"] == 4
    assert told["evaluated"]["systems_seen"] == ["slow"]
    assert told["evaluated"]["languages_seen"] == ["en"]


def test_the_classifier_identifies_and_detects_alone(evaluated):
    _, out, told = evaluated
    assert told["dev"]["identification"]["head"]["utterances"] == 4
    assert "centroid" not in told["dev"]["identification"]
    logits = read_embeddings(out / "embeddings/model.arrow").of_split("dev").logits
    known = read_embeddings(out / "embeddings/model.arrow").of_split("dev").systems == "slow"
    above = logits.max(axis=1)[known][:, None] - logits.max(axis=1)[~known]
    auroc = 100 * ((above > 0) + 0.5 * (above == 0)).mean()
    assert told["dev"]["out_of_domain"]["max_logit"]["auroc_percent"] == pytest.approx(auroc)
    assert (told["dev"]["out_of_domain"]["known_utterances"], told["dev"]["out_of_domain"]["logits"]) == (
        4,
        "head",
    )
    assert "knn" not in told["dev"]["out_of_domain"]


def test_it_leaves_a_report_and_pictures(evaluated):
    _, out, _ = evaluated
    pictures = {path.name for path in (out / "plots").glob("*.png")}
    assert pictures == {
        f"{what}_{split}.png" for what in ("det", "scores", "detectors") for split in ("train", "dev")
    }
    report = (out / "report.md").read_text()
    assert (
        "scored on corpus tones: 36 utterances (0 unusable), 3 systems, of which the model has seen 1"
        in report
    )
    assert "| dev | all | all | 12 |" in report


def test_a_split_and_a_family_are_scored_where_asked(corpus, tmp_path):
    model = checkpoint(tmp_path / "best", loss="ge2e")
    told = evaluate(
        model,
        read_corpus(corpus, label="family", folder=tmp_path),
        tmp_path / "out",
        splits=["dev"],
        device="cpu",
    )
    assert (told["dev"]["systems"], told["evaluated"]["systems_seen"]) == (2, [])
    assert told["dev"]["identification"] == {}  # nothing seen, and ge2e has no classifier
    assert told["dev"]["out_of_domain"]["logits"] is None
    assert not list((tmp_path / "out/plots").glob("detectors*"))
    assert "train" not in told


def test_features_of_an_earlier_call_are_kept(corpus, tmp_path):
    model = checkpoint(tmp_path / "best")
    shards = []
    for _ in range(2):
        evaluate(model, read_corpus(corpus, folder=tmp_path), tmp_path / "out", splits=["dev"], device="cpu")
        shards.append([path.stat().st_mtime_ns for path in (tmp_path / "out/features/fbank").glob("*.arrow")])
    assert shards[0] == shards[1]


def test_a_checkpoint_from_before_languages_is_read_and_its_languages_are_not_known(corpus, tmp_path, caplog):
    model = checkpoint(tmp_path / "best")
    content = json.loads((tmp_path / "best.json").read_text())
    del content["languages"]
    (tmp_path / "best.json").write_text(json.dumps(content))
    description = load_checkpoint(model).description
    rows = seen_by(description, read_manifest(corpus).rows)
    assert not rows["language_seen"].any()
    assert "all count as unseen" in caplog.text


@pytest.mark.parametrize(
    ("changes", "error", "said"),
    [
        (
            {"front_end_parameters": {**FBANK, "n_mels": 80}},
            CheckpointError,
            "n_mels was 80 in training",
        ),
        (
            {"params": {"loss": "ge2e"}},
            CheckpointError,
            r"records no settings of front end fbank \('ssl' is missing",
        ),
    ],
)
def test_a_front_end_that_is_not_the_one_of_training_is_refused(corpus, tmp_path, changes, error, said):
    model = checkpoint(tmp_path / "best", **changes)
    with pytest.raises(error, match=said):
        evaluate(model, read_corpus(corpus, folder=tmp_path), tmp_path / "out", device="cpu")


@pytest.mark.parametrize(
    ("given", "error", "said"),
    [
        ({"splits": ["test"]}, ManifestError, r"corpus tones has no split 'test'; it has \['train', 'dev'\]"),
        (
            {"baselines": ["resemblyzer"]},
            ParamsError,
            "unknown baseline 'resemblyzer'; without a training set",
        ),
    ],
)
def test_what_cannot_be_done_is_told_in_one_line(corpus, tmp_path, given, error, said):
    with pytest.raises(error, match=said):
        evaluate(
            checkpoint(tmp_path / "best"),
            read_corpus(corpus, folder=tmp_path),
            tmp_path / "out",
            device="cpu",
            **given,
        )


def test_a_split_of_one_system_is_named(corpus, tmp_path):
    manifest = read_corpus(corpus, folder=tmp_path)
    manifest = dataclasses.replace(manifest, rows=manifest.rows[manifest.rows["system"] == "slow"])
    with pytest.raises(ScoringError, match=r"split train: no non-target trial"):
        evaluate(checkpoint(tmp_path / "best"), manifest, tmp_path / "out", device="cpu")


def test_an_attribute_that_the_corpus_lacks_is_named(corpus, tmp_path):
    with pytest.raises(CorpusError, match="has no vocoder"):
        read_corpus(corpus, label="vocoder", folder=tmp_path)


def test_a_plain_table_is_scored_as_one_set_and_its_unusable_files_are_left_out(corpus, tmp_path):
    rows = read_manifest(corpus).rows[["path", "system"]].rename(columns={"path": "clip"})
    (corpus.parent / "audio/broken.flac").write_bytes(b"")
    rows.loc[len(rows)] = ["broken.flac", "slow"]
    rows.to_csv(tmp_path / "mine.csv", index=False)
    found = read_corpus(
        tmp_path / "mine.csv",
        root=str(corpus.parent / "audio"),
        columns={"path": "clip"},
        folder=tmp_path / "corpus",
    )
    told = evaluate(checkpoint(tmp_path / "best"), found, tmp_path / "out", device="cpu")
    assert (told["evaluated"]["corpus"], told["test"]["utterances"]) == ("mine", 36)
    assert "broken.flac" in (tmp_path / "corpus/rejected.csv").read_text()
    of_corpus = score_set(
        (vectors := read_embeddings(tmp_path / "out/embeddings/model.arrow")).vectors,
        vectors.systems,
        bootstrap_samples=0,
        seed=0,
    )
    assert told["test"]["eer_micro_percent"] == pytest.approx(of_corpus.eer_micro_percent)


def test_the_command_prints_the_table_and_where_the_report_is(corpus, tmp_path):
    model = checkpoint(tmp_path / "best")
    given = [
        "--checkpoint",
        model,
        "--manifest",
        corpus,
        "--out",
        tmp_path / "out",
        "--split",
        "dev",
        "--device",
        "cpu",
    ]
    done = CliRunner().invoke(app, ["evaluate", *map(str, given)], catch_exceptions=False)
    assert done.exit_code == 0
    assert "dev" in done.stdout
    assert pd.read_csv(tmp_path / "out/plots/det.csv")["set"].unique().tolist() == ["dev"]
