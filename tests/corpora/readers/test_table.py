"""Any table as a corpus: how columns are matched, and errors that name the file and the row in one line."""

import json

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from makermark.corpora.families import relabel
from makermark.corpora.listing import complete_listing
from makermark.corpora.readers import table as table_reader
from makermark.foundation.errors import CorpusError, FilesError

TEXT = "path,system,split,lang\na/1.wav,bark,train,en\nb/2.wav,xtts v2,eval,de\n"


def read(file, **columns):
    return table_reader.read_table(file, root="", columns=columns)


def error_of(call):
    with pytest.raises(CorpusError) as caught:
        call()
    message = str(caught.value)
    assert "\n" not in message
    return message


def write_text(folder, text, name="corpus.csv", **options):
    (folder / name).write_text(text, **options)
    return folder / name


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig"])
def test_csv_is_read_with_and_without_byte_order_mark(tmp_path, encoding):
    file = write_text(tmp_path, TEXT.replace("bark", "größe"), encoding=encoding)
    listing = read(file)
    rows = complete_listing(listing)
    assert listing.root == tmp_path
    assert rows[["path", "system", "split", "language"]].values.tolist() == [
        ["a/1.wav", "größe", "train", "en"],
        ["b/2.wav", "xtts v2", "test", "de"],
    ]


def test_every_format_gives_the_same_rows(tmp_path):
    csv = read(write_text(tmp_path, TEXT)).rows
    table = pd.read_csv(tmp_path / "corpus.csv")
    table.to_csv(tmp_path / "corpus.tsv", sep="\t", index=False)
    table.to_parquet(tmp_path / "corpus.parquet")
    lines = "".join(json.dumps(row) + "\n" for row in table.to_dict("records"))
    write_text(tmp_path, lines, "corpus.jsonl")
    for name in ("corpus.tsv", "corpus.parquet", "corpus.jsonl"):
        pd.testing.assert_frame_equal(read(tmp_path / name).rows, csv)


def test_values_stay_text(tmp_path):
    file = write_text(tmp_path, "file,model,language\n01.wav,007,NA\nnull,nan,no\n")
    assert read(file).rows.values.tolist() == [["01.wav", "007", "NA"], ["null", "nan", "no"]]
    lines = write_text(
        tmp_path, '{"file": "01.wav", "model": "007"}\n{"file": "2", "model": "1e5"}\n', "c.jsonl"
    )
    assert read(lines).rows.values.tolist() == [["01.wav", "007"], ["2", "1e5"]]


def test_columns_are_matched_by_usual_names_in_any_case_and_used_once(tmp_path):
    file = write_text(tmp_path, "FileName, Model_Name ,label,Speaker\n1.wav,bark,spoof,p1\n")
    assert read(file).rows.to_dict("records") == [{"path": "1.wav", "system": "bark", "voice": "p1"}]


def test_unusual_columns_are_given_by_manifest_columns(tmp_path):
    file = write_text(tmp_path, "clip,made by\n1.wav,bark\n")
    assert read(file, path="clip", system="made by").rows.values.tolist() == [["1.wav", "bark"]]
    message = error_of(lambda: read(file))
    assert message.startswith(f"{file}: no column for the path")
    assert "['clip', 'made by']" in message
    assert "manifest.columns: {path: NAME}" in message
    assert "no column 'maker'" in error_of(lambda: read(file, path="clip", system="maker"))
    assert "'speeker'" in error_of(lambda: read(file, speeker="clip"))


