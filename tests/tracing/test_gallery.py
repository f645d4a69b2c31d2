"""Galleries on disk: what comes back, and what is refused."""

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest

from makermark.errors import FilesError, TracerError
from makermark.files import read_arrow, write_arrow
from makermark.tracing.gallery import Gallery, read_gallery, write_gallery

MODEL = "a" * 64


def gallery():
    rng = np.random.default_rng(0)
    vectors = rng.standard_normal((6, 4)).astype(np.float32)
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    clips = pd.DataFrame(
        {
            "system": ["b", "b", "b", "a/x", "a/x", "a/x"],
            "family": ["formant"] * 3 + [""] * 3,
            "origin": "train",
            "clip": [f"clip {number}" for number in range(6)],
        }
    )
    return Gallery(clips, vectors, MODEL)


def enrolled():
    return gallery().with_system(
        "neu", 3 * np.eye(4, dtype=np.float32)[:2], ["1.wav", "2.wav"], family="VITS"
    )


def test_a_gallery_comes_back_as_it_was(tmp_path):
    write_gallery(tmp_path / "g.arrow", enrolled())
    back = read_gallery(tmp_path / "g.arrow", model_sha256=MODEL, dim=4)
    pd.testing.assert_frame_equal(back.clips, enrolled().clips, check_dtype=False)
    np.testing.assert_array_equal(back.vectors, enrolled().vectors)
    assert back.systems == ["a/x", "b", "neu"]
    assert back.table.loc["neu"].tolist() == ["VITS", "enrolled", 2]


def test_a_direction_is_the_mean_of_its_vectors_at_length_one():
    g = enrolled()
    wanted = g.vectors[:3].mean(axis=0)
    np.testing.assert_allclose(g.directions()[1], wanted / np.linalg.norm(wanted), rtol=1e-6)
    np.testing.assert_allclose(g.directions()[2], [0.5**0.5, 0.5**0.5, 0, 0])


def test_an_empty_gallery_of_enrolled_systems_comes_back(tmp_path):
    write_gallery(tmp_path / "g.arrow", gallery().enrolled())
    assert read_gallery(tmp_path / "g.arrow", model_sha256=MODEL, dim=4).systems == []


def test_another_model_is_refused_in_one_line(tmp_path):
    write_gallery(tmp_path / "g.arrow", enrolled())
    with pytest.raises(
        TracerError, match=r"made by model aaaaaaaaaaaa, this is model bbbbbbbbbbbb; .*enrol"
    ) as told:
        read_gallery(tmp_path / "g.arrow", model_sha256="b" * 64, dim=4)
    assert "\n" not in str(told.value)


def test_only_enrolled_systems_are_removed():
    assert enrolled().without("neu").systems == ["a/x", "b"]
    with pytest.raises(TracerError, match="'b' was learned in training and stays; enrolled are \\['neu'\\]"):
        enrolled().without("b")
    with pytest.raises(TracerError, match="'zzz' is not in the gallery"):
        enrolled().without("zzz")


@pytest.mark.parametrize("name", ["", " b", "a\nb", "a\x1b[31m", "x" * 201])
def test_what_is_no_name_is_refused(name):
    with pytest.raises(TracerError, match="a name has 1 to 200 visible characters"):
        gallery().with_system(name, np.eye(4, dtype=np.float32)[:2], ["1", "2"])


def test_a_name_that_is_taken_is_refused():
    with pytest.raises(TracerError, match="'b' is in the gallery already"):
        gallery().with_system("b", np.eye(4, dtype=np.float32)[:2], ["1", "2"])
    with pytest.raises(TracerError, match="'neu' stands in both"):
        enrolled().joined(enrolled().enrolled())


def changed(tmp_path, change):
    path = tmp_path / "g.arrow"
    write_gallery(path, enrolled())
    write_arrow(path, change(read_arrow(path)))
    return path


def with_column(table, name, values):
    place = table.column_names.index(name)
    return table.set_column(place, table.schema.field(name), pa.array(values, table.schema.field(name).type))


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda t: t.replace_schema_metadata({}), "no gallery of format 1"),
        (lambda t: t.drop_columns(["clip"]), "columns are not those"),
        (lambda t: t.append_column("path", pa.array(["/etc/passwd"] * 8)), "columns are not those"),
        (lambda t: with_column(t, "system", [None] * 8), "columns are not those"),
        (lambda t: with_column(t, "clip", ["\0"] * 8), "a name has"),
        (lambda t: with_column(t, "origin", ["x"] * 8), "it is train or enrolled"),
        (lambda t: with_column(t, "family", ["p", "q"] * 4), "two families"),
        (lambda t: with_column(t, "vector", [[np.nan] * 4] * 8), "not of length 1"),
        (lambda t: with_column(t, "vector", [[9.0] * 4] * 8), "not of length 1"),
    ],
)
def test_a_file_with_other_values_than_a_gallery_has_is_refused(tmp_path, change, said):
    with pytest.raises(TracerError, match=said):
        read_gallery(changed(tmp_path, change), model_sha256=MODEL, dim=4)


@pytest.mark.parametrize("content", [b"", b"ARROW1", b"\x80\x04\x95pickle", bytes(range(256)) * 40])
def test_bytes_that_are_no_gallery_are_refused(tmp_path, content):
    path = tmp_path / "g.arrow"
    path.write_bytes(content)
    with pytest.raises(TracerError, match="no gallery"):
        read_gallery(path, model_sha256=MODEL, dim=4)


def test_every_cut_of_a_gallery_is_refused(tmp_path):
    path = tmp_path / "g.arrow"
    write_gallery(path, enrolled())
    whole = path.read_bytes()
    for length in range(0, len(whole), 97):
        path.write_bytes(whole[:length])
        with pytest.raises(TracerError):
            read_gallery(path, model_sha256=MODEL, dim=4)


def test_a_missing_file_is_told(tmp_path):
    with pytest.raises(FilesError, match="does not exist"):
        read_gallery(tmp_path / "none.arrow", model_sha256=MODEL, dim=4)
