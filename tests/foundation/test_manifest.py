"""The manifest: what is written is what is read, and what is refused names file and row."""

import numpy as np
import pandas as pd
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from makermark.foundation.errors import FilesError, ManifestError
from makermark.foundation.manifest import (
    INPUT_SCHEMA,
    SCHEMA,
    STRATA,
    check_rows,
    compute_strata,
    is_inside_root,
    read_manifest,
    write_manifest,
)


def utterances(*given):
    """Rows from (id, split, system, language)."""
    return pd.DataFrame(
        [
            {
                "utterance_id": name,
                "path": f"{system}/größe {name}.flac",
                "split": split,
                "system": system,
                "language": language,
                "family": "VITS",
                "acoustic_model": system,
                "vocoder": "hifigan",
                "voice": "",
                "text": "Ça va ?",
                "duration_s": 2.5,
                "sha256": "ab" * 32,
            }
            for name, split, system, language in given
        ]
    )


@pytest.fixture
def rows():
    return utterances(
        ("c", "train", "bark", "en"),
        ("a", "dev", "bark", "de"),
        ("d", "test", "xtts", "en"),
        ("b", "test", "xtts", "pl"),
    )


def refusal(rows):
    with pytest.raises(ManifestError) as caught:
        check_rows(rows, source="m.csv")
    said = str(caught.value)
    assert said.startswith("m.csv: ")
    assert "\n" not in said
    return said


def test_a_manifest_comes_back_sorted_by_id_with_what_train_has_seen(rows, tmp_path):
    path = tmp_path / "größe 1" / "manifest.parquet"
    write_manifest(path, rows, corpus="local", root="audio")
    manifest = read_manifest(path)
    assert manifest.corpus == "local"
    assert manifest.root == path.parent / "audio"
    assert manifest.rows.columns.tolist() == SCHEMA.names
    assert manifest.rows["utterance_id"].tolist() == ["a", "b", "c", "d"]
    assert manifest.rows["system_seen"].tolist() == [True, False, True, False]
    assert manifest.rows["language_seen"].tolist() == [False, False, True, True]
    assert manifest.rows["vocoder_seen"].all()
    expected = rows.sort_values("utterance_id", ignore_index=True)
    for column in INPUT_SCHEMA.names:
        assert manifest.rows[column].tolist() == expected[column].tolist()
    assert manifest.audio_path(manifest.rows["path"][0]) == path.parent / "audio" / "bark" / "größe a.flac"


def test_the_same_rows_in_another_order_give_the_same_bytes(rows, tmp_path):
    write_manifest(tmp_path / "1.parquet", rows, corpus="local", root="audio")
    write_manifest(tmp_path / "2.parquet", rows.iloc[::-1], corpus="local", root="audio")
    assert (tmp_path / "1.parquet").read_bytes() == (tmp_path / "2.parquet").read_bytes()


def test_an_absolute_root_stays_where_it_is(rows, tmp_path):
    write_manifest(tmp_path / "m.parquet", rows, corpus="mlaad", root="/data/MLAAD")
    assert str(read_manifest(tmp_path / "m.parquet").root) == "/data/MLAAD"


def test_strata_say_what_train_has_seen(rows, tmp_path):
    write_manifest(tmp_path / "m.parquet", rows, corpus="local", root=".")
    assert compute_strata(read_manifest(tmp_path / "m.parquet").rows).tolist() == [
        "seen_system_unseen_language",
        "unseen_system_unseen_language",
        "seen_system_seen_language",
        "unseen_system_seen_language",
    ]
    assert len(set(STRATA)) == 4


@pytest.mark.parametrize("column", INPUT_SCHEMA.names)
def test_a_missing_column_is_named(column, rows):
    assert f"columns ['{column}'] are missing" in refusal(rows.drop(columns=column))


def test_a_table_without_rows_is_refused(rows):
    assert "no rows" in refusal(rows.head(0))


def test_an_unknown_split_is_named_with_the_choices(rows):
    rows.loc[1, "split"] = "eval"
    assert "unknown split 'eval'; a split is one of ['train', 'dev', 'test']" in refusal(rows)


@pytest.mark.parametrize("column", ["utterance_id", "path"])
def test_a_repeated_id_or_path_is_named_with_both_rows(column, rows):
    rows.loc[3, column] = rows.loc[1, column]
    assert f"{column} {rows.loc[1, column]!r} appears twice (rows 1 and 3)" in refusal(rows)


