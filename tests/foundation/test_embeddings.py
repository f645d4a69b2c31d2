"""Embedding files: labels, strata, logits and metadata survive the disk."""

import json

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest

from makermark.foundation.embeddings import (
    has_unit_length,
    l2_normalise,
    read_embeddings,
    utterances_sha256,
    write_embeddings,
)
from makermark.foundation.errors import FilesError
from makermark.foundation.files import read_arrow, write_arrow
from makermark.foundation.manifest import INPUT_SCHEMA, add_seen_columns


def rows_of(count):
    table = pd.DataFrame({name: [f"{name}{i}" for i in range(count)] for name in INPUT_SCHEMA.names})
    return add_seen_columns(
        table.assign(split=["train", "test"] * (count // 2), system=["a", "b"] * (count // 2))
    )


def test_read_embeddings_returns_what_was_written(tmp_path):
    rows, vectors = rows_of(6), np.random.default_rng(0).normal(size=(6, 3)).astype(np.float32)
    write_embeddings(tmp_path / "e.arrow", rows, vectors, metadata={"model_sha256": "m"})
    embeddings = read_embeddings(tmp_path / "e.arrow")
    np.testing.assert_array_equal(embeddings.embeddings, vectors)
    assert embeddings.metadata == {"model_sha256": "m", "utterances_sha256": utterances_sha256(rows)}
    test = embeddings.select_split("test")
    assert list(test.labels["utterance_id"]) == list(rows.loc[rows["split"] == "test", "utterance_id"])
    assert set(test.labels["stratum"]) == {"unseen_system_unseen_language"}
    np.testing.assert_array_equal(test.embeddings, vectors[1::2])


def test_utterances_sha256_ignores_the_order_and_depends_on_system_split_and_file():
    rows = rows_of(6)
    assert utterances_sha256(rows) == utterances_sha256(rows.iloc[::-1])
    for column in ("system", "sha256", "split"):
        changed = rows.copy()
        changed.loc[2, column] = "another"
        assert utterances_sha256(changed) != utterances_sha256(rows)


def test_read_embeddings_returns_the_logits_if_there_are_some(tmp_path):
    rows, rng = rows_of(6), np.random.default_rng(0)
    vectors, logits = (rng.normal(size=(6, width)).astype(np.float32) for width in (3, 2))
    write_embeddings(tmp_path / "e.arrow", rows, vectors, logits=logits, metadata={})
    embeddings = read_embeddings(tmp_path / "e.arrow")
    np.testing.assert_array_equal(embeddings.logits, logits)
    np.testing.assert_array_equal(embeddings.select_split("test").logits, logits[1::2])
    assert "logits" not in embeddings.labels
    write_embeddings(tmp_path / "e.arrow", rows, vectors, metadata={})
    assert read_embeddings(tmp_path / "e.arrow").select_split("test").logits is None


def test_write_embeddings_raises_for_too_few_rows(tmp_path):
    with pytest.raises(ValueError, match="6 rows but 5 embeddings"):
        write_embeddings(tmp_path / "e.arrow", rows_of(6), np.zeros((5, 3), np.float32), metadata={})


def test_read_embeddings_raises_for_another_kind_of_file(tmp_path):
    (tmp_path / "e.arrow").write_text(json.dumps({}))
    with pytest.raises(FilesError, match="damaged Arrow file"):
        read_embeddings(tmp_path / "e.arrow")


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_rows_of_any_size_are_normalised(dtype):
    """1e20 squared is beyond float32. Rows below 2^60 have the same bits with and without a large row beside them."""
    rows = np.array([[0.6, 0.8], [0.1, -0.7], [0, 0]], dtype)
    factors = np.array([[1e20], [1e37], [1]], dtype)
    np.testing.assert_allclose(np.linalg.norm(l2_normalise(factors * rows), axis=1), [1, 1, 0], rtol=1e-6)
    np.testing.assert_allclose(l2_normalise(factors * rows), l2_normalise(rows), rtol=1e-6)
    beside = l2_normalise(np.concatenate([rows, factors * rows]))
    assert beside.dtype == dtype
    assert np.array_equal(beside[:3], l2_normalise(rows))


def test_damaged_metadata_are_refused_in_one_line(tmp_path):
    """One flipped bit of a text made `read_embeddings` end with a UnicodeDecodeError."""
    path = tmp_path / "model.arrow"
    write_embeddings(path, rows_of(4), np.eye(4, dtype=np.float32), metadata={"model_sha256": "m" * 64})
    content = path.read_bytes()
    assert content.count(b"m" * 64) == 2  # in the schema at the beginning, and in the footer
    path.write_bytes(content.replace(b"m" * 64, b"\xb0" * 64))
    with pytest.raises(FilesError, match=r"model\.arrow: damaged metadata .*; delete it and run the stage"):
        read_embeddings(path)


@pytest.mark.parametrize("name", ["vector", "logits"])
@pytest.mark.parametrize(
    "column",
    [
        pa.array([[1.0, 2.0], None, [3.0, 4.0], [5.0, 6.0]], pa.list_(pa.float32(), 2)),
        pa.array([[1.0, 2.0], [None, 3.0], [3.0, 4.0], [5.0, 6.0]], pa.list_(pa.float32(), 2)),
        pa.array([[1.0, 2.0]] * 4, pa.list_(pa.float64(), 2)),
        pa.array([[1.0, 2.0]] * 4, pa.list_(pa.float32())),
        pa.array([1.0] * 4, pa.float32()),
    ],
    ids=["no list", "no number", "float64", "lists of any length", "numbers"],
)
def test_column_that_is_no_matrix_is_refused_in_one_line(tmp_path, name, column):
    """An empty value in `vector` made `read_embeddings` end with a ValueError of NumPy or an ArrowInvalid."""
    path, matrix = tmp_path / "model.arrow", np.eye(4, dtype=np.float32)
    write_embeddings(path, rows_of(4), matrix, metadata={}, logits=matrix)
    table = read_arrow(path)
    write_arrow(path, table.set_column(table.column_names.index(name), name, column))
    with pytest.raises(
        FilesError, match=rf"model\.arrow: column '{name}' is not a list of as many float32 numbers"
    ):
        read_embeddings(path)


def test_unit_length_worked_by_hand_without_a_warning():
    """0.6 and 0.8 have a norm of 1; the square of 1e38 is beyond float32."""
    unit = np.array([[0.6, 0.8], [0, -1]], np.float32)
    with np.errstate(all="raise"):
        assert has_unit_length(unit)
        assert has_unit_length(unit[:0])
        assert has_unit_length(1.0009 * unit)
        assert has_unit_length(0.9991 * unit)
        for value in (0, 0.3, 0.61, 1e38, np.inf, -np.inf, np.nan):
            assert not has_unit_length(np.array([[0.6, 0.8], [value, 0.8]], np.float32))
