"""Any table as a corpus: which columns are found, and what is refused in one line with the file and the row."""

import json

import pandas as pd
import pytest

from makermark.corpora import tables
from makermark.corpora.choices import relabel
from makermark.corpora.listing import complete
from makermark.errors import CorpusError, FilesError

TEXT = "path,system,split,lang\na/1.wav,bark,train,en\nb/2.wav,xtts v2,eval,de\n"


def read(file, **columns):
    return tables.listing(file, root="", columns=columns)


def refusal(call):
    with pytest.raises(CorpusError) as caught:
        call()
    said = str(caught.value)
    assert "\n" not in said
    return said


def written(folder, text, name="corpus.csv", **how):
    (folder / name).write_text(text, **how)
    return folder / name


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig"])
def test_a_csv_with_or_without_a_byte_order_mark_gives_its_rows(tmp_path, encoding):
    file = written(tmp_path, TEXT.replace("bark", "größe"), encoding=encoding)
    listing = read(file)
    rows = complete(listing)
    assert listing.root == tmp_path
    assert rows[["path", "system", "split", "language"]].values.tolist() == [
        ["a/1.wav", "größe", "train", "en"],
        ["b/2.wav", "xtts v2", "test", "de"],
    ]


def test_every_kind_of_table_gives_the_same_rows(tmp_path):
    csv = read(written(tmp_path, TEXT)).rows
    table = pd.read_csv(tmp_path / "corpus.csv")
    table.to_csv(tmp_path / "corpus.tsv", sep="\t", index=False)
    table.to_parquet(tmp_path / "corpus.parquet")
    lines = "".join(json.dumps(row) + "\n" for row in table.to_dict("records"))
    written(tmp_path, lines, "corpus.jsonl")
    for name in ("corpus.tsv", "corpus.parquet", "corpus.jsonl"):
        pd.testing.assert_frame_equal(read(tmp_path / name).rows, csv)


def test_values_that_look_like_numbers_or_nothing_stay_as_they_were_written(tmp_path):
    file = written(tmp_path, "file,model,language\n01.wav,007,NA\nnull,nan,no\n")
    assert read(file).rows.values.tolist() == [["01.wav", "007", "NA"], ["null", "nan", "no"]]
    lines = written(
        tmp_path, '{"file": "01.wav", "model": "007"}\n{"file": "2", "model": "1e5"}\n', "c.jsonl"
    )
    assert read(lines).rows.values.tolist() == [["01.wav", "007"], ["2", "1e5"]]


def test_columns_are_found_by_usual_names_in_any_case_and_each_is_used_once(tmp_path):
    file = written(tmp_path, "FileName, Model_Name ,label,Speaker\n1.wav,bark,spoof,p1\n")
    assert read(file).rows.to_dict("records") == [{"path": "1.wav", "system": "bark", "voice": "p1"}]


def test_unusual_columns_are_named_in_params(tmp_path):
    file = written(tmp_path, "clip,made by\n1.wav,bark\n")
    assert read(file, path="clip", system="made by").rows.values.tolist() == [["1.wav", "bark"]]
    said = refusal(lambda: read(file))
    assert said.startswith(f"{file}: no column for the path")
    assert "['clip', 'made by']" in said
    assert "manifest.columns: {path: NAME}" in said
    assert "no column 'maker'" in refusal(lambda: read(file, path="clip", system="maker"))
    assert "'speeker'" in refusal(lambda: read(file, speeker="clip"))


def test_absolute_paths_below_the_root_become_relative(tmp_path):
    file = written(tmp_path, f"path,system\n{tmp_path}/a/1.wav,bark\n")
    assert complete(read(file))["path"].tolist() == ["a/1.wav"]
    said = refusal(lambda: complete(tables.listing(file, root=str(tmp_path / "b"), columns={})))
    assert said.startswith(f"{file}, row 1: path '{tmp_path}/a/1.wav' leaves the folder")


@pytest.mark.parametrize(
    ("row", "said"),
    [
        ("../1.wav,x,train,en", "row 3: path '../1.wav' leaves the folder"),
        (",x,train,en", "row 3: no path"),
        ("3.wav,,train,en", "row 3: no system"),
        ("3.wav", "row 3: no system"),
        (
            "3.wav,x,tset,en",
            "row 3: split 'tset' in column 'split'; where one row has a split all have one of",
        ),
        ("3.wav,x,,en", "row 3: split '' in column 'split'; where one row has a split"),
        ("a/1.wav,xtts,train,en", "row 3: path 'a/1.wav' has system 'xtts', but 'bark' in row 1"),
        ("./a/1.wav,xtts,train,en", "row 3: path 'a/1.wav' has system 'xtts', but 'bark' in row 1"),
    ],
)
def test_a_row_that_cannot_be_is_named(tmp_path, row, said):
    file = written(tmp_path, f"{TEXT}{row}\n")
    assert refusal(lambda: complete(read(file))).startswith(f"{file}, {said}")


