"""Plots hold the data they are given. Their look is not tested."""

import itertools

import numpy as np
import pytest
from matplotlib.figure import Figure
from matplotlib.image import imread
from matplotlib.text import Text
from scipy.special import ndtr, ndtri

from makermark.examination.attribution.explanation_study import (
    plot_band_profiles,
    plot_deletion,
    plot_time_profiles,
)
from makermark.foundation import figures
from makermark.foundation.figures import show_text
from makermark.reporting.grid import GridResult, plot_grid
from makermark.reporting.probe_plots import (
    family_styles,
    group_neighbours,
    plot_confusion,
    plot_frechet,
    plot_label_panels,
    plot_system_map,
    plot_training,
)
from makermark.reporting.score_plots import plot_det, plot_detectors, plot_histograms
from makermark.scoring.calibration import reliability_bins
from makermark.scoring.frechet import FrechetTable
from makermark.tracing.evaluation import ReliabilityCurve
from makermark.tracing.plots import plot_reliability, plot_robustness, plot_tippett

NAME = "resnet34-ge2e-balanced-50-s0"
ODD_NAMES = (
    r"$\alpha_{1$", "a$b$c", "x_^y{", "_hidden", "\u8bed\u97f3", "\u65e5\u672c\u8a9e",
    "\u0635\u0648\u062a", "gr\u00f6\u00dfe",
)  # fmt: skip
SYSTEMS = tuple(f"a long system name {number:02d}" for number in range(34))
FAMILIES = {name: f"family {number % 11 * (number % 3 > 0)}" for number, name in enumerate(SYSTEMS)}


@pytest.fixture
def drawn(monkeypatch):
    """Return the list of figures that are saved during a test."""
    figures: list[Figure] = []
    savefig = Figure.savefig

    def record_and_save(figure, *arguments, **settings):
        figures.append(figure)
        return savefig(figure, *arguments, **settings)

    monkeypatch.setattr(Figure, "savefig", record_and_save)
    return figures


def history(epochs):
    epochs_without_eer = [
        {"epoch": n, "loss": 3 / n, "learning_rate": 1e-3 / n} for n in range(1, epochs + 1)
    ]
    return [
        {**e, "dev_eer_percent": 20.0 / e["epoch"]} if e["epoch"] % 5 == 0 else e for e in epochs_without_eer
    ]


def draw_det(path):
    threshold = np.linspace(-6, 8, 200)
    curve = (ndtr(-threshold), ndtr(threshold - 2))
    plot_det(path, {"model": curve, "untrained": curve}, title=NAME)


def draw_histograms(path):
    plot_histograms(
        path, edges=np.array([-1.0, 0.0, 0.5, 1.0]), targets=np.array([1, 2, 5]),
        nontargets=np.array([6, 3, 1]), threshold=0.25, title=NAME,
    )  # fmt: skip


def draw_training(path):
    plot_training(path, history(10), title=NAME)


def draw_confusion(path):
    plot_confusion(path, np.eye(34, dtype=np.int64), SYSTEMS, title=NAME)


def draw_map(path):
    rng = np.random.default_rng(0)
    labels = np.repeat(SYSTEMS, 5)
    points = rng.normal(size=(len(labels), 2)).astype(np.float32)
    families = np.array([FAMILIES[name] for name in labels])
    plot_system_map(path, points, labels, families, unseen=set(SYSTEMS[20:]), title=NAME)


def draw_panels(path):
    rng = np.random.default_rng(0)
    labels = np.repeat(SYSTEMS[:10], 5)
    points = rng.normal(size=(len(labels), 2)).astype(np.float32)
    plot_label_panels(path, points, labels, unseen=set(SYSTEMS[6:]), title=NAME)


