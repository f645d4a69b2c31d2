"""CSV files for `dvc plots`."""

import numpy as np
import pandas as pd
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from sklearn.metrics import confusion_matrix

from makermark.reporting.probe_plots import write_confusion_csv
from makermark.reporting.score_plots import write_det_csv


def test_det_csv_holds_percentages_by_set_and_model(tmp_path):
    curves = {
        ("dev", "model"): (np.array([0.0, 0.25]), np.array([1.0, 0.125])),
        ("test", "untrained"): (np.array([0.5]), np.array([0.5])),
    }
    write_det_csv(tmp_path / "det.csv", curves)
    assert (tmp_path / "det.csv").read_text().splitlines() == [
        "set,model,false_accept_percent,miss_percent",
        "dev,model,0,100",
        "dev,model,25,12.5",
        "test,untrained,50,50",
    ]


@settings(deadline=None)  # it writes files
@given(hnp.arrays(np.int64, (3, 3), elements=st.integers(0, 5)).filter(np.any))
def test_confusion_csv_reproduces_the_matrix(tmp_path_factory, counts):
    path = tmp_path_factory.mktemp("confusion") / "confusion.csv"
    classes = ("b, with comma", "a", "c")
    write_confusion_csv(path, counts, classes)
    table = pd.read_csv(path)
    assert list(table.columns) == ["actual", "predicted"]
    again = confusion_matrix(table["actual"], table["predicted"], labels=list(classes))
    np.testing.assert_array_equal(again, counts)
