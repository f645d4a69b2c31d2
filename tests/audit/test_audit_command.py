"""`makermark audit` on a manifest, a folder and a protocol; terminal, JSON and Markdown have the same content."""

import json
import zipfile

import pandas as pd
import pytest
from typer.testing import CliRunner

from makermark.cli.main import app
from makermark.foundation.errors import CorpusError, FilesError, ManifestError
from makermark.foundation.manifest import read_manifest, write_manifest
from tests_support import speech_corpus

runner = CliRunner()


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("corpus")
    manifest, _ = speech_corpus(folder)
    rows = manifest.rows.assign(language=(manifest.rows["system"] == "slow").map({True: "de", False: "en"}))
    write_manifest(folder / "manifest.parquet", rows, corpus="vowels", root="audio")
    return folder


def run_audit(*arguments):
    result = runner.invoke(app, ["audit", *map(str, arguments)])
    if result.exception is not None:
        raise result.exception
    return result.stdout


def test_manifest_is_audited_with_its_audio(folder, tmp_path):
    output = run_audit(
        folder / "manifest.parquet", "--audio", "--json", tmp_path / "a.json", "--markdown", tmp_path / "a.md"
    )
    report = json.loads((tmp_path / "a.json").read_text())
    assert report["corpus"] == "vowels"
    assert report["shortcuts"]["files"] == 36
    sample_rate = report["shortcuts"]["properties"]["sample rate"]
    assert sample_rate["balanced_accuracy_percent"] == pytest.approx(100 / 3)
    assert sample_rate["ratio_to_chance"] == pytest.approx(1)
    assert set(report["shortcuts"]["together"]["recalls_percent"]) == {"slow", "middle", "fast"}
    markdown = (tmp_path / "a.md").read_text()
    assert markdown.startswith("# Audit of vowels\n\n## Splits\n\n| split |")
    for finding in report["findings"]:
        assert finding["says"] in markdown
        assert finding["remedy"] in markdown
    table = markdown.split("## Prediction of the system from simple properties of the audio")[1].split("##")[
        0
    ]
    names = [
        "sample rate",
        "bandwidth",
        "level",
        "silence",
        "- silence before",
        "- silence after",
        "- pauses",
        "duration",
    ]
    lines = [line.split(" | ")[0] for line in table.splitlines() if line.startswith("| ")]
    assert lines == [f"| {name}" for name in ["property", "---", *names, "all 5", "all 5, forest"]]
    assert max(map(len, output.splitlines())) <= 80
    assert "3 of 3 systems have only one language" in " ".join(output.split())


def test_folder_of_a_manifest_is_audited_without_audio_by_default(folder, tmp_path):
    run_audit(folder, "--json", tmp_path / "a.json")
    assert json.loads((tmp_path / "a.json").read_text())["shortcuts"] is None


def test_no_findings_are_reported_as_such(folder, tmp_path):
    rows = read_manifest(folder / "manifest.parquet").rows.assign(
        language=["en", "de"] * 18, family=lambda r: r["system"]
    )
    write_manifest(tmp_path / "m.parquet", rows, corpus="clean", root=str(folder / "audio"))
    assert "No property of this corpus was found" in run_audit(tmp_path / "m.parquet")


def row(language, model, name):
    return f"./fake/{language}/{model.replace('/', '_')}/{name}.wav", model


@pytest.fixture
def protocol(tmp_path):
    """A protocol with the real layout: bark by Coqui and by Suno, a repeated row, and a row that contradicts train."""
    coqui = "tts_models/multilingual/multi-dataset/bark"
    tables = {
        "train.csv": [row("en", "suno/bark", 1), row("en", "suno/bark", 2)],
        "dev.csv": [],
        "eval.csv": [],
    }
    for split in ("dev", "eval"):
        for language_code, language in (("en", ""), ("de", "not_")):
            for model, seen in (("suno/bark", ""), (coqui, "not_")):
                rows = [row(language_code, model, f"{split}{number}") for number in range(2)]
                if split == "eval" and language_code == "en":
                    rows += [row("en", "suno/bark", "misfiled")] if seen else rows[:1]
                tables[f"{split}.csv"] += rows
                tables[f"fine/{split}___lang_{language}seen___model_{seen}seen.csv"] = rows
    path = tmp_path / "protocol.zip"
    with zipfile.ZipFile(path, "w") as archive:
        for name, rows in tables.items():
            archive.writestr(name, pd.DataFrame(rows, columns=["path", "model_name"]).to_csv(index=False))
    return path


def test_protocol_is_audited_without_its_audio(protocol, tmp_path):
    run_audit(protocol, "--json", tmp_path / "a.json")
    report = json.loads((tmp_path / "a.json").read_text())
    assert report["duplicates"]["by_split"] == {"test": 1}
    assert report["strata"]["protocol"]["contradicting_rows"] == 1
    assert report["families"]["unseen_but_known"][0]["family"] == "Bark"
    with zipfile.ZipFile(protocol) as archive:
        archive.extractall(tmp_path / "unpacked")
    run_audit(tmp_path / "unpacked", "--json", tmp_path / "b.json")
    assert json.loads((tmp_path / "b.json").read_text()) == report


def test_invalid_input_raises_with_the_valid_inputs(tmp_path):
    with pytest.raises(CorpusError, match=r"has neither a manifest\.parquet nor the train\.csv"):
        run_audit(tmp_path)
    with pytest.raises(FilesError, match="it does not exist"):
        run_audit(tmp_path / "absent.parquet")
    for name, content in {"text.parquet": "no table", "table.csv": "path,system\n1.wav,a\n"}.items():
        (tmp_path / name).write_text(content)
        with pytest.raises(
            ManifestError, match=r"not a Parquet file, .* becomes a manifest with `corpus: manifest`"
        ):
            run_audit(tmp_path / name)
