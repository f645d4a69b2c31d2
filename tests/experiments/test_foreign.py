"""A model scored on a corpus that it was not trained on, as the stage `foreign` does."""

import importlib.util
import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import soundfile
import yaml
from test_cross_corpus import checkpoint

from makermark.experiments.foreign import evaluate_foreign, portable_path
from makermark.foundation import tracking
from makermark.foundation.embeddings import read_embeddings
from makermark.foundation.errors import CorpusError, ParamsError
from makermark.foundation.tracking import NoTracker
from makermark.models import early_whisper
from makermark.scoring.pairs import equal_error_rate
from tests_support import VOICES, speak

REPOSITORY = Path(__file__).parents[2]
DEMOS = REPOSITORY.parent / "shared/data/demos/manifest.csv"
SETTINGS = {
    "root": "",
    "columns": {},
    "label": ["system", "source"],
    "within": ["page"],
    "min_utterances": 4,
    "baselines": ["untrained", "whisper-early"],
    "workers": 1,
    "device": "cpu",
}


@pytest.fixture(scope="module")
def pages(tmp_path_factory):
    """A table of two pages with three voices each, five clips a voice; of one voice, page two has three clips."""
    folder, rng, rows = tmp_path_factory.mktemp("pages"), np.random.default_rng(0), []
    for page in ("one", "two"):
        for system in VOICES:
            for number in range(3 if (page, system) == ("two", "fast") else 5):
                path = folder / f"{page}-{system}-{number}.flac"
                soundfile.write(path, speak(system, rng), 16000, subtype="PCM_16")
                rows.append([path.name, system, page, f"author/{page}"])
    pd.DataFrame(rows, columns=["path", "system", "page", "source"]).to_csv(folder / "table.csv", index=False)
    return folder / "table.csv"


@pytest.fixture(scope="module")
def evaluated(pages, tmp_path_factory):
    folder = tmp_path_factory.mktemp("evaluated")
    model = checkpoint(folder / "best")
    return folder, evaluate_foreign(model, folder / "out", manifest=str(pages), **SETTINGS)


def test_foreign_figures_equal_those_of_listed_pairs(evaluated):
    folder, results = evaluated
    table = read_embeddings(folder / "out/embeddings/model.arrow")
    unit = table.embeddings / np.linalg.norm(table.embeddings, axis=1, keepdims=True)
    first, second = np.triu_indices(len(unit), k=1)
    scores = (unit[first] * unit[second]).sum(axis=1)
    same = table.systems[first] == table.systems[second]
    pages = np.array([name.partition("@author/")[2] for name in table.systems])
    names, counts = np.unique(table.systems, return_counts=True)
    often = np.isin(table.systems, names[counts >= 4])
    model = results["model"]
    assert model["pooled"]["eer_micro_percent"] == pytest.approx(
        100 * equal_error_rate(scores[same], scores[~same]), abs=1e-3
    )
    eers = []
    for page in ("one", "two"):
        inside = (pages[first] == page) & (pages[second] == page) & often[first] & often[second]
        eers.append(100 * equal_error_rate(scores[inside & same], scores[inside & ~same]))
        value = model["within"]["page"]["values"][page]
        assert value["eer_micro_percent"] == pytest.approx(eers[-1], abs=1e-3)
    assert model["within"]["page"]["eer_micro_percent"] == pytest.approx(np.mean(eers), abs=1e-3)
    assert (model["within"]["page"]["systems"], model["pooled"]["systems"]) == (5, 6)
    assert model["per_label"]["fast@author/two"]["target_trials"] == 3


def test_foreign_describes_the_corpus_and_the_model_without_paths_of_the_machine(evaluated, pages):
    _, results = evaluated
    assert results["evaluated"]["manifest"] == "table.csv"
    assert results["evaluated"]["label"] == ["system", "source"]
    assert results["evaluated"]["systems_seen"] == []
    assert str(pages.parent) not in json.dumps(results)
    assert portable_path("../shared/demos/manifest.csv") == "../shared/demos/manifest.csv"