@pytest.mark.parametrize(
    "draw", [draw_det, draw_histograms, draw_training, draw_confusion, draw_map, draw_panels]
)
def test_plot_is_written_with_its_title_and_is_reproducible(draw, tmp_path, drawn):
    draw(tmp_path / "one.png")
    draw(tmp_path / "two.png")
    assert imread(tmp_path / "one.png").std() > 0
    assert (tmp_path / "one.png").read_bytes() == (tmp_path / "two.png").read_bytes()
    assert sorted(file.name for file in tmp_path.iterdir()) == ["one.png", "two.png"]
    assert NAME in {text.get_text() for text in drawn[0].findobj(Text)}


@pytest.mark.parametrize("draw", [draw_det, draw_histograms, draw_training, draw_confusion])
def test_every_axis_has_a_label(draw, tmp_path, drawn):
    draw(tmp_path / "one.png")
    for axes in drawn[0].axes:
        assert axes.get_ylabel()
    assert any(axes.get_xlabel() for axes in drawn[0].axes)


def test_det_curve_of_normal_scores_is_straight(tmp_path, drawn):
    draw_det(tmp_path / "det.png")
    axes = drawn[0].axes[0]
    x, y = next(line for line in axes.lines if line.get_label() == "model").get_data()
    np.testing.assert_allclose(
        (x + y)[50:150], -2, atol=1e-6
    )  # two classes of variance 1, with means 2 apart
    labels = {
        tick.get_text(): position
        for tick, position in zip(axes.get_xticklabels(), axes.get_xticks(), strict=True)
    }
    assert labels["10"] == pytest.approx(ndtri(0.1))


@pytest.mark.parametrize("rates", [np.array([0.0]), np.array([0.0, 1.0])])
def test_perfect_det_curve_is_plotted(rates, tmp_path):
    plot_det(tmp_path / "det.png", {"model": (rates, 1 - rates)}, title=NAME)
    assert (tmp_path / "det.png").stat().st_size > 0


def test_histograms_are_densities_for_bins_of_any_width(tmp_path, drawn):
    draw_histograms(tmp_path / "histograms.png")
    _, _, *outlines = sorted(drawn[0].axes[0].patches, key=lambda patch: patch.get_fill(), reverse=True)
    for outline, counts in zip(outlines, ([6, 3, 1], [1, 2, 5]), strict=True):
        values, edges, _ = outline.get_data()
        assert (values * np.diff(edges)).sum() == pytest.approx(1)
        np.testing.assert_allclose(values * np.diff(edges) * sum(counts), counts)


def test_histogram_of_a_set_without_target_trials_is_plotted(tmp_path, drawn):
    edges, pairs = np.array([-1.0, 0.0, 1.0]), np.array([2, 4])
    plot_histograms(
        tmp_path / "x.png",
        edges=edges,
        targets=np.zeros(2, np.int64),
        nontargets=pairs,
        threshold=None,
        title="t",
    )  # 0 / 0 gives a warning, and warnings are errors in tests
    heights = [patch.get_data().values for patch in drawn[0].axes[0].patches]
    assert all(np.isfinite(values).all() for values in heights)


def test_histogram_with_bins_without_width_has_the_density_of_the_others(tmp_path, drawn):
    """Scores of an untrained network are nearly equal, and edges between them are equal in float32."""
    plot_histograms(
        tmp_path / "x.png", edges=np.array([-1.0, 0.5, 0.5, 1.0]), targets=np.array([1, 0, 3]),
        nontargets=np.array([2, 1, 1]), threshold=0.5, title="t",
    )  # fmt: skip
    (figure,) = drawn
    densities = [patch.get_data().values.tolist() for patch in figure.axes[0].patches]
    assert densities[0] == pytest.approx([2 / 4 / 1.5, 0, 1 / 4 / 0.5])
    assert densities[2] == pytest.approx([1 / 4 / 1.5, 0, 3 / 4 / 0.5])


def test_training_plot_shows_every_epoch_and_marks_the_best(tmp_path, drawn):
    draw_training(tmp_path / "training.png")
    loss, eer, rate = drawn[0].axes
    np.testing.assert_allclose(loss.lines[0].get_ydata(), [3 / n for n in range(1, 11)])
    np.testing.assert_allclose(eer.lines[0].get_data(), [[5, 10], [4, 2]])
    assert len(rate.lines[0].get_xdata()) == 10
    assert eer.get_title(loc="right") == "best: 2.00 % after epoch 10"


