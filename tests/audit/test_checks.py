"""The checks: small corpora with one fault each, counted by hand, and the real protocol."""

from itertools import combinations
from pathlib import Path

import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from makermark.audit import audit, open_corpus
from makermark.audit.report import render_markdown

PROTOCOL = Path(__file__).parents[3] / "shared/data/mlaad4sourcetracing.zip"


def rows_of(*rows, **columns):
    """Return rows from (split, system, path); `columns` adds whole columns."""
    return pd.DataFrame(rows, columns=["split", "system", "path"]).assign(**columns)


def audited(rows):
    return audit(rows, corpus="c")


def sentences_of(report, check):
    return [result["says"] for result in report["findings"] if result["check"] == check]


CLEAN = rows_of(
    ("train", "a", "1"), ("train", "a", "2"), ("train", "b", "3"), ("train", "b", "4"),
    ("test", "a", "5"), ("test", "a", "6"), ("test", "b", "7"), ("test", "b", "8"),
    family=["A", "A", "B", "B"] * 2, language=["en", "de"] * 4, text=[f"sentence {i}" for i in range(8)],
    sha256=[f"{i}" for i in range(8)],
)  # fmt: skip


def test_corpus_without_faults_has_no_finding():
    report = audited(CLEAN)
    assert report["findings"] == []
    assert report["splits"]["test"] == {"utterances": 4, "distinct_paths": 4, "systems": 2, "languages": 2}


def test_duplicate_rows_and_duplicate_audio_are_counted_separately():
    rows = pd.concat([CLEAN, CLEAN.iloc[[4]]])  # a row twice: one more row, no more audio
    rows = pd.concat(
        [rows, CLEAN.iloc[[6]].assign(path="9"), CLEAN.iloc[[0]].assign(path="10", split="test")]
    )
    result = audited(rows)["duplicates"]
    assert (result["rows"], result["by_split"], result["by_system"]) == (1, {"test": 1}, {"a": 1})
    assert result["audio"] == {"files": 2, "across_systems": 0, "across_splits": 1}


def test_same_bytes_of_two_systems_are_counted():
    rows = CLEAN.assign(sha256=["x", "y", "x", "y", "z", "", "", ""])
    assert audited(rows)["duplicates"]["audio"] == {"files": 2, "across_systems": 2, "across_splits": 0}


def test_duplicate_audio_is_none_without_hashes():
    assert audited(CLEAN.drop(columns="sha256"))["duplicates"]["audio"] is None


@pytest.mark.parametrize(("column", "source"), [("protocol_{}_seen", "protocol"), ("{}_seen", "manifest")])
def test_contradicting_stratum_is_found_in_protocol_and_manifest(column, source):
    declared = {column.format("system"): [True] * 5 + [False] + [True] * 2, column.format("language"): True}
    report = audited(CLEAN.assign(**declared))
    other = {"protocol": "manifest", "manifest": "protocol"}[source]
    assert report["strata"][other] is None
    assert report["strata"][source] == {
        "contradicting_rows": 1,
        "contradicting": [
            {"split": "test", "system": "a", "filed_as": "unseen", "in_train": True, "rows": 1}
        ],
    }
    assert sentences_of(report, "strata") == [
        f"the {source} declares 1 rows of test as unseen system, but a is in train"
    ]


def test_contradiction_needs_no_remedy_if_the_manifest_follows_train():
    wrong = [True] * 5 + [False] + [True] * 2
    rows = CLEAN.assign(protocol_system_seen=wrong, protocol_language_seen=True)
    for seen, remedy in ((True, "none needed"), (wrong, "set external.strata_from: train")):
        report = audited(rows.assign(system_seen=seen, language_seen=True))
        remedies = [result["remedy"] for result in report["findings"] if result["check"] == "strata"]
        assert remedies
        assert all(text.startswith(remedy) for text in remedies)


def test_language_declared_seen_but_not_in_train_is_found():
    rows = CLEAN.assign(
        language=["en"] * 6 + ["pl"] * 2, protocol_system_seen=True, protocol_language_seen=True
    )
    assert audited(rows)["strata"]["protocol"]["contradicting"] == [
        {"split": "test", "language": "pl", "filed_as": "seen", "in_train": False, "rows": 2}
    ]


def test_missing_strata_contradict_nothing():
    open_ = pd.array([pd.NA] * 8, dtype="boolean")
    rows = CLEAN.assign(protocol_system_seen=open_, protocol_language_seen=open_)
    assert audited(rows)["strata"]["protocol"]["contradicting_rows"] == 0


