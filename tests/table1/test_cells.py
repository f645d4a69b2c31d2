"""The paper's table as the project carries it, what narrows it, and what its cells change in params.yaml."""

from collections import Counter
from pathlib import Path

import pandas as pd
import pytest
import yaml
from typer.testing import CliRunner

from makermark.cli import app
from makermark.errors import ParamsError
from makermark.params import from_mapping
from makermark.presets import preset
from makermark.table1.cells import PRESET_OF, changed, experiment, narrowed, paper

GIVEN = Path(__file__).parents[3] / "shared/data/paper_table1.csv"


def test_the_table_is_that_of_the_paper():
    if not GIVEN.exists():
        pytest.skip("the paper's table is not beside the repository")
    ours = pd.DataFrame([vars(cell) for cell in paper()])
    pd.testing.assert_frame_equal(ours, pd.read_csv(GIVEN), check_dtype=False)


def test_it_has_the_papers_arms_and_its_best_figures():
    assert Counter(cell.backbone for cell in paper()) == {"resnet34": 32, "wav2vec2-aasist": 16}
    best = min(
        (cell for cell in paper() if cell.backbone == "resnet34"), key=lambda cell: cell.test_eer_percent
    )
    assert (best.name, best.test_eer_percent) == ("resnet34-aamsoftmax-random-50", 4.63)


@pytest.mark.parametrize(
    ("given", "count"),
    [
        ({}, 48),
        ({"backbones": ["resnet34"]}, 32),
        ({"backbones": ["resnet34"], "dims": [50]}, 8),
        ({"losses": ["ge2e", "softmax"], "samplers": ["balanced"]}, 8),
        ({"dims": [10, 512], "losses": ["ge2e"]}, 2),
    ],
)
def test_it_is_narrowed(given, count):
    assert len(narrowed(paper(), **given)) == count


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"losses": ["arcface"]}, r"no loss 'arcface'; it has \['softmax', 'amsoftmax'"),
        ({"dims": [64]}, r"no dim 64; it has \[10, 50, 200, 512\]"),
        ({"losses": ["ge2e"], "samplers": ["random"]}, "no cell with all of that"),
    ],
)
def test_what_the_table_has_not_is_refused(given, said):
    with pytest.raises(ParamsError, match=said):
        narrowed(paper(), **given)


@pytest.mark.parametrize("cell", paper(), ids=lambda cell: cell.name)
def test_with_the_papers_settings_any_params_become_those_of_the_preset(cell):
    overrides = experiment(cell, seed=3, as_in_paper=True)
    found = from_mapping(changed(yaml.safe_load(preset("local")), overrides))
    expected = from_mapping(yaml.safe_load(preset(PRESET_OF[cell.backbone])))
    assert (found.train, found.settings("samplers", cell.sampler), found.settings("losses", cell.loss)) == (
        expected.train,
        expected.settings("samplers", cell.sampler),
        expected.settings("losses", cell.loss),
    )
    if cell.backbone == "wav2vec2-aasist":
        assert found.ssl == expected.ssl
    assert found.experiment == f"{cell.name}-s3"


def test_without_them_only_the_names_change():
    names = {"backbone": "resnet34", "loss": "softmax", "sampler": "random", "dim": 10, "seed": 1}
    assert experiment(paper()[0], seed=1, as_in_paper=False) == names


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (["--dims", "10,fifty"], "'10,fifty': give whole numbers with commas between"),
        (["--only", "resnet"], "no backbone 'resnet'; it has"),
    ],
)
def test_the_command_tells_a_wrong_option_in_one_line(tmp_path, monkeypatch, options, said):
    (tmp_path / "params.yaml").write_text(preset("local"))
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ParamsError, match=said):
        CliRunner().invoke(app, ["table1", *options], catch_exceptions=False)