@pytest.mark.parametrize(
    ("name", "content", "said"),
    [
        ("c.csv", "path,system\n1.wav,größe\n".encode("latin-1"), "not UTF-8"),
        ("c.csv", "path,system\n1.wav,x\n".encode("utf-16"), "not UTF-8"),
        ("c.csv", b"", "not a readable table"),
        ("c.csv", b"path,system\n1.wav,a\n2.wav,b,c,d\n", "not a readable table"),
        ("c.csv", b"path,system\n1.wav,a,c\n2.wav,b,d\n", "Expected 2 fields in line 2, saw 3"),
        ("c.csv", b"path;system\n1.wav;a\n", "it has ['path;system']"),
        ("c.jsonl", b'{"path": "1.wav"', "not a readable table"),
        ("c.parquet", b"PAR1 not really", "not a readable table"),
        ("c.xlsx", b"PK", ".xlsx; manifest.file is one of ['.csv', '.tsv', '.jsonl', '.parquet']"),
    ],
)
def test_what_is_no_such_table_is_refused_by_name(tmp_path, name, content, said):
    (tmp_path / name).write_bytes(content)
    message = refusal(lambda: read(tmp_path / name))
    assert message.startswith(f"{tmp_path / name}: ")
    assert said in message


def test_a_table_without_rows_and_one_that_is_missing_are_refused(tmp_path):
    assert "no rows" in refusal(lambda: complete(read(written(tmp_path, "path,system\n"))))
    with pytest.raises(FilesError, match=r"gone\.csv: No such file"):
        read(tmp_path / "gone.csv")


def test_a_quotation_mark_in_a_tsv_is_one_and_no_row_is_lost(tmp_path):
    file = written(
        tmp_path, 'path\tsystem\ttext\n1.wav\tx\t"Hello\n2.wav\tx\tplain\n3.wav\tx\t"Bye\n', "c.tsv"
    )
    assert read(file).rows["text"].tolist() == ['"Hello', "plain", '"Bye']


def test_a_csv_whose_quotation_mark_swallows_rows_is_refused_with_its_row(tmp_path):
    lost = 'path,system,text\n1.wav,x,plain\n2.wav,x,"Hello\n3.wav,x,plain\n4.wav,x,"Bye\n'
    said = refusal(lambda: read(written(tmp_path, lost)))
    assert said.startswith(
        f"{tmp_path}/corpus.csv, row 2: the value in column 'text' goes over lines that look like rows"
    )
    assert "not a readable table" in refusal(lambda: read(written(tmp_path, lost[: lost.rindex("4.wav")])))


def test_values_in_quotation_marks_may_hold_separators_marks_and_line_breaks(tmp_path):
    file = written(tmp_path, 'path,system,text\n1.wav,x,"Say ""hi"", he said"\n2.wav,x,"two\nlines"\n')
    assert read(file).rows["text"].tolist() == ['Say "hi", he said', "two\nlines"]


@pytest.mark.parametrize(
    "header", ["path,path,system", "path, path,system", "system,path,system ", "note,path,system,note"]
)
def test_two_columns_of_one_name_are_refused_by_name(tmp_path, header):
    file = written(tmp_path, f"{header}\n{','.join('abcd'[: header.count(',') + 1])}\n")
    name = "path" if header.startswith("path") else header.split(",")[0]
    assert refusal(lambda: read(file)) == f"{file}: two columns are called {name!r}; rename or remove one"


def test_columns_without_a_name_are_passed_over(tmp_path):
    file = written(tmp_path, ",path,system,\n0,1.wav,bark,\n1,2.wav,xtts,\n")
    assert read(file).rows.values.tolist() == [["1.wav", "bark"], ["2.wav", "xtts"]]


def test_an_architecture_is_one_and_no_family(tmp_path):
    rows = complete(read(written(tmp_path, "path,system,architecture\n1.wav,bark,VITS\n")))
    assert rows[["architecture", "family"]].values.tolist() == [["VITS", ""]]
    assert relabel(rows, labels="architecture")["system"].tolist() == ["VITS"]


def test_a_column_that_only_looks_like_the_splits_is_named_and_can_be_left_out(tmp_path):
    file = written(tmp_path, "path,system,fold\n1.wav,bark,1\n2.wav,xtts,2\n")
    said = refusal(lambda: complete(read(file)))
    assert said.startswith(f"{file}, row 1: split '1' in column 'fold'; ")
    assert said.endswith("manifest.columns: {split: ''}")
    assert complete(read(file, split=""))["split"].tolist() == ["", ""]
    assert "no column for the path" in refusal(lambda: read(file, path=""))


@pytest.mark.parametrize("name", ["FileName", "file_name", "File Name", "file-name", "FILENAME"])
def test_blanks_dashes_and_case_make_no_other_name(tmp_path, name):
    assert read(written(tmp_path, f"{name},ATK\n1.wav,bark\n")).rows.columns.tolist() == ["path", "system"]
