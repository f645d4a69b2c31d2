"""Prediction of systems from simple properties: corpora where one property names the system, or none does."""

import numpy as np
import pandas as pd
import pytest
import soundfile
from scipy.stats import t

from makermark.audit.audio_properties import MEASUREMENTS, PROPERTIES
from makermark.audit.recognition import exceeds_goal, find_groups
from makermark.audit.shortcuts import eta_squared, measure_shortcuts, predict_systems, summarise_recalls
from makermark.foundation.errors import CorpusError


@pytest.fixture
def rng():
    return np.random.default_rng(0)


def table_of(systems, **columns):
    """Return a table in which all measurements are constant, except `columns`."""
    return pd.DataFrame(dict.fromkeys(MEASUREMENTS, 1.0), index=range(len(systems))).assign(**columns)


def predict(table, systems, sentences=None):
    return predict_systems(
        table, systems, np.arange(len(systems)) if sentences is None else sentences, seed=0
    )


def system_names(count, files):
    return np.repeat([f"system{number:02}" for number in range(count)], files)


def test_eta_squared_is_the_share_of_variance_between_systems():
    systems = np.array(["a", "a", "b", "b"])
    assert eta_squared(np.array([1.0, 1.0, 3.0, 3.0]), systems) == 1
    assert eta_squared(np.array([1.0, 3.0, 1.0, 3.0]), systems) == 0
    assert eta_squared(np.array([0.0, 2.0, 2.0, 4.0]), systems) == pytest.approx(0.5)  # means 1, 3; 4 of 8
    assert eta_squared(np.ones(4), systems) == 0


@pytest.mark.parametrize("measurement", ["level_dbfs", "trailing_silence_s"])
def test_one_property_that_names_every_system_is_found(rng, measurement):
    """24 systems with a value of their own; a tree that splits off one system at a time would be too deep."""
    systems = system_names(24, 20)
    values = np.repeat(rng.permutation(24), 20) + rng.uniform(-0.4, 0.4, len(systems))
    result = predict(table_of(systems, **{measurement: values}), systems)
    (responsible,) = (name for name, prop in PROPERTIES.items() if measurement in prop.measurements)
    for name, summary in result["properties"].items():
        accuracy, ratio = (100, 24) if name == responsible else (100 / 24, 1)
        assert summary["balanced_accuracy_percent"] == pytest.approx(accuracy, abs=1)
        assert summary["ratio_to_chance"] == pytest.approx(ratio, rel=0.01)
        assert summary["exceeds_goal"] == (name == responsible)
    assert result["together"]["balanced_accuracy_percent"] == pytest.approx(100, abs=1)
    assert result["forest"]["balanced_accuracy_percent"] == pytest.approx(100, abs=1)
    assert {entry["system"] for entry in result["recognised"]} == set(systems)
    assert {(entry["property"], entry["measurement"]) for entry in result["recognised"]} == {
        (responsible, measurement)
    }
    assert sorted(group["systems"] for group in result["groups"][measurement]) == [
        [name] for name in np.unique(systems)
    ]


def test_properties_without_differences_between_systems_are_at_chance(rng):
    systems = system_names(20, 40)
    columns = {name: rng.standard_normal(len(systems)) for name in MEASUREMENTS}
    result = predict(table_of(systems, **columns), systems)
    for summary in (*result["properties"].values(), result["together"], result["forest"]):
        low, high = summary["interval_percent"]
        assert low < 5 < high
        assert summary["balanced_accuracy_percent"] == pytest.approx(5, abs=3)
        assert not summary["exceeds_goal"]
    assert result["chance_percent"] == 5


def test_accuracy_is_the_best_one_that_the_distributions_allow(rng):
    """Systems draw one of six values with known probabilities: the best balanced accuracy is computed from these."""
    probabilities = rng.dirichlet(np.full(6, 0.5), size=8)  # (C, values)
    files = 600
    systems = system_names(8, files)
    values = np.concatenate([rng.choice(6, size=files, p=row) for row in probabilities])
    result = predict(table_of(systems, pause_percent=values.astype(float)), systems)
    best = 100 * probabilities.max(axis=0).sum() / len(probabilities)
    for summary in (
        result["properties"]["silence"]["measurements"]["pause_percent"],
        result["properties"]["silence"],
        result["together"],
    ):
        assert summary["balanced_accuracy_percent"] == pytest.approx(best, abs=2)
        assert summary["ratio_to_chance"] == pytest.approx(best * 8 / 100, rel=0.05)


