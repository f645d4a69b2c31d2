"""That the data reach the picture; how it looks is for eyes."""

import itertools

import numpy as np
import pytest
from matplotlib.figure import Figure
from matplotlib.image import imread
from scipy.special import ndtr, ndtri

from makermark import reporting

NAME = "resnet34-ge2e-balanced-50-s0"
SYSTEMS = tuple(f"a long system name {number:02d}" for number in range(34))


@pytest.fixture
def drawn(monkeypatch):
    """The figures that were saved."""
    figures: list[Figure] = []
    savefig = Figure.savefig

    def remember(figure, *arguments, **settings):
        figures.append(figure)
        return savefig(figure, *arguments, **settings)

    monkeypatch.setattr(Figure, "savefig", remember)
    return figures


def history(epochs):
    every = [{"epoch": n, "loss": 3 / n, "learning_rate": 1e-3 / n} for n in range(1, epochs + 1)]
    return [{**e, "dev_eer_percent": 20.0 / e["epoch"]} if e["epoch"] % 5 == 0 else e for e in every]


def draw_det(path):
    threshold = np.linspace(-6, 8, 200)
    curve = (ndtr(-threshold), ndtr(threshold - 2))
    reporting.plot_det(path, {"model": curve, "untrained": curve}, title=NAME)


def draw_histograms(path):
    reporting.plot_histograms(
        path, edges=np.array([-1.0, 0.0, 0.5, 1.0]), targets=np.array([1, 2, 5]),
        nontargets=np.array([6, 3, 1]), threshold=0.25, title=NAME,
    )  # fmt: skip


def draw_training(path):
    reporting.plot_training(path, history(10), title=NAME)


def draw_confusion(path):
    reporting.plot_confusion(path, np.eye(34, dtype=np.int64), SYSTEMS, title=NAME)


def draw_map(path):
    rng = np.random.default_rng(0)
    labels = np.repeat(SYSTEMS, 5)
    places = rng.normal(size=(len(labels), 2)).astype(np.float32)
    reporting.plot_map(path, places, labels, unseen=set(SYSTEMS[20:]), what="system", title=NAME)


@pytest.mark.parametrize("draw", [draw_det, draw_histograms, draw_training, draw_confusion, draw_map])
def test_a_picture_is_written_whole_with_title_and_is_the_same_each_time(draw, tmp_path, drawn):
    draw(tmp_path / "one.png")
    draw(tmp_path / "two.png")
    assert imread(tmp_path / "one.png").std() > 0
    assert (tmp_path / "one.png").read_bytes() == (tmp_path / "two.png").read_bytes()
    assert sorted(file.name for file in tmp_path.iterdir()) == ["one.png", "two.png"]
    assert any(axes.get_title() == NAME for axes in drawn[0].axes)


@pytest.mark.parametrize("draw", [draw_det, draw_histograms, draw_training, draw_confusion])
def test_every_axis_says_what_it_shows(draw, tmp_path, drawn):
    draw(tmp_path / "one.png")
    for axes in drawn[0].axes:
        assert axes.get_ylabel()
    assert any(axes.get_xlabel() for axes in drawn[0].axes)


def test_normal_scores_are_straight_in_a_det_curve_and_cross_at_their_eer(tmp_path, drawn):
    draw_det(tmp_path / "det.png")
    axes = drawn[0].axes[0]
    x, y = next(line for line in axes.lines if line.get_label() == "model").get_data()
    np.testing.assert_allclose((x + y)[50:150], -2, atol=1e-6)  # both classes of unit variance, 2 apart
    labels = {
        tick.get_text(): place for tick, place in zip(axes.get_xticklabels(), axes.get_xticks(), strict=True)
    }
    assert labels["10"] == pytest.approx(ndtri(0.1))


@pytest.mark.parametrize("rates", [np.array([0.0]), np.array([0.0, 1.0])])
def test_a_perfect_det_curve_can_be_drawn(rates, tmp_path):
    reporting.plot_det(tmp_path / "det.png", {"model": (rates, 1 - rates)}, title=NAME)
    assert (tmp_path / "det.png").stat().st_size > 0


