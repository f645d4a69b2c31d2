"""Cross-corpus evaluation: a small model of two systems scored on another corpus, without its training corpus."""

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

from makermark import features
from makermark.cli.main import app
from makermark.experiments.cross_corpus import evaluate
from makermark.experiments.external_corpus import choose_label, mark_seen, read_external_corpus
from makermark.foundation.embeddings import read_embeddings
from makermark.foundation.errors import (
    AudioError,
    CheckpointError,
    CorpusError,
    MakermarkError,
    ManifestError,
    ParamsError,
    ScoringError,
)
from makermark.foundation.manifest import add_seen_columns, read_manifest, write_manifest
from makermark.models import backbones, losses
from makermark.models.checkpoint import CheckpointMetadata, copy_weights, load_checkpoint, save_checkpoint
from makermark.scoring.pairs import equal_error_rate, score_all_pairs
from tests_support import FBANK, LOG_MELS, speech_corpus

PARAMS = yaml.safe_load((Path(__file__).parents[2] / "params.yaml").read_text())
PARAMS["score"]["bootstrap_samples"] = 20
PARAMS["features"]["min_seconds"] = 0.1
SETTINGS = {
    "ge2e": {"scale": 10.0, "bias": -5.0, "variant": "wan2018"},
    "amsoftmax": {"margin": 0.2, "scale": 30.0},
}


def checkpoint(stem: Path, *, loss: str = "amsoftmax", **changes) -> Path:
    """Write a checkpoint of systems `slow` and `unknown here`, in English, with initial weights; return its stem."""
    torch.manual_seed(0)
    front_end = features.build("fbank", **FBANK)
    metadata = CheckpointMetadata(
        backbone="resnet34",
        backbone_settings={
            **LOG_MELS,
            "pooling": "sap",
            "stem_order": "norm-relu",
        },
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
        "backbone": backbones.build(
            "resnet34",
            dim=10,
            width=40,
            **LOG_MELS,
            pooling="sap",
            stem_order="norm-relu",
        ),
        "loss": losses.build(loss, num_systems=2, dim=10, **SETTINGS[loss]),
    }
    save_checkpoint(stem, copy_weights(parts), dataclasses.replace(metadata, **changes))
    return stem


@pytest.fixture(scope="module")
def corpus(tmp_path_factory):
    """The manifest of the vowels; half of dev is German."""
    folder = tmp_path_factory.mktemp("other")
    manifest, _ = speech_corpus(folder)
    rows = manifest.rows.assign(
        language=np.where(manifest.rows["path"].str.contains("-[01].flac"), "de", "en"),
        family=manifest.rows["system"].map({"slow": "a", "middle": "a", "fast": "b"}),
    )
    write_manifest(folder / "manifest.parquet", rows, corpus="vowels", root="audio")
    return folder / "manifest.parquet"


@pytest.fixture(scope="module")
def evaluated(corpus, tmp_path_factory):
    folder = tmp_path_factory.mktemp("evaluated")
    model = checkpoint(folder / "best")
    metrics = evaluate(
        model,
        corpus,
        folder / "out",
        baselines=["untrained", "logmel_stats"],
        device="cpu",
    )
    return model, folder / "out", metrics


def test_evaluate_scores_every_split_of_the_manifest(evaluated):
    _, out, metrics = evaluated
    assert json.loads((out / "score.json").read_text()) == metrics
    for name, figures in {"model": metrics, **metrics["baselines"]}.items():
        vectors = read_embeddings(out / f"embeddings/{name}.arrow")
        for split, count in (("train", 24), ("dev", 12)):
            part = vectors.select_split(split)
            expected = score_all_pairs(part.embeddings, part.systems, bootstrap_samples=0, seed=0)
            assert figures[split]["utterances"] == count
            assert figures[split]["eer_micro_percent"] == pytest.approx(expected.eer_micro_percent)
    assert "test" not in metrics


def test_evaluate_marks_seen_by_the_training_set_of_the_checkpoint(evaluated):
    _, out, metrics = evaluated
    labels = read_embeddings(out / "embeddings/model.arrow").labels
    assert set(labels["system"][labels["system_seen"]]) == {"slow"}
    assert set(labels["language"][labels["language_seen"]]) == {"en"}
    assert metrics["dev"]["strata"]["seen_system_seen_language"]["utterances"] == 2
    assert metrics["dev"]["strata"]["unseen_system_unseen_language"]["utterances"] == 4
    assert metrics["evaluated"]["systems_seen"] == ["slow"]
    assert metrics["evaluated"]["languages_seen"] == ["en"]


