"""EERs with alias families merged: against every pair in memory, and only where there are aliases."""

from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
from brute_force import Trials

from makermark.corpora.choices import relabel
from makermark.corpora.rows import GIVEN, derive_seen
from makermark.judging import by_family, judge
from makermark.vectors import read_embeddings, write_embeddings

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
EACH = 9


def written(path, family):
    split, system = zip(
        *((s, name) for s, names in SYSTEMS.items() for name in names for _ in range(EACH)), strict=True
    )
    rows = pd.DataFrame({name: [f"{name}{i}" for i in range(len(split))] for name in GIVEN.names})
    rows = rows.assign(split=split, system=system, language=["de", "en", "fr"] * (len(split) // 3))
    rows.loc[(rows["split"] == "train") & (rows["language"] == "fr"), "language"] = "en"
    rows = derive_seen(rows.assign(family=rows["system"].map(family)))
    rng = np.random.default_rng(0)
    places = {name: rng.normal(size=8) for name in FAMILY}
    vectors = np.stack([places[s] for s in system]) + 0.8 * rng.normal(size=(len(split), 8))
    write_embeddings(path, rows, vectors.astype(np.float32), metadata={})
    return read_embeddings(path)


def read_labels(embeddings):
    return embeddings.labels.assign(text="", sha256="", duration_s=1.0)


def judged(embeddings):
    return judge(embeddings, bootstrap_samples=50, seed=0, p_target=0.05).figures


@pytest.mark.parametrize("split", ["dev", "test"])
def test_merged_figures_are_those_of_all_pairs_by_brute_force(tmp_path, split):
    embeddings = written(tmp_path / "e.arrow", FAMILY)
    told = judged(embeddings)[split]["families"]
    part = embeddings.of_split(split)
    families = np.array([FAMILY[s] or s for s in part.systems])
    seen = np.isin(families, ["Bark", "VITS", "xtts"])  # what train has of each family
    language = part.labels["language_seen"].to_numpy()
    strata = np.array(
        [
            f"{'' if s else 'un'}seen_system_{'' if k else 'un'}seen_language"
            for s, k in zip(seen, language, strict=True)
        ]
    )
    trials = Trials(part.vectors, families, strata)
    for which, name in [(None, None), *enumerate(trials.strata)]:
        figures = told if name is None else told["strata"][name]
        by_system = list(trials.by_system(which).values())
        macro = np.mean(by_system) if by_system else None
        assert figures["eer_micro_percent"] == pytest.approx(trials.micro(which), abs=1e-9)
        if figures["eer_micro_percent"] is not None:
            assert figures["eer_macro_percent"] == pytest.approx(macro, abs=1e-9)
    assert set(told["strata"]) == set(trials.strata)
    assert told["systems"] == len(set(families))
    low, high = told["eer_macro_ci95_percent"]
    assert 0 <= low <= high <= 100


def test_an_alias_of_a_trained_system_is_no_longer_unseen(tmp_path):
    embeddings = written(tmp_path / "e.arrow", FAMILY)
    by_system, merged = (
        pd.crosstab(e.labels["split"], e.labels["system_seen"]) for e in (embeddings, by_family(embeddings))
    )
    assert by_system.loc["test", False] == 3 * EACH  # bark-small, coqui-bark, new
    assert merged.loc["test", False] == EACH  # new
    figures = judged(embeddings)["test"]
    assert figures["systems"] == 6
    assert figures["families"]["systems"] == 4
    assert figures["families"]["target_trials"] > figures["target_trials"]


@pytest.mark.parametrize("family", [{name: name for name in FAMILY}, dict.fromkeys(FAMILY, "")])
def test_without_aliases_there_is_no_such_block(tmp_path, family):
    figures = judged(written(tmp_path / "e.arrow", family))
    assert all("families" not in figures[split] for split in ("dev", "test"))


@pytest.mark.parametrize("label", ["vocoder", "architecture", "family"])
def test_where_something_else_than_the_system_is_traced_there_is_no_such_block(tmp_path, label):
    """Two vocoders and two architectures in each family, and in each of these two systems."""
    rows = read_labels(written(tmp_path / "e.arrow", FAMILY))
    turn = np.arange(len(rows)) % 2
    rows = rows.assign(vocoder=np.where(turn, "v0", "v1"), architecture=np.where(turn, "a0", "a1"), path="p")
    rows = derive_seen(relabel(rows.assign(family=rows["family"].replace("", "Other")), labels=label))
    vectors = np.random.default_rng(0).normal(size=(len(rows), 8)).astype(np.float32)
    write_embeddings(tmp_path / "r.arrow", rows, vectors, metadata={})
    figures = judged(read_embeddings(tmp_path / "r.arrow"))
    assert all("families" not in figures[split] for split in ("dev", "test"))


def test_a_split_of_one_family_has_no_such_block(tmp_path):
    figures = judged(written(tmp_path / "e.arrow", FAMILY | {"vits": "Bark"}))
    assert "families" not in figures["dev"]
    assert "families" in figures["test"]


def test_kinds_of_synthesis_are_no_aliases(tmp_path):
    written(tmp_path / "e.arrow", FAMILY)
    embeddings = read_embeddings(tmp_path / "e.arrow")
    assert by_family(embeddings) is not None
    assert by_family(replace(embeddings, metadata={"corpus": "local"})) is None
