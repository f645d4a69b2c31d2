"""Options of a corpus: duplicates removed, another label, strata of the protocol."""

import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from makermark.corpora.families import relabel
from makermark.corpora.listing import drop_duplicates, find_conflicting_systems
from makermark.foundation.errors import CorpusError, ManifestError
from makermark.foundation.manifest import (
    INPUT_SCHEMA,
    LABELS,
    add_seen_columns,
    compute_strata,
    read_manifest,
    write_manifest,
)


def table(*rows, columns=("path", "system", "split", "sha256")):
    return pd.DataFrame(rows, columns=list(columns))


def test_dedupe_keeps_the_first_of_equal_rows_and_equal_audio():
    rows = table(
        ("a", "x", "train", "1"), ("a", "x", "train", "1"), ("b", "x", "train", "1"), ("c", "x", "train", "2"),
        ("d", "x", "train", ""), ("e", "x", "train", ""),
    )  # fmt: skip
    assert drop_duplicates(rows)["path"].tolist() == ["a", "c", "d", "e"]


def test_dedupe_keeps_equal_audio_in_train():
    rows = table(
        ("t", "x", "test", "1"), ("d", "x", "dev", "1"), ("l", "x", "train", "1"), ("o", "x", "test", "2")
    )
    assert drop_duplicates(rows)["path"].tolist() == ["l", "o"]


def test_dedupe_keeps_the_first_of_equal_audio_without_splits():
    assert drop_duplicates(table(("b", "x", "", "1"), ("a", "x", "", "1")))["path"].tolist() == ["b"]


def test_conflicting_systems_are_grouped_by_audio():
    rows = table(
        ("a", "x", "dev", "1"), ("b", "x", "dev", "2"), ("c", "x", "dev", "3"), ("d", "x", "dev", "2"),
        ("e", "y", "dev", "3"), ("f", "y", "dev", "1"), ("g", "z", "dev", ""), ("h", "y", "dev", ""),
    )  # fmt: skip
    assert find_conflicting_systems(rows)["path"].tolist() == ["a", "f", "c", "e"]


def test_dedupe_keeps_the_index():
    rows = table(("a", "x", "train", "1"), ("b", "x", "train", "1"), ("c", "x", "train", "2")).set_axis(
        [7, 8, 9]
    )
    assert drop_duplicates(rows).index.tolist() == [7, 9]


def test_dedupe_ignores_the_utterance_id():
    rows = table(("1", "a", "x"), ("2", "a", "x"), columns=("utterance_id", "path", "system"))
    assert drop_duplicates(rows)["utterance_id"].tolist() == ["1"]


@given(st.lists(st.tuples(st.sampled_from("abc"), st.sampled_from("xy"), st.sampled_from(["dev", "test"]))))
@settings(deadline=None)
def test_dedupe_keeps_distinct_rows_and_is_idempotent(given_rows):
    rows = table(*given_rows, columns=("path", "system", "split"))
    distinct = drop_duplicates(rows)
    assert list(distinct.itertuples(index=False, name=None)) == list(dict.fromkeys(given_rows))
    assert drop_duplicates(distinct)["path"].tolist() == distinct["path"].tolist()


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
    ("label", "expected"),
    [("family", ["Bark", "Tacotron"]), ("architecture", ["Bark", "Tacotron 2"])],
)
def test_relabel_makes_the_attribute_the_system(bark, label, expected):
    assert relabel(bark, label=label)["system"].tolist() == expected


@pytest.mark.parametrize(
    ("label", "expected"), [("family", ["Bark", "Tacotron"]), ("architecture", ["", ""])]
)
def test_relabel_drops_the_family_unless_it_is_the_label(bark, label, expected):
    assert relabel(bark, label=label)["family"].tolist() == expected


def test_relabel_drops_a_family_of_the_corpus(bark):
    rows = relabel(bark.assign(vocoder="hifigan", family=["TTS", "VC"]), label="vocoder")
    assert (rows["system"].tolist(), rows["family"].tolist()) == (["hifigan"] * 2, ["", ""])


def test_relabel_by_system_fills_the_family_only(bark):
    rows = relabel(bark, label="system")
    pd.testing.assert_frame_equal(rows[bark.columns], bark)
    assert rows["family"].tolist() == ["Bark", "Tacotron"]


def test_relabel_drops_protocol_strata_for_another_label(bark):
    assert "protocol_system_seen" not in relabel(bark, label="family")
    assert "protocol_system_seen" in relabel(bark, label="system")


@pytest.mark.parametrize("label", ["vocoder", "acoustic_model"])
def test_relabel_raises_for_a_row_without_the_attribute(bark, label):
    with pytest.raises(CorpusError) as caught:
        relabel(bark, label=label)
    message = str(caught.value)
    path, system, count = (
        ("2", "tts_models/en/sam/tacotron-DDC", 1) if label == "vocoder" else ("1", "suno/bark", 2)
    )
    assert message.startswith(f"{path}: system {system!r} has no {label} ({count} of 2 rows have none)")
    assert "\n" not in message


def test_relabel_raises_for_an_unknown_label_with_the_choices(bark):
    with pytest.raises(CorpusError, match=r"unknown label; .* \(external\.label: speaker\)") as caught:
        relabel(bark, label="speaker")
    assert all(label in str(caught.value) for label in LABELS)


@pytest.fixture
def protocol_rows():
    """System x is in train, but the protocol marks a row of x as unseen."""
    rows = pd.DataFrame({name: [f"{name}{i}" for i in range(3)] for name in INPUT_SCHEMA.names})
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
def test_strata_come_from_train_or_from_the_protocol(protocol_rows, tmp_path, strata_from, expected):
    write_manifest(tmp_path / "m.parquet", protocol_rows, corpus="c", root=".", strata_from=strata_from)
    rows = read_manifest(tmp_path / "m.parquet").rows
    assert compute_strata(rows).tolist() == ["seen_system_seen_language", *expected]
    assert rows["protocol_system_seen"].tolist() == [None, False, False]


def test_missing_protocol_strata_raise(protocol_rows):
    with pytest.raises(ManifestError, match=r"set external\.strata_from: train"):
        add_seen_columns(protocol_rows.assign(protocol_system_seen=pd.NA), strata_from="protocol")
    with pytest.raises(ManifestError, match=r"set external\.strata_from: train"):
        add_seen_columns(protocol_rows.drop(columns="protocol_language_seen"), strata_from="protocol")


def test_unknown_source_of_strata_raises_with_the_choices(protocol_rows):
    with pytest.raises(
        ManifestError, match=r"it is one of \['train', 'protocol'\] \(external\.strata_from: paper\)"
    ):
        add_seen_columns(protocol_rows, strata_from="paper")