def test_evaluate_identifies_and_detects_with_the_classifier_only(evaluated):
    _, out, metrics = evaluated
    assert metrics["dev"]["identification"]["head"]["utterances"] == 4
    assert "centroid" not in metrics["dev"]["identification"]
    logits = read_embeddings(out / "embeddings/model.arrow").select_split("dev").logits
    known = read_embeddings(out / "embeddings/model.arrow").select_split("dev").systems == "slow"
    above = logits.max(axis=1)[known][:, None] - logits.max(axis=1)[~known]
    auroc = 100 * ((above > 0) + 0.5 * (above == 0)).mean()
    assert metrics["dev"]["out_of_domain"]["max_logit"]["auroc_percent"] == pytest.approx(auroc)
    assert (
        metrics["dev"]["out_of_domain"]["known_utterances"],
        metrics["dev"]["out_of_domain"]["logits"],
    ) == (
        4,
        "head",
    )
    assert "knn" not in metrics["dev"]["out_of_domain"]


def test_evaluate_writes_a_report_and_plots(evaluated):
    _, out, _ = evaluated
    plots = {path.name for path in (out / "plots").glob("*.png")}
    assert plots == {
        f"{kind}_{split}.png" for kind in ("det", "scores", "detectors") for split in ("train", "dev")
    }
    report = (out / "report.md").read_text()
    assert (
        "scored on corpus vowels: 36 utterances (0 unusable), 3 systems, of which the model was trained on 1"
        in report
    )
    assert "| dev | all | all | 12 |" in report
    assert "2 languages, of which the model was trained on 1.\n" in report


def test_evaluate_scores_a_split_and_families_on_request(corpus, tmp_path):
    model = checkpoint(tmp_path / "best", loss="ge2e")
    metrics = evaluate(
        model,
        corpus,
        tmp_path / "out",
        label="family",
        splits=["dev"],
        device="cpu",
    )
    assert (metrics["dev"]["systems"], metrics["evaluated"]["systems_seen"]) == (2, [])
    assert metrics["dev"]["identification"] == {}  # nothing seen, and ge2e has no classifier
    assert metrics["dev"]["out_of_domain"]["logits"] is None
    assert not list((tmp_path / "out/plots").glob("detectors*"))
    assert "train" not in metrics


def test_evaluate_reuses_features_of_an_earlier_call(corpus, tmp_path):
    model = checkpoint(tmp_path / "best")
    shards = []
    for _ in range(2):
        evaluate(model, corpus, tmp_path / "out", splits=["dev"], device="cpu")
        shards.append([path.stat().st_mtime_ns for path in (tmp_path / "out/features/fbank").glob("*.arrow")])
    assert shards[0] == shards[1]


@pytest.mark.parametrize("languages", [None, [], [""]])
def test_strata_go_by_system_alone_if_the_checkpoint_has_no_languages(corpus, tmp_path, caplog, languages):
    model = checkpoint(tmp_path / "best")
    content = json.loads((tmp_path / "best.json").read_text())
    content["languages"] = languages
    if languages is None:
        del content["languages"]  # as in checkpoints of earlier versions
    (tmp_path / "best.json").write_text(json.dumps(content))
    rows = mark_seen(load_checkpoint(model).metadata, read_manifest(corpus).rows)
    assert rows["language_seen"].all()
    assert "strata go by system alone" in caplog.text


@pytest.mark.parametrize(
    ("known", "expected"), [(["en"], [True, False, False]), (["", "en"], [True, True, False])]
)
def test_mark_seen_treats_an_empty_language_as_the_pipeline_does(corpus, tmp_path, known, expected):
    metadata = load_checkpoint(checkpoint(tmp_path / "best", languages=known)).metadata
    rows = read_manifest(corpus).rows.head(3).assign(language=["en", "", "de"])
    assert mark_seen(metadata, rows)["language_seen"].tolist() == expected
    train = rows.head(1).loc[rows.index[:1].repeat(len(known))].assign(split="train", language=known)
    both = add_seen_columns(pd.concat([train, rows.assign(split="test")], ignore_index=True))
    assert both["language_seen"][len(known) :].tolist() == expected