def test_bimodal_property_has_no_eta_but_predicts(rng):
    systems = np.repeat(["a", "b", "c", "d"], 100)
    bimodal = np.where(systems == "a", rng.choice([-9, 9], 400), rng.standard_normal(400))
    rates = np.where(np.isin(systems, ["a", "b"]), 16000, 24000)
    result = predict(table_of(systems, bandwidth_hz=bimodal, sample_rate_hz=rates), systems)
    assert result["properties"]["bandwidth"]["measurements"]["bandwidth_hz"]["eta_squared"] < 0.05
    assert result["properties"]["bandwidth"]["balanced_accuracy_percent"] > 40
    assert result["properties"]["sample rate"]["balanced_accuracy_percent"] == pytest.approx(50, abs=1)
    assert result["together"]["balanced_accuracy_percent"] > 60


def test_sentences_apart_predict_no_system_from_the_sentence(rng):
    """The duration depends on system and sentence, and not on the system by itself; each is said eight times."""
    systems = system_names(10, 80)
    sentences = np.tile(np.repeat(np.arange(10), 8), 10)
    durations = rng.uniform(2, 8, size=(10, 10)).repeat(8, axis=1).ravel()
    table = table_of(systems, duration_s=durations)
    assert predict(table, systems)["properties"]["duration"]["balanced_accuracy_percent"] > 50
    apart = predict(table, systems, sentences)["properties"]["duration"]
    assert apart["balanced_accuracy_percent"] == pytest.approx(10, abs=8)
    assert not apart["exceeds_goal"]


def test_interval_is_close_to_that_of_students_t(rng):
    recalls = rng.beta(2, 3, size=60)
    summary = summarise_recalls(np.array([str(number) for number in range(60)]), recalls, seed=0)
    half = t.ppf(0.975, 59) * recalls.std(ddof=1) / np.sqrt(60)
    expected = 100 * np.array([recalls.mean() - half, recalls.mean() + half])
    assert summary["interval_percent"] == pytest.approx(expected, abs=1.0)
    assert summary["ratio_to_chance"] == pytest.approx(60 * recalls.mean())


def test_goal_is_three_times_chance_or_a_tenth_of_the_way_to_100_percent():
    assert [exceeds_goal(accuracy, 120) for accuracy in (0.0249, 0.0251)] == [False, True]  # 3 / 120
    assert [exceeds_goal(accuracy, 2) for accuracy in (0.549, 0.551)] == [False, True]  # 0.5 + 0.1 * 0.5


def test_systems_that_share_a_value_are_one_group(rng):
    """Two of six systems end at 4 kHz, one at 5 kHz; the others share a band."""
    systems = system_names(6, 40)
    band = np.repeat([8000.0, 4000.0, 8000.0, 4000.0, 5000.0, 8000.0], 40)
    result = predict(table_of(systems, bandwidth_hz=band + rng.uniform(-9, 9, len(band))), systems)
    groups = {tuple(group["systems"]): group["median"] for group in result["groups"]["bandwidth_hz"]}
    assert groups["system04",] == pytest.approx([5000, 5000], abs=9)
    exact = predict(table_of(systems, bandwidth_hz=band), systems)
    groups = {tuple(group["systems"]): group for group in exact["groups"]["bandwidth_hz"]}
    narrow = groups["system01", "system03"]
    assert narrow["median"] == [4000, 4000]
    assert narrow["recall_percent"] > 50
    assert narrow["precision_percent"] == 100
    assert groups["system04",]["recall_percent"] == 100
    accuracy = exact["properties"]["bandwidth"]["balanced_accuracy_percent"]
    assert accuracy == pytest.approx(100 * 3 / 6, abs=10)  # one system for each value


