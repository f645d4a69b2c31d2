"""Cross-corpus: a small model of two systems scored on the manifest of another corpus, its training corpus absent."""

import dataclasses
import json
import os
import re
import shutil
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import soundfile
import torch
import yaml
from typer.testing import CliRunner

from makermark import backbones, features, losses
from makermark.checkpoint import Description, load_checkpoint, save_checkpoint
from makermark.cli import app
from makermark.corpora.rows import derive_seen, read_manifest, write_manifest
from makermark.elsewhere import label_for, read_corpus, seen_by
from makermark.errors import (
    AudioError,
    CheckpointError,
    CorpusError,
    MakermarkError,
    ManifestError,
    ParamsError,
    ScoringError,
)
from makermark.evaluating import evaluate
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
        corpus,
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
    assert "2 languages, of which the model has seen 1.\n" in report


def test_a_split_and_a_family_are_scored_where_asked(corpus, tmp_path):
    model = checkpoint(tmp_path / "best", loss="ge2e")
    told = evaluate(
        model,
        corpus,
        tmp_path / "out",
        label="family",
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
        evaluate(model, corpus, tmp_path / "out", splits=["dev"], device="cpu")
        shards.append([path.stat().st_mtime_ns for path in (tmp_path / "out/features/fbank").glob("*.arrow")])
    assert shards[0] == shards[1]


@pytest.mark.parametrize("told", [None, [], [""]])
def test_of_a_checkpoint_without_languages_the_strata_go_by_system_alone(corpus, tmp_path, caplog, told):
    model = checkpoint(tmp_path / "best")
    content = json.loads((tmp_path / "best.json").read_text())
    content["languages"] = told
    if told is None:
        del content["languages"]  # as before they were written down
    (tmp_path / "best.json").write_text(json.dumps(content))
    rows = seen_by(load_checkpoint(model).description, read_manifest(corpus).rows)
    assert rows["language_seen"].all()
    assert "strata go by system alone" in caplog.text


@pytest.mark.parametrize(
    ("known", "expected"), [(["en"], [True, False, False]), (["", "en"], [True, True, False])]
)
def test_an_unknown_language_is_one_of_its_own_as_in_the_pipeline(corpus, tmp_path, known, expected):
    description = load_checkpoint(checkpoint(tmp_path / "best", languages=known)).description
    rows = read_manifest(corpus).rows.head(3).assign(language=["en", "", "de"])
    assert seen_by(description, rows)["language_seen"].tolist() == expected
    train = rows.head(1).loc[rows.index[:1].repeat(len(known))].assign(split="train", language=known)
    both = derive_seen(pd.concat([train, rows.assign(split="test")], ignore_index=True))
    assert both["language_seen"][len(known) :].tolist() == expected


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
        evaluate(model, corpus, tmp_path / "out", device="cpu")


@pytest.mark.parametrize(
    ("given", "error", "said"),
    [
        ({"splits": ["test"]}, ManifestError, r"corpus tones has no split 'test'; it has \['train', 'dev'\]"),
        ({"label": "speaker"}, CorpusError, r"--label is 'speaker'; it is one of \['system', 'family'"),
        (
            {"baselines": ["resemblyzer"]},
            ParamsError,
            "unknown baseline 'resemblyzer'; without a training set",
        ),
    ],
)
def test_what_cannot_be_done_is_told_in_one_line(corpus, tmp_path, given, error, said):
    with pytest.raises(error, match=said):
        evaluate(checkpoint(tmp_path / "best"), corpus, tmp_path / "out", **({"device": "cpu"} | given))


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"device": "gpu"}, r"unknown device 'gpu'; it is one of \['auto', 'cuda', 'mps', 'cpu'\]"),
        ({"baselines": ["resemblyzer"]}, "unknown baseline"),
        ({"splits": ["train"]}, r"corpus mine has no split 'train'; it has \['test'\]"),
        ({"label": "speaker"}, "--label is 'speaker'"),
        ({"checkpoint": "none"}, r"none\.json"),
    ],
)
def test_a_wrong_option_is_told_before_any_file_is_looked_at(corpus, tmp_path, monkeypatch, given, said):
    def look_at(*_, **__):
        raise AssertionError("files were looked at first")

    monkeypatch.setattr("makermark.corpora.making.look_at", look_at)
    stem = tmp_path / given.pop("checkpoint", checkpoint(tmp_path / "best"))
    with pytest.raises(MakermarkError, match=said):
        evaluate(stem, table_of(corpus, tmp_path), tmp_path / "out", **({"device": "cpu"} | given))


def table_of(corpus, folder, *, name="mine", **columns):
    """A CSV of the tones, without languages unless given."""
    manifest = read_manifest(corpus)
    rows = manifest.rows[["path", "system"]].assign(**columns)
    rows["path"] = [str(manifest.root / path) for path in rows["path"]]
    rows.to_csv(folder / f"{name}.csv", index=False)
    return folder / f"{name}.csv"