@pytest.mark.parametrize("epochs", [1, 4])
def test_training_plot_without_dev_eer_is_written(epochs, tmp_path):
    plot_training(tmp_path / "training.png", history(epochs), title=NAME)
    assert (tmp_path / "training.png").stat().st_size > 0


def test_confusion_plot_shows_percentages_of_the_true_class(tmp_path, drawn):
    counts = np.array([[3, 1, 0], [0, 8, 0], [0, 0, 0]])
    plot_confusion(tmp_path / "confusion.png", counts, ("a", "b", "c"), title=NAME)
    axes = drawn[0].axes[0]
    np.testing.assert_allclose(axes.images[0].get_array(), [[75, 25, 0], [0, 100, 0], [0, 0, 0]])
    written = {(text.get_position()[::-1], text.get_text()) for text in axes.texts}
    assert written == {((0, 0), "75"), ((0, 1), "25"), ((1, 1), "100")}
    assert [tick.get_text() for tick in axes.get_yticklabels()] == ["a", "b", "c"]


def test_confusion_plot_has_all_system_names_without_overlap(tmp_path, drawn):
    draw_confusion(tmp_path / "confusion.png")
    ticks = drawn[0].axes[0].get_yticklabels()
    assert [tick.get_text() for tick in ticks] == list(SYSTEMS)
    boxes = [tick.get_window_extent() for tick in ticks]
    for above, below in itertools.pairwise(boxes):
        assert abs(above.y0 - below.y0) >= 0.9 * above.height


def test_system_map_has_the_colour_of_the_family_and_hollow_unseen_markers(tmp_path, drawn):
    draw_map(tmp_path / "map.png")
    clouds = {cloud.get_label(): cloud for cloud in drawn[0].axes[0].collections}
    assert set(clouds) == set(SYSTEMS)
    styles = {}
    for name, cloud in clouds.items():
        hollow = len(cloud.get_facecolor()) == 0
        assert hollow == (name in SYSTEMS[20:])
        colour = cloud.get_edgecolor() if hollow else cloud.get_facecolor()
        style = (tuple(colour[0]), cloud.get_paths()[0].vertices.tobytes())
        assert styles.setdefault(FAMILIES[name], style) == style


def test_system_map_names_every_system_once_without_overlap_and_inside_the_axes(tmp_path, drawn):
    draw_map(tmp_path / "map.png")
    axes = drawn[0].axes[0]
    drawn[0].draw_without_rendering()  # at the resolution of the figure again
    labels = [text for text in axes.texts if text.get_text()]
    assert sorted(text.get_text() for text in labels) == sorted(SYSTEMS)
    boxes = [Text.get_window_extent(text) for text in labels]  # without the arrows
    for one, two in itertools.combinations(boxes, 2):
        assert not (one.x0 < two.x1 and two.x0 < one.x1 and one.y0 < two.y1 and two.y0 < one.y1)
    frame = axes.get_window_extent()
    for box in boxes:
        assert frame.x0 <= box.x0 < box.x1 <= frame.x1
        assert frame.y0 <= box.y0 < box.y1 <= frame.y1


def test_neighbours_share_a_label_on_a_map_of_many_systems(tmp_path, drawn):
    rng = np.random.default_rng(0)
    names = np.array(
        [f"{place}{'+' * bool(n)}{n or ''}" for place in ("far", "near", "top") for n in range(15)]
    )
    corners = np.repeat([[0.0, 0.0], [100.0, 0.0], [0.0, 100.0]], 15, axis=0)
    points = (corners + rng.uniform(-2, 2, size=corners.shape)).astype(np.float32)
    plot_system_map(tmp_path / "m.png", points, names, names, unseen=(), title="t")
    few = points[:40]
    plot_system_map(tmp_path / "few.png", few, names[:40], names[:40], unseen=(), title="t")
    many_labels, few_labels = (
        [text.get_text() for text in f.axes[0].texts if text.get_text()] for f in drawn
    )
    assert sorted(many_labels) == ["far and 14 more", "near and 14 more", "top and 14 more"]
    assert sorted(few_labels) == sorted(names[:40])
    assert len(drawn[0].axes[0].collections) == 45


