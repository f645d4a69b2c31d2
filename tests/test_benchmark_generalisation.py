"""benchmarks/generalisation.py: subsets of the training systems, resumption, tables, and one small training."""

import json
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from makermark.features.cache_writer import write_cache
from makermark.foundation.manifest import read_manifest, write_manifest
from makermark.scoring.pairs import equal_error_rate
from tests_support import VOICES, speech_corpus

REPOSITORY = Path(__file__).parents[1]
sys.path.insert(0, str(REPOSITORY / "benchmarks"))

import generalisation as benchmark  # noqa: E402
import generalisation_plan as plan  # noqa: E402
import generalisation_report as report  # noqa: E402
import generalisation_training as training  # noqa: E402

RESULTS = REPOSITORY / "benchmarks/notes/generalisation.jsonl"
GENERATORS = {"espeak-ng": "formant", "pico": "HMM", "ru_tts": "concatenative"}
MAKERS = ("griffin-lim", "world", "mb-melgan", "codec2-3200")


@pytest.fixture
def systems():
    """12 systems: three generators by four waveform makers, with 3 utterances each."""
    rows = [
        [f"{generator}+{maker}", generator, maker, family]
        for generator, family in GENERATORS.items()
        for maker in MAKERS
        for _ in range(3)
    ]
    columns = ["system", "acoustic_model", "vocoder", "family"]
    return plan.describe_systems(pd.DataFrame(rows, columns=columns))


# Subsets


def test_a_draw_takes_equally_many_systems_of_every_generator(systems):
    drawn = systems.loc[list(plan.draw_systems(systems, 8, draw=0))]
    assert sorted(drawn["generator"].value_counts()) == [2, 3, 3]


def test_a_generator_without_systems_left_is_passed_over(systems):
    few = systems[(systems["generator"] != "pico") | (systems["maker"] == "world")]
    drawn = few.loc[list(plan.draw_systems(few, 5, draw=3))]
    assert drawn["generator"].value_counts().to_dict() == {"espeak-ng": 2, "pico": 1, "ru_tts": 2}


def test_the_systems_of_a_smaller_subset_are_among_those_of_a_larger_one(systems):
    subsets = [set(plan.draw_systems(systems, count, draw=1)) for count in (4, 8, 12)]
    assert subsets[0] < subsets[1] < subsets[2] == set(systems.index)


def test_a_draw_depends_on_its_number_alone(systems):
    shuffled = systems.sample(frac=1, random_state=0)
    assert plan.draw_systems(systems, 4, draw=2) == plan.draw_systems(shuffled, 4, draw=2)
    assert len({plan.draw_systems(systems, 4, draw=draw) for draw in range(5)}) > 1


def test_curve_has_every_size_below_the_number_of_systems_and_all(systems):
    runs = [run for run in plan.plan_curve(systems, draws=2, steps=5) if run.kind == plan.CURVE]
    assert [(len(run.systems), run.draw) for run in runs] == [(8, 0), (12, 0), (8, 1), (12, 1)]


def test_every_part_is_left_out_once(systems):
    runs = list(plan.plan_groups(systems, draws=1, steps=5))
    removed = {run.name: sorted(set(systems.index) - set(run.systems)) for run in runs}
    assert removed["formant = espeak-ng"] == sorted(f"espeak-ng+{maker}" for maker in MAKERS)
    assert removed["DSP vocoder"] == sorted(
        f"{generator}+{maker}" for generator in GENERATORS for maker in ("griffin-lim", "world")
    )
    assert removed["codec = codec2-3200"] == sorted(f"{generator}+codec2-3200" for generator in GENERATORS)
    assert (
        len(runs) == len({run.systems for run in runs}) == 3 + 3 + 2
    )  # generators, makers' kinds, griffin-lim, world


def test_an_unknown_waveform_maker_is_named():
    rows = pd.DataFrame(
        [["a", "pico", "new-vocoder", "HMM"]], columns=["system", "acoustic_model", "vocoder", "family"]
    )
    with pytest.raises(SystemExit, match="'new-vocoder' has no kind; add it to MAKER_KINDS"):
        plan.describe_systems(rows)


