"""The robustness stage on tones, end to end; what it says against another reckoning."""

import dataclasses
import json
import shutil
import sys
from pathlib import Path

import numpy as np
import pytest
import yaml

from makermark import tracking, vectors
from makermark.checkpoint import load_checkpoint
from makermark.corpora.rows import read_manifest
from makermark.errors import ParamsError, TracerError
from makermark.experiment import train_experiment
from makermark.features.cache import write_cache
from makermark.inputs import copies_of
from makermark.params import from_mapping
from makermark.reporting.robustness import COLUMNS, plot_robustness, robustness_markdown
from makermark.scoring import score_set
from makermark.tracing import Tracer
from makermark.tracing.hearing import Hearing
from makermark.tracking import NoTracker
from tests_support import tone_corpus
from tracer_support import make_world

REPOSITORY = Path(__file__).parents[1]
sys.path.insert(0, str(REPOSITORY / "stages"))
import robustness  # noqa: E402, the stage

CONTENT = yaml.safe_load((REPOSITORY / "params.yaml").read_text())
CONTENT["trace"] |= {"clip_seconds": [0.5], "clips_per_system": 3, "min_speech_seconds": 0.3}
CONTENT["robustness"] |= {"conditions": ["mulaw", "babble-0", "no-silence"], "bootstrap_samples": 5}
CONTENT["robustness"] |= {"utterances_per_system": 2, "gallery_utterances": 2}
CONTENT["train"] |= {"epochs": 1, "warmup_epochs": 0.0, "crop_seconds": 0.4, "evaluate_every_epochs": 1}
CONTENT["samplers"]["balanced"] = {"batch_systems": 3, "utterances_per_system": 4}
HOW = {"shard_utterances": 12, "max_bad_fraction": 0, "min_seconds": 0.1, "max_seconds": 60, "workers": 1}


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    """What the pipeline leaves, small: `slow` and `middle` were trained on, `fast` is unknown."""
    folder = tmp_path_factory.mktemp("robust")
    make_world(folder, CONTENT)
    return folder


@pytest.fixture
def stage(world, monkeypatch):
    """The stage with changed params; where it wrote."""
    monkeypatch.setattr(tracking, "open_model_run", lambda *args, **kwargs: NoTracker())

    def run(name, **changes):
        params = world / f"{name}.yaml"
        params.write_text(yaml.safe_dump(CONTENT | {"robustness": CONTENT["robustness"] | changes}))
        out = world / name
        paths = [world / "corpus/manifest.parquet", world / "model.arrow", world / "models"]
        robustness.main(*paths, out / "robustness.json", out / "plots", params=params)
        return out

    return run


def test_the_stage_measures_every_condition_and_says_so(world, stage):
    out = stage("first")
    told = json.loads((out / "robustness.json").read_text())
    assert list(told["conditions"]) == ["clean", "mulaw", "babble-0", "no-silence"]
    assert (told["utterances"], told["systems"], told["seen_utterances"]) == (6, 3, 4)
    for figures in told["conditions"].values():
        verdicts = [
            figures[f"seen_{kind}_percent"]
            for kind in ("correct", "family", "wrong", "unknown", "too_little")
        ]
        assert sum(verdicts) == pytest.approx(100)
        assert figures["min_cllr"] <= figures["cllr"] + 1e-9
        assert 0 <= figures["eer_micro_percent"] <= 100
        assert len(figures["cllr_ci95"]) == 2
    assert list(told["shortcuts"]) == ["clean", "no-silence"]
    assert told["shortcuts"]["clean"]["stays_percent"] in (100, None)
    table = (out / "plots/robustness.md").read_text()
    assert "| babble-0 | six other utterances of the split, 0 dB SNR |" in table
    assert (out / "plots/robustness.png").read_bytes().startswith(b"\x89PNG")
    again = stage("second")
    assert (again / "robustness.json").read_bytes() == (out / "robustness.json").read_bytes()
    assert (again / "plots/robustness.png").read_bytes() == (out / "plots/robustness.png").read_bytes()