def test_no_two_systems_of_a_label_are_further_apart_than_allowed():
    line = np.array([[n, 0.0] for n in range(6)], dtype=np.float32)
    groups = group_neighbours(line, max_distance=1.5)
    assert sorted(number for group in groups for number in group) == list(range(6))
    assert max(np.ptp(line[group, 0]) for group in groups) == 1


def test_labels_are_beside_their_own_points(tmp_path, drawn):
    """Three points far apart: each label is nearer to its point than to the others."""
    points = np.array([[0.0, 0.0], [10.0, 0.0], [0.0, 10.0]], dtype=np.float32)
    plot_system_map(
        tmp_path / "m.png", points, np.array(["a", "b", "c"]), np.array(["f"] * 3), unseen=(), title="t"
    )
    axes = drawn[0].axes[0]
    drawn[0].draw_without_rendering()
    pixels = axes.transData.transform(points)
    labels = [text for text in axes.texts if text.get_text()]
    for number, label in enumerate(labels):
        box = Text.get_window_extent(label)
        middle = np.array([(box.x0 + box.x1) / 2, (box.y0 + box.y1) / 2])
        assert np.linalg.norm(pixels - middle, axis=1).argmin() == number


def test_frequent_families_have_colours_and_the_others_are_grey():
    families = np.repeat([f"f{number}" for number in range(10)], range(1, 11))
    styles = family_styles(families)
    assert list(styles)[:2] == ["f9", "f8"]
    assert [style.colour for style in styles.values()] == [*figures.COLOURS, *["#999999"] * 3]
    assert len({style.marker for style in list(styles.values())[:8]}) == 8


def test_label_panels_mark_the_points_of_one_label_each(tmp_path, drawn):
    draw_panels(tmp_path / "panels.png")
    panels = drawn[0].axes
    titles = [axes.get_title() for axes in panels]
    assert titles == [f"{n}, {'seen' if n in SYSTEMS[:6] else 'unseen'} (5)" for n in SYSTEMS[:10]]
    for axes in panels:
        grey, own = axes.collections
        assert (len(grey.get_offsets()), len(own.get_offsets())) == (45, 5)


def test_profile_plot_is_in_the_order_of_the_shares_beside_it(tmp_path, drawn):
    profiles = np.arange(24.0).reshape(3, 8)
    plot_time_profiles(tmp_path / "t.png", ["a", "b", "c"], profiles, np.array([5.0, 30.0, 10.0]), title=NAME)
    heat, bars, *_ = drawn[0].axes
    assert [label.get_text() for label in heat.get_yticklabels()] == ["b", "c", "a"]
    np.testing.assert_array_equal(heat.images[0].get_array(), profiles[[1, 2, 0]])
    assert [bar.get_width() for bar in bars.patches] == [30, 10, 5]
    assert {"30", "10", "5", "even: 20"} <= {text.get_text().strip() for text in bars.texts}


def test_profile_plot_of_many_systems_has_the_highest_and_the_lowest_shares(tmp_path, drawn):
    shares = np.random.default_rng(0).permutation(30.0 * np.arange(30) / 30)
    names = [f"{share:g}" for share in shares]
    plot_time_profiles(tmp_path / "t.png", names, np.ones((30, 8)), shares, title="Times")
    heat, bars, *_ = drawn[0].axes
    expected = [*range(29, 17, -1), *range(11, -1, -1)]
    assert [label.get_text() for label in heat.get_yticklabels()] == [str(share) for share in expected]
    assert [bar.get_width() for bar in bars.patches] == expected
    assert drawn[0].get_suptitle() == "Times: the 12 highest and the 12 lowest of 30"