@pytest.mark.parametrize("spelling", ["./{}", "{}/.", "././/{}"])
def test_one_path_spelt_in_two_ways_is_a_repetition(spelling, rows):
    rows.loc[2, "path"] = spelling.format(rows.loc[0, "path"])
    assert "appears twice (rows 0 and 2)" in refusal(rows)


@pytest.mark.parametrize("column", ["utterance_id", "path", "split", "system"])
@pytest.mark.parametrize("nothing", ["", None, np.nan])
def test_a_row_without_what_every_utterance_needs_is_named(column, nothing, rows):
    rows[column] = rows[column].astype(object)
    rows.loc[2, column] = nothing
    assert f"row 2 has no {column}" in refusal(rows)


def test_rows_are_counted_from_0_whatever_the_index_of_the_table(rows):
    rows.loc[3, "system"] = ""
    assert "row 3 has no system" in refusal(rows.set_index(pd.Index([7, 7, 7, 7])))


@pytest.mark.parametrize(
    "path",
    [
        "../out.wav",
        "a/../../out.wav",
        "a/..",
        "..",
        "/etc/passwd",
        "//host/a.wav",
        "a\\..\\..\\out.wav",
        "C:\\a.wav",
        "a\0.wav",
    ],
    ids=repr,
)
def test_a_path_that_leaves_the_corpus_folder_is_named(path, rows):
    rows.loc[2, "path"] = path
    assert f"row 2: path {path!r} leaves the corpus folder" in refusal(rows)


@given(st.lists(st.sampled_from(["a", "ü b", "..c", "...", ".", "声"]), min_size=1).map("/".join))
def test_names_that_only_look_like_climbing_are_allowed(path):
    assert is_inside_root(path)


@given(st.text(alphabet="a./\\", max_size=12))
def test_a_path_that_stays_inside_resolves_below_the_root(path):
    import posixpath

    if is_inside_root(path):
        assert posixpath.normpath(posixpath.join("/root", path)).startswith("/root")


def test_nothing_is_written_when_rows_are_refused(rows, tmp_path):
    rows.loc[0, "split"] = "eval"
    with pytest.raises(ManifestError, match=r"m\.parquet: unknown split"):
        write_manifest(tmp_path / "m.parquet", rows, corpus="local", root=".")
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("kept_bytes", [0, 3, 200, -1, -9])
def test_a_truncated_parquet_file_is_named(kept_bytes, rows, tmp_path):
    path = tmp_path / "m.parquet"
    write_manifest(path, rows, corpus="local", root=".")
    path.write_bytes(path.read_bytes()[:kept_bytes])
    with pytest.raises(
        ManifestError, match=r"m\.parquet: not a readable Parquet file .* run the download stage"
    ):
        read_manifest(path)


def test_no_flipped_byte_ends_in_a_traceback(rows, tmp_path):
    path = tmp_path / "m.parquet"
    write_manifest(path, rows, corpus="local", root=".")
    whole, refused = path.read_bytes(), 0
    rng = np.random.default_rng(0)
    for place in rng.integers(len(whole), size=300):
        content = bytearray(whole)
        content[place] ^= 1 << int(rng.integers(8))
        path.write_bytes(content)
        try:
            read_manifest(path)
        except ManifestError as error:
            refused += "m.parquet" in str(error) and "\n" not in str(error)
    assert refused > 50


def test_a_missing_manifest_says_to_run_the_stage(tmp_path):
    with pytest.raises(FilesError, match=r"m\.parquet: .* run the stage that writes it"):
        read_manifest(tmp_path / "m.parquet")


def test_a_parquet_file_of_another_kind_is_refused(rows, tmp_path):
    rows.to_parquet(tmp_path / "m.parquet")
    with pytest.raises(ManifestError, match=r"no `corpus` and `root`.*not a makermark manifest"):
        read_manifest(tmp_path / "m.parquet")


def test_a_manifest_without_derived_columns_is_refused(rows, tmp_path):
    write_manifest(tmp_path / "m.parquet", rows, corpus="local", root=".")
    table = pq.read_table(tmp_path / "m.parquet").drop_columns(["vocoder_seen"])
    pq.write_table(table, tmp_path / "m.parquet")
    with pytest.raises(ManifestError, match=r"columns \['vocoder_seen'\] are missing; write it with"):
        read_manifest(tmp_path / "m.parquet")
