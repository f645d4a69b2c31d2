"""The protocol: the real zip if it is available, and a small one of the same form."""

import zipfile
from contextlib import suppress
from pathlib import Path

import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from mlaad_support import PATHS, REAL, ROWS, SEEN_LANGUAGES, SEEN_SYSTEMS, tables, write_zip

from makermark.corpora.mlaad.protocol import read_protocol
from makermark.foundation.errors import CorpusError, FilesError, MakermarkError

real = pytest.mark.skipif(not REAL.exists(), reason=f"{REAL} (the real protocol) does not exist")


@pytest.fixture(scope="module")
def protocol():
    return read_protocol(REAL)


@real
@pytest.mark.parametrize(
    ("split", "rows", "unique", "systems", "languages"),
    [("train", 11_100, 11_100, 24, 8), ("dev", 12_000, 12_000, 25, 21), ("test", 33_900, 33_791, 64, 37)],
)
def test_real_protocol_has_the_published_counts(protocol, split, rows, unique, systems, languages):
    of_split = protocol[protocol["split"] == split]
    assert len(of_split) == rows
    assert of_split["path"].nunique() == unique
    assert of_split["system"].nunique() == systems
    assert of_split["language"].nunique() == languages


@real
def test_real_strata_have_the_counts_of_meta_txt(protocol):
    """Section `Finegrained Statistics` of meta.txt, by (system seen, language seen)."""
    counts = protocol.groupby(["split", "protocol_system_seen", "protocol_language_seen"]).size().to_dict()
    assert counts == {
        ("dev", True, True): 3000, ("dev", False, True): 2700, ("dev", True, False): 1800, ("dev", False, False): 4500,
        ("test", True, True): 8700, ("test", False, True): 7500,
        ("test", True, False): 4800, ("test", False, False): 12900,
    }  # fmt: skip
    assert protocol["protocol_system_seen"].isna().sum() == 11_100


@real
def test_real_protocol_marks_91_rows_of_a_train_system_as_unseen(protocol):
    known = protocol.loc[protocol["split"] == "train", "system"].unique()
    wrong = protocol[protocol["system"].isin(known) & ~protocol["protocol_system_seen"].fillna(True)]
    assert wrong["system"].value_counts().to_dict() == {"tts_models/en/ljspeech/vits--neon": 91}


@real
def test_real_zip_and_its_unpacked_folder_are_equal(protocol, tmp_path):
    with zipfile.ZipFile(REAL) as archive:
        archive.extractall(tmp_path)
    pd.testing.assert_frame_equal(read_protocol(tmp_path), protocol)


@pytest.mark.parametrize("prefix", ["./", ""])
@pytest.mark.parametrize("folder", ["", "mlaad4sourcetracing/"])
@pytest.mark.parametrize("unpacked", [False, True])
def test_protocol_is_read_in_every_form(tmp_path, prefix, folder, unpacked):
    source = write_zip(tmp_path / "p.zip", tables(prefix), folder)
    if unpacked:
        with zipfile.ZipFile(source) as archive:
            archive.extractall(tmp_path / "out")
        source = tmp_path / "out"
    rows = read_protocol(source)
    assert rows["path"].tolist() == PATHS
    assert rows["system"].tolist() == [row[1] for split in ROWS.values() for row in split]
    assert rows["language"].tolist() == [row[0] for split in ROWS.values() for row in split]
    assert rows["split"].tolist() == ["train"] * 3 + ["dev"] * 4 + ["test"] * 5
    assert rows["protocol_system_seen"].tolist()[3:] == [s in SEEN_SYSTEMS for s in rows["system"][3:]]
    assert rows["protocol_language_seen"].tolist()[3:] == [x in SEEN_LANGUAGES for x in rows["language"][3:]]
    assert rows[["protocol_system_seen", "protocol_language_seen"]][:3].isna().all(axis=None)
    assert "line" not in rows


def test_byte_order_mark_and_windows_line_ends_are_accepted(tmp_path):
    files = {name: "\ufeff" + text.replace("\n", "\r\n") for name, text in tables().items()}
    assert read_protocol(write_zip(tmp_path / "p.zip", files))["path"].tolist() == PATHS


def test_strata_are_unknown_without_fine_tables(tmp_path):
    files = {name: text for name, text in tables().items() if not name.startswith("fine/")}
    rows = read_protocol(write_zip(tmp_path / "p.zip", files))
    assert rows["protocol_system_seen"].isna().all()