def test_utterances_are_limited_equally_for_all_systems():
    systems = ["a"] * 10 + ["b"] * 10 + ["c"] * 2
    chosen = plan.choose_utterances(systems, 9, draw=0)
    assert pd.Series(systems)[chosen].value_counts().to_dict() == {"a": 4, "b": 3, "c": 2} or (
        pd.Series(systems)[chosen].value_counts().to_dict() == {"b": 4, "a": 3, "c": 2}
    )
    assert chosen == plan.choose_utterances(systems, 9, draw=0) != plan.choose_utterances(systems, 9, draw=1)


@pytest.mark.parametrize(
    ("counts", "shape"),
    [([15] * 8, (8, 6)), ([15] * 55, (12, 4)), ([15, 3, *[15] * 20], (12, 3)), ([15, 15], (2, 15))],
)
def test_a_batch_has_48_utterances_where_the_systems_have_enough(counts, shape):
    assert plan.batch_shape(counts, batch=48, systems=12) == shape


def test_fixed_steps_continue_the_batches_of_the_sampler():
    sampler = training.BalancedSampler([0, 0, 1, 1, 2, 2], seed=0, batch_systems=1, utterances_per_system=2)
    expected = [batch.tolist() for epoch in range(4) for batch in sampler.batches(epoch)]
    fixed = training.FixedSteps(sampler, 4)
    assert len(fixed) == 4
    assert [batch.tolist() for epoch in range(3) for batch in fixed.batches(epoch)] == expected[:12]


# Results


def result(kind, name, draw, systems, test, *, pooled=30.0, per_system=None):
    def eers(value):
        return {
            "eer_micro_percent": value,
            "eer_macro_percent": value / 2,
            "eer_micro_ci95_percent": [value - 4, value + 6],
            "eer_macro_ci95_percent": [value - 4, value + 6],
        }

    return {
        "kind": kind, "name": name, "draw": draw, "systems": systems, "utterances": 10 * systems, "generators": 3,
        "waveform_makers": 4, "test": eers(test), "test_per_system": per_system or {"a": test, "b": test, "c": None},
        "clips": {"pooled": eers(pooled), "within_page": eers(45.0)}, "settings": {"steps": 5},
    }  # fmt: skip


@pytest.fixture
def results():
    """Two draws of 8, 16 and 32 systems: the EERs of draw 0 fall by 2 with every doubling, those of draw 1 by 3."""
    curve = [
        result(plan.CURVE, f"{8 * 2**step} systems", draw, 8 * 2**step, 20.0 - (2 + draw) * step)
        for draw in (0, 1)
        for step in (0, 1, 2)
    ]
    return [result(plan.UNTRAINED, plan.UNTRAINED, 0, 0, 40.0), *curve]


def test_t_interval_equals_the_textbook():
    low, high = report.t_interval([10.0, 12.0, 14.0])
    half = 4.302653 * 2 / np.sqrt(3)  # t of 2 degrees of freedom; standard deviation 2
    assert (low, high) == (pytest.approx(12 - half, abs=1e-5), pytest.approx(12 + half, abs=1e-5))
    assert report.t_interval([10.0]) is None


def test_curve_table_has_means_over_the_draws_and_their_intervals(results):
    rows = report.curve_table(results).splitlines()
    # 14 and 16: mean 15, half width 12.706205 * sqrt(2) / sqrt(2)
    assert "| 32 | 320 | 3 | 4 | 2 | 15.0 [2.3, 27.7] | 7.5 [1.1, 13.9] |" in rows[-1]
    assert rows[2].startswith("| untrained network |  |  |  | 1 | 40.0 | 20.0 | 30.0 |")


def test_intervals_over_systems_are_averaged(results):
    assert report.systems_interval_table(results).splitlines()[-1].startswith("| 32 | 15.0 [11.0, 21.0] |")