def test_foreign_has_the_same_blocks_for_every_baseline(evaluated):
    _, results = evaluated
    assert set(results["baselines"]) == {"untrained"} | (
        {"whisper-early"} if importlib.util.find_spec("pipecat") else set()
    )
    for block in (results["model"], *results["baselines"].values()):
        assert list(block) == ["pooled", "within", "per_label"]
        assert block["pooled"]["target_trials"] == results["model"]["pooled"]["target_trials"]


def test_foreign_leaves_out_a_baseline_that_is_not_installed(pages, tmp_path, monkeypatch, caplog):
    monkeypatch.setattr(early_whisper, "PACKAGE", "a_package_that_does_not_exist")
    model = checkpoint(tmp_path / "best")
    settings = SETTINGS | {"within": [], "label": ["system"]}
    results = evaluate_foreign(model, tmp_path / "out", manifest=str(pages), **settings)
    assert list(results["baselines"]) == ["untrained"]
    assert "pip install --no-deps -r requirements-local.txt; it is left out" in caplog.text
    assert results["model"]["within"] == {}


@pytest.mark.parametrize(
    ("settings", "error", "message"),
    [
        ({"manifest": ""}, ParamsError, r"no foreign corpus to score: .* \(foreign\.manifest: ''\)"),
        ({"baselines": ["chance"]}, ParamsError, "unknown baseline 'chance'; it is one of"),
        (
            {"label": ["system", "maker"]},
            CorpusError,
            r"no column 'maker'; the table has \['path', 'system', 'page'",
        ),
        ({"label": ["source"]}, CorpusError, "unknown label; it is one of"),
    ],
)
def test_foreign_raises_for_impossible_settings(pages, tmp_path, settings, error, message):
    settings = SETTINGS | {"manifest": str(pages)} | settings
    with pytest.raises(error, match=message):
        evaluate_foreign(checkpoint(tmp_path / "best"), tmp_path / "out", **settings)


def test_foreign_stage_writes_the_metrics_with_the_settings_of_params(pages, tmp_path, monkeypatch):
    spec = importlib.util.spec_from_file_location("foreign_stage", REPOSITORY / "stages/foreign.py")
    stage = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(stage)
    monkeypatch.setattr(tracking, "open_model_run", lambda *_, **__: NoTracker())
    params = yaml.safe_load((REPOSITORY / "params.yaml").read_text())
    params["foreign"] |= {"manifest": str(pages), "within": ["page"], "baselines": ["logmel_stats"]}
    (tmp_path / "params.yaml").write_text(yaml.safe_dump(params))
    metrics = tmp_path / "metrics/foreign.json"
    stage.main(checkpoint(tmp_path / "best"), tmp_path / "out", metrics, tmp_path / "params.yaml")
    results = json.loads(metrics.read_text())
    assert results["model"]["pooled"]["systems"] == 3
    assert results["model"]["within"]["page"]["min_utterances"] == 4
    assert list(results["baselines"]) == ["logmel_stats"]


def test_demos_are_scored_within_pages(tmp_path):
    """Four systems of one page of real clips, four clips each."""
    if not DEMOS.exists():
        pytest.skip("the clips of published systems are not beside the repository")
    rows = pd.read_csv(DEMOS)
    page = rows[rows["page"] == "page05"].groupby("system").head(4)
    page.to_csv(tmp_path / "page.csv", index=False)
    results = evaluate_foreign(
        checkpoint(tmp_path / "best"),
        tmp_path / "out",
        manifest=str(tmp_path / "page.csv"),
        **SETTINGS | {"root": str(DEMOS.parent), "baselines": []},
    )
    assert results["model"]["within"]["page"]["values"]["page05"]["systems"] == page["system"].nunique()
