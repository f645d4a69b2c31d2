"""What the score stage says of the vectors that it finds: known systems identified, unknown ones detected."""

import importlib.util
import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from makermark import tracking
from makermark.corpora.rows import GIVEN, derive_seen
from makermark.judging import judge
from makermark.scoring.detectors import DETECTORS
from makermark.tracking import NoTracker
from makermark.vectors import read_embeddings, write_embeddings

REPOSITORY = Path(__file__).parents[1]
SYSTEMS = {"train": "abc", "dev": "abcx", "test": "abcyz"}
EACH = 12


def rows_of():
    split, system = zip(
        *((s, name) for s, names in SYSTEMS.items() for name in names for _ in range(EACH)), strict=True
    )
    table = pd.DataFrame({name: [f"{name}{i}" for i in range(len(split))] for name in GIVEN.names})
    return derive_seen(table.assign(split=split, system=system, language="en"))


def write_vectors(path, *, spread, headed):
    """Vectors around one place for each system, and logits of a classifier that knows the places of train."""
    rows, rng = rows_of(), np.random.default_rng(0)
    places = dict(zip("abcxyz", 3 * np.eye(6), strict=True))
    vectors = np.stack([places[s] for s in rows["system"]]) + spread * rng.normal(size=(len(rows), 6))
    logits = (vectors @ np.stack([places[s] for s in "abc"]).T).astype(np.float32)
    write_embeddings(
        path,
        rows,
        vectors.astype(np.float32),
        metadata={"model_sha256": "m"},
        logits=logits if headed else None,
    )


@pytest.mark.parametrize("headed", [True, False])
def test_dev_and_test_are_identified_and_detected_and_dev_chooses_the_detector(tmp_path, headed):
    write_vectors(tmp_path / "model.arrow", spread=0.5, headed=headed)
    told = judge(read_embeddings(tmp_path / "model.arrow"), bootstrap_samples=20, seed=0, p_target=0.05)
    for split, unknown in (("dev", 12), ("test", 24)):
        part = told.figures[split]
        assert part["eer_micro_percent"] < 10
        assert ("head" in part["identification"]) is headed
        assert part["identification"]["centroid"]["accuracy_percent"] > 95
        assert (part["out_of_domain"]["known_utterances"], part["out_of_domain"]["unknown_utterances"]) == (
            36,
            unknown,
        )
        assert set(told.rates[split]) == set(DETECTORS)
    reached = {name: told.figures["dev"]["out_of_domain"][name]["auroc_percent"] for name in DETECTORS}
    chosen = told.figures["test"]["out_of_domain"]["chosen_on_dev"]
    assert reached[chosen] == max(reached.values()) > 90


def test_the_stage_scores_whichever_baselines_lie_beside_the_model(tmp_path, monkeypatch):
    spec = importlib.util.spec_from_file_location("score_stage", REPOSITORY / "stages/score.py")
    stage = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(stage)
    monkeypatch.setattr(tracking, "open_model_run", lambda *_, **__: NoTracker())
    write_vectors(tmp_path / "model.arrow", spread=0.5, headed=True)
    write_vectors(tmp_path / "resemblyzer.arrow", spread=2.0, headed=False)
    stage.main(tmp_path, tmp_path / "score.json", tmp_path / "plots", REPOSITORY / "params.yaml")
    told = json.loads((tmp_path / "score.json").read_text())
    assert list(told["baselines"]) == ["resemblyzer"]
    assert told["baselines"]["resemblyzer"]["test"]["eer_micro_percent"] > told["test"]["eer_micro_percent"]
    assert told["baselines"]["resemblyzer"]["test"]["out_of_domain"]["logits"] == "centroid"
    assert len(list((tmp_path / "plots").glob("*.png"))) == 6
    assert "resemblyzer" in (tmp_path / "plots/det.csv").read_text()
