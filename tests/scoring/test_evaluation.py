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
from makermark.foundation.errors import ScoringError
from makermark.foundation.manifest import INPUT_SCHEMA, add_seen_columns
from makermark.foundation.tracking import NoTracker
from makermark.scoring.detectors import DETECTORS, LOGIT_DETECTORS
from makermark.scoring.evaluation import (
    evaluate_embeddings,
    evaluate_external_embeddings,
    evaluate_open_set,
    has_both_trials,
)
from makermark.scoring.pairs import metrics_to_json, score_all_pairs
from makermark.scoring.within import score_within, within_to_json

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


ALL_PAIRS = {"bootstrap_samples": 30, "seed": 4, "p_target": 0.3}
RESAMPLED = {"bootstrap_samples": 30, "seed": 4}


def voiced_model(tmp_path, *, has_head):
    """Return embeddings of two voices in turn; in dev, system x has one utterance with voice n, and a has two."""
    write_model(tmp_path / "model.arrow", spread=1.0, has_head=has_head)
    table = read_embeddings(tmp_path / "model.arrow")
    voice = np.where(np.arange(len(table.labels)) % 2, "m", "f").astype(object)
    in_dev = (table.labels["split"] == "dev").to_numpy()
    voice[np.flatnonzero(in_dev & (table.systems == "x"))[:1]] = "n"
    voice[np.flatnonzero(in_dev & (table.systems == "a"))[:2]] = "n"
    return dataclasses.replace(table, labels=table.labels.assign(voice=voice, language=None))


def has_all(metrics, expected):
    """Return whether every expected value is in the metrics."""
    return {name: metrics[name] for name in expected} == expected


def test_all_settings_reach_the_pairs_the_values_and_the_detectors(tmp_path):
    table = voiced_model(tmp_path, has_head=True)
    result = evaluate_embeddings(table, **ALL_PAIRS)
    assert set(result.metrics) == {"dev", "test"}
    for split, metrics in result.metrics.items():
        part = table.select_split(split)
        strata = part.labels["stratum"].to_numpy(dtype=str)
        pairs = score_all_pairs(part.embeddings, part.systems, strata, **ALL_PAIRS)
        voices = part.labels["voice"].to_numpy(dtype=str)
        within = score_within(part.embeddings, part.systems, voices, **RESAMPLED)
        open_set, _ = evaluate_open_set(table.select_split("train"), part, **RESAMPLED)
        chosen = {"chosen_on_dev": result.metrics["dev"]["out_of_domain"]["chosen_on_dev"]}
        assert metrics == {
            **metrics_to_json(pairs),
            "within": {"voice": within_to_json(within)},
            "identification": open_set["identification"],
            "out_of_domain": open_set["out_of_domain"] | chosen,
        }
        assert result.pairs[split].eer_micro_percent == pairs.eer_micro_percent


def test_systems_that_are_new_in_test_are_scored_with_all_settings(tmp_path):
    table = voiced_model(tmp_path, has_head=False)
    labels = table.labels.replace({"system": {"y": "x"}})  # x is in dev and test, only z is new
    one = evaluate_embeddings(dataclasses.replace(table, labels=labels), **ALL_PAIRS)
    assert one.metrics["test"]["new_in_test"] is None
    in_test = (labels["split"] == "test").to_numpy()
    labels.loc[np.flatnonzero(in_test & (table.systems == "z"))[:4], "system"] = "w"
    two = dataclasses.replace(table, labels=labels)
    new = two.take(np.flatnonzero(labels["system"].isin(["w", "z"])))
    expected = metrics_to_json(score_all_pairs(new.embeddings, new.systems, **ALL_PAIRS))
    assert evaluate_embeddings(two, **ALL_PAIRS).metrics["test"]["new_in_test"] == expected


@pytest.mark.parametrize(("systems", "both"), [("aab", True), ("ab", False), ("aa", False), ("", False)])
def test_pairs_have_both_trials_with_two_systems_and_two_utterances_of_one(systems, both):
    assert has_both_trials(np.array(list(systems), dtype=str)) is both