def test_absolute_path_below_the_root_becomes_relative(tmp_path):
    file = write_text(tmp_path, f"path,system\n{tmp_path}/a/1.wav,bark\n")
    assert complete_listing(read(file))["path"].tolist() == ["a/1.wav"]
    message = error_of(
        lambda: complete_listing(table_reader.read_table(file, root=str(tmp_path / "b"), columns={}))
    )
    assert message.startswith(f"{file}, row 1: path '{tmp_path}/a/1.wav' leaves the folder")


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ("../1.wav,x,train,en", "row 3: path '../1.wav' leaves the folder"),
        (",x,train,en", "row 3: no path"),
        ("3.wav,,train,en", "row 3: no system"),
        ("3.wav", "row 3: no system"),
        (
            "3.wav,x,tset,en",
            "row 3: split 'tset' in column 'split'; if any row has a split, every row needs one of",
        ),
        ("3.wav,x,,en", "row 3: split '' in column 'split'; if any row has a split"),
        ("a/1.wav,xtts,train,en", "row 3: path 'a/1.wav' has system 'xtts', but 'bark' in row 1"),
        ("./a/1.wav,xtts,train,en", "row 3: path 'a/1.wav' has system 'xtts', but 'bark' in row 1"),
    ],
)
def test_invalid_row_raises_with_its_number(tmp_path, row, message):
    file = write_text(tmp_path, f"{TEXT}{row}\n")
    assert error_of(lambda: complete_listing(read(file))).startswith(f"{file}, {message}")


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("c.csv", "path,system\n1.wav,größe\n".encode("latin-1"), "not UTF-8"),
        ("c.csv", "path,system\n1.wav,x\n".encode("utf-16"), "not UTF-8"),
        ("c.csv", b"", "not a readable table"),
        ("c.csv", b"path,system\n1.wav,a\n2.wav,b,c,d\n", "not a readable table"),
        ("c.csv", b"path,system\n1.wav,a,c\n2.wav,b,d\n", "Expected 2 fields in line 2, saw 3"),
        ("c.csv", b"path:system\n1.wav:a\n", "it has ['path:system'], separated by commas"),
        (
            "c.tsv",
            b"T_0 T_1 F - A00 spoof -\n",
            "columns separated by blanks: write them with tabs or commas",
        ),
        ("c.jsonl", b'{"path": "1.wav", "system": "a"}\n["2.wav"]\n', "line 2 is not an object"),
        ("c.jsonl", b'{"path": "1.wav", "system": "a"}\n\n{"path": }\n', "line 3 is not JSON"),
        ("c.jsonl", b'{"path": "1.wav"', "not a readable table"),
        ("c.parquet", b"PAR1 not really", "not a readable table"),
        (
            "c.xlsx",
            b"PK",
            ".xlsx; the file name of a table ends in one of ['.csv', '.tsv', '.jsonl', '.parquet']",
        ),
    ],
)
def test_invalid_table_raises_with_its_name(tmp_path, name, content, message):
    (tmp_path / name).write_bytes(content)
    error = error_of(lambda: read(tmp_path / name))
    assert error.startswith(f"{tmp_path / name}: ")
    assert message in error


def test_empty_table_and_missing_table_raise(tmp_path):
    assert "no rows" in error_of(lambda: complete_listing(read(write_text(tmp_path, "path,system\n"))))
    with pytest.raises(FilesError, match=r"gone\.csv: No such file"):
        read(tmp_path / "gone.csv")


def test_quotation_mark_in_a_tsv_is_part_of_the_value(tmp_path):
    file = write_text(
        tmp_path, 'path\tsystem\ttext\n1.wav\tx\t"Hello\n2.wav\tx\tplain\n3.wav\tx\t"Bye\n', "c.tsv"
    )
    assert read(file).rows["text"].tolist() == ['"Hello', "plain", '"Bye']


def test_unclosed_quotation_mark_in_a_csv_raises_with_its_row(tmp_path):
    lost = 'path,system,text\n1.wav,x,plain\n2.wav,x,"Hello\n3.wav,x,plain\n4.wav,x,"Bye\n'
    message = error_of(lambda: read(write_text(tmp_path, lost)))
    assert message.startswith(
        f"{tmp_path}/corpus.csv, row 2: the value in column 'text' holds lines that look like rows"
    )
    assert "not a readable table" in error_of(
        lambda: read(write_text(tmp_path, lost[: lost.rindex("4.wav")]))
    )


def test_quoted_values_may_hold_separators_quotation_marks_and_line_breaks(tmp_path):
    file = write_text(tmp_path, 'path,system,text\n1.wav,x,"Say ""hi"", he said"\n2.wav,x,"two\nlines"\n')
    assert read(file).rows["text"].tolist() == ['Say "hi", he said', "two\nlines"]


@pytest.mark.parametrize(
    "header", ["path,path,system", "path, path,system", "system,path,system ", "note,path,system,note"]
)
def test_repeated_column_name_raises(tmp_path, header):
    file = write_text(tmp_path, f"{header}\n{','.join('abcd'[: header.count(',') + 1])}\n")
    name = "path" if header.startswith("path") else header.split(",")[0]
    assert error_of(lambda: read(file)) == f"{file}: two columns have the name {name!r}; rename or remove one"


def test_columns_without_a_name_are_ignored(tmp_path):
    file = write_text(tmp_path, ",path,system,\n0,1.wav,bark,\n1,2.wav,xtts,\n")
    assert read(file).rows.values.tolist() == [["1.wav", "bark"], ["2.wav", "xtts"]]


def test_architecture_column_does_not_become_the_family(tmp_path):
    rows = complete_listing(read(write_text(tmp_path, "path,system,architecture\n1.wav,bark,VITS\n")))
    assert rows[["architecture", "family"]].values.tolist() == [["VITS", ""]]
    assert relabel(rows, label="architecture")["system"].tolist() == ["VITS"]


def test_column_that_only_looks_like_the_split_is_named_and_can_be_excluded(tmp_path):
    file = write_text(tmp_path, "path,system,fold\n1.wav,bark,1\n2.wav,xtts,2\n")
    message = error_of(lambda: complete_listing(read(file)))
    assert message.startswith(f"{file}, row 1: split '1' in column 'fold'; ")
    assert message.endswith("set manifest.columns: {split: ''} to ignore this column")
    assert complete_listing(read(file, split=""))["split"].tolist() == ["", ""]
    assert "no column for the path" in error_of(lambda: read(file, path=""))


