"""The path of a GPU, run by torch on the processor: the same counts, tile by tile."""

from unittest import mock

import numpy as np
import pytest
import torch
from brute_force import Trials, eer_percent
from drawn_sets import exact_sets, sets
from hypothesis import given, settings
from hypothesis import strategies as st

from makermark.errors import ParamsError, ScoringError
from makermark.scoring import as_metrics, score_set
from makermark.scoring import sets as scoring_sets
from makermark.scoring.accelerator import Accelerator, full_precision, keys_of, tiles
from makermark.scoring.bins import bins_for
from makermark.scoring.bins import keys_of as keys_by_numpy
from makermark.scoring.layout import lay_out
from makermark.scoring.processor import Processor

CPU = torch.device("cpu")


def score_on_torch(vectors, systems, strata=None, *, tile_pairs, **settings):
    def accelerate(layout, bins, **_):
        return Accelerator(layout, bins, device=CPU, tile_pairs=tile_pairs)

    with mock.patch.object(scoring_sets, "pairs_of", accelerate):
        return score_set(vectors, systems, strata, seed=0, **settings)


@settings(deadline=None, max_examples=40)
@given(exact_sets(), st.sampled_from([1, 50, 1 << 16]), st.sampled_from([2, 9]))
def test_the_same_scores_give_the_same_figures_as_machine_code(given_set, tile_pairs, sample_utterances):
    chosen = {"bootstrap_samples": 5, "sample_utterances": sample_utterances}
    accelerated = score_on_torch(*given_set, tile_pairs=tile_pairs, **chosen)
    processed = score_set(*given_set, seed=0, **chosen)
    assert as_metrics(accelerated) == as_metrics(processed)
    assert accelerated.per_system == processed.per_system
    trials = Trials(*given_set)
    assert accelerated.eer_micro_percent == pytest.approx(trials.micro(), abs=1e-9)
    by_system = trials.by_system()
    for system in accelerated.per_system:
        assert system.eer_percent == pytest.approx(by_system.get(system.system), abs=1e-9)


@settings(deadline=None, max_examples=30)
@given(sets(), st.sampled_from([1, 50, 1 << 16]))
def test_the_eer_is_that_of_brute_force_on_the_scores_of_the_tiles(given_set, tile_pairs):
    vectors, systems, _ = given_set
    layout = lay_out(vectors, systems, None)
    rows, scores, is_target = torch.from_numpy(layout.rows[: len(systems)]), [], []
    for tile in tiles(layout.starts, most_pairs=tile_pairs):
        column, end = max(layout.starts[tile.first], tile.row), layout.starts[tile.end]
        with full_precision():
            product = (rows[tile.row : tile.end_row] @ rows[column:end].T).numpy()
        row, other = np.ogrid[tile.row : tile.end_row, column:end]
        scores.append(product[row < other])
        is_target.append((layout.system[row] == layout.system[other])[row < other])
    found = score_on_torch(vectors, systems, tile_pairs=tile_pairs, bootstrap_samples=0, sample_utterances=2)
    expected = eer_percent(np.concatenate(is_target), np.concatenate(scores))
    assert found.eer_micro_percent == pytest.approx(expected, abs=1e-9)


@given(st.lists(st.integers(1, 6), min_size=1, max_size=8), st.integers(1, 120))
def test_tiles_hold_every_pair_once_and_no_more_scores_than_asked(lengths, most_pairs):
    starts = np.cumsum([0, *lengths])
    seen = np.zeros((starts[-1], starts[-1]), int)
    for tile in tiles(starts, most_pairs=most_pairs):
        assert starts[tile.chunk] <= tile.row < tile.end_row <= starts[tile.chunk + 1]
        seen[tile.row : tile.end_row, max(starts[tile.first], tile.row) : starts[tile.end]] += 1
        assert tile.end_row - tile.row == 1 or (starts[tile.end] - starts[tile.first]) <= most_pairs
    assert np.all(seen[np.triu_indices(len(seen))] == 1)


@given(st.lists(st.floats(-1, 1, width=32), min_size=1))
def test_keys_are_those_of_numpy(scores):
    scores = np.array(scores, np.float32)
    np.testing.assert_array_equal(keys_of(torch.from_numpy(scores)).numpy(), keys_by_numpy(scores))


def clouds(utterances=700):
    rng = np.random.default_rng(0)
    systems = rng.integers(0, 7, utterances)
    return rng.normal(size=(7, 20))[systems] + rng.normal(size=(utterances, 20)), systems


def test_large_counts_agree_with_machine_code_and_a_coarse_program_does_not_coarsen_them():
    vectors, systems = clouds()
    chosen = {"bootstrap_samples": 0, "sample_utterances": 200}
    plain = score_on_torch(vectors, systems, tile_pairs=1 << 14, **chosen)
    torch.set_float32_matmul_precision("medium")
    try:
        coarse = score_on_torch(vectors, systems, tile_pairs=1 << 14, **chosen)
        assert torch.get_float32_matmul_precision() == "medium"
    finally:
        torch.set_float32_matmul_precision("highest")
    assert as_metrics(coarse) == as_metrics(plain)
    processed = score_set(vectors, systems, seed=0, **chosen)
    assert plain.eer_micro_percent == pytest.approx(processed.eer_micro_percent, abs=0.01)
    assert plain.eer_macro_percent == pytest.approx(processed.eer_macro_percent, abs=0.01)


def test_a_device_that_gives_one_pair_two_scores_is_found_out():
    class Forgetful(Processor):
        def refine(self, todo, curves, within):
            return 0 * super().refine(todo, curves, within)

    vectors, systems = clouds()
    layout = lay_out(vectors, systems, None)
    forgetful = Forgetful(layout, bins_for(layout, sample_utterances=200), threads=1)
    with (
        mock.patch.object(scoring_sets, "pairs_of", return_value=forgetful),
        pytest.raises(ScoringError, match=r"0 targets lie where \d+ were counted .* two scores"),
    ):
        score_set(vectors, systems, bootstrap_samples=0, seed=0, sample_utterances=200)


@pytest.mark.skipif(torch.cuda.is_available(), reason="of machines without a GPU")
def test_without_a_gpu_auto_is_the_processor_and_cuda_an_error():
    vectors, systems = clouds()
    chosen = {"bootstrap_samples": 0, "seed": 0, "sample_utterances": 200}
    processed = score_set(vectors, systems, **chosen)
    assert as_metrics(score_set(vectors, systems, device="auto", **chosen)) == as_metrics(processed)
    with pytest.raises(ParamsError, match="'cuda', which this machine does not have"):
        score_set(vectors, systems, device="cuda", **chosen)


def test_an_unknown_device_is_refused_of_a_small_set_too():
    vectors, systems = np.eye(4, dtype=np.float32), ["a", "a", "b", "b"]
    with pytest.raises(ParamsError, match="unknown device 'cud'"):
        score_set(vectors, systems, bootstrap_samples=0, seed=0, device="cud")


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
@settings(deadline=None, max_examples=30)
@given(exact_sets())
def test_a_gpu_gives_the_figures_of_machine_code(given_set):
    chosen = {"bootstrap_samples": 5, "seed": 0, "sample_utterances": 2}
    assert as_metrics(score_set(*given_set, device="cuda", **chosen)) == as_metrics(
        score_set(*given_set, **chosen)
    )
