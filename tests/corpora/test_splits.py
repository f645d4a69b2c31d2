"""The splitter: held-out systems and languages, disjoint sentences and speakers, reproducible by the seed."""

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from makermark.audit.checks import find_shared
from makermark.corpora.splits import apportion, assign_splits
from makermark.foundation.errors import CorpusError

SETTINGS = {
    "everything_in": "",
    "seed": 0,
    "dev_unseen_systems": 1,
    "test_unseen_systems": 2,
    "dev_unseen_languages": 1,
    "test_unseen_languages": 1,
    "dev_fraction": 0.2,
    "test_fraction": 0.2,
    "disjoint": ["voice", "text"],
}


def utterances(*, systems=7, languages=4, sentences=20, voices=0):
    """Rows in which every system speaks every sentence of every language."""
    rows = [
        (f"{s}/{lang}/{n}", f"s{s}", f"l{lang}", f"v{s}-{n % voices}" if voices else "", f"l{lang}: {n}")
        for s in range(systems)
        for lang in range(languages)
        for n in range(sentences)
    ]
    table = pd.DataFrame(rows, columns=["utterance_id", "system", "language", "voice", "text"])
    return table.assign(path=table["utterance_id"] + ".wav")


def splits_of(rows, column):
    return rows.groupby(column)["split"].agg(set)


def test_given_counts_are_held_out_and_all_strata_exist():
    rows = assign_splits(utterances(), **SETTINGS)
    train = rows[rows["split"] == "train"]
    assert train["system"].nunique() == 4
    assert train["language"].nunique() == 2
    for name, systems in (("dev", 1), ("test", 2)):
        part = rows[rows["split"] == name]
        assert len(set(part["system"]) - set(train["system"])) == systems
        assert len(set(part["language"]) - set(train["language"])) == 1
        strata = zip(
            part["system"].isin(train["system"]), part["language"].isin(train["language"]), strict=True
        )
        assert len(set(strata)) == 4
    alone = splits_of(rows, "system")
    assert sorted(map(sorted, alone)) == [["dev"], *[["dev", "test", "train"]] * 4, ["test"], ["test"]]


def test_fractions_divide_rows_that_allow_every_split():
    no_unseen = SETTINGS | {name: 0 for name in SETTINGS if "unseen" in name} | {"disjoint": []}
    rows = assign_splits(utterances(), **no_unseen)
    assert len(rows) == len(utterances())
    counts = rows.groupby(["system", "language"])["split"].value_counts().unstack()
    assert (counts[["train", "dev", "test"]] == [12, 4, 4]).all(axis=None)


def test_sentences_and_speakers_are_disjoint_and_dropped_rows_are_logged(caplog):
    caplog.set_level("INFO")
    given_rows = utterances(voices=5)
    rows = assign_splits(given_rows, **SETTINGS)
    assert splits_of(rows, "text").map(len).max() == 1
    assert splits_of(rows, "voice").map(len).max() == 1
    assert 0 < len(rows) < len(given_rows)
    assert f"split: {len(rows)} of {len(given_rows)} rows have a split" in caplog.text


def test_only_impossible_rows_are_dropped_without_disjoint_columns():
    given_rows = utterances()
    rows = assign_splits(given_rows, **SETTINGS | {"disjoint": []})
    unseen = {name: set() for name in ("dev", "test")}
    seen = set(rows["system"][rows["split"] == "train"]), set(rows["language"][rows["split"] == "train"])
    for name in unseen:
        part = rows[rows["split"] == name]
        unseen[name] = set(part["system"]) - seen[0], set(part["language"]) - seen[1]
    clash = sum(
        len(given_rows[given_rows["system"].isin(unseen[a][0]) & given_rows["language"].isin(unseen[b][1])])
        for a, b in (("dev", "test"), ("test", "dev"))
    )
    assert len(rows) == len(given_rows) - clash


