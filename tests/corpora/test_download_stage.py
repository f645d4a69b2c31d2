"""The download stage: errors come before anything is deleted, and a temporary copy reads the files of the user."""

import importlib.util
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import soundfile
import yaml

from makermark.corpora.build_manifest import AUDIO_INFO_CACHE
from makermark.foundation import audio
from makermark.foundation.errors import CorpusError, FilesError, ManifestError, ParamsError
from makermark.foundation.manifest import INPUT_SCHEMA, read_manifest, write_manifest

REPOSITORY = Path(__file__).parents[2]
PARAMS = yaml.safe_load((REPOSITORY / "params.yaml").read_text())
SPLITS = ("train", "train", "dev", "test")


def load_stage(name):
    spec = importlib.util.spec_from_file_location(f"{name}_stage", REPOSITORY / f"stages/{name}.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def stage():
    return load_stage("download")


@pytest.fixture
def project(tmp_path, monkeypatch):
    """A repository with a local corpus of one file, and a corpus of the user."""
    repository = tmp_path / "project"
    (repository / ".dvc").mkdir(parents=True)
    write_local_corpus(repository / "data/corpus")
    rows = [(f"{system}/{n}.wav", system, split) for system in "ab" for n, split in enumerate(SPLITS)]
    for seed, (path, _, _) in enumerate(rows):
        (repository / "user_corpus" / path).parent.mkdir(parents=True, exist_ok=True)
        noise = np.random.default_rng(seed).uniform(-0.1, 0.1, 1600)
        soundfile.write(repository / "user_corpus" / path, noise, 16000)
    pd.DataFrame(rows, columns=["path", "system", "split"]).to_csv(
        repository / "user_corpus/table.csv", index=False
    )
    monkeypatch.chdir(repository)
    return repository


def write_local_corpus(folder):
    (folder / "audio").mkdir(parents=True)
    (folder / "audio/a.wav").write_bytes(b"hours of work")
    row = dict.fromkeys(INPUT_SCHEMA.names, "") | {
        "utterance_id": "a", "path": "audio/a.wav", "split": "train", "system": "s", "duration_s": 1.0,
    }  # fmt: skip
    write_manifest(folder / "manifest.parquet", pd.DataFrame([row]), corpus="local", root=".")


def run(stage, project, **settings):
    params = PARAMS | {"bonafide": PARAMS["bonafide"] | {"source": "none"}}
    for section, values in settings.items():
        params[section] = values if isinstance(values, str) else params[section] | values
    (project / "params.yaml").write_text(yaml.safe_dump(params))
    stage.main(Path("data/corpus"), Path("data/bonafide"), Path("params.yaml"))


@pytest.mark.parametrize(
    ("settings", "error", "message"),
    [
        ({"corpus": "manifest"}, ParamsError, "set manifest.file"),
        ({"corpus": "manifest", "manifest": {"file": "gone.csv"}}, FilesError, "gone.csv: No such file"),
        ({"corpus": "folders"}, ParamsError, "set external.root"),
        (
            {"corpus": "folders", "external": {"root": "gone"}},
            CorpusError,
            "not a folder; name the folder that holds the corpus (external.root: ",
        ),
        ({"corpus": "mlaad-v5"}, CorpusError, "licence"),
        ({"corpus": "voxceleb"}, ParamsError, "unknown corpus 'voxceleb'"),
        ({"corpus": "manifest", "manifest": {"file": "data/corpus/t.csv"}}, ParamsError, "manifest.file is"),
        ({"corpus": "folders", "external": {"root": "data/corpus/audio"}}, ParamsError, "external.root is"),
        ({"corpus": "mlaad-v5", "mlaad": {"root": "data/corpus"}}, ParamsError, "mlaad.root is"),
        ({"corpus": "local", "mlaad": {"folder": "data/corpus/mlaad"}}, ParamsError, "mlaad.folder is"),
        (
            {"corpus": "folders", "external": {"root": "data"}},
            CorpusError,
            "data/corpus/audio/a.wav: lies in",
        ),
    ],
)
def test_refused_params_leave_the_existing_corpus_intact(stage, project, settings, error, message):
    with pytest.raises(error) as caught:
        run(stage, project, **settings)
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)
    assert (project / "data/corpus/audio/a.wav").read_bytes() == b"hours of work"
    assert read_manifest(project / "data/corpus/manifest.parquet").corpus == "local"


