"""The paper's table, the selection of cells, and their overrides of params.yaml."""

from collections import Counter
from pathlib import Path

import pandas as pd
import pytest
import yaml
from typer.testing import CliRunner

from makermark.cli.main import app
from makermark.experiments.presets import preset
from makermark.experiments.table1.paper_table import (
    PRESETS,
    cell_overrides,
    override,
    read_paper_table,
    select_cells,
)
from makermark.foundation.errors import ParamsError
from makermark.foundation.params import parse_params

REFERENCE = Path(__file__).parents[4] / "shared/data/paper_table1.csv"


def test_read_paper_table_equals_the_published_table():
    if not REFERENCE.exists():
        pytest.skip("the paper's table is not beside the repository")
    ours = pd.DataFrame([vars(cell) for cell in read_paper_table()])
    pd.testing.assert_frame_equal(ours, pd.read_csv(REFERENCE), check_dtype=False)


def test_read_paper_table_has_the_arms_and_the_best_figure_of_the_paper():
    assert Counter(cell.backbone for cell in read_paper_table()) == {"resnet34": 32, "wav2vec2-aasist": 16}
    best = min(
        (cell for cell in read_paper_table() if cell.backbone == "resnet34"),
        key=lambda cell: cell.test_eer_percent,
    )
    assert (best.name, best.test_eer_percent) == ("resnet34-aamsoftmax-random-50", 4.63)


@pytest.mark.parametrize(
    ("options", "count"),
    [
        ({}, 48),
        ({"backbones": ["resnet34"]}, 32),
        ({"backbones": ["resnet34"], "dims": [50]}, 8),
        ({"losses": ["ge2e", "softmax"], "samplers": ["balanced"]}, 8),
        ({"dims": [10, 512], "losses": ["ge2e"]}, 2),
    ],
)
def test_select_cells_returns_matching_cells(options, count):
    assert len(select_cells(read_paper_table(), **options)) == count


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"losses": ["arcface"]}, r"no loss 'arcface'; it has \['softmax', 'amsoftmax'"),
        ({"dims": [64]}, r"no dim 64; it has \[10, 50, 200, 512\]"),
        ({"losses": ["ge2e"], "samplers": ["random"]}, "no cell with this combination"),
    ],
)
def test_select_cells_raises_for_values_outside_the_table(options, message):
    with pytest.raises(ParamsError, match=message):
        select_cells(read_paper_table(), **options)


@pytest.mark.parametrize("cell", read_paper_table(), ids=lambda cell: cell.name)
def test_cell_overrides_as_in_paper_give_the_settings_of_the_preset(cell):
    overrides = cell_overrides(cell, seed=3, as_in_paper=True)
    params = parse_params(override(yaml.safe_load(preset("local")), overrides))
    expected = parse_params(yaml.safe_load(preset(PRESETS[cell.backbone])))
    assert (
        params.train,
        params.settings("samplers", cell.sampler),
        params.settings("losses", cell.loss),
    ) == (
        expected.train,
        expected.settings("samplers", cell.sampler),
        expected.settings("losses", cell.loss),
    )
    if cell.backbone == "wav2vec2-aasist":
        assert params.ssl == expected.ssl
    assert params.experiment == f"{cell.name}-s3-e{300 if cell.backbone == 'resnet34' else 100}"


def test_cell_overrides_without_the_papers_settings_are_names_only():
    names = {"backbone": "resnet34", "loss": "softmax", "sampler": "random", "dim": 10, "seed": 1}
    assert cell_overrides(read_paper_table()[0], seed=1, as_in_paper=False) == names


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--dims", "10,fifty"], "'10,fifty': give whole numbers with commas between"),
        (["--only", "resnet"], "no backbone 'resnet'; it has"),
    ],
)
def test_table1_command_reports_a_wrong_option_in_one_line(tmp_path, monkeypatch, options, message):
    (tmp_path / "params.yaml").write_text(preset("local"))
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ParamsError, match=message):
        CliRunner().invoke(app, ["table1", *options], catch_exceptions=False)