def test_system_with_one_voice_is_in_one_split_with_disjoint_voices():
    given_rows = utterances(systems=5, languages=1, voices=1)
    settings = SETTINGS | {"dev_unseen_languages": 0, "test_unseen_languages": 0, "disjoint": ["voice"]}
    rows = assign_splits(given_rows, **settings)
    assert rows[rows["split"] == "train"]["system"].nunique() == 2
    assert splits_of(rows, "system").map(len).max() == 1


def test_splits_depend_on_the_seed_and_not_on_the_row_order():
    given_rows = utterances(voices=5)
    first = assign_splits(given_rows, **SETTINGS).set_index("utterance_id")["split"]
    second = assign_splits(given_rows.sample(frac=1, random_state=3), **SETTINGS).set_index("utterance_id")[
        "split"
    ]
    pd.testing.assert_series_equal(first.sort_index(), second.sort_index())
    other = assign_splits(given_rows, **SETTINGS | {"seed": 1}).set_index("utterance_id")["split"]
    assert not first.sort_index().equals(other.sort_index())


def test_everything_in_puts_all_rows_into_one_split():
    rows = assign_splits(utterances(), **SETTINGS | {"everything_in": "test"})
    assert len(rows) == len(utterances())
    assert set(rows["split"]) == {"test"}


@pytest.mark.parametrize(
    ("settings", "rows", "message"),
    [
        ({}, {"systems": 4}, r"1 \+ 2 unseen systems cannot be held out of 4: train needs 2"),
        ({}, {"languages": 2}, r"1 \+ 1 unseen languages cannot be held out of 2"),
        (
            {"disjoint": ["text"], "dev_unseen_languages": 0, "test_unseen_languages": 0},
            {"sentences": 1, "languages": 1},
            r"4 of 7 rows have a split and dev has 0 system.*change the seed.*split\.disjoint \(text\)",
        ),
    ],
)
def test_impossible_splits_raise_with_a_remedy(settings, rows, message):
    with pytest.raises(CorpusError, match=message) as caught:
        assign_splits(utterances(**rows), **SETTINGS | settings)
    assert "\n" not in str(caught.value)


def test_file_in_several_rows_is_in_one_split():
    no_unseen = SETTINGS | {name: 0 for name in SETTINGS if "unseen" in name} | {"disjoint": []}
    repeated = pd.concat(
        [utterances(), utterances().assign(utterance_id=lambda rows: rows["utterance_id"] + "#2")]
    )
    rows = assign_splits(repeated, **no_unseen)
    assert len(rows) == len(repeated)
    assert splits_of(rows, "path").map(len).max() == 1


def test_sentences_are_disjoint_by_the_rule_of_the_audit():
    """Every sentence has three spellings, which the audit counts as one sentence."""
    rows_with_text = utterances(sentences=30)
    number = np.arange(len(rows_with_text)) % 3
    texts = (
        rows_with_text["text"]
        .where(number == 0, rows_with_text["text"].str.upper())
        .where(number < 2, "  " + rows_with_text["text"] + "  ")
    )
    equal = pd.concat(
        [
            rows_with_text.assign(text=texts),
            rows_with_text.assign(
                utterance_id=rows_with_text["utterance_id"] + "b", path="b/" + rows_with_text["path"]
            ),
        ]
    )
    rows = assign_splits(equal, **SETTINGS | {"disjoint": ["text"]}).assign(sha256="")
    sentences = [entry for entry in find_shared(rows) if entry["what"] == "sentences"]
    assert [entry["known"] for entry in sentences] == [True] * 3
    assert [entry["shared"] for entry in sentences] == [0] * 3


@given(st.integers(0, 200), st.lists(st.floats(0.01, 1), min_size=1, max_size=3))
@settings(deadline=None)
def test_apportioned_shares_sum_to_the_count_and_are_near_the_proportions(count, weights):
    weights = np.array([*weights, 0.0])
    shares = apportion(count, weights)
    assert shares.sum() == count
    assert shares[-1] == 0
    ideal = count * weights / weights.sum()
    assert (np.abs(shares - ideal) < 2 + (ideal < 1).sum()).all()
    if count >= len(weights) - 1:
        assert (shares[:-1] > 0).all()
