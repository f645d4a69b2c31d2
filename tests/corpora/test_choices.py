"""The choices about a corpus: without duplicates, with another label, with the protocol's own strata."""

import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from makermark.corpora.choices import dedupe, relabel, several_makers
from makermark.corpora.rows import GIVEN, derive_seen, read_manifest, strata, write_manifest
from makermark.errors import CorpusError, ManifestError
from makermark.params import LABELS


def listing(*given, columns=("path", "system", "split", "sha256")):
    return pd.DataFrame(given, columns=list(columns))


def test_a_repeated_row_and_a_repeated_file_go_the_first_stays():
    rows = listing(
        ("a", "x", "train", "1"), ("a", "x", "train", "1"), ("b", "x", "train", "1"), ("c", "x", "train", "2"),
        ("d", "x", "train", ""), ("e", "x", "train", ""),
    )  # fmt: skip
    assert dedupe(rows)["path"].tolist() == ["a", "c", "d", "e"]


def test_of_the_same_bytes_in_two_splits_those_of_train_stay():
    rows = listing(
        ("t", "x", "test", "1"), ("d", "x", "dev", "1"), ("l", "x", "train", "1"), ("o", "x", "test", "2")
    )
    assert dedupe(rows)["path"].tolist() == ["l", "o"]


def test_before_there_are_splits_the_first_of_the_same_bytes_stays():
    assert dedupe(listing(("b", "x", "", "1"), ("a", "x", "", "1")))["path"].tolist() == ["b"]


def test_all_rows_whose_bytes_have_several_makers_are_found_beside_one_another():
    rows = listing(
        ("a", "x", "dev", "1"), ("b", "x", "dev", "2"), ("c", "x", "dev", "3"), ("d", "x", "dev", "2"),
        ("e", "y", "dev", "3"), ("f", "y", "dev", "1"), ("g", "z", "dev", ""), ("h", "y", "dev", ""),
    )  # fmt: skip
    assert several_makers(rows)["path"].tolist() == ["a", "f", "c", "e"]


def test_what_is_left_keeps_the_numbers_of_its_rows():
    rows = listing(("a", "x", "train", "1"), ("b", "x", "train", "1"), ("c", "x", "train", "2")).set_axis(
        [7, 8, 9]
    )
    assert dedupe(rows).index.tolist() == [7, 9]


def test_an_id_that_counts_rows_hides_no_repetition():
    rows = listing(("1", "a", "x"), ("2", "a", "x"), columns=("utterance_id", "path", "system"))
    assert dedupe(rows)["utterance_id"].tolist() == ["1"]


@given(st.lists(st.tuples(st.sampled_from("abc"), st.sampled_from("xy"), st.sampled_from(["dev", "test"]))))
@settings(deadline=None)
def test_what_is_left_is_what_there_was_once_each(given):
    rows = listing(*given, columns=("path", "system", "split"))
    left = dedupe(rows)
    assert list(left.itertuples(index=False, name=None)) == list(dict.fromkeys(given))
    assert dedupe(left)["path"].tolist() == left["path"].tolist()


@pytest.fixture
def bark():
    return pd.DataFrame(
        {
            "path": ["1", "2"],
            "system": ["suno/bark", "tts_models/en/sam/tacotron-DDC"],
            "vocoder": ["encodec", ""],
            "protocol_system_seen": pd.array([True, pd.NA], dtype="boolean"),
        }
    )


@pytest.mark.parametrize(
    ("labels", "expected"),
    [("family", ["Bark", "Tacotron"]), ("architecture", ["Bark", "Tacotron 2"])],
)
def test_another_attribute_becomes_the_system(bark, labels, expected):
    assert relabel(bark, labels=labels)["system"].tolist() == expected


@pytest.mark.parametrize(
    ("labels", "expected"), [("family", ["Bark", "Tacotron"]), ("architecture", ["", ""])]
)
def test_families_are_of_systems_and_go_where_something_else_is_traced(bark, labels, expected):
    assert relabel(bark, labels=labels)["family"].tolist() == expected


def test_a_family_that_the_corpus_gives_goes_too(bark):
    rows = relabel(bark.assign(vocoder="hifigan", family=["TTS", "VC"]), labels="vocoder")
    assert (rows["system"].tolist(), rows["family"].tolist()) == (["hifigan"] * 2, ["", ""])


def test_the_system_is_left_alone_its_family_is_filled_in(bark):
    rows = relabel(bark, labels="system")
    pd.testing.assert_frame_equal(rows[bark.columns], bark)
    assert rows["family"].tolist() == ["Bark", "Tacotron"]


def test_the_protocols_strata_go_where_another_label_is_traced(bark):
    assert "protocol_system_seen" not in relabel(bark, labels="family")
    assert "protocol_system_seen" in relabel(bark, labels="system")


@pytest.mark.parametrize("labels", ["vocoder", "acoustic_model"])
def test_a_row_without_the_attribute_is_named(bark, labels):
    with pytest.raises(CorpusError) as caught:
        relabel(bark, labels=labels)
    said = str(caught.value)
    path, system, count = (
        ("2", "tts_models/en/sam/tacotron-DDC", 1) if labels == "vocoder" else ("1", "suno/bark", 2)
    )
    assert said.startswith(f"{path}: system {system!r} has no {labels} ({count} of 2 rows have none)")
    assert "\n" not in said


def test_an_unknown_attribute_is_answered_with_the_choices(bark):
    with pytest.raises(CorpusError, match="label is 'speaker'") as caught:
        relabel(bark, labels="speaker")
    assert all(label in str(caught.value) for label in LABELS)


@pytest.fixture
def filed():
    """x stands in train; the protocol files a row of x as unseen."""
    rows = pd.DataFrame({name: [f"{name}{i}" for i in range(3)] for name in GIVEN.names})
    return rows.assign(
        split=["train", "test", "test"],
        system=["x", "x", "y"],
        language="en",
        duration_s=1.0,
        protocol_system_seen=pd.array([pd.NA, False, False], dtype="boolean"),
        protocol_language_seen=pd.array([pd.NA, True, False], dtype="boolean"),
    )


@pytest.mark.parametrize(
    ("strata_from", "expected"),
    [
        ("train", ["seen_system_seen_language", "unseen_system_seen_language"]),
        ("protocol", ["unseen_system_seen_language", "unseen_system_unseen_language"]),
    ],
)
def test_strata_come_from_train_or_from_the_protocol(filed, tmp_path, strata_from, expected):
    write_manifest(tmp_path / "m.parquet", filed, corpus="c", root=".", strata_from=strata_from)
    rows = read_manifest(tmp_path / "m.parquet").rows
    assert strata(rows).tolist() == ["seen_system_seen_language", *expected]
    assert rows["protocol_system_seen"].tolist() == [None, False, False]


def test_a_row_that_the_protocol_does_not_file_is_refused(filed):
    with pytest.raises(ManifestError, match=r"set external\.strata_from: train"):
        derive_seen(filed.assign(protocol_system_seen=pd.NA), strata_from="protocol")
    with pytest.raises(ManifestError, match=r"set external\.strata_from: train"):
        derive_seen(filed.drop(columns="protocol_language_seen"), strata_from="protocol")


def test_strata_from_elsewhere_are_answered_with_the_choices(filed):
    with pytest.raises(ManifestError, match=r"'paper'; it is one of \['train', 'protocol'\]"):
        derive_seen(filed, strata_from="paper")