@pytest.mark.parametrize("number", [1, 2, 3])
def test_titles_of_the_deletion_plot_do_not_overlap(number, tmp_path, drawn):
    curves = {f"method {n}": (np.linspace(0, 0.5, 4), {"a": np.linspace(1, 0, 4)}) for n in range(number)}
    plot_deletion(
        tmp_path / "d.png", curves, title="Fall of the cosine: highest attributions deleted, and controls"
    )
    figure = drawn[0]
    figure.canvas.draw()
    top = max(axes.title.get_window_extent().y1 for axes in figure.axes)
    assert figure._suptitle.get_window_extent().y0 > top


@pytest.mark.parametrize(("spacing", "shown"), [(np.geomspace, 7), (np.linspace, 6)])
def test_band_plot_leaves_out_ticks_that_would_overlap(spacing, shown, tmp_path, drawn):
    bands_hz = spacing(50.0, 8000.0, 80)
    plot_band_profiles(
        tmp_path / "b.png", ["a"], np.ones((1, 80)), np.array([5.0]), bands_hz=bands_hz, title="Bands"
    )
    heat = drawn[0].axes[0]
    labels = [label.get_text() for label in heat.get_xticklabels()]
    assert labels == ["0.3", "0.5", "1", "2", "3", "4", "6"][-shown:]
    drawn[0].canvas.draw()
    boxes = [label.get_window_extent() for label in heat.get_xticklabels()]
    assert all(left.x1 < right.x0 for left, right in itertools.pairwise(boxes))


def test_reliability_plot_has_the_counts_of_all_bins(tmp_path, drawn):
    probabilities = np.array([0.05, 0.55, 0.55, 0.58, 0.95])
    bins = reliability_bins(probabilities, np.array([False, True, True, False, True]))
    intervals = np.array([[np.nan, np.nan], [40.0, 90.0], [np.nan, np.nan]])
    plot_reliability(tmp_path / "r.png", {"4 s": ReliabilityCurve(bins, intervals)}, title=NAME)
    upper, lower = drawn[0].axes
    assert upper.get_title() == "4 s: 5 clips"
    assert [text.get_text() for text in lower.texts] == ["1", "3", "1", "right", "wrong"]
    assert [bar.get_height() for bar in lower.patches] == [0, 2, 1, 1, 1, 0]
    hollow = [line for line in upper.lines if line.get_markerfacecolor() == "white"]
    np.testing.assert_allclose(hollow[0].get_xdata(), [5, 95])