VALID_ROW = "./fake/en/m/a.wav,m\n"
HEADER = "path,model_name\n"


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("dev.csv", None, r"p\.zip: has no dev\.csv"),
        ("fine/dev___lang_seen___model_seen.csv", None, r"has no fine/dev___lang_seen___model_seen\.csv"),
        ("train.csv", "file,label\nx,y\n", r"train\.csv:1: the columns are \['file', 'label'\]"),
        ("train.csv", "", r"train\.csv:1: the columns are \[\]"),
        ("train.csv", HEADER, r"train\.csv: has no rows"),
        ("train.csv", HEADER + VALID_ROW + "only-one-field\n", r"train\.csv:3: \['only-one-field'\]"),
        ("train.csv", HEADER + VALID_ROW + "./fake/en/m/b.wav,\n", r"train\.csv:3:"),
        ("train.csv", HEADER + "../../etc/passwd,m\n", r"train\.csv:2: path '\.\./\.\./etc/passwd' leaves"),
        ("train.csv", HEADER + "fake/en/../../../x.wav,m\n", r"train\.csv:2: .*leaves"),
        ("train.csv", HEADER + "/fake/en/m/x.wav,m\n", r"train\.csv:2: .*leaves"),
        ("train.csv", HEADER + "real/en/m/x.wav,m\n", r"train\.csv:2: .*does not have the form"),
        ("train.csv", "path,model_name\n".encode("utf-16"), r"train\.csv: not a table in UTF-8"),
        ("train.csv", b"RIFF\x00\x00\x00\x00WAVE" * 30, r"train\.csv:1: the columns are"),
        ("eval.csv", HEADER + "./fake/en/suno_bark/a_01.wav,other\n", r"eval\.csv:2: .* has system other in this row"),
        ("fine/dev___lang_not_seen___model_seen.csv", HEADER + "fake/en/suno_bark/a_03.wav,suno/bark\n", ":2: .*ano"),
        ("../climbs.csv", HEADER, r"p\.zip: member '\.\./climbs\.csv' leaves the archive"),
    ],
)  # fmt: skip
def test_fault_raises_in_one_line_with_file_and_line(tmp_path, name, content, message):
    files = {**tables(), name: content}
    source = write_zip(tmp_path / "p.zip", {name: text for name, text in files.items() if text is not None})
    with pytest.raises(CorpusError, match=message) as caught:
        read_protocol(source)
    assert "\n" not in str(caught.value)


def test_missing_file_raises(tmp_path):
    with pytest.raises(FilesError, match=r"none\.zip: .*mlaad\.protocol"):
        read_protocol(tmp_path / "none.zip")


def test_password_raises(tmp_path):
    source = write_zip(tmp_path / "p.zip", tables())
    data = bytearray(source.read_bytes())
    for mark, flags_offset in ((b"PK\3\4", 6), (b"PK\1\2", 8)):
        start = -1
        while (start := data.find(mark, start + 1)) >= 0:
            data[start + flags_offset] |= 1
    source.write_bytes(data)
    with pytest.raises(CorpusError, match=r"p\.zip: cannot be unpacked .*password"):
        read_protocol(source)


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    return write_zip(tmp_path_factory.mktemp("whole") / "p.zip", tables()).read_bytes()


@given(data=st.data())
@settings(max_examples=60, deadline=None)
def test_truncated_zip_raises(tmp_path_factory, whole, data):
    cut = Path(tmp_path_factory.getbasetemp(), "cut.zip")
    cut.write_bytes(whole[: data.draw(st.integers(0, len(whole) - 1))])
    with pytest.raises(CorpusError, match=r"cut\.zip: not a complete zip archive"):
        read_protocol(cut)


@given(data=st.data())
@settings(max_examples=100, deadline=None)
def test_damaged_zip_gives_the_same_rows_or_raises(tmp_path_factory, whole, data):
    damaged = bytearray(whole)
    for _ in range(data.draw(st.integers(1, 3))):
        damaged[data.draw(st.integers(0, len(whole) - 1))] = data.draw(st.integers(0, 255))
    path = Path(tmp_path_factory.getbasetemp(), "damaged.zip")
    path.write_bytes(bytes(damaged))
    with suppress(MakermarkError):  # CRC-32 detects nearly all damage, except in names and comments
        assert read_protocol(path)["path"].tolist() == PATHS