def test_histograms_are_densities_whatever_the_widths_of_bins(tmp_path, drawn):
    draw_histograms(tmp_path / "histograms.png")
    _, _, *outlines = sorted(drawn[0].axes[0].patches, key=lambda patch: patch.get_fill(), reverse=True)
    for outline, counts in zip(outlines, ([6, 3, 1], [1, 2, 5]), strict=True):
        values, edges, _ = outline.get_data()
        assert (values * np.diff(edges)).sum() == pytest.approx(1)
        np.testing.assert_allclose(values * np.diff(edges) * sum(counts), counts)


def test_a_set_without_target_trials_can_be_drawn(tmp_path, drawn):
    edges, pairs = np.array([-1.0, 0.0, 1.0]), np.array([2, 4])
    reporting.plot_histograms(
        tmp_path / "x.png",
        edges=edges,
        targets=np.zeros(2, np.int64),
        nontargets=pairs,
        threshold=None,
        title="t",
    )  # a 0 / 0 would be a warning, which is an error here
    heights = [patch.get_data().values for patch in drawn[0].axes[0].patches]
    assert all(np.isfinite(values).all() for values in heights)


def test_training_curves_show_every_epoch_and_name_the_best(tmp_path, drawn):
    draw_training(tmp_path / "training.png")
    loss, eer, rate = drawn[0].axes
    np.testing.assert_allclose(loss.lines[0].get_ydata(), [3 / n for n in range(1, 11)])
    np.testing.assert_allclose(eer.lines[0].get_data(), [[5, 10], [4, 2]])
    assert len(rate.lines[0].get_xdata()) == 10
    assert eer.get_title(loc="right") == "best: 2.00 % after epoch 10"


@pytest.mark.parametrize("epochs", [1, 4])
def test_training_without_an_evaluation_can_be_drawn(epochs, tmp_path):
    reporting.plot_training(tmp_path / "training.png", history(epochs), title=NAME)
    assert (tmp_path / "training.png").stat().st_size > 0


def test_confusion_shares_are_of_the_true_class_and_an_empty_class_is_blank(tmp_path, drawn):
    counts = np.array([[3, 1, 0], [0, 8, 0], [0, 0, 0]])
    reporting.plot_confusion(tmp_path / "confusion.png", counts, ("a", "b", "c"), title=NAME)
    axes = drawn[0].axes[0]
    np.testing.assert_allclose(axes.images[0].get_array(), [[75, 25, 0], [0, 100, 0], [0, 0, 0]])
    written = {(text.get_position()[::-1], text.get_text()) for text in axes.texts}
    assert written == {((0, 0), "75"), ((0, 1), "25"), ((1, 1), "100")}
    assert [tick.get_text() for tick in axes.get_yticklabels()] == ["a", "b", "c"]


def test_no_system_name_is_cut_and_no_two_overlap(tmp_path, drawn):
    draw_confusion(tmp_path / "confusion.png")
    ticks = drawn[0].axes[0].get_yticklabels()
    assert [tick.get_text() for tick in ticks] == list(SYSTEMS)
    boxes = [tick.get_window_extent() for tick in ticks]
    for above, below in itertools.pairwise(boxes):
        assert abs(above.y0 - below.y0) >= 0.9 * above.height


def test_a_map_tells_every_system_apart_and_unseen_ones_are_hollow(tmp_path, drawn):
    draw_map(tmp_path / "map.png")
    clouds = {cloud.get_label(): cloud for cloud in drawn[0].axes[0].collections}
    assert set(clouds) == set(SYSTEMS)
    looks = set()
    for name, cloud in clouds.items():
        hollow = len(cloud.get_facecolor()) == 0
        assert hollow == (name in SYSTEMS[20:])
        colour = cloud.get_edgecolor() if hollow else cloud.get_facecolor()
        looks.add((hollow, tuple(colour[0]), cloud.get_paths()[0].vertices.tobytes()))
    assert len(looks) == len(SYSTEMS)


def test_the_legends_of_a_map_name_every_system_and_do_not_overlap(tmp_path, drawn):
    draw_map(tmp_path / "map.png")
    seen, unseen = drawn[0].legends
    assert [text.get_text() for text in seen.get_texts()] == list(SYSTEMS[:20])
    assert [text.get_text() for text in unseen.get_texts()] == list(SYSTEMS[20:])
    assert seen.get_window_extent().x1 <= unseen.get_window_extent().x0
