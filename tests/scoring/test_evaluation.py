"""Evaluation of embeddings, and the score stage: identification of known systems, detection of unknown ones."""

import dataclasses
import importlib.util
import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from makermark.foundation import tracking
from makermark.foundation.embeddings import read_embeddings, write_embeddings
from makermark.foundation.manifest import INPUT_SCHEMA, add_seen_columns
from makermark.foundation.tracking import NoTracker
from makermark.scoring.detectors import DETECTORS
from makermark.scoring.evaluation import evaluate_embeddings

REPOSITORY = Path(__file__).parents[2]
SYSTEMS = {"train": "abc", "dev": "abcx", "test": "abcyz"}
PER_SYSTEM = 12


def make_rows():
    split, system = zip(
        *((s, name) for s, names in SYSTEMS.items() for name in names for _ in range(PER_SYSTEM)),
        strict=True,
    )
    table = pd.DataFrame({name: [f"{name}{i}" for i in range(len(split))] for name in INPUT_SCHEMA.names})
    return add_seen_columns(table.assign(split=split, system=system, language="en"))


def write_model(path, *, spread, has_head):
    """Write embeddings around one centre per system, and optionally the logits of a classifier of the train systems."""
    rows, rng = make_rows(), np.random.default_rng(0)
    centres = dict(zip("abcxyz", 3 * np.eye(6), strict=True))
    embeddings = np.stack([centres[s] for s in rows["system"]]) + spread * rng.normal(size=(len(rows), 6))
    logits = (embeddings @ np.stack([centres[s] for s in "abc"]).T).astype(np.float32)
    write_embeddings(
        path,
        rows,
        embeddings.astype(np.float32),
        metadata={"model_sha256": "m"},
        logits=logits if has_head else None,
    )


@pytest.mark.parametrize("has_head", [True, False])
def test_evaluation_identifies_and_detects_and_chooses_the_detector_on_dev(tmp_path, has_head):
    write_model(tmp_path / "model.arrow", spread=0.5, has_head=has_head)
    result = evaluate_embeddings(
        read_embeddings(tmp_path / "model.arrow"), bootstrap_samples=20, seed=0, p_target=0.05
    )
    for split, unknown in (("dev", 12), ("test", 24)):
        part = result.metrics[split]
        assert part["eer_micro_percent"] < 10
        assert ("head" in part["identification"]) is has_head
        assert part["identification"]["centroid"]["accuracy_percent"] > 95
        assert (part["out_of_domain"]["known_utterances"], part["out_of_domain"]["unknown_utterances"]) == (
            36,
            unknown,
        )
        assert set(result.rates[split]) == set(DETECTORS)
    aurocs = {name: result.metrics["dev"]["out_of_domain"][name]["auroc_percent"] for name in DETECTORS}
    chosen = result.metrics["test"]["out_of_domain"]["chosen_on_dev"]
    assert aurocs[chosen] == max(aurocs.values()) > 90


def test_score_stage_scores_all_baselines_beside_the_model(tmp_path, monkeypatch):
    spec = importlib.util.spec_from_file_location("score_stage", REPOSITORY / "stages/score.py")
    stage = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(stage)
    monkeypatch.setattr(tracking, "open_model_run", lambda *_, **__: NoTracker())
    write_model(tmp_path / "model.arrow", spread=0.5, has_head=True)
    write_model(tmp_path / "resemblyzer.arrow", spread=2.0, has_head=False)
    stage.main(tmp_path, tmp_path / "score.json", tmp_path / "plots", REPOSITORY / "params.yaml")
    metrics = json.loads((tmp_path / "score.json").read_text())
    assert list(metrics["baselines"]) == ["resemblyzer"]
    assert (
        metrics["baselines"]["resemblyzer"]["test"]["eer_micro_percent"]
        > metrics["test"]["eer_micro_percent"]
    )
    assert metrics["baselines"]["resemblyzer"]["test"]["out_of_domain"]["logits"] == "centroid"
    assert len(list((tmp_path / "plots").glob("*.png"))) == 6
    assert "resemblyzer" in (tmp_path / "plots/det.csv").read_text()


def test_score_has_eers_within_language_and_voice(tmp_path):
    """Every utterance has a voice of its own in these rows, so that voices have no target trial."""
    write_model(tmp_path / "model.arrow", spread=0.5, has_head=False)
    table = read_embeddings(tmp_path / "model.arrow")
    two = np.where(np.arange(len(table.labels)) % 2, "m", "f")
    voiced = dataclasses.replace(table, labels=table.labels.assign(voice=two, language=""))
    settings = {"bootstrap_samples": 20, "seed": 0, "p_target": 0.05}
    test = evaluate_embeddings(table, **settings).metrics["test"]["within"]
    assert test["language"]["eer_micro_percent"] == pytest.approx(
        evaluate_embeddings(table, **settings).metrics["test"]["eer_micro_percent"]
    )
    assert (test["voice"]["eer_micro_percent"], test["voice"]["values"]) == (None, {})
    test = evaluate_embeddings(voiced, **settings).metrics["test"]["within"]
    assert list(test) == ["voice"]  # no row has a language
    assert {name: value["utterances"] for name, value in test["voice"]["values"].items()} == {
        "f": 30,
        "m": 30,
    }
