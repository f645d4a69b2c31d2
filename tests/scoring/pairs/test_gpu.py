"""The GPU pair counter, run by torch on the CPU: it gives the same counts, tile by tile."""

from unittest import mock

import numpy as np
import pytest
import torch
from brute_force import Trials, eer_percent
from drawn_sets import exact_sets, sets
from hypothesis import given, settings
from hypothesis import strategies as st

from makermark.foundation.errors import ParamsError, ScoringError
from makermark.scoring.pairs import metrics_to_json, score_all_pairs, score_pairs
from makermark.scoring.pairs.cpu import CpuPairCounter
from makermark.scoring.pairs.gpu import GpuPairCounter, cut_gpu_tiles, full_float32_precision, scores_to_keys
from makermark.scoring.pairs.tiling import fit_bins, tile_embeddings
from makermark.scoring.pairs.tiling import scores_to_keys as keys_of_array

CPU = torch.device("cpu")


def score_on_torch(embeddings, systems, strata=None, *, tile_pairs, **settings):
    def make_gpu_counter(tiling, bins, **_):
        return GpuPairCounter(tiling, bins, device=CPU, tile_pairs=tile_pairs)

    with mock.patch.object(score_pairs, "choose_pair_counter", make_gpu_counter):
        return score_all_pairs(embeddings, systems, strata, seed=0, **settings)


@settings(deadline=None, max_examples=40)
@given(exact_sets(), st.sampled_from([1, 50, 1 << 16]), st.sampled_from([2, 9]))
def test_gpu_counter_gives_the_metrics_of_the_cpu_counter(drawn_set, tile_pairs, sample_utterances):
    chosen = {"bootstrap_samples": 5, "sample_utterances": sample_utterances}
    on_gpu = score_on_torch(*drawn_set, tile_pairs=tile_pairs, **chosen)
    on_cpu = score_all_pairs(*drawn_set, seed=0, **chosen)
    assert metrics_to_json(on_gpu) == metrics_to_json(on_cpu)
    assert on_gpu.per_system == on_cpu.per_system
    trials = Trials(*drawn_set)
    assert on_gpu.eer_micro_percent == pytest.approx(trials.micro(), abs=1e-9)
    by_system = trials.by_system()
    for system in on_gpu.per_system:
        assert system.eer_percent == pytest.approx(by_system.get(system.system), abs=1e-9)


@settings(deadline=None, max_examples=30)
@given(sets(), st.sampled_from([1, 50, 1 << 16]))
def test_gpu_eer_equals_brute_force_on_the_scores_of_the_tiles(drawn_set, tile_pairs):
    embeddings, systems, _ = drawn_set
    tiling = tile_embeddings(embeddings, systems, None)
    rows, scores, is_target = torch.from_numpy(tiling.rows[: len(systems)]), [], []
    for tile in cut_gpu_tiles(tiling.starts, max_pairs=tile_pairs):
        column, end = max(tiling.starts[tile.first], tile.row), tiling.starts[tile.end]
        with full_float32_precision():
            product = (rows[tile.row : tile.end_row] @ rows[column:end].T).numpy()
        row, other = np.ogrid[tile.row : tile.end_row, column:end]
        scores.append(product[row < other])
        is_target.append((tiling.system[row] == tiling.system[other])[row < other])
    metrics = score_on_torch(
        embeddings, systems, tile_pairs=tile_pairs, bootstrap_samples=0, sample_utterances=2
    )
    expected = eer_percent(np.concatenate(is_target), np.concatenate(scores))
    assert metrics.eer_micro_percent == pytest.approx(expected, abs=1e-9)


@given(st.lists(st.integers(1, 6), min_size=1, max_size=8), st.integers(1, 120))
def test_gpu_tiles_hold_every_pair_once_and_at_most_max_pairs(lengths, max_pairs):
    starts = np.cumsum([0, *lengths])
    seen = np.zeros((starts[-1], starts[-1]), int)
    for tile in cut_gpu_tiles(starts, max_pairs=max_pairs):
        assert starts[tile.chunk] <= tile.row < tile.end_row <= starts[tile.chunk + 1]
        seen[tile.row : tile.end_row, max(starts[tile.first], tile.row) : starts[tile.end]] += 1
        assert tile.end_row - tile.row == 1 or (starts[tile.end] - starts[tile.first]) <= max_pairs
    assert np.all(seen[np.triu_indices(len(seen))] == 1)