@pytest.mark.parametrize(
    ("changes", "error", "message"),
    [
        (
            {"front_end_parameters": {**FBANK, "n_mels": 80}},
            CheckpointError,
            "n_mels was 80 in training",
        ),
        (
            {"params": {"loss": "ge2e"}},
            CheckpointError,
            r"cannot rebuild its front end \(params.yaml has no settings for 'fbank'",
        ),
    ],
)
def test_evaluate_raises_for_another_front_end_than_in_training(corpus, tmp_path, changes, error, message):
    model = checkpoint(tmp_path / "best", **changes)
    with pytest.raises(error, match=message):
        evaluate(model, corpus, tmp_path / "out", device="cpu")


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        (
            {"splits": ["test"]},
            ManifestError,
            r"corpus vowels has no split 'test'; it has \['train', 'dev'\]",
        ),
        ({"label": "speaker"}, CorpusError, r"unknown label; it is one of \['system', 'family'"),
        (
            {"baselines": ["chance"]},
            ParamsError,
            "unknown baseline 'chance'; it is one of",
        ),
    ],
)
def test_evaluate_raises_for_impossible_options(corpus, tmp_path, options, error, message):
    with pytest.raises(error, match=message):
        evaluate(checkpoint(tmp_path / "best"), corpus, tmp_path / "out", **({"device": "cpu"} | options))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"device": "gpu"}, r"unknown device 'gpu'; it is one of \['auto', 'cuda', 'mps', 'cpu'\]"),
        ({"baselines": ["chance"]}, "unknown baseline"),
        ({"splits": ["train"]}, r"corpus mine has no split 'train'; it has \['test'\]"),
        ({"label": "speaker"}, r"unknown label; .* \(external\.label: speaker\)"),
        ({"checkpoint": "none"}, r"none\.json"),
    ],
)
def test_evaluate_raises_for_a_wrong_option_before_it_reads_audio(
    corpus, tmp_path, monkeypatch, options, message
):
    def check_files(*_, **__):
        raise AssertionError("audio files were read first")

    monkeypatch.setattr("makermark.corpora.build_manifest.check_files", check_files)
    stem = tmp_path / options.pop("checkpoint", checkpoint(tmp_path / "best"))
    with pytest.raises(MakermarkError, match=message):
        evaluate(stem, table_of(corpus, tmp_path), tmp_path / "out", **({"device": "cpu"} | options))


def table_of(corpus, folder, *, name="mine", **columns):
    """Write a CSV of the vowels with these additional columns; return its path."""
    manifest = read_manifest(corpus)
    rows = manifest.rows[["path", "system"]].assign(**columns)
    rows["path"] = [str(manifest.root / path) for path in rows["path"]]
    rows.to_csv(folder / f"{name}.csv", index=False)
    return folder / f"{name}.csv"


def test_evaluate_names_a_split_of_one_system_and_deletes_earlier_results(corpus, tmp_path):
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


def test_evaluate_twice_on_a_table_gives_the_same_without_new_work(corpus, tmp_path, monkeypatch):
    model, table = checkpoint(tmp_path / "best"), table_of(corpus, tmp_path)
    options = {"root": str(corpus.parent / "audio"), "device": "cpu"}
    first = evaluate(model, table, tmp_path / "out", **options)
    shards = {path: path.stat().st_mtime_ns for path in (tmp_path / "out/features").rglob("*.arrow")}
    monkeypatch.setattr("makermark.foundation.audio.probe", None)  # no file is measured again
    assert evaluate(model, table, tmp_path / "out", **options) == first
    assert shards == {path: path.stat().st_mtime_ns for path in (tmp_path / "out/features").rglob("*.arrow")}
    assert shards


def test_report_notes_a_table_without_languages(corpus, tmp_path):
    out = tmp_path / "out"
    metrics = evaluate(
        checkpoint(tmp_path / "best"),
        table_of(corpus, tmp_path),
        out,
        root=str(corpus.parent / "audio"),
        device="cpu",
    )
    strata = {name: part["utterances"] for name, part in metrics["test"]["strata"].items()}
    assert strata == {"seen_system_seen_language": 12, "unseen_system_seen_language": 24}
    assert (metrics["evaluated"]["languages"], metrics["evaluated"]["languages_seen"]) == (0, [])
    assert (metrics["evaluated"]["without_language"], metrics["evaluated"]["strata_by_language"]) == (
        36,
        False,
    )
    assert (
        "The languages of the corpus are not known: strata go by system alone"
        in (out / "report.md").read_text()
    )