@pytest.mark.parametrize("name", ["FileName", "file_name", "File Name", "file-name", "FILENAME"])
def test_blanks_dashes_and_case_of_column_names_are_ignored(tmp_path, name):
    assert read(write_text(tmp_path, f"{name},ATK\n1.wav,bark\n")).rows.columns.tolist() == ["path", "system"]


@pytest.mark.parametrize(
    ("separator", "name"),
    [("|", "semi.csv"), (";", "c.csv"), ("\t", "c.csv"), (",", "c.tsv"), ("|", "c.tsv")],
)
def test_separator_of_the_header_is_used(tmp_path, separator, name, caplog):
    caplog.set_level("INFO")
    lines = [("path", "system", "text"), ("1.wav", "bark", "Well, hello; you"), ("2.wav", "xtts", "plain")]
    if separator == ",":
        lines[1] = ("1.wav", "bark", "hello; you")
    elif separator == ";":
        lines[1] = ("1.wav", "bark", "Well, hello")
    file = write_text(tmp_path, "".join(separator.join(line) + "\n" for line in lines), name)
    assert read(file).rows.values.tolist() == [list(line) for line in lines[1:]]
    assert "separated by" in caplog.text


def test_separator_line_of_excel_is_followed(tmp_path):
    file = write_text(tmp_path, 'sep=;\npath;system\n1.wav;"a;b"\n')
    assert read(file).rows.values.tolist() == [["1.wav", "a;b"]]


def test_nulls_of_typed_columns_are_empty_and_ids_keep_their_digits(tmp_path):
    big = 2**62 + 1
    table = pd.DataFrame(
        {
            "path": ["1.wav", "2.wav"],
            "system": pd.Categorical(["a", "b"]),
            "speaker": pd.array([big, None], dtype="Int64"),
            "language": pd.Categorical(["en", None]),
            "family": pd.array([True, None], dtype="boolean"),
            "vocoder": [7.0, None],
            "architecture": [2.5, float("nan")],
            "utterance_id": pd.array([big, big + 1], dtype="int64"),
        }
    )
    table.to_parquet(tmp_path / "c.parquet")
    rows = read(tmp_path / "c.parquet").rows
    assert rows.iloc[0].to_dict() == {
        "path": "1.wav", "system": "a", "voice": str(big), "language": "en", "family": "True", "vocoder": "7",
        "architecture": "2.5", "utterance_id": str(big),
    }  # fmt: skip
    assert rows.iloc[1].to_dict() == dict.fromkeys(rows, "") | {
        "path": "2.wav", "system": "b", "utterance_id": str(big + 1),
    }  # fmt: skip


def test_numbers_of_json_lines_are_read_as_they_are_written(tmp_path):
    lines = (
        '{"path": "1.wav", "system": "a", "speaker": 4611686018427387905}\n'
        '{"path": "2.wav", "system": 1.50, "speaker": null}\n{"path": "3.wav", "system": true}\n'
    )
    rows = read(write_text(tmp_path, lines, "c.jsonl")).rows
    assert rows["voice"].tolist() == ["4611686018427387905", "", ""]
    assert rows["system"].tolist() == ["a", "1.50", "True"]


def test_index_of_pandas_and_undecoded_text_are_columns(tmp_path):
    table = pa.table({"path": [b"1.wav"], "system": pa.array([b"b\xc3\xa9"], pa.binary())})
    pq.write_table(table, tmp_path / "c.parquet")
    assert read(tmp_path / "c.parquet").rows.values.tolist() == [["1.wav", "b\u00e9"]]
    pd.DataFrame({"path": ["1.wav"], "system": ["a"]}).set_index("path").to_parquet(tmp_path / "i.parquet")
    assert read(tmp_path / "i.parquet").rows.to_dict("records") == [{"path": "1.wav", "system": "a"}]


@pytest.mark.parametrize(
    "audio",
    [
        pa.array([{"bytes": b"RIFF" * 1000, "path": "1.wav"}]),
        pa.array([["1.wav"]]),
        pa.array([b"RIFF\xff" * 1000]),
    ],
)
def test_nested_column_is_refused_by_name_and_never_printed(tmp_path, audio):
    file = tmp_path / "c.parquet"
    pq.write_table(pa.table({"audio": audio, "system": ["a"]}), file)
    for columns in ({}, {"path": "audio"}):
        message = error_of(lambda columns=columns: read(file, **columns))
        assert message.startswith(f"{file}: column 'audio' holds ")
        assert len(message) < 400
    pq.write_table(pa.table({"audio": audio, "system": ["a"], "audio_path": ["x.wav"]}), file)
    assert read(file).rows["path"].tolist() == ["x.wav"]  # a column of text comes before one that is none


def test_objects_in_json_lines_are_refused_by_name(tmp_path):
    file = write_text(tmp_path, '{"audio": {"path": "1.wav"}, "system": "a"}\n', "c.jsonl")
    assert "column 'audio' holds lists or objects" in error_of(lambda: read(file))