@given(st.lists(st.floats(-1, 1, width=32), min_size=1))
def test_keys_of_tensors_equal_those_of_arrays(scores):
    scores = np.array(scores, np.float32)
    np.testing.assert_array_equal(scores_to_keys(torch.from_numpy(scores)).numpy(), keys_of_array(scores))


def clouds(utterances=700):
    rng = np.random.default_rng(0)
    systems = rng.integers(0, 7, utterances)
    return rng.normal(size=(7, 20))[systems] + rng.normal(size=(utterances, 20)), systems


def test_gpu_counter_keeps_full_precision_in_a_program_with_coarse_matmul():
    embeddings, systems = clouds()
    chosen = {"bootstrap_samples": 0, "sample_utterances": 200}
    plain = score_on_torch(embeddings, systems, tile_pairs=1 << 14, **chosen)
    torch.set_float32_matmul_precision("medium")
    try:
        coarse = score_on_torch(embeddings, systems, tile_pairs=1 << 14, **chosen)
        assert torch.get_float32_matmul_precision() == "medium"
    finally:
        torch.set_float32_matmul_precision("highest")
    assert metrics_to_json(coarse) == metrics_to_json(plain)
    on_cpu = score_all_pairs(embeddings, systems, seed=0, **chosen)
    assert plain.eer_micro_percent == pytest.approx(on_cpu.eer_micro_percent, abs=0.01)
    assert plain.eer_macro_percent == pytest.approx(on_cpu.eer_macro_percent, abs=0.01)


def test_device_that_gives_a_pair_two_scores_raises():
    class Forgetful(CpuPairCounter):
        def refine(self, todo, curves, ranges):
            return 0 * super().refine(todo, curves, ranges)

    embeddings, systems = clouds()
    tiling = tile_embeddings(embeddings, systems, None)
    forgetful = Forgetful(tiling, fit_bins(tiling, sample_utterances=200), threads=1)
    with (
        mock.patch.object(score_pairs, "choose_pair_counter", return_value=forgetful),
        pytest.raises(ScoringError, match=r"two passes disagree .* and 0 target trials, .* two scores"),
    ):
        score_all_pairs(embeddings, systems, bootstrap_samples=0, seed=0, sample_utterances=200)


@pytest.mark.skipif(torch.cuda.is_available(), reason="tests a machine without a GPU")
def test_device_auto_without_a_gpu_is_the_cpu_and_cuda_raises():
    embeddings, systems = clouds()
    chosen = {"bootstrap_samples": 0, "seed": 0, "sample_utterances": 200}
    on_cpu = score_all_pairs(embeddings, systems, **chosen)
    assert metrics_to_json(score_all_pairs(embeddings, systems, device="auto", **chosen)) == metrics_to_json(
        on_cpu
    )
    with pytest.raises(ParamsError, match="'cuda', which this machine does not have"):
        score_all_pairs(embeddings, systems, device="cuda", **chosen)


def test_unknown_device_raises_for_a_small_set_too():
    embeddings, systems = np.eye(4, dtype=np.float32), ["a", "a", "b", "b"]
    with pytest.raises(ParamsError, match="unknown device 'cud'"):
        score_all_pairs(embeddings, systems, bootstrap_samples=0, seed=0, device="cud")


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
@settings(deadline=None, max_examples=30)
@given(exact_sets())
def test_gpu_gives_the_metrics_of_the_cpu(drawn_set):
    chosen = {"bootstrap_samples": 5, "seed": 0, "sample_utterances": 2}
    assert metrics_to_json(score_all_pairs(*drawn_set, device="cuda", **chosen)) == metrics_to_json(
        score_all_pairs(*drawn_set, **chosen)
    )