def test_report_counts_rows_without_a_language(corpus, tmp_path):
    out = tmp_path / "out"
    metrics = evaluate(
        checkpoint(tmp_path / "best"),
        table_of(corpus, tmp_path, language=["", "en", "de"] * 12),
        out,
        root=str(corpus.parent / "audio"),
        device="cpu",
    )
    assert (metrics["evaluated"]["languages"], metrics["evaluated"]["languages_seen"]) == (2, ["en"])
    assert metrics["evaluated"]["strata_by_language"]
    sentences = (
        "2 languages, of which the model was trained on 1. "
        "12 utterances have no language, which counts as a language of its own."
    )
    assert sentences in (out / "report.md").read_text()


def test_evaluate_traces_the_label_of_the_training(corpus, tmp_path, caplog):
    trained = PARAMS | {"corpus": "manifest", "external": PARAMS["external"] | {"label": "family"}}
    model = checkpoint(tmp_path / "best", params=trained, systems=["a", "c"])
    metrics = evaluate(model, corpus, tmp_path / "out", splits=["dev"], device="cpu")
    assert (metrics["evaluated"]["systems"], metrics["evaluated"]["systems_seen"]) == (2, ["a"])
    metadata = load_checkpoint(model).metadata
    assert "scored on label" not in caplog.text
    assert choose_label(metadata, "system") == "system"
    assert "trained on label family and is scored on label system" in caplog.text
    local = dataclasses.replace(metadata, params=trained | {"corpus": "local"})
    assert choose_label(local, "") == "system"  # corpus local does not read external.label
    without_external = {name: value for name, value in trained.items() if name != "external"}
    assert choose_label(dataclasses.replace(metadata, params=without_external), "") == "system"


def test_evaluate_leaves_out_any_number_of_unusable_files(corpus, tmp_path):
    """A third of the clips is shorter than features.min_seconds of the checkpoint, then all of them are."""
    root, rows = read_manifest(corpus).root, read_manifest(corpus).rows[["path", "system"]]
    short = rows.head(12).assign(path=[str(tmp_path / f"{number}.wav") for number in range(12)])
    rng = np.random.default_rng(0)
    for path in short["path"]:
        soundfile.write(path, 0.1 * rng.standard_normal(800), 16000)
    whole = rows.tail(24).assign(path=[str(root / path) for path in rows["path"].tail(24)])
    common_folder = Path(os.path.commonpath([root, tmp_path]))
    model, table = checkpoint(tmp_path / "best"), tmp_path / "short.csv"
    pd.concat([short, whole]).to_csv(table, index=False)
    metrics = evaluate(model, table, tmp_path / "out", root=str(common_folder), device="cpu")
    assert (metrics["evaluated"]["utterances"], metrics["evaluated"]["quarantined"]) == (24, 12)
    short.to_csv(table, index=False)
    with pytest.raises(AudioError, match=r"12 of 12 audio files are unusable; the first is") as error:
        evaluate(model, table, tmp_path / "out", root=str(common_folder), device="cpu")
    assert "max_bad_fraction" not in str(error.value)


def test_read_external_corpus_names_a_label_that_the_corpus_lacks(corpus, tmp_path):
    with pytest.raises(CorpusError, match="has no vocoder"):
        read_external_corpus(corpus, label="vocoder", folder=tmp_path)