def test_group_of_a_confusion_matrix_by_hand():
    """b and c are predicted as b: recall (0.8 + 0.6) / 2, precision 1.4 of 1.4 + 0.2; a and d are no group."""
    confusion = np.array(
        [[0.4, 0.2, 0.2, 0.2], [0.2, 0.8, 0.0, 0.0], [0.4, 0.6, 0.0, 0.0], [0.6, 0.0, 0.0, 0.4]]
    )
    groups = find_groups(np.array(list("abcd")), confusion, np.array([1.0, 2.0, 3.0, 4.0]))
    assert [group["systems"] for group in groups] == [["b", "c"]]
    assert groups[0]["recall_percent"] == pytest.approx(70)
    assert groups[0]["precision_percent"] == pytest.approx(100 * 1.4 / 1.6)
    assert groups[0]["median"] == [2, 3]


@pytest.fixture
def corpus(tmp_path, rng):
    """Two systems that differ in the sample rate only, three unusable files, and a system with four files."""
    rows = []
    for system, rate_hz, count in (("low", 16000, 14), ("high", 22050, 12), ("rare", 16000, 4)):
        for number in range(count):
            path = f"{system}-{number}.wav"
            samples = 0.1 * rng.standard_normal(int(rng.uniform(0.3, 0.6) * rate_hz))
            soundfile.write(tmp_path / path, samples, rate_hz)
            rows.append({"path": path, "system": system})
    (tmp_path / "low-0.wav").write_bytes(b"")
    (tmp_path / "low-1.wav").write_text("no audio")
    (tmp_path / "high-0.wav").unlink()
    return pd.DataFrame(rows), tmp_path


def test_sample_rate_that_depends_on_the_system_predicts_it(corpus):
    rows, root = corpus
    result = measure_shortcuts(rows, root, per_system=50, seed=0, workers=2)
    counts = [result[name] for name in ("files", "unusable_files", "systems", "chance_percent", "left_out")]
    assert counts == [27, 3, 2, 50, {"rare": 4}]
    assert not result["sentences_apart"]
    rate = result["properties"]["sample rate"]
    assert rate["balanced_accuracy_percent"] == 100
    assert rate["measurements"]["sample_rate_hz"]["eta_squared"] == pytest.approx(1)
    assert result["properties"]["level"]["balanced_accuracy_percent"] < 90
    assert {entry["system"]: entry["property"] for entry in result["recognised"]} == {
        "low": "sample rate", "high": "sample rate"
    }  # fmt: skip
    assert result["medians"]["high"]["sample_rate_hz"] == 22050
    assert "rare" in result["medians"]
    assert [reason.split(": ", 1)[1].split(":")[0].split(",")[0] for reason in result["unusable"]] == [
        "missing", "empty", "not audio"
    ]  # fmt: skip


def test_systems_with_few_texts_are_left_out_and_counted(corpus):
    rows, root = corpus
    texts = [f"{number % 6}" if system == "low" else "" for number, system in enumerate(rows["system"])]
    result = measure_shortcuts(rows.assign(text=texts), root, per_system=50, seed=0, workers=2)
    assert (result["systems"], result["left_out"], result["sentences_apart"]) == (2, {"rare": 4}, True)
    alike = rows.assign(text=["Twice." if number % 2 else " twice." for number in range(len(rows))])
    with pytest.raises(CorpusError, match="fewer than two systems have 5 usable files with different texts"):
        measure_shortcuts(alike, root, per_system=50, seed=0, workers=2)


def test_drawn_files_depend_on_the_seed_and_not_on_the_row_order(corpus):
    rows, root = corpus
    first = measure_shortcuts(rows, root, per_system=12, seed=3, workers=1)
    second = measure_shortcuts(rows.iloc[::-1], root, per_system=12, seed=3, workers=2)
    assert first == second
    assert first["files"] + first["unusable_files"] == 12 + 12 + 4


def test_folder_without_usable_audio_raises(corpus, tmp_path):
    rows, _ = corpus
    with pytest.raises(CorpusError, match=r"none of 26 files can be used .* is no such file"):
        measure_shortcuts(rows, tmp_path / "elsewhere", per_system=11, seed=0, workers=1)
    with pytest.raises(CorpusError, match="fewer than two systems have 5 usable files"):
        measure_shortcuts(rows, corpus[1], per_system=3, seed=0, workers=1)