def test_slope_is_the_change_per_doubling_and_gives_the_systems_for_half_of_the_error(results):
    assert report.slopes(results, "unseen systems of test") == pytest.approx([-2.0, -3.0])
    # 15 % falls to 7.5 % after 3 doublings of 2.5 points: 32 * 8 = 256
    assert report.systems_for_half(32, 15.0, -2.5) == 256
    assert report.systems_for_half(32, 15.0, 0.1) is None
    row = report.slope_table(results).splitlines()[2]
    # -2.5 ± 12.706205 * 0.5 points: -8.85 reaches half after 0.847 doublings, 32 * 1.8; +3.85 never does
    assert row == "| unseen systems of test | 15.0 | -2.5 [-8.9, +3.9] | 260 | 58, never |"


def test_a_draw_that_lacks_a_size_has_no_slope(results):
    assert report.slopes(results[:-1], "unseen systems of test") == pytest.approx([-2.0])


def test_a_left_out_group_is_compared_with_the_curve_at_the_same_number_of_systems(results):
    left = round(8 * 2**1.5)  # 23, near the middle between 16 and 32 on a logarithmic axis
    expected = np.interp(np.log2(left), [4, 5], [17.5, 15.0])
    group = result(plan.GROUPS[0], "HMM", 0, left, 20.0, per_system={"a": 25.0, "b": 15.0, "c": None})
    row = report.group_table([*results, group]).splitlines()[-1]
    # test systems a and b: 25 and 15 against 15, so +10 and 0: mean 5 ± 12.706205 * 5
    assert row == (
        f"| kind of generator | HMM | 23 | 1 | {20 - expected:+.1f} | +0.0 | +0.0 | +5.0 [-58.5, +68.5] |"
    )


def test_tables_without_clips_have_no_columns_for_them(results):
    without = [{name: value for name, value in one.items() if name != "clips"} for one in results]
    assert "published" not in report.report_markdown(without)
    assert "published systems, within a page, micro" in report.report_markdown(results)


def test_results_without_a_trained_run_have_one_table(results):
    assert report.report_markdown(results[:1]) == report.curve_table(results[:1])


def test_figure_is_written(results, tmp_path):
    report.plot_curve(tmp_path / "curve.png", results)
    assert (tmp_path / "curve.png").read_bytes().startswith(b"\x89PNG")


# Resumption


def test_runs_in_the_results_are_skipped_and_a_torn_line_is_replaced(tmp_path):
    path = tmp_path / "results.jsonl"
    runs = [plan.Run(plan.CURVE, "8 systems", draw, ("a", "b"), 5) for draw in range(3)]
    benchmark.append_result(path, runs[0], {"settings": {"steps": 5}})
    with path.open("a") as file:
        file.write('{"kind": "curve", "na')  # a killed command
    assert benchmark.missing_runs(runs, path, {"steps": 5}) == runs[1:]
    benchmark.append_result(path, runs[1], {"settings": {"steps": 5}})
    assert [json.loads(line)["draw"] for line in path.read_text().splitlines()] == [0, 1]
    assert benchmark.missing_runs(runs, path, {"steps": 5}) == runs[2:]


def test_results_of_other_settings_are_refused(tmp_path):
    path = tmp_path / "results.jsonl"
    run = plan.Run(plan.CURVE, "8 systems", 0, ("a", "b"), 5)
    benchmark.append_result(path, run, {"settings": {"steps": 5, "corpus": "one"}})
    with pytest.raises(SystemExit, match="results with other corpus; name another file"):
        benchmark.missing_runs([run], path, {"steps": 5, "corpus": "two"})


# A small training