def test_evaluate_scores_a_plain_table_as_one_set_without_unusable_files(corpus, tmp_path):
    rows = read_manifest(corpus).rows[["path", "system"]].rename(columns={"path": "clip"})
    (corpus.parent / "audio/broken.flac").write_bytes(b"")
    rows.loc[len(rows)] = ["broken.flac", "slow"]
    rows.to_csv(tmp_path / "mine.csv", index=False)
    metrics = evaluate(
        checkpoint(tmp_path / "best"),
        tmp_path / "mine.csv",
        tmp_path / "out",
        root=str(corpus.parent / "audio"),
        columns={"path": "clip"},
        device="cpu",
    )
    assert (metrics["evaluated"]["corpus"], metrics["test"]["utterances"]) == ("mine", 36)
    assert "broken.flac" in (tmp_path / "out/corpus/rejected.csv").read_text()
    of_corpus = score_all_pairs(
        (vectors := read_embeddings(tmp_path / "out/embeddings/model.arrow")).embeddings,
        vectors.systems,
        bootstrap_samples=0,
        seed=0,
    )
    assert metrics["test"]["eer_micro_percent"] == pytest.approx(of_corpus.eer_micro_percent)


@pytest.fixture
def copies(corpus, tmp_path):
    """Write a table of four files of two systems; two files have the same bytes and different systems."""
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


def test_evaluate_keeps_duplicates_on_request(corpus, tmp_path):
    manifest, again = read_manifest(corpus), tmp_path / "again.flac"
    shutil.copy(manifest.root / "train-slow-0.flac", again)
    table = table_of(corpus, tmp_path)
    with table.open("a") as lines:
        lines.write(f"{again},fast\n")
    model, root = checkpoint(tmp_path / "best"), os.path.commonpath([manifest.root, tmp_path])
    with pytest.raises(CorpusError, match="has the same bytes"):
        evaluate(model, table, tmp_path / "out", root=root, device="cpu")
    metrics = evaluate(model, table, tmp_path / "out", root=root, keep_duplicates=True, device="cpu")
    assert metrics["test"]["utterances"] == 37


def break_table(table, kind):
    """Put one error into the table; return its path."""
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
    ("kind", "options", "message"),
    [
        ("duplicates", [], "give --keep-duplicates to keep both$"),
        ("suffix", [], r"ends in one of \['\.csv'.* \(--manifest .*copies\.txt\)$"),
        ("column", [], "give --column path=NAME to name its column$"),
        ("column", ["--column", "path=clips"], r"no column 'clips'.* \(--column path=clips\)$"),
        ("column", ["--column", "clip=path"], r"unknown column 'clip'.* \(--column clip=path\)$"),
        ("fold", [], "give --column split= to ignore this column$"),
        ("outside", [], "give --root FOLDER$"),
        ("empty", [], r"4 of 4 files cannot be used.*; correct the files or the paths$"),
        ("vocoder", ["--label", "vocoder"], "give --label system to trace the system$"),
        ("vocoder", ["--label", "speaker"], r"unknown label.* \(--label speaker\)$"),
    ],
)
def test_evaluate_command_words_settings_as_options(copies, tmp_path, kind, options, message):
    arguments = ["--checkpoint", checkpoint(tmp_path / "best"), "--manifest", break_table(copies, kind)]
    arguments += ["--out", tmp_path / "out", "--device", "cpu", *options]
    arguments += ["--keep-duplicates"] * (kind == "vocoder")
    with pytest.raises(CorpusError, match=message) as error:
        CliRunner().invoke(app, ["evaluate", *map(str, arguments)], catch_exceptions=False)
    assert not re.search(r"external\.|manifest\.(file|columns)|params\.yaml", str(error.value))


def test_read_external_corpus_accepts_the_folder_of_a_manifest(corpus, tmp_path):
    rows = read_external_corpus(corpus.parent, folder=tmp_path).rows
    pd.testing.assert_frame_equal(rows, read_external_corpus(corpus, folder=tmp_path).rows)
    with pytest.raises(CorpusError, match=r"no manifest\.parquet in this folder"):
        read_external_corpus(tmp_path, folder=tmp_path / "corpus")


