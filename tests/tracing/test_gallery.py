"""Galleries in memory and gallery files: round trip, and the values that are refused."""

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest

from makermark.foundation.errors import FilesError, TracerError
from makermark.foundation.files import read_arrow, write_arrow
from makermark.tracing.gallery import Gallery, read_gallery, write_gallery

MODEL = "a" * 64


def training_gallery():
    rng = np.random.default_rng(0)
    embeddings = rng.standard_normal((6, 4)).astype(np.float32)
    embeddings /= np.linalg.norm(embeddings, axis=1, keepdims=True)
    clips = pd.DataFrame(
        {
            "system": ["b", "b", "b", "a/x", "a/x", "a/x"],
            "family": ["formant"] * 3 + [""] * 3,
            "origin": "train",
            "clip": [f"clip {number}" for number in range(6)],
        }
    )
    return Gallery(clips, embeddings, MODEL)


def enrolled_gallery():
    embeddings = 3 * np.eye(4, dtype=np.float32)[:2]
    return training_gallery().with_system("neu", embeddings, ["1.wav", "2.wav"], family="VITS")


def test_gallery_file_round_trip(tmp_path):
    write_gallery(tmp_path / "g.arrow", enrolled_gallery())
    gallery = read_gallery(tmp_path / "g.arrow", model_sha256=MODEL, dim=4)
    pd.testing.assert_frame_equal(gallery.clips, enrolled_gallery().clips, check_dtype=False)
    np.testing.assert_array_equal(gallery.embeddings, enrolled_gallery().embeddings)
    assert gallery.systems == ["a/x", "b", "neu"]
    assert gallery.summary.loc["neu"].tolist() == ["VITS", "enrolled", 2]


def test_centroid_is_the_normalised_mean_of_embeddings():
    gallery = enrolled_gallery()
    mean = gallery.embeddings[:3].mean(axis=0)
    np.testing.assert_allclose(gallery.centroids()[1], mean / np.linalg.norm(mean), rtol=1e-6)
    np.testing.assert_allclose(gallery.centroids()[2], [0.5**0.5, 0.5**0.5, 0, 0])


def test_empty_gallery_file_round_trip(tmp_path):
    write_gallery(tmp_path / "g.arrow", training_gallery().enrolled())
    assert read_gallery(tmp_path / "g.arrow", model_sha256=MODEL, dim=4).systems == []


def test_gallery_of_another_model_is_refused_in_one_line(tmp_path):
    write_gallery(tmp_path / "g.arrow", enrolled_gallery())
    message = r"made by model aaaaaaaaaaaa, but this is model bbbbbbbbbbbb; .*enroll"
    with pytest.raises(TracerError, match=message) as error:
        read_gallery(tmp_path / "g.arrow", model_sha256="b" * 64, dim=4)
    assert "\n" not in str(error.value)


def test_only_enrolled_systems_can_be_removed():
    assert enrolled_gallery().without_system("neu").systems == ["a/x", "b"]
    with pytest.raises(TracerError, match=r"'b' is a training system, .* systems that can be removed: neu"):
        enrolled_gallery().without_system("b")
    with pytest.raises(TracerError, match="'zzz' is not in the gallery"):
        enrolled_gallery().without_system("zzz")


@pytest.mark.parametrize("name", ["", " b", "a\nb", "a\x1b[31m", "x" * 201])
def test_invalid_system_name_is_refused(name):
    with pytest.raises(TracerError, match="a name has 1 to 200 visible characters"):
        training_gallery().with_system(name, np.eye(4, dtype=np.float32)[:2], ["1", "2"])


def test_system_name_in_use_is_refused():
    with pytest.raises(TracerError, match="'b' is already in the gallery"):
        training_gallery().with_system("b", np.eye(4, dtype=np.float32)[:2], ["1", "2"])
    with pytest.raises(TracerError, match="'neu' is in both"):
        enrolled_gallery().merge(enrolled_gallery().enrolled())


def write_modified_file(tmp_path, modify):
    path = tmp_path / "g.arrow"
    write_gallery(path, enrolled_gallery())
    write_arrow(path, modify(read_arrow(path)))
    return path


def with_column(table, name, values):
    index = table.column_names.index(name)
    return table.set_column(index, table.schema.field(name), pa.array(values, table.schema.field(name).type))


@pytest.mark.parametrize(
    ("modify", "message"),
    [
        (lambda t: t.replace_schema_metadata({}), "not a gallery file of format 1"),
        (lambda t: t.drop_columns(["clip"]), "columns are not those"),
        (lambda t: t.append_column("path", pa.array(["/etc/passwd"] * 8)), "columns are not those"),
        (lambda t: with_column(t, "system", [None] * 8), "columns are not those"),
        (lambda t: with_column(t, "clip", ["\0"] * 8), "a name has"),
        (lambda t: with_column(t, "origin", ["x"] * 8), "'x' is not train or enrolled"),
        (lambda t: with_column(t, "family", ["p", "q"] * 4), "two families"),
        (lambda t: with_column(t, "vector", [[np.nan] * 4] * 8), "not of unit length"),
        (lambda t: with_column(t, "vector", [[9.0] * 4] * 8), "not of unit length"),
        (lambda t: with_column(t, "vector", [[3e38] * 4] * 8), "not of unit length"),
        (lambda t: with_column(t, "vector", [[None] * 4] * 8), "column 'vector' is not a list"),
    ],
)
@pytest.mark.filterwarnings("error")
def test_gallery_file_with_invalid_values_is_refused(tmp_path, modify, message):
    with pytest.raises((FilesError, TracerError), match=message):
        read_gallery(write_modified_file(tmp_path, modify), model_sha256=MODEL, dim=4)


@pytest.mark.parametrize("content", [b"", b"ARROW1", b"\x80\x04\x95pickle", bytes(range(256)) * 40])
def test_file_of_another_format_is_refused(tmp_path, content):
    path = tmp_path / "g.arrow"
    path.write_bytes(content)
    with pytest.raises(TracerError, match="not a gallery file"):
        read_gallery(path, model_sha256=MODEL, dim=4)


def test_truncated_gallery_file_is_refused(tmp_path):
    path = tmp_path / "g.arrow"
    write_gallery(path, enrolled_gallery())
    whole = path.read_bytes()
    for length in range(0, len(whole), 97):
        path.write_bytes(whole[:length])
        with pytest.raises(TracerError):
            read_gallery(path, model_sha256=MODEL, dim=4)


def test_missing_gallery_file_raises_files_error(tmp_path):
    with pytest.raises(FilesError, match="does not exist"):
        read_gallery(tmp_path / "none.arrow", model_sha256=MODEL, dim=4)
