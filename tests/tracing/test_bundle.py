"""Files of the tracer bundle with values that no calibration can use."""

import shutil

import numpy as np
import pyarrow as pa
import pytest

from makermark.foundation.errors import FilesError, TracerError
from makermark.foundation.files import read_arrow, read_json, write_arrow, write_json
from makermark.tracing.bundle import read_bundle


def write_damaged(world, folder, name, value):
    """Copy the bundle, with `value` in the column `name` of the first clip of dev; return the folder."""
    shutil.copytree(world.folder / "models/tracer", folder, dirs_exist_ok=True)
    table = read_arrow(folder / "dev.arrow")
    field = table.schema.field(name)
    values = pa.array([value, *table[name].to_pylist()[1:]], field.type)
    write_arrow(folder / "dev.arrow", table.set_column(table.column_names.index(name), field, values))
    return folder


def read(folder, world):
    return read_bundle(folder, model_sha256=world.built.tracer.model_sha256, dim=8)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("system", None), ("sources", None),
        *((name, value) for name in ("seconds", "speech_seconds") for value in (None, np.nan, np.inf, -0.5)),
        *(("vector", [value] * 8) for value in (0.0, 9.0, 3e38, np.inf, np.nan)),
    ],
)  # fmt: skip
@pytest.mark.filterwarnings("error")
def test_clip_with_an_impossible_value_is_refused_in_one_line(world, tmp_path, name, value):
    """Without a check, some of these values end in a traceback of the calibration, and others are not noticed."""
    folder = write_damaged(world, tmp_path, name, value)
    with pytest.raises(TracerError, match=r"dev\.arrow: damaged: .*; run the calibrate stage again") as error:
        read(folder, world)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("name", "value", "type", "message"),
    [
        ("vector", None, None, "column 'vector' is not a list"),
        ("vector", [None] * 8, None, "column 'vector' is not a list"),
        ("vector", [1.0], pa.list_(pa.float32()), "column 'vector' is not a list"),
        ("seconds", "0.5", pa.string(), "damaged"),
    ],
)
def test_column_of_another_type_is_refused(world, tmp_path, name, value, type, message):
    folder = shutil.copytree(world.folder / "models/tracer", tmp_path, dirs_exist_ok=True)
    table = read_arrow(folder / "dev.arrow")
    column = pa.array([value] * len(table), type or table.schema.field(name).type)
    write_arrow(folder / "dev.arrow", table.set_column(table.column_names.index(name), name, column))
    with pytest.raises((FilesError, TracerError), match=message):
        read(folder, world)


def test_clip_without_a_family_is_read(world, tmp_path):
    assert len(read(write_damaged(world, tmp_path, "family", None), world).dev.rows) > 1


def test_metrics_of_another_decision_rule_are_ignored(world, tmp_path):
    """A bundle of an earlier version has no rule: its clips load; the rates that it states are of another tracer."""
    folder = shutil.copytree(world.folder / "models/tracer", tmp_path, dirs_exist_ok=True)
    content = read_json(folder / "tracer.json") | {"test": {"whole": {"seen_clips": 3}}}
    write_json(folder / "tracer.json", content)
    assert read(folder, world).test_metrics == content["test"]
    del content["decision_rule"]
    write_json(folder / "tracer.json", content)
    earlier = read(folder, world)
    assert earlier.test_metrics == {}
    assert len(earlier.dev.rows) == len(read(world.folder / "models/tracer", world).dev.rows)