def test_evaluate_command_prints_the_table(corpus, tmp_path):
    model = checkpoint(tmp_path / "best")
    arguments = [
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
    result = CliRunner().invoke(app, ["evaluate", *map(str, arguments)], catch_exceptions=False)
    assert result.exit_code == 0
    assert "dev" in result.stdout
    assert pd.read_csv(tmp_path / "out/plots/det.csv")["set"].unique().tolist() == ["dev"]


def eers_by_value(out, column):
    """Return the EER in percent, by the value in `column` (N,), over lists of all pairs in NumPy."""
    vectors = read_embeddings(out / "embeddings/model.arrow")
    unit = vectors.embeddings / np.linalg.norm(vectors.embeddings, axis=1, keepdims=True)
    eers = {}
    for value in np.unique(column):
        rows = np.flatnonzero(column == value)
        first, second = np.triu_indices(len(rows), k=1)
        cosines = (unit[rows] @ unit[rows].T)[first, second]
        same = vectors.systems[rows[first]] == vectors.systems[rows[second]]
        eers[value] = 100 * equal_error_rate(cosines[same], cosines[~same])
    return eers


def test_evaluate_within_a_column_of_a_table_scores_only_pairs_that_share_its_value(corpus, tmp_path):
    """The pages alternate; the label is the system of the page."""
    table, out = table_of(corpus, tmp_path, page=["one", "two", "three"] * 12), tmp_path / "out"
    metrics = evaluate(
        checkpoint(tmp_path / "best"),
        table,
        out,
        root=str(corpus.parent / "audio"),
        label="system@page",
        within=["page"],
        baselines=["untrained"],
        device="cpu",
    )
    systems = read_embeddings(out / "embeddings/model.arrow").systems
    rows = pd.read_csv(table)
    assert sorted(systems) == sorted(rows["system"] + "@" + rows["page"])
    within = metrics["test"]["within"]["page"]
    expected = eers_by_value(out, np.array([system.partition("@")[2] for system in systems]))
    assert {page: value["eer_micro_percent"] for page, value in within["values"].items()} == pytest.approx(
        expected, abs=1e-3
    )
    assert within["eer_micro_percent"] == pytest.approx(np.mean(list(expected.values())), abs=1e-3)
    assert set(metrics["baselines"]["untrained"]["test"]["within"]["page"]["values"]) == set(expected)
    of_label = metrics["test"]["per_label"]["slow@one"]
    count = int((systems == "slow@one").sum())
    assert (of_label["utterances"], of_label["target_trials"]) == (count, count * (count - 1) / 2)
    assert "| within | page | 36 |" in (out / "report.md").read_text()


def test_evaluate_within_the_language_of_a_manifest(corpus, tmp_path):
    metrics = evaluate(
        checkpoint(tmp_path / "best"),
        corpus,
        tmp_path / "out",
        splits=["dev"],
        within=["language"],
        device="cpu",
    )
    within = metrics["dev"]["within"]["language"]
    assert {name: value["utterances"] for name, value in within["values"].items()} == {"de": 6, "en": 6}
    assert within["min_utterances"] == 1


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (
            {"within": ["page"]},
            r"mine\.csv: no column 'page'; the table has \['path', 'system', 'kind'\]; name one",
        ),
        ({"label": "system@page"}, r"mine\.csv: no column 'page'"),
    ],
)
def test_evaluate_raises_for_an_absent_column_before_it_reads_audio(
    corpus, tmp_path, monkeypatch, options, message
):
    monkeypatch.setattr("makermark.corpora.build_manifest.check_files", None)
    table = table_of(corpus, tmp_path, kind="tts")
    with pytest.raises(CorpusError, match=message):
        evaluate(checkpoint(tmp_path / "best"), table, tmp_path / "out", device="cpu", **options)


def test_external_corpus_raises_for_columns_of_a_manifest_without_values(corpus, tmp_path):
    with pytest.raises(CorpusError, match=r"no column 'page'; it has \['utterance_id'"):
        read_external_corpus(corpus, within=["page"], folder=tmp_path)
    with pytest.raises(
        CorpusError, match="column 'voice' is empty in all 36 rows; name a column with values"
    ):
        read_external_corpus(corpus, within=["voice"], folder=tmp_path)
    with pytest.raises(
        CorpusError, match=r"no vocoder \(36 of 36 rows have none\); complete the column, or take"
    ):
        read_external_corpus(corpus, label="system@vocoder", folder=tmp_path)


def test_external_corpus_raises_for_a_path_with_two_values(corpus, tmp_path):
    table = table_of(corpus, tmp_path, page="one")
    with table.open("a") as lines:
        lines.write(table.read_text().splitlines()[1].replace("one", "two") + "\n")
    with pytest.raises(
        CorpusError, match=r"path 'dev-fast-0\.flac' appears with different values of \['page'\]"
    ):
        read_external_corpus(table, root=str(corpus.parent / "audio"), within=["page"], folder=tmp_path)
