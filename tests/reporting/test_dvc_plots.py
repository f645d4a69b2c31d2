import json

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from sklearn.metrics import confusion_matrix

from makermark.reporting import write_confusion, write_det, write_history


def test_det_points_become_percent_under_their_set_and_model(tmp_path):
    curves = {
        ("dev", "model"): (np.array([0.0, 0.25]), np.array([1.0, 0.125])),
        ("test", "untrained"): (np.array([0.5]), np.array([0.5])),
    }
    write_det(tmp_path / "det.csv", curves)
    assert (tmp_path / "det.csv").read_text().splitlines() == [
        "set,model,false_accept_percent,miss_percent",
        "dev,model,0,100",
        "dev,model,25,12.5",
        "test,untrained,50,50",
    ]


@given(hnp.arrays(np.int64, (3, 3), elements=st.integers(0, 5)).filter(np.any))
def test_a_confusion_table_gives_the_matrix_back(tmp_path_factory, counts):
    path = tmp_path_factory.mktemp("confusion") / "confusion.csv"
    classes = ("b, with comma", "a", "c")
    write_confusion(path, counts, classes)
    table = pd.read_csv(path)
    assert list(table.columns) == ["actual", "predicted"]
    again = confusion_matrix(table["actual"], table["predicted"], labels=list(classes))
    np.testing.assert_array_equal(again, counts)


def test_history_is_a_json_list(tmp_path):
    history = [{"epoch": 1, "loss": 2.5}, {"epoch": 2, "loss": 1.5, "dev_eer_percent": 12.0}]
    write_history(tmp_path / "history.json", history)
    assert json.loads((tmp_path / "history.json").read_text()) == history


def test_an_old_table_stays_if_the_new_one_cannot_be_written(tmp_path):
    (tmp_path / "history.json").write_text("old")
    with pytest.raises(ValueError, match="JSON"):
        write_history(tmp_path / "history.json", [{"epoch": 1, "loss": float("nan")}])
    assert (tmp_path / "history.json").read_text() == "old"