def test_unseen_system_of_a_family_in_train_is_found():
    rows = CLEAN.assign(
        system=["suno/bark"] * 2 + ["b"] * 2 + ["tts_models_multilingual_multi-dataset_bark"] * 3 + ["b"]
    )
    report = audited(rows.drop(columns="family"))
    result = report["families"]
    assert result["unseen_but_known"] == [
        {
            "split": "test",
            "family": "Bark",
            "systems": ["tts_models_multilingual_multi-dataset_bark"],
            "in_train": ["suno/bark"],
            "rows": 3,
        }
    ]
    assert (result["systems_without_family"], result["unseen_rows"]) == (1, {"test": 3})
    assert result["aliases"]["Bark"] == {
        "train": ["suno/bark"],
        "test": ["tts_models_multilingual_multi-dataset_bark"],
    }
    assert "3 of the 3 rows of unseen systems in test (100.0 %)" in sentences_of(report, "families")[1]


@given(st.lists(st.sampled_from("abcd"), min_size=2, max_size=25))
@settings(deadline=None)
def test_shares_match_a_count_of_all_pairs(systems):
    rows = rows_of(*(("test", system, str(i)) for i, system in enumerate(systems)))
    result = audited(rows)["trials"]["test"]["systems"]
    targets = [a for a, b in combinations(systems, 2) if a == b]
    assert (result["pairs"], result["target_trials"]) == (len(list(combinations(systems, 2))), len(targets))
    if targets:
        shares = {name: targets.count(name) / len(targets) for name in set(systems)}
        assert result["share_percent"] == pytest.approx({name: 100 * share for name, share in shares.items()})
        assert result["effective"] == pytest.approx(1 / sum(share**2 for share in shares.values()))
    else:
        assert result["effective"] is None


def test_effective_number_of_equal_systems_is_their_number():
    assert audited(CLEAN)["trials"]["test"]["systems"]["effective"] == pytest.approx(2)


def test_systems_with_one_language_and_languages_with_one_system_are_counted():
    result = audited(CLEAN.assign(language=["en", "de", "en", "en"] * 2))["languages"]
    assert result == {
        "systems": 2, "of_one_language": 1, "of_several": {"a": 2}, "languages": 2, "of_one_system": 1
    }  # fmt: skip


def test_sentences_are_equal_in_any_case_and_spacing():
    text = ["Good  day.", "b", "c", "d", "good day.", "GOOD DAY.", "g", ""]
    result = {(f["what"], *f["splits"]): f for f in audited(CLEAN.assign(text=text))["shared"]}
    sentences = result["sentences", "train", "test"]
    assert (sentences["shared"], sentences["rows"], sentences["rows_of_later"]) == (1, 2, 4)
    assert result["bytes", "train", "test"]["shared"] == 0


def test_systems_that_are_new_in_both_dev_and_test_are_counted():
    """Test has 2 rows of a (in train), 3 of x and 2 of y (in dev too), and 4 of z: 3 + 1 of 10 unseen target trials."""
    systems = {"train": "aab", "dev": "axxyv", "test": "aaxxxyyzzzz"}
    names = [(split, name) for split, row in systems.items() for name in row]
    rows = rows_of(*((split, name, str(i)) for i, (split, name) in enumerate(names)))
    report = audited(rows)
    assert report["new_in_both"] == {
        "systems": ["x", "y"],
        "rows": 5,
        "unseen_rows": 9,
        "target_trials": 4,
        "unseen_target_trials": 10,
        "all_target_trials": 11,
    }
    assert sentences_of(report, "new_in_both") == [
        "2 systems that are not in train are in both dev and test (x, y), so that what is chosen on dev has met them: "
        "5 of the 9 rows of unseen systems in test (55.6 %) and 4 of the 10 target trials of these rows (40.0 %; "
        "36.4 % of all target trials of test)"
    ]


def test_one_row_per_system_in_both_dev_and_test_has_no_target_trial():
    report = audited(rows_of(("train", "a", "1"), ("dev", "x", "2"), ("test", "x", "3")))
    assert "0 of the 0 target trials of these rows (-; - of all" in sentences_of(report, "new_in_both")[0]
    assert (
        "1 system that is not in train is in both dev and test (x)" in sentences_of(report, "new_in_both")[0]
    )