def test_external_corpus_with_a_classifier(tmp_path):
    """The classifier knows a, b, c; metrics of dev by their definitions, with all settings."""
    table = voiced_model(tmp_path, has_head=True)
    result = evaluate_external_embeddings(
        table, systems=["a", "b", "c"], splits=["dev"], within=["voice", "language"], min_utterances=2,
        **ALL_PAIRS,
    )  # fmt: skip
    assert list(result.metrics) == list(result.pairs) == list(result.rates) == ["dev"]
    metrics, part = result.metrics["dev"], table.select_split("dev")
    strata = part.labels["stratum"].to_numpy(dtype=str)
    pairs = score_all_pairs(part.embeddings, part.systems, strata, **ALL_PAIRS)
    assert has_all(metrics, metrics_to_json(pairs))
    assert list(metrics["per_label"]) == ["a", "b", "c", "x"]
    for system in pairs.per_system:
        assert {"system": system.system} | metrics["per_label"][system.system] == dataclasses.asdict(system)
    voices = part.labels["voice"].to_numpy(dtype=str)
    within = score_within(part.embeddings, part.systems, voices, min_utterances=2, **RESAMPLED)
    assert metrics["within"] == {"voice": within_to_json(within)}  # no row has a language
    assert set(within.values) == {"f", "m"}
    known = part.systems != "x"
    named = np.array(list("abc"))[part.logits.argmax(axis=1)]
    assert list(metrics["identification"]) == ["head"]
    assert metrics["identification"]["head"]["accuracy_percent"] == pytest.approx(
        100 * np.mean(named[known] == part.systems[known])
    )
    detection = metrics["out_of_domain"]
    above = part.logits.max(axis=1)[known][:, None] - part.logits.max(axis=1)[~known]
    assert detection["max_logit"]["auroc_percent"] == pytest.approx(100 * np.mean(above > 0))
    assert (detection["known_utterances"], detection["unknown_utterances"]) == (36, 12)
    assert (detection["logits"], detection["chosen_on_dev"]) == ("head", None)
    assert set(result.rates["dev"]) == set(detection) & set(DETECTORS) == set(LOGIT_DETECTORS)
    whole, _ = evaluate_open_set(table.select_split("train"), part, **RESAMPLED)  # has the same detectors
    assert has_all(whole["out_of_domain"], {name: detection[name] for name in LOGIT_DETECTORS})


def test_external_corpus_without_a_classifier_has_counts_only(tmp_path):
    table = voiced_model(tmp_path, has_head=False)
    result = evaluate_external_embeddings(table, systems=["a", "x"], splits=["dev", "test"], **ALL_PAIRS)
    assert list(result.metrics) == ["dev", "test"]
    for split, known, unknown in (("dev", 24, 24), ("test", 12, 48)):
        assert result.rates[split] == {}
        assert result.metrics[split]["identification"] == {}
        assert result.metrics[split]["out_of_domain"] == {
            "logits": None, "known_utterances": known, "unknown_utterances": unknown, "chosen_on_dev": None,
        }  # fmt: skip
        assert "within" not in result.metrics[split]


def test_external_corpus_of_unknown_systems_has_no_identification(tmp_path):
    table = voiced_model(tmp_path, has_head=True)
    labels = table.labels.assign(system="new " + table.labels["system"])
    metrics = evaluate_external_embeddings(
        dataclasses.replace(table, labels=labels), systems=["a", "b", "c"], splits=["dev"], **ALL_PAIRS
    ).metrics["dev"]
    assert metrics["identification"] == {}
    assert metrics["out_of_domain"]["unknown_utterances"] == 48
    assert metrics["out_of_domain"]["energy"]["auroc_percent"] is None


def test_external_corpus_that_cannot_be_scored_raises_with_its_split(tmp_path):
    table = voiced_model(tmp_path, has_head=False)
    labels = table.labels.assign(system="a")
    with pytest.raises(ScoringError, match=r"^split dev: "):
        evaluate_external_embeddings(
            dataclasses.replace(table, labels=labels), systems=["a"], splits=["dev"], **ALL_PAIRS
        )


@pytest.mark.parametrize("with_logits", ["train", "dev"])
def test_classifier_of_one_side_only_is_not_used_for_detection(tmp_path, with_logits):
    table = voiced_model(tmp_path, has_head=True)
    without = dataclasses.replace(table, logits=None)
    train, dev = ((table if name == with_logits else without).select_split(name) for name in ("train", "dev"))
    metrics, _ = evaluate_open_set(train, dev, **RESAMPLED)
    expected, _ = evaluate_open_set(without.select_split("train"), without.select_split("dev"), **RESAMPLED)
    assert metrics["out_of_domain"] == expected["out_of_domain"]
    assert metrics["out_of_domain"]["logits"] == "centroid"
    assert ("head" in metrics["identification"]) == (with_logits == "dev")


def test_no_detector_is_chosen_without_unknown_systems_in_dev(tmp_path):
    table = voiced_model(tmp_path, has_head=False)
    labels = table.labels.replace({"system": {"x": "a"}})
    metrics = evaluate_embeddings(dataclasses.replace(table, labels=labels), **ALL_PAIRS).metrics
    for split in ("dev", "test"):
        assert metrics[split]["out_of_domain"]["chosen_on_dev"] is None
