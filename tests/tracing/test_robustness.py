"""Robustness stage on vowels, end to end, and its metrics against an independent computation."""

import dataclasses
import json
import shutil
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import yaml

from makermark.features.cache_writer import write_cache
from makermark.foundation import embeddings, tracking
from makermark.foundation.errors import ParamsError, TracerError
from makermark.foundation.manifest import read_manifest
from makermark.foundation.params import parse_params
from makermark.foundation.tracking import NoTracker
from makermark.models.checkpoint import load_checkpoint
from makermark.models.feature_spec import augmented_front_ends, build_front_end, front_end_name
from makermark.scoring.pairs import score_all_pairs
from makermark.tracing import Tracer, plots
from makermark.tracing.extractor import ClipExtractor
from makermark.tracing.plots import COLUMNS, plot_robustness, robustness_markdown
from makermark.training.run import train_experiment
from tests_support import speech_corpus
from tracer_support import make_world

REPOSITORY = Path(__file__).parents[2]
sys.path.insert(0, str(REPOSITORY / "stages"))
import robustness  # noqa: E402, the stage

CONTENT = yaml.safe_load((REPOSITORY / "params.yaml").read_text())
CONTENT["trace"] |= {"clip_seconds": [0.5], "clips_per_system": 3, "min_speech_seconds": 0.3}
CONTENT["robustness"] |= {"conditions": ["mulaw", "babble-0", "no-silence"], "bootstrap_samples": 5}
CONTENT["robustness"] |= {"utterances_per_system": 2, "gallery_utterances": 2}
CONTENT["train"] |= {"epochs": 1, "warmup_epochs": 0.0, "crop_seconds": 0.4, "evaluate_every_epochs": 1}
CONTENT["samplers"]["balanced"] = {"batch_systems": 3, "utterances_per_system": 4}
CACHE_SETTINGS = {
    "shard_utterances": 12,
    "max_bad_fraction": 0,
    "min_seconds": 0.1,
    "max_seconds": 60,
    "workers": 1,
}


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    """Outputs of a small pipeline: `slow` and `middle` are training systems, `fast` is unknown."""
    folder = tmp_path_factory.mktemp("robust")
    make_world(folder, CONTENT)
    return folder


@pytest.fixture
def stage(world, monkeypatch):
    """Run the stage with changed params and return its output folder."""
    monkeypatch.setattr(tracking, "open_model_run", lambda *args, **kwargs: NoTracker())

    def run(name, **changes):
        params = world / f"{name}.yaml"
        params.write_text(yaml.safe_dump(CONTENT | {"robustness": CONTENT["robustness"] | changes}))
        out = world / name
        paths = [world / "corpus/manifest.parquet", world / "model.arrow", world / "models"]
        robustness.main(*paths, out / "robustness.json", out / "plots", params=params)
        return out

    return run


def test_stage_evaluates_every_condition_and_is_deterministic(world, stage):
    out = stage("first")
    metrics = json.loads((out / "robustness.json").read_text())
    assert list(metrics["conditions"]) == ["clean", "mulaw", "babble-0", "no-silence"]
    assert (metrics["utterances"], metrics["systems"], metrics["seen_utterances"]) == (6, 3, 4)
    for condition in metrics["conditions"].values():
        outcomes = [
            condition[f"seen_{kind}_percent"]
            for kind in ("correct", "family", "wrong", "unknown", "too_little")
        ]
        assert sum(outcomes) == pytest.approx(100)
        assert condition["min_cllr"] <= condition["cllr"] + 1e-9
        assert 0 <= condition["eer_micro_percent"] <= 100
        assert len(condition["cllr_ci95"]) == 2
    assert list(metrics["shortcuts"]) == ["clean", "no-silence"]
    assert metrics["shortcuts"]["clean"]["stays_percent"] in (100, None)
    table = (out / "plots/robustness.md").read_text()
    assert "| babble-0 | six other utterances of the split, 0 dB SNR |" in table
    values = pd.read_csv(out / "plots/robustness.csv", index_col="condition")
    assert values.index.tolist() == list(metrics["conditions"])
    for name, condition in metrics["conditions"].items():
        assert values.loc[name, "cllr"] == pytest.approx(condition["cllr"])
        ends = values.loc[name, ["eer_micro_percent_ci95_low", "eer_micro_percent_ci95_high"]]
        expected = condition["eer_micro_percent_ci95"] or [np.nan, np.nan]
        assert ends.to_list() == pytest.approx(expected, nan_ok=True)
    assert (out / "plots/robustness.png").read_bytes().startswith(b"\x89PNG")
    again = stage("second")
    assert (again / "robustness.json").read_bytes() == (out / "robustness.json").read_bytes()
    assert (again / "plots/robustness.png").read_bytes() == (out / "plots/robustness.png").read_bytes()


def test_clean_metrics_equal_those_of_the_embeddings(world, stage):
    metrics = json.loads(
        (stage("whole", conditions=["clean"], utterances_per_system=99) / "robustness.json").read_text()
    )
    manifest = read_manifest(world / "corpus/manifest.parquet")
    test = manifest.rows[manifest.rows["split"] == "test"].sort_values("utterance_id")
    extractor = ClipExtractor(load_checkpoint(world / "models/best"))
    embeddings = extractor.embed([extractor.read(manifest.audio_path(path)) for path in test["path"]])
    systems = test["system"].to_numpy(dtype=str)
    expected = score_all_pairs(embeddings, systems, bootstrap_samples=0, seed=0)
    assert metrics["utterances"] == len(test)
    assert metrics["conditions"]["clean"]["eer_micro_percent"] == pytest.approx(
        expected.eer_micro_percent, abs=1e-6
    )
    assert metrics["shortcuts"] == {}
    tracer = Tracer.load(world / "models")
    identified = [tracer.trace(manifest.audio_path(path)).candidates[0].system for path in test["path"]]
    right, seen = np.array(identified) == systems, np.isin(systems, tracer.gallery.systems)
    assert metrics["conditions"]["clean"]["identification_percent"] == pytest.approx(100 * right[seen].mean())