def test_system_of_train_dev_and_test_is_not_new():
    rows = pd.concat([CLEAN, rows_of(("dev", "a", "9"), ("dev", "x", "10"), ("test", "y", "11"))])
    report = audited(rows.fillna(""))
    assert report["new_in_both"] is None
    assert sentences_of(report, "new_in_both") == []


def test_file_in_two_splits_is_found():
    report = audited(CLEAN.assign(path=["x/1.wav", "2", "3", "4", "x/1.wav", "y/2.flac", "7", "8"]))
    result = {f["what"]: f["shared"] for f in report["shared"]}
    assert (result["paths"], result["file names"]) == (1, 2)
    assert "1 paths of train recur in test, in 25.0 % of its rows" in sentences_of(report, "shared")


@pytest.fixture(scope="module")
def real():
    if not PROTOCOL.exists():
        pytest.skip(f"{PROTOCOL} (the real protocol) does not exist")
    corpus = open_corpus(PROTOCOL)
    return audit(corpus.rows, corpus=corpus.corpus)


def test_real_protocol_has_109_duplicate_rows_all_in_eval(real):
    assert real["duplicates"]["by_split"] == {"test": 109}
    assert real["duplicates"]["by_system"] == {
        "suno/bark-small": 55,
        "tts_models/en/ljspeech/tacotron2-DDC_ph": 54,
    }
    assert real["splits"]["test"]["distinct_paths"] == 33791


def test_real_protocol_declares_91_rows_of_vits_neon_against_train(real):
    assert real["strata"]["protocol"] == {
        "contradicting_rows": 91,
        "contradicting": [
            {
                "split": "test",
                "system": "tts_models/en/ljspeech/vits--neon",
                "filed_as": "unseen",
                "in_train": True,
                "rows": 91,
            }
        ],
    }


def test_bark_makes_59_7_percent_of_the_target_trials_of_the_real_eval(real):
    test, dev = (real["trials"][split]["systems"] for split in ("test", "dev"))
    shares = test["share_percent"]
    bark, *others = shares.items()
    assert bark == ("tts_models/multilingual/multi-dataset/bark", pytest.approx(59.7, abs=0.05))
    assert bark[1] + others[0][1] + others[1][1] == pytest.approx(92, abs=0.2)
    assert (test["pairs"], test["target_percent"]) == (574_588_050, pytest.approx(7.56, abs=0.005))
    assert (dev["pairs"], dev["target_percent"]) == (71_994_000, pytest.approx(8.49, abs=0.005))


def test_bark_and_whisperspeech_are_new_in_both_dev_and_test_of_the_real_protocol(real):
    """Pairs by hand: 7,200 rows of bark and 300 of WhisperSpeech give 25,916,400 + 44,850 target trials."""
    result = real["new_in_both"]
    assert result["systems"] == ["tts_models/multilingual/multi-dataset/bark", "WhisperSpeech"]
    assert (result["rows"], result["unseen_rows"]) == (7_500, 20_309)
    assert result["target_trials"] == 7_200 * 7_199 // 2 + 300 * 299 // 2
    (sentence,) = sentences_of(real, "new_in_both")
    assert "(36.9 %)" in sentence
    assert "(92.3 %; 59.8 % of all target trials of test)" in sentence


def test_75_of_82_real_systems_have_one_language(real):
    assert (real["languages"]["of_one_language"], real["languages"]["systems"]) == (75, 82)
    assert real["families"]["systems_without_family"] == 0


def test_real_bark_of_coqui_is_unseen_and_its_family_is_in_train(real):
    result = {(f["split"], f["family"]): f for f in real["families"]["unseen_but_known"]}
    assert result["test", "Bark"]["systems"] == ["tts_models/multilingual/multi-dataset/bark"]
    assert result["test", "Bark"]["in_train"] == ["suno/bark", "suno/bark-small"]
    assert set(real["findings"][0]) == {"check", "says", "remedy"}
    assert {f["check"] for f in real["findings"]} == {
        "duplicates", "strata", "families", "new_in_both", "trials", "languages", "shared"
    }  # fmt: skip


def test_documentation_has_the_report_on_the_real_protocol(real):
    documented = (Path(__file__).parents[2] / "docs/audit.md").read_text().splitlines()
    lines = [line for line in render_markdown(real).splitlines() if line.startswith("|")]
    assert [line for line in lines if line not in documented] == []
