"""Metrics with merged alias families, against brute force; only corpora with aliases have them."""

from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
from brute_force import Trials

from makermark.corpora.families import relabel
from makermark.foundation.embeddings import read_embeddings, write_embeddings
from makermark.foundation.manifest import INPUT_SCHEMA, add_seen_columns
from makermark.scoring.evaluation import evaluate_embeddings, merge_families

FAMILY = {
    "bark": "Bark",
    "bark-small": "Bark",
    "coqui-bark": "Bark",
    "vits": "VITS",
    "xtts": "",
    "new": "New",
}
SYSTEMS = {
    "train": ["bark", "vits", "xtts"],
    "dev": ["bark", "vits", "coqui-bark"],
    "test": ["bark", "bark-small", "coqui-bark", "vits", "xtts", "new"],
}
PER_SYSTEM = 9


def write_corpus(path, family):
    """Write embeddings of SYSTEMS with the given families, and read them back."""
    split, system = zip(
        *((s, name) for s, names in SYSTEMS.items() for name in names for _ in range(PER_SYSTEM)),
        strict=True,
    )
    rows = pd.DataFrame({name: [f"{name}{i}" for i in range(len(split))] for name in INPUT_SCHEMA.names})
    rows = rows.assign(split=split, system=system, language=["de", "en", "fr"] * (len(split) // 3))
    rows.loc[(rows["split"] == "train") & (rows["language"] == "fr"), "language"] = "en"
    rows = add_seen_columns(rows.assign(family=rows["system"].map(family)))
    rng = np.random.default_rng(0)
    centres = {name: rng.normal(size=8) for name in FAMILY}
    vectors = np.stack([centres[s] for s in system]) + 0.8 * rng.normal(size=(len(split), 8))
    write_embeddings(path, rows, vectors.astype(np.float32), metadata={})
    return read_embeddings(path)


def read_labels(embeddings):
    return embeddings.labels.assign(text="", sha256="", duration_s=1.0)


def evaluate(embeddings):
    return evaluate_embeddings(embeddings, bootstrap_samples=50, seed=0, p_target=0.05).metrics


@pytest.mark.parametrize("split", ["dev", "test"])
def test_merged_families_score_as_brute_force(tmp_path, split):
    embeddings = write_corpus(tmp_path / "e.arrow", FAMILY)
    metrics = evaluate(embeddings)[split]["families"]
    part = embeddings.select_split(split)
    families = np.array([FAMILY[s] or s for s in part.systems])
    seen = np.isin(families, ["Bark", "VITS", "xtts"])  # families of the split train
    language = part.labels["language_seen"].to_numpy()
    strata = np.array(
        [
            f"{'' if s else 'un'}seen_system_{'' if k else 'un'}seen_language"
            for s, k in zip(seen, language, strict=True)
        ]
    )
    trials = Trials(part.embeddings, families, strata)
    for stratum, name in [(None, None), *enumerate(trials.strata)]:
        of_stratum = metrics if name is None else metrics["strata"][name]
        by_system = list(trials.by_system(stratum).values())
        macro = np.mean(by_system) if by_system else None
        assert of_stratum["eer_micro_percent"] == pytest.approx(trials.micro(stratum), abs=1e-9)
        if of_stratum["eer_micro_percent"] is not None:
            assert of_stratum["eer_macro_percent"] == pytest.approx(macro, abs=1e-9)
    assert set(metrics["strata"]) == set(trials.strata)
    assert metrics["systems"] == len(set(families))
    low, high = metrics["eer_macro_ci95_percent"]
    assert 0 <= low <= high <= 100


def test_alias_of_a_seen_system_is_seen_after_merging(tmp_path):
    embeddings = write_corpus(tmp_path / "e.arrow", FAMILY)
    by_system, merged = (
        pd.crosstab(e.labels["split"], e.labels["system_seen"])
        for e in (embeddings, merge_families(embeddings))
    )
    assert by_system.loc["test", False] == 3 * PER_SYSTEM  # bark-small, coqui-bark, new
    assert merged.loc["test", False] == PER_SYSTEM  # new
    metrics = evaluate(embeddings)["test"]
    assert metrics["systems"] == 6
    assert metrics["families"]["systems"] == 4
    assert metrics["families"]["target_trials"] > metrics["target_trials"]


@pytest.mark.parametrize("family", [{name: name for name in FAMILY}, dict.fromkeys(FAMILY, "")])
def test_metrics_have_no_families_without_aliases(tmp_path, family):
    metrics = evaluate(write_corpus(tmp_path / "e.arrow", family))
    assert all("families" not in metrics[split] for split in ("dev", "test"))


@pytest.mark.parametrize("label", ["vocoder", "architecture", "family"])
def test_metrics_have_no_families_if_another_label_is_traced(tmp_path, label):
    """Every family has two vocoders and two architectures, and each of these has two systems."""
    rows = read_labels(write_corpus(tmp_path / "e.arrow", FAMILY))
    turn = np.arange(len(rows)) % 2
    rows = rows.assign(vocoder=np.where(turn, "v0", "v1"), architecture=np.where(turn, "a0", "a1"), path="p")
    rows = add_seen_columns(relabel(rows.assign(family=rows["family"].replace("", "Other")), label=label))
    vectors = np.random.default_rng(0).normal(size=(len(rows), 8)).astype(np.float32)
    write_embeddings(tmp_path / "r.arrow", rows, vectors, metadata={})
    metrics = evaluate(read_embeddings(tmp_path / "r.arrow"))
    assert all("families" not in metrics[split] for split in ("dev", "test"))


def test_split_of_one_family_has_no_families(tmp_path):
    metrics = evaluate(write_corpus(tmp_path / "e.arrow", FAMILY | {"vits": "Bark"}))
    assert "families" not in metrics["dev"]
    assert "families" in metrics["test"]


def test_families_of_the_local_corpus_are_not_merged(tmp_path):
    write_corpus(tmp_path / "e.arrow", FAMILY)
    embeddings = read_embeddings(tmp_path / "e.arrow")
    assert merge_families(embeddings) is not None
    assert merge_families(replace(embeddings, metadata={"corpus": "local"})) is None
