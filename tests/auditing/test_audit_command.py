"""`makermark audit` on a manifest, a folder and a protocol: the terminal, JSON and Markdown tell the same."""

import json
import zipfile

import pandas as pd
import pytest
from typer.testing import CliRunner

from makermark.cli import app
from makermark.corpora.rows import read_manifest, write_manifest
from makermark.errors import CorpusError, FilesError, ManifestError
from tests_support import tone_corpus

runner = CliRunner()


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("corpus")
    manifest, _ = tone_corpus(folder)
    rows = manifest.rows.assign(language=(manifest.rows["system"] == "slow").map({True: "de", False: "en"}))
    write_manifest(folder / "manifest.parquet", rows, corpus="tones", root="audio")
    return folder


def run(*arguments):
    result = runner.invoke(app, ["audit", *map(str, arguments)])
    if result.exception is not None:
        raise result.exception
    return result.stdout


def test_a_manifest_is_audited_with_its_audio(folder, tmp_path):
    said = run(
        folder / "manifest.parquet", "--audio", "--json", tmp_path / "a.json", "--markdown", tmp_path / "a.md"
    )
    told = json.loads((tmp_path / "a.json").read_text())
    assert told["corpus"] == "tones"
    assert told["shortcuts"]["files"] == 36
    assert told["shortcuts"]["properties"]["sample_rate_hz"]["balanced_accuracy_percent"] == pytest.approx(
        100 / 3
    )
    markdown = (tmp_path / "a.md").read_text()
    assert markdown.startswith("# Audit of tones\n\n## Splits\n\n| split |")
    for each in told["findings"]:
        assert each["says"] in markdown
        assert each["remedy"] in markdown
    assert "3 of 3 systems speak one language" in " ".join(said.split())


def test_a_folder_with_a_manifest_is_enough_and_nobody_listens_unasked(folder, tmp_path):
    run(folder, "--json", tmp_path / "a.json")
    assert json.loads((tmp_path / "a.json").read_text())["shortcuts"] is None


def test_without_findings_it_says_so(folder, tmp_path):
    rows = read_manifest(folder / "manifest.parquet").rows.assign(
        language=["en", "de"] * 18, family=lambda r: r["system"]
    )
    write_manifest(tmp_path / "m.parquet", rows, corpus="clean", root=str(folder / "audio"))
    assert "Nothing was found that would make a figure misleading." in run(tmp_path / "m.parquet")


def row(language, model, name):
    return f"./fake/{language}/{model.replace('/', '_')}/{name}.wav", model


@pytest.fixture
def protocol(tmp_path):
    """A protocol of the real layout: Coqui's bark beside Suno's, a repeated row, and one filed against train."""
    coqui = "tts_models/multilingual/multi-dataset/bark"
    tables = {
        "train.csv": [row("en", "suno/bark", 1), row("en", "suno/bark", 2)],
        "dev.csv": [],
        "eval.csv": [],
    }
    for split in ("dev", "eval"):
        for spoken, language in (("en", ""), ("de", "not_")):
            for model, seen in (("suno/bark", ""), (coqui, "not_")):
                rows = [row(spoken, model, f"{split}{number}") for number in range(2)]
                if split == "eval" and spoken == "en":
                    rows += [row("en", "suno/bark", "misfiled")] if seen else rows[:1]
                tables[f"{split}.csv"] += rows
                tables[f"fine/{split}___lang_{language}seen___model_{seen}seen.csv"] = rows
    path = tmp_path / "protocol.zip"
    with zipfile.ZipFile(path, "w") as archive:
        for name, rows in tables.items():
            archive.writestr(name, pd.DataFrame(rows, columns=["path", "model_name"]).to_csv(index=False))
    return path


def test_a_protocol_is_audited_without_its_audio(protocol, tmp_path):
    run(protocol, "--json", tmp_path / "a.json")
    told = json.loads((tmp_path / "a.json").read_text())
    assert told["duplicates"]["by_split"] == {"test": 1}
    assert told["strata"]["protocol"]["contradicting_rows"] == 1
    assert told["families"]["unseen_but_known"][0]["family"] == "Bark"
    with zipfile.ZipFile(protocol) as archive:
        archive.extractall(tmp_path / "unpacked")
    run(tmp_path / "unpacked", "--json", tmp_path / "b.json")
    assert json.loads((tmp_path / "b.json").read_text()) == told


def test_what_is_no_corpus_is_answered_with_what_is(tmp_path):
    with pytest.raises(CorpusError, match=r"neither a manifest\.parquet nor the train\.csv"):
        run(tmp_path)
    with pytest.raises(FilesError, match="it does not exist"):
        run(tmp_path / "absent.parquet")
    (tmp_path / "text.parquet").write_text("no table")
    with pytest.raises(ManifestError, match="not a readable Parquet file"):
        run(tmp_path / "text.parquet")
