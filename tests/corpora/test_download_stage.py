"""The download stage: what it refuses it refuses before anything is deleted, and a copy reads what the user has."""

import dataclasses
import importlib.util
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import soundfile
import yaml

from makermark import audio
from makermark.corpora.making import LOOKED
from makermark.corpora.names import check_corpus
from makermark.corpora.rows import GIVEN, read_manifest, write_manifest
from makermark.errors import CorpusError, FilesError, ParamsError
from makermark.experiment import check
from makermark.params import read_params

REPOSITORY = Path(__file__).parents[2]
PARAMS = yaml.safe_load((REPOSITORY / "params.yaml").read_text())
SPLITS = ("train", "train", "dev", "test")


@pytest.fixture(scope="module")
def stage():
    spec = importlib.util.spec_from_file_location("download_stage", REPOSITORY / "stages/download.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture
def project(tmp_path, monkeypatch):
    """A repository with a local corpus of one file, and a user's corpus beside it."""
    repository = tmp_path / "project"
    (repository / ".dvc").mkdir(parents=True)
    plant_local(repository / "data/corpus")
    rows = [(f"{system}/{n}.wav", system, split) for system in "ab" for n, split in enumerate(SPLITS)]
    for seed, (path, _, _) in enumerate(rows):
        (repository / "mine" / path).parent.mkdir(parents=True, exist_ok=True)
        noise = np.random.default_rng(seed).uniform(-0.1, 0.1, 1600)
        soundfile.write(repository / "mine" / path, noise, 16000)
    pd.DataFrame(rows, columns=["path", "system", "split"]).to_csv(repository / "mine/table.csv", index=False)
    monkeypatch.chdir(repository)
    return repository


def plant_local(folder):
    (folder / "audio").mkdir(parents=True)
    (folder / "audio/a.wav").write_bytes(b"made in hours")
    row = dict.fromkeys(GIVEN.names, "") | {
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
    ("settings", "error", "said"),
    [
        ({"corpus": "manifest"}, ParamsError, "set manifest.file"),
        ({"corpus": "manifest", "manifest": {"file": "gone.csv"}}, FilesError, "gone.csv: No such file"),
        ({"corpus": "folders"}, ParamsError, "set external.root"),
        ({"corpus": "folders", "external": {"root": "gone"}}, CorpusError, "is no folder"),
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
def test_what_is_refused_costs_nobody_a_corpus(stage, project, settings, error, said):
    with pytest.raises(error) as caught:
        run(stage, project, **settings)
    assert said in str(caught.value)
    assert "\n" not in str(caught.value)
    assert (project / "data/corpus/audio/a.wav").read_bytes() == b"made in hours"
    assert read_manifest(project / "data/corpus/manifest.parquet").corpus == "local"


def test_another_corpus_takes_the_place_of_the_one_that_was_there(stage, project):
    run(stage, project, corpus="manifest", manifest={"file": "mine/table.csv"})
    manifest = read_manifest(project / "data/corpus/manifest.parquet")
    assert manifest.root == project / "mine"
    assert len(manifest.rows) == 8
    assert not (project / "data/corpus/audio").exists()


def test_an_experiment_in_a_copy_reads_the_users_files_and_what_was_seen_of_them(stage, project, monkeypatch):
    settings = {"corpus": "manifest", "manifest": {"file": "mine/table.csv"}, "split": {"seed": 1}}
    run(stage, project, **settings)
    before = (project / "data/corpus" / LOOKED).read_bytes()
    copy = project / ".dvc/tmp/exps/tmp1"
    copy.mkdir(parents=True)
    monkeypatch.chdir(copy)
    monkeypatch.setattr(audio, "look", lambda path: pytest.fail(f"{path} was read again"))
    run(stage, copy, **settings)
    made = read_manifest(copy / "data/corpus/manifest.parquet")
    assert made.root == project / "mine"
    assert made.rows.equals(read_manifest(project / "data/corpus/manifest.parquet").rows)
    assert (project / "data/corpus" / LOOKED).read_bytes() == before


@pytest.mark.parametrize("refuse", [check, check_corpus])
def test_the_first_stage_refuses_a_corpus_without_its_place(refuse):
    params = read_params(REPOSITORY / "params.yaml")
    refuse(params)
    with pytest.raises(ParamsError, match=r"set manifest\.file"):
        refuse(dataclasses.replace(params, corpus="manifest"))
    with pytest.raises(ParamsError, match=r"set external\.root"):
        refuse(dataclasses.replace(params, corpus="wavefake"))