@pytest.mark.parametrize(
    ("row", "settings", "message"),
    [
        ("../outside.wav,c,train", {}, "leaves the folder"),
        ("c/1.wav,c,tset", {}, "split 'tset'"),
        ("a/0.wav,c,train", {}, "path 'a/0.wav' has system 'c'"),
        ("gone.wav,c,train", {}, "1 of 9 files cannot be used"),
        ("", {"external": {"label": "vocoder"}}, "has no vocoder"),
        ("", {"external": {"strata_from": "protocol"}}, "protocol_system_seen"),
        ("", {"bonafide": {"source": "gone"}}, "no folder"),
    ],
)
def test_corpus_that_fails_leaves_the_existing_one_intact(stage, project, row, settings, message):
    table = project / "user_corpus/table.csv"
    table.write_text(table.read_text() + row)
    (project / "data/bonafide").mkdir()
    (project / "data/bonafide/kept").touch()
    before = {file: file.read_bytes() for file in (project / "data/corpus").rglob("*") if file.is_file()}
    with pytest.raises((CorpusError, ManifestError), match=message):
        run(stage, project, corpus="manifest", manifest={"file": "user_corpus/table.csv"}, **settings)
    assert {f: f.read_bytes() for f in (project / "data/corpus").rglob("*") if f.is_file()} == before
    assert (project / "data/bonafide/kept").exists()


def test_dvc_does_not_delete_what_a_failed_download_would_have_replaced():
    outs = yaml.safe_load((REPOSITORY / "dvc.yaml").read_text())["stages"]["download"]["outs"]
    assert outs == [{"data/corpus": {"persist": True}}, {"data/bonafide": {"persist": True}}]


def test_another_corpus_replaces_the_existing_one(stage, project):
    run(stage, project, corpus="manifest", manifest={"file": "user_corpus/table.csv"})
    manifest = read_manifest(project / "data/corpus/manifest.parquet")
    assert manifest.root == project / "user_corpus"
    assert len(manifest.rows) == 8
    assert not (project / "data/corpus/audio").exists()


def test_experiment_in_a_copy_uses_the_audio_and_the_cache_of_the_main_repository(
    stage, project, monkeypatch
):
    settings = {"corpus": "manifest", "manifest": {"file": "user_corpus/table.csv"}, "split": {"seed": 1}}
    run(stage, project, **settings)
    before = (project / "data/corpus" / AUDIO_INFO_CACHE).read_bytes()
    copy = project / ".dvc/tmp/exps/tmp1"
    copy.mkdir(parents=True)
    monkeypatch.chdir(copy)
    monkeypatch.setattr(audio, "probe", lambda path: pytest.fail(f"{path} was read again"))
    run(stage, copy, **settings)
    manifest = read_manifest(copy / "data/corpus/manifest.parquet")
    assert manifest.root == project / "user_corpus"
    assert manifest.rows.equals(read_manifest(project / "data/corpus/manifest.parquet").rows)
    assert (project / "data/corpus" / AUDIO_INFO_CACHE).read_bytes() == before


@pytest.mark.parametrize(
    ("corpus", "message"), [("manifest", r"set manifest\.file"), ("wavefake", r"set external\.root")]
)
def test_check_stage_raises_for_a_corpus_without_its_required_setting(tmp_path, corpus, message):
    path = tmp_path / "params.yaml"
    path.write_text(yaml.safe_dump(PARAMS | {"corpus": corpus}))
    with pytest.raises(ParamsError, match=message):
        load_stage("check").main(path)