def test_a_split_of_one_system_is_named_and_what_an_earlier_call_found_is_gone(corpus, tmp_path):
    model, out = checkpoint(tmp_path / "best"), tmp_path / "out"
    root = str(corpus.parent / "audio")
    evaluate(model, table_of(corpus, tmp_path, name="two"), out, root=root, device="cpu")
    assert (out / "score.json").exists()
    one = table_of(corpus, tmp_path, name="one", system="slow")
    with pytest.raises(ScoringError, match=r"split test: no non-target trial"):
        evaluate(model, one, out, root=root, device="cpu")
    assert read_manifest(out / "corpus/manifest.parquet").corpus == "one"
    assert read_embeddings(out / "embeddings/model.arrow").metadata["corpus"] == "one"
    assert not [name for name in ("score.json", "report.md", "plots") if (out / name).exists()]


def test_a_table_read_twice_gives_the_same_and_nothing_is_done_again(corpus, tmp_path, monkeypatch):
    model, table = checkpoint(tmp_path / "best"), table_of(corpus, tmp_path)
    given = {"root": str(corpus.parent / "audio"), "device": "cpu"}
    first = evaluate(model, table, tmp_path / "out", **given)
    kept = {path: path.stat().st_mtime_ns for path in (tmp_path / "out/features").rglob("*.arrow")}
    monkeypatch.setattr("makermark.audio.look", None)  # no file is looked at again
    assert evaluate(model, table, tmp_path / "out", **given) == first
    assert kept == {path: path.stat().st_mtime_ns for path in (tmp_path / "out/features").rglob("*.arrow")}
    assert kept


def test_a_table_without_languages_has_strata_by_system_alone_and_the_report_says_so(corpus, tmp_path):
    out = tmp_path / "out"
    told = evaluate(
        checkpoint(tmp_path / "best"),
        table_of(corpus, tmp_path),
        out,
        root=str(corpus.parent / "audio"),
        device="cpu",
    )
    strata = {name: part["utterances"] for name, part in told["test"]["strata"].items()}
    assert strata == {"seen_system_seen_language": 12, "unseen_system_seen_language": 24}
    assert (told["evaluated"]["languages"], told["evaluated"]["languages_seen"]) == (0, [])
    assert (told["evaluated"]["without_language"], told["evaluated"]["strata_by_language"]) == (36, False)
    assert (
        "The languages of the corpus are not known: strata go by system alone"
        in (out / "report.md").read_text()
    )


def test_languages_that_some_rows_lack_are_counted_without_that(corpus, tmp_path):
    out = tmp_path / "out"
    told = evaluate(
        checkpoint(tmp_path / "best"),
        table_of(corpus, tmp_path, language=["", "en", "de"] * 12),
        out,
        root=str(corpus.parent / "audio"),
        device="cpu",
    )
    assert (told["evaluated"]["languages"], told["evaluated"]["languages_seen"]) == (2, ["en"])
    assert told["evaluated"]["strata_by_language"]
    said = "2 languages, of which the model has seen 1. 12 utterances have none, which counts as a language of its own."
    assert said in (out / "report.md").read_text()


def test_what_is_traced_is_what_the_checkpoint_was_trained_on(corpus, tmp_path, caplog):
    trained = PARAMS | {"corpus": "manifest", "external": PARAMS["external"] | {"label": "family"}}
    model = checkpoint(tmp_path / "best", params=trained, systems=["a", "c"])
    told = evaluate(model, corpus, tmp_path / "out", splits=["dev"], device="cpu")
    assert (told["evaluated"]["systems"], told["evaluated"]["systems_seen"]) == (2, ["a"])
    description = load_checkpoint(model).description
    assert "scored by" not in caplog.text
    assert label_for(description, "system") == "system"
    assert "trained to tell apart by family and is scored by system" in caplog.text
    local = dataclasses.replace(description, params=trained | {"corpus": "local"})
    assert label_for(local, "") == "system"  # the built-in corpus reads no external.label
    old = {name: value for name, value in trained.items() if name != "external"}
    assert label_for(dataclasses.replace(description, params=old), "") == "system"


def test_files_that_cannot_be_used_are_left_out_however_many(corpus, tmp_path):
    """A third of the clips is shorter than features.min_seconds of the checkpoint; then all are."""
    root, rows = read_manifest(corpus).root, read_manifest(corpus).rows[["path", "system"]]
    short = rows.head(12).assign(path=[str(tmp_path / f"{number}.wav") for number in range(12)])
    rng = np.random.default_rng(0)
    for path in short["path"]:
        soundfile.write(path, 0.1 * rng.standard_normal(800), 16000)
    whole = rows.tail(24).assign(path=[str(root / path) for path in rows["path"].tail(24)])
    place = Path(os.path.commonpath([root, tmp_path]))
    model, table = checkpoint(tmp_path / "best"), tmp_path / "short.csv"
    pd.concat([short, whole]).to_csv(table, index=False)
    told = evaluate(model, table, tmp_path / "out", root=str(place), device="cpu")
    assert (told["evaluated"]["utterances"], told["evaluated"]["quarantined"]) == (24, 12)
    short.to_csv(table, index=False)
    with pytest.raises(AudioError, match=r"12 of 12 audio files are unusable; the first is") as caught:
        evaluate(model, table, tmp_path / "out", root=str(place), device="cpu")
    assert "max_bad_fraction" not in str(caught.value)