def test_unknown_condition_is_refused_in_one_line(stage):
    with pytest.raises(
        ParamsError, match=r"unknown condition 'mp3-17'; it must be one of \['clean', 'telephone'"
    ) as error:
        stage("bad", conditions=["mp3-17"])
    assert "\n" not in str(error.value)


def test_embeddings_of_another_model_are_refused(world, stage, monkeypatch):
    monkeypatch.setattr(embeddings, "read_embeddings", lambda path: dataclasses.make_dataclass("E", ["metadata"])(
        {"model_sha256": "0" * 64}))  # fmt: skip
    with pytest.raises(TracerError, match=r"made by model 000000000000, but this is model"):
        stage("other")


def test_table_and_plot_accept_missing_values(tmp_path):
    figures = dict.fromkeys([column.name for column in COLUMNS], 50.0)
    absent = figures | {"cllr": None, "cllr_ci95": None}
    intervals = {"eer_micro_percent_ci95": [1.0, 2.0], "identification_percent_ci95": None}
    rows = {"clean": figures | intervals | {"group": "as it is", "cllr_ci95": [0.1, 0.2]}}
    rows["mulaw"] = absent | intervals | {"group": "codec"}
    counts = {"utterances": 6, "utterances_per_system": 2, "systems": 3, "seen_utterances": 4}
    metrics = {"conditions": rows, "shortcuts": {}, **counts}
    text = robustness_markdown(metrics, {"clean": "the file itself", "mulaw": "G.711"})
    assert "| clean | the file itself | 50.0 [1.0, 2.0] | 50.0 | 50.0 | 50.00 [0.10, 0.20] |" in text
    assert "| mulaw | G.711 | 50.0 [1.0, 2.0] | 50.0 | 50.0 | - |" in text
    plot_robustness(tmp_path / "p.png", metrics, title="t")
    assert (tmp_path / "p.png").stat().st_size > 1000


def test_plot_has_the_figures_of_every_condition_in_its_group_best_first(tmp_path, monkeypatch):
    saved = []
    monkeypatch.setattr(plots, "save_figure", lambda figure, path: saved.append(figure))
    figures = {"clean": 90.0, "mulaw": 40.0, "g722": 80.0, "room": None, "hall": 10.0}
    groups = dict(zip(figures, ("as it is", "codec", "codec", "room", "room"), strict=True))
    conditions = {
        name: {
            "group": groups[name], "identification_percent": value, "identification_percent_ci95": None,
            "cllr": value and 1 - value / 100, "cllr_ci95": None,
        }
        for name, value in figures.items()
    }  # fmt: skip
    plot_robustness(tmp_path / "p.png", {"conditions": conditions}, title="t")
    left, right = saved[0].axes
    lines = [label.get_text() for label in left.get_yticklabels()]
    assert lines == ["Codecs and telephone", "g722", "mulaw", "Rooms and replay", "hall", "room"]
    for axes, metric in ((left, "identification_percent"), (right, "cllr")):
        dots = {
            lines[int(line.get_ydata()[0])]: line.get_xdata()[0]
            for line in axes.lines
            if line.get_marker() == "o"
        }
        assert dots == {name: conditions[name][metric] for name in ("g722", "mulaw", "hall")}


def train(folder, models, **changes):
    params = parse_params(CONTENT | changes)
    manifest, _ = speech_corpus_of(folder)
    front_end = build_front_end(params, front_end_name(params))
    copies = augmented_front_ends(params)
    training = dataclasses.replace(manifest, rows=manifest.rows[manifest.rows["split"] == "train"])
    for rows, view in [(manifest, front_end), *((training, copy) for copy in copies)]:
        write_cache(rows, view, folder / "features", **CACHE_SETTINGS)
    train_experiment(params, manifest, folder / "features", bonafide_folder=folder / "none", models=models)
    return models / "best.safetensors"


def speech_corpus_of(folder):
    if (folder / "audio").exists():
        shutil.rmtree(folder / "audio")
    return speech_corpus(folder)


def test_training_uses_augmented_views_and_is_unchanged_without_them(tmp_path, monkeypatch):
    monkeypatch.setattr(tracking, "open_run", lambda *args, **kwargs: NoTracker())
    plain = train(tmp_path, tmp_path / "plain").read_bytes()
    noisy = train(tmp_path, tmp_path / "noisy", augment="noise").read_bytes()
    again = train(tmp_path, tmp_path / "again", augment="noise").read_bytes()
    assert (tmp_path / "features/linear-fbank-changes-noise-0/index.json").exists()
    assert noisy == again
    assert noisy != plain
    assert train(tmp_path, tmp_path / "back").read_bytes() == plain
    assert (
        parse_params(CONTENT | {"augment": "noise"}).experiment
        == "spectral-statistics-ge2e-balanced-50-s0-noise-e1"
    )