@pytest.fixture(scope="module")
def inputs(tmp_path_factory):
    """The corpus of vowels with two unseen systems in test, and a table of clips of one page."""
    folder = tmp_path_factory.mktemp("generalisation")
    manifest, front_end = speech_corpus(folder)
    rows = manifest.rows.assign(acoustic_model="pico", vocoder="world", family="HMM")
    dev = rows["split"] == "dev"
    rows.loc[dev, "split"] = "test"
    rows.loc[dev & (rows["system"] != "slow"), "system"] += "-unseen"
    write_manifest(folder / "manifest.parquet", rows, corpus="test", root="audio")
    params = training.read_network_params(REPOSITORY / "params.yaml", seed=0)
    for one in (front_end, training.build_front_end(params, "linear-fbank")):
        write_cache(
            read_manifest(folder / "manifest.parquet"), one, folder / "features",
            shard_utterances=512, max_bad_fraction=0, min_seconds=0.5, max_seconds=60, workers=1,
        )  # fmt: skip
    clips = [
        [f"../audio/test-{system}-{number}.flac", system, "page1", "author"]
        for system in VOICES
        for number in range(4)
    ]
    (folder / "clips").mkdir()
    for name, *_ in clips:
        source = folder / "audio" / Path(name).name.replace("test-", "dev-")
        (folder / "clips" / Path(name).name).write_bytes(source.read_bytes())
    table = pd.DataFrame(clips, columns=["path", "system", "page", "source"])
    table.assign(path=table["path"].map(lambda path: Path(path).name)).to_csv(
        folder / "clips/table.csv", index=False
    )
    inputs = training.Inputs(
        REPOSITORY / "params.yaml", folder / "manifest.parquet", folder / "features", folder / "clips/table.csv",
        folder / "work",
    )  # fmt: skip
    inputs.work.mkdir()
    training.write_clip_features(inputs)
    return inputs


def test_a_run_trains_on_its_systems_and_scores_unseen_systems_and_clips(inputs):
    run = plan.Run(plan.CURVE, "2 systems", 0, ("slow", "fast"), 10, utterances=12)
    measured = training.execute(run, inputs)
    assert measured["trained_on"] == ["fast", "slow"]
    assert (measured["systems"], measured["utterances"], measured["batch"]) == (2, 12, [2, 6])
    assert (measured["test"]["systems"], measured["test"]["utterances"]) == (2, 8)
    assert measured["clips"]["pooled"]["systems"] == measured["clips"]["within_page"]["systems"] == 3
    assert list(inputs.work.glob("curve*")) == []  # the state of the training
    again = training.execute(run, inputs)
    assert {**measured, "cpu_seconds": 0} == {**again, "cpu_seconds": 0}


def test_other_networks_are_trained(inputs):
    """Backbones, filter banks and normalisations give as many results."""
    everything = plan.describe_systems(read_manifest(inputs.corpus).rows)
    runs = list(plan.plan_networks(everything, draws=1, steps=10))
    runs.append(plan.Run(plan.CURVE, "3 systems", 0, tuple(everything.index), 10))
    assert {run.network for run in runs} == {plan.STANDARD_NETWORK, *plan.OTHER_NETWORKS}
    assert len({training.execute(run, inputs)["loss"] for run in runs}) == len(runs)


def test_log_mel_statistics_are_scored_over_all_pairs(inputs):
    measured = training.execute(plan.Run(plan.STATISTICS, plan.STATISTICS, 0, (), 0), inputs)
    params = training.read_network_params(inputs.params, seed=0)
    rows = read_manifest(inputs.corpus).rows
    rows = rows[(rows["split"] == "test") & ~rows["system_seen"]]
    front_end = training.build_front_end(params, "fbank")
    cache = training.FeatureCache.open(inputs.features / "fbank", front_end.parameters())
    statistics = training.log_mel_statistics(cache, cache.find_rows(rows["utterance_id"]))
    vectors = (statistics - statistics.mean(axis=0)) / statistics.std(axis=0)
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    first, second = np.triu_indices(len(rows), 1)
    names = rows["system"].to_numpy()
    is_target = names[first] == names[second]
    scores = (vectors @ vectors.T)[first, second]
    expected = 100 * equal_error_rate(scores[is_target], scores[~is_target])
    assert measured["test"]["eer_micro_percent"] == pytest.approx(expected, abs=0.01)


@pytest.mark.skipif(not RESULTS.exists(), reason="the runs have not been carried out")
def test_tables_in_docs_are_those_of_the_results():
    page = (REPOSITORY / "docs/generalisation.md").read_text(encoding="utf-8")
    tables = report.report_markdown(report.read_results(RESULTS)).split("\n\n")
    assert [table for table in tables if table not in page] == []