def test_an_attribute_that_the_corpus_lacks_is_named(corpus, tmp_path):
    with pytest.raises(CorpusError, match="has no vocoder"):
        read_corpus(corpus, label="vocoder", folder=tmp_path)


def test_a_plain_table_is_scored_as_one_set_and_its_unusable_files_are_left_out(corpus, tmp_path):
    rows = read_manifest(corpus).rows[["path", "system"]].rename(columns={"path": "clip"})
    (corpus.parent / "audio/broken.flac").write_bytes(b"")
    rows.loc[len(rows)] = ["broken.flac", "slow"]
    rows.to_csv(tmp_path / "mine.csv", index=False)
    told = evaluate(
        checkpoint(tmp_path / "best"),
        tmp_path / "mine.csv",
        tmp_path / "out",
        root=str(corpus.parent / "audio"),
        columns={"path": "clip"},
        device="cpu",
    )
    assert (told["evaluated"]["corpus"], told["test"]["utterances"]) == ("mine", 36)
    assert "broken.flac" in (tmp_path / "out/corpus/rejected.csv").read_text()
    of_corpus = score_set(
        (vectors := read_embeddings(tmp_path / "out/embeddings/model.arrow")).vectors,
        vectors.systems,
        bootstrap_samples=0,
        seed=0,
    )
    assert told["test"]["eer_micro_percent"] == pytest.approx(of_corpus.eer_micro_percent)


@pytest.fixture
def copies(corpus, tmp_path):
    """A table of four files of two systems, of which two have the same bytes and different systems."""
    manifest, rows = read_manifest(corpus), []
    for name, source, system in (
        ("a", "slow-0", "x"),
        ("b", "slow-0", "y"),
        ("c", "slow-1", "x"),
        ("d", "fast-0", "y"),
    ):
        shutil.copy(manifest.root / f"train-{source}.flac", tmp_path / f"{name}.flac")
        rows.append((f"{name}.flac", system))
    table = tmp_path / "copies.csv"
    pd.DataFrame(rows, columns=["path", "system"]).to_csv(table, index=False)
    return table


def test_duplicates_are_kept_where_asked(corpus, tmp_path):
    manifest, again = read_manifest(corpus), tmp_path / "again.flac"
    shutil.copy(manifest.root / "train-slow-0.flac", again)
    table = table_of(corpus, tmp_path)
    with table.open("a") as lines:
        lines.write(f"{again},fast\n")
    model, root = checkpoint(tmp_path / "best"), os.path.commonpath([manifest.root, tmp_path])
    with pytest.raises(CorpusError, match="has the same bytes"):
        evaluate(model, table, tmp_path / "out", root=root, device="cpu")
    told = evaluate(model, table, tmp_path / "out", root=root, keep_duplicates=True, device="cpu")
    assert told["test"]["utterances"] == 37


def broken(table, kind):
    """The table with one thing wrong."""
    rows = pd.read_csv(table)
    if kind == "suffix":
        return table.rename(table.with_suffix(".txt"))
    if kind == "column":
        rows = rows.rename(columns={"path": "clip"})
    if kind == "fold":
        rows["fold"] = [0, 1, 2, 3]
    if kind == "outside":
        rows.loc[0, "path"] = "../a.flac"
    if kind == "empty":
        for path in rows["path"]:
            (table.parent / path).write_bytes(b"")
    rows.to_csv(table, index=False)
    return table


@pytest.mark.parametrize(
    ("kind", "given", "said"),
    [
        ("duplicates", {}, "give --keep-duplicates"),
        ("suffix", {}, r"--manifest is one of \['\.csv'"),
        ("column", {}, "--column path=NAME"),
        ("column", {"columns": {"path": "clips"}}, "which --column names"),
        ("column", {"columns": {"clip": "path"}}, "--column names 'clip'"),
        ("fold", {}, "say --column split=$"),
        ("outside", {}, "--root"),
        ("empty", {}, r"4 of 4 files cannot be used.*Mend them or the paths$"),
        ("vocoder", {"label": "vocoder"}, "--label system"),
    ],
)
def test_remedies_are_options_of_the_command_and_none_of_params_yaml(copies, tmp_path, kind, given, said):
    table = broken(copies, kind)
    keep = {"keep_duplicates": kind == "vocoder"}
    with pytest.raises(CorpusError, match=said) as caught:
        evaluate(checkpoint(tmp_path / "best"), table, tmp_path / "out", device="cpu", **keep, **given)
    assert not re.search(r"external\.|manifest\.(file|columns)|params\.yaml", str(caught.value))


def test_the_folder_of_a_manifest_stands_for_it(corpus, tmp_path):
    rows = read_corpus(corpus.parent, folder=tmp_path).rows
    pd.testing.assert_frame_equal(rows, read_corpus(corpus, folder=tmp_path).rows)
    with pytest.raises(CorpusError, match=r"no manifest\.parquet in this folder"):
        read_corpus(tmp_path, folder=tmp_path / "corpus")


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
