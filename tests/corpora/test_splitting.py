"""The splitter: what is held out is nowhere else, no sentence or speaker stands in two splits, the seed decides."""

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from makermark.auditing.checks import shared
from makermark.corpora.splitting import apportion, split
from makermark.errors import CorpusError

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
    """Every system says every sentence of every language."""
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


def test_the_stated_counts_are_held_out_and_all_strata_are_there():
    rows = split(utterances(), **SETTINGS)
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


def test_the_fractions_part_what_could_stand_anywhere():
    none = SETTINGS | {name: 0 for name in SETTINGS if "unseen" in name} | {"disjoint": []}
    rows = split(utterances(), **none)
    assert len(rows) == len(utterances())
    counts = rows.groupby(["system", "language"])["split"].value_counts().unstack()
    assert (counts[["train", "dev", "test"]] == [12, 4, 4]).all(axis=None)


def test_no_sentence_or_speaker_stands_in_two_splits_and_what_is_dropped_is_told(caplog):
    caplog.set_level("INFO")
    given = utterances(voices=5)
    rows = split(given, **SETTINGS)
    assert splits_of(rows, "text").map(len).max() == 1
    assert splits_of(rows, "voice").map(len).max() == 1
    assert 0 < len(rows) < len(given)
    assert f"split: {len(rows)} of {len(given)} rows placed" in caplog.text


def test_without_keeping_sentences_apart_only_the_impossible_is_dropped():
    given = utterances()
    rows = split(given, **SETTINGS | {"disjoint": []})
    unseen = {name: set() for name in ("dev", "test")}
    seen = set(rows["system"][rows["split"] == "train"]), set(rows["language"][rows["split"] == "train"])
    for name in unseen:
        part = rows[rows["split"] == name]
        unseen[name] = set(part["system"]) - seen[0], set(part["language"]) - seen[1]
    clash = sum(
        len(given[given["system"].isin(unseen[a][0]) & given["language"].isin(unseen[b][1])])
        for a, b in (("dev", "test"), ("test", "dev"))
    )
    assert len(rows) == len(given) - clash


def test_a_system_with_one_voice_stays_in_train_where_voices_are_kept_apart():
    given = utterances(systems=5, languages=1, voices=1)
    quiet = SETTINGS | {"dev_unseen_languages": 0, "test_unseen_languages": 0, "disjoint": ["voice"]}
    rows = split(given, **quiet)
    assert rows[rows["split"] == "train"]["system"].nunique() == 2
    assert splits_of(rows, "system").map(len).max() == 1


def test_the_seed_decides_all_and_row_order_nothing():
    given = utterances(voices=5)
    once = split(given, **SETTINGS).set_index("utterance_id")["split"]
    again = split(given.sample(frac=1, random_state=3), **SETTINGS).set_index("utterance_id")["split"]
    pd.testing.assert_series_equal(once.sort_index(), again.sort_index())
    other = split(given, **SETTINGS | {"seed": 1}).set_index("utterance_id")["split"]
    assert not once.sort_index().equals(other.sort_index())


def test_everything_may_go_into_one_split():
    rows = split(utterances(), **SETTINGS | {"everything_in": "test"})
    assert len(rows) == len(utterances())
    assert set(rows["split"]) == {"test"}


@pytest.mark.parametrize(
    ("settings", "rows", "said"),
    [
        ({}, {"systems": 4}, r"1 \+ 2 unseen systems are to be held out of 4, and train needs 2"),
        ({}, {"languages": 2}, r"1 \+ 1 unseen languages are to be held out of 2"),
        (
            {"disjoint": ["text"], "dev_unseen_languages": 0, "test_unseen_languages": 0},
            {"sentences": 1, "languages": 1},
            r"4 of 7 rows could be placed and dev has 0 system.*change the seed.*split\.disjoint \(text\)",
        ),
    ],
)
def test_what_cannot_be_split_is_refused_with_a_remedy(settings, rows, said):
    with pytest.raises(CorpusError, match=said) as caught:
        split(utterances(**rows), **SETTINGS | settings)
    assert "\n" not in str(caught.value)


def test_a_file_in_several_rows_stands_in_one_split():
    none = SETTINGS | {name: 0 for name in SETTINGS if "unseen" in name} | {"disjoint": []}
    twice = pd.concat(
        [utterances(), utterances().assign(utterance_id=lambda rows: rows["utterance_id"] + "#2")]
    )
    rows = split(twice, **none)
    assert len(rows) == len(twice)
    assert splits_of(rows, "path").map(len).max() == 1


def test_no_sentence_stands_in_two_splits_by_the_audits_own_rule():
    """Every sentence in three spellings, which the audit takes for one."""
    spelt = utterances(sentences=30)
    number = np.arange(len(spelt)) % 3
    texts = (
        spelt["text"]
        .where(number == 0, spelt["text"].str.upper())
        .where(number < 2, "  " + spelt["text"] + "  ")
    )
    alike = pd.concat(
        [
            spelt.assign(text=texts),
            spelt.assign(utterance_id=spelt["utterance_id"] + "b", path="b/" + spelt["path"]),
        ]
    )
    rows = split(alike, **SETTINGS | {"disjoint": ["text"]}).assign(sha256="")
    sentences = [found for found in shared(rows) if found["what"] == "sentences"]
    assert [found["known"] for found in sentences] == [True] * 3
    assert [found["shared"] for found in sentences] == [0] * 3


@given(st.integers(0, 200), st.lists(st.floats(0.01, 1), min_size=1, max_size=3))
@settings(deadline=None)
def test_apportioned_shares_sum_up_and_are_near_their_proportion(count, weights):
    weights = np.array([*weights, 0.0])
    shares = apportion(count, weights)
    assert shares.sum() == count
    assert shares[-1] == 0
    ideal = count * weights / weights.sum()
    assert (np.abs(shares - ideal) < 2 + (ideal < 1).sum()).all()
    if count >= len(weights) - 1:
        assert (shares[:-1] > 0).all()