@pytest.mark.parametrize(
    "draw",
    [
        "confusion",
        "map",
        "panels",
        "frechet",
        "training",
        "det",
        "histograms",
        "detectors",
        "bands",
        "times",
        "deletion",
        "reliability",
        "robustness",
        "tippett",
        "grid",
    ],
)
def test_names_of_users_are_drawn_as_they_are_in_every_plot(draw, tmp_path, drawn, recwarn):
    one, two = ODD_NAMES[:2]
    file, rng = tmp_path / "plot.png", np.random.default_rng(0)
    number = len(ODD_NAMES)
    if draw == "confusion":
        plot_confusion(file, np.eye(number, dtype=np.int64), ODD_NAMES, title=one)
    elif draw == "map":
        points = rng.normal(size=(number, 2)).astype(np.float32)
        names = np.array(ODD_NAMES)
        plot_system_map(file, points, names, names, unseen={two}, title=one)
    elif draw == "panels":
        points = rng.normal(size=(number, 2)).astype(np.float32)
        plot_label_panels(file, points, np.array(ODD_NAMES), unseen={two}, title=one)
    elif draw == "frechet":
        table = FrechetTable(list(ODD_NAMES), [5] * number, np.ones((number, number)), [None] * number)
        plot_frechet(file, table, title=one)
    elif draw == "training":
        plot_training(file, history(10), title=one)
    elif draw == "det":
        threshold = np.linspace(-6, 8, 200)
        plot_det(file, dict.fromkeys(ODD_NAMES, (ndtr(-threshold), ndtr(threshold - 2))), title=one)
    elif draw == "histograms":
        plot_histograms(
            file, edges=np.array([-1.0, 0.0, 1.0]), targets=np.array([1, 2]), nontargets=np.array([2, 1]),
            threshold=None, title=one,
        )  # fmt: skip
    elif draw == "detectors":
        plot_detectors(
            file, dict.fromkeys(ODD_NAMES, (rng.normal(size=9), rng.normal(size=9))), chosen=two, title=one
        )
    elif draw == "bands":
        profiles, bands_hz = rng.normal(size=(number, 8)), np.linspace(100, 7000, 8)
        plot_band_profiles(file, ODD_NAMES, profiles, rng.uniform(size=number), bands_hz=bands_hz, title=one)
    elif draw == "times":
        plot_time_profiles(file, ODD_NAMES, rng.normal(size=(number, 8)), rng.uniform(size=number), title=one)
    elif draw == "deletion":
        cosines = {name: rng.uniform(size=4) for name in ODD_NAMES}
        plot_deletion(file, {"m": (np.linspace(0, 0.5, 4), cosines)}, title=one)
    elif draw == "reliability":
        probabilities = rng.uniform(size=50)
        bins = reliability_bins(probabilities, rng.uniform(size=50) < probabilities)
        curve = ReliabilityCurve(bins, np.full((len(bins.trials), 2), np.nan))
        plot_reliability(file, dict.fromkeys(ODD_NAMES, curve), title=one)
    elif draw == "robustness":
        row = {
            "identification_percent": 50.0,
            "cllr": 0.5,
            "identification_percent_ci95": None,
            "cllr_ci95": None,
        }
        rows = {name: row | {"group": name} for name in ("clean", *ODD_NAMES)}
        plot_robustness(file, {"conditions": rows}, title=one)
    elif draw == "tippett":
        plot_tippett(file, rng.normal(size=9), np.arange(9) < 4, title=one)
    else:
        score = {"test": {"eer_micro_ci95_percent": None, "eer_micro_percent": 1.0}}
        plot_grid(file, [GridResult(name, score, None) for name in ODD_NAMES])
    assert not [str(warning.message) for warning in recwarn if "Glyph" in str(warning.message)]
    texts = {text.get_text() for text in drawn[-1].findobj(Text)}
    assert one in texts
    if draw in ("panels", "reliability"):  # names with a count
        contents = "\n".join(texts)
        assert all(show_text(name) in contents for name in ODD_NAMES)
    elif draw == "detectors":
        assert texts >= {show_text(name) for name in ODD_NAMES if name != two} | {f"{two} (chosen on dev)"}
    elif draw not in ("training", "histograms", "tippett"):  # which have no names of users
        assert texts >= {show_text(name) for name in ODD_NAMES}


def test_character_without_a_font_is_drawn_as_its_code_and_said(tmp_path, monkeypatch, caplog, drawn):
    monkeypatch.setattr(figures, "_font_of", lambda character: None)
    plot_confusion(tmp_path / "c.png", np.eye(2, dtype=np.int64), ("\u8bed\u97f3", "b"), title=NAME)
    labels = [label.get_text() for label in drawn[-1].axes[0].get_yticklabels()]
    assert labels == [r"\u8bed\u97f3", "b"]
    assert "'\u8bed\u97f3'" in caplog.text


def test_character_that_only_another_font_has_is_drawn_in_that_font(tmp_path, drawn):
    character = next(
        (chr(code) for font in figures._installed_fonts() for code in sorted(figures._characters(font.fname))
         if code not in figures._characters(figures._default_font()) and chr(code).isalpha()), None,
    )  # fmt: skip
    if character is None:
        pytest.skip("every installed character is in the default font")
    plot_training(tmp_path / "t.png", history(3), title=character)
    (title,) = (text for text in drawn[-1].findobj(Text) if text.get_text() == character)
    assert figures._font_of(character) in title.get_fontfamily()