def test_clean_figures_are_those_of_the_embedded_vectors(world, stage):
    told = json.loads(
        (stage("whole", conditions=["clean"], utterances_per_system=99) / "robustness.json").read_text()
    )
    manifest = read_manifest(world / "corpus/manifest.parquet")
    test = manifest.rows[manifest.rows["split"] == "test"].sort_values("utterance_id")
    hearing = Hearing(load_checkpoint(world / "models/best"))
    heard = hearing.vectors([hearing.read(manifest.file(path)) for path in test["path"]])
    systems = test["system"].to_numpy(dtype=str)
    expected = score_set(heard, systems, bootstrap_samples=0, seed=0)
    assert told["utterances"] == len(test)
    assert told["conditions"]["clean"]["eer_micro_percent"] == pytest.approx(
        expected.eer_micro_percent, abs=1e-6
    )
    assert told["shortcuts"] == {}
    tracer = Tracer.load(world / "models")
    said = [tracer.trace(manifest.file(path)).candidates[0].system for path in test["path"]]
    right, seen = np.array(said) == systems, np.isin(systems, tracer.gallery.systems)
    assert told["conditions"]["clean"]["identification_percent"] == pytest.approx(100 * right[seen].mean())


def test_a_misspelt_condition_is_refused_in_one_line(stage):
    with pytest.raises(
        ParamsError, match=r"unknown condition 'mp3-17'; it is one of \['clean', 'telephone'"
    ) as told:
        stage("bad", conditions=["mp3-17"])
    assert "\n" not in str(told.value)


def test_embeddings_of_another_model_are_refused(world, stage, monkeypatch):
    monkeypatch.setattr(vectors, "read_embeddings", lambda path: dataclasses.make_dataclass("E", ["metadata"])(
        {"model_sha256": "0" * 64}))  # fmt: skip
    with pytest.raises(TracerError, match=r"made by model 000000000000, this is model"):
        stage("other")


def test_table_and_picture_have_room_for_what_could_not_be_measured(tmp_path):
    figures = dict.fromkeys([column.name for column in COLUMNS], 50.0)
    absent = figures | {"cllr": None, "cllr_ci95": None}
    intervals = {"eer_micro_percent_ci95": [1.0, 2.0], "identification_percent_ci95": None}
    rows = {"clean": figures | intervals | {"group": "as it is", "cllr_ci95": [0.1, 0.2]}}
    rows["mulaw"] = absent | intervals | {"group": "codec"}
    counts = {"utterances": 6, "utterances_per_system": 2, "systems": 3, "seen_utterances": 4}
    told = {"conditions": rows, "shortcuts": {}, **counts}
    text = robustness_markdown(told, {"clean": "the file itself", "mulaw": "G.711"})
    assert "| clean | the file itself | 50.0 [1.0, 2.0] | 50.0 | 50.0 | 50.00 [0.10, 0.20] |" in text
    assert "| mulaw | G.711 | 50.0 [1.0, 2.0] | 50.0 | 50.0 | - |" in text
    plot_robustness(tmp_path / "p.png", told, title="t")
    assert (tmp_path / "p.png").stat().st_size > 1000


def train(folder, models, **changes):
    params = from_mapping(CONTENT | changes)
    manifest, front_end = tone_corpus_of(folder)
    copies = copies_of(params)
    training = dataclasses.replace(manifest, rows=manifest.rows[manifest.rows["split"] == "train"])
    for rows, each in [(manifest, front_end), *((training, copy) for copy in copies)]:
        write_cache(rows, each, folder / "features", **HOW)
    train_experiment(params, manifest, folder / "features", human=folder / "none", models=models)
    return models / "best.safetensors"


def tone_corpus_of(folder):
    if (folder / "audio").exists():
        shutil.rmtree(folder / "audio")
    return tone_corpus(folder)


def test_training_hears_the_copies_and_without_them_is_what_it_was(tmp_path, monkeypatch):
    monkeypatch.setattr(tracking, "open_run", lambda *args, **kwargs: NoTracker())
    plain = train(tmp_path, tmp_path / "plain").read_bytes()
    noisy = train(tmp_path, tmp_path / "noisy", augment="noise").read_bytes()
    again = train(tmp_path, tmp_path / "again", augment="noise").read_bytes()
    assert (tmp_path / "features/fbank-noise-0/index.json").exists()
    assert noisy == again
    assert noisy != plain
    assert train(tmp_path, tmp_path / "back").read_bytes() == plain
    assert from_mapping(CONTENT | {"augment": "noise"}).experiment == "resnet34-ge2e-balanced-50-s0-noise"
