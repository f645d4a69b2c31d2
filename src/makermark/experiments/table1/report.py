"""The reproduced table: our figures beside those of the paper, as Markdown, CSV and a heat map."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean, stdev

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.image import AxesImage

from makermark.experiments.table1.paper_table import CORPUS, UTTERANCES, Cell
from makermark.experiments.table1.runs import RunResult
from makermark.foundation.figures import save_figure
from makermark.foundation.files import atomic_write

MAX_COLOUR_PERCENT = 20.0  # upper end of the colour scale: four cells of the paper are near chance
EXPLANATION = (
    "EER in %, over the cosine of every pair (micro). Several seeds: mean ± standard deviation. Interval: 95 % "
    "confidence interval of the test EER by bootstrap over systems; for several seeds, from the lowest to the highest "
    "end. Paper: Koutsianos et al. 2025, Table 1, on MLAADv5."
)
OTHER_CORPUS = (
    "**The paper's columns are for another corpus, MLAADv5; ours are for corpus `{corpus}`.** The figures cannot be "
    "compared, so no difference is given; only the order of the arms can be compared."
)
OTHER_TRIALS = (
    "**The differences are over other trials than the paper's.** {counts}. The paper's trials are all pairs of the "
    "protocol's rows: `external.dedupe: false`, as in the mlaad presets, and no file left out (rejected.csv, "
    "quarantine.csv)."
)


@dataclass(frozen=True)
class Row:
    """A cell of the table, and its results by seed on a corpus."""

    cell: Cell
    corpus: str
    results: Mapping[int, RunResult]

    def eer(self, split: str) -> float | None:
        """Return the mean EER over the seeds in percent; None without results."""
        return fmean(self._eers(split)) if self.results else None

    def spread(self, split: str) -> float | None:
        """Return the standard deviation over the seeds in percent; None for fewer than two."""
        return stdev(self._eers(split)) if len(self.results) > 1 else None

    def difference(self, split: str) -> float | None:
        """Return our EER minus the paper's in percent points; None on another corpus than the paper's."""
        ours = self.eer(split)
        return None if ours is None or self.corpus != CORPUS else ours - self.paper_eer(split)

    def paper_eer(self, split: str) -> float:
        """Return the EER of the paper in percent."""
        return {"dev": self.cell.dev_eer_percent, "test": self.cell.test_eer_percent}[split]

    def utterances(self, split: str) -> int | None:
        """Return the number of scored utterances, of the seed with the fewest; None if no result has it."""
        name = f"{split}.utterances"
        counts = [int(r.metrics[name]) for r in self.results.values() if name in r.metrics]
        return min(counts, default=None)

    @property
    def interval(self) -> tuple[float, float] | None:
        """The confidence interval of the test EER in percent, around all seeds; None if no seed has one."""
        ends = [
            tuple(result.metrics[f"test.eer_micro_ci95_percent.{end}"] for end in ("low", "high"))
            for result in self.results.values()
            if "test.eer_micro_ci95_percent.low" in result.metrics
        ]
        return (min(low for low, _ in ends), max(high for _, high in ends)) if ends else None

    @property
    def commits(self) -> list[str]:
        """The commits that the seeds were started from."""
        return list(dict.fromkeys(result.commit for result in self.results.values()))

    def _eers(self, split: str) -> list[float]:
        return [result.metrics[f"{split}.eer_micro_percent"] for result in self.results.values()]


def write_report(folder: Path, rows: Sequence[Row]) -> list[Path]:
    """Write table1.md, table1.csv and table1.png into `folder`; return their paths."""
    paths = [folder / f"table1.{suffix}" for suffix in ("md", "csv", "png")]
    with atomic_write(paths[0]) as draft:
        draft.write_text(markdown(rows), encoding="utf-8")
    with atomic_write(paths[1]) as draft:
        table(rows).to_csv(draft, index=False, float_format="%.4f", lineterminator="\n")
    plot_table1(paths[2], rows)
    return paths


def table(rows: Sequence[Row]) -> pd.DataFrame:
    """Return one line per cell, in percent and percent points; empty values without results."""
    lines = pd.DataFrame([_line(row) for row in rows])
    return lines.astype(dict.fromkeys(("dev_utterances", "test_utterances"), "Int64"))


def _line(row: Row) -> dict[str, object]:
    cell, (low, high) = row.cell, row.interval or (None, None)
    line: dict[str, object] = {
        "backbone": cell.backbone,
        "loss": cell.loss,
        "sampler": cell.sampler,
        "dim": cell.dim,
        "corpus": row.corpus,
        "paper_corpus": CORPUS,
    }
    for split in ("dev", "test"):
        line |= {
            f"{split}_utterances": row.utterances(split),
            f"{split}_eer_percent": row.eer(split),
            f"{split}_sd_percent": row.spread(split),
            f"paper_{split}_eer_percent": row.paper_eer(split),
            f"{split}_difference_points": row.difference(split),
        }
    return line | {
        "test_ci95_low_percent": low,
        "test_ci95_high_percent": high,
        "seeds": " ".join(map(str, row.results)),
        "commits": " ".join(row.commits),
    }


def markdown(rows: Sequence[Row]) -> str:
    """Return the table as Markdown, with a note above it if the corpus or the utterances are not the paper's."""
    corpus, paper = rows[0].corpus, "paper" if rows[0].corpus == CORPUS else "paper, on MLAADv5"
    header = ["backbone", "loss", "sampler", "dim"]
    for split in ("dev", "test"):
        header += [f"{split} EER", paper, "difference"]
    header += ["interval", "seeds", "commit"]
    lines = [header, ["---"] * 3 + ["---:"] * (len(header) - 5) + ["---"] * 2, *map(_cells, rows)]
    body = "\n".join("| " + " | ".join(line) + " |" for line in lines)
    finished = sum(bool(row.results) for row in rows)
    notes = note_other_trials(rows) if corpus == CORPUS else [OTHER_CORPUS.format(corpus=corpus)]
    title = f"# Table 1 on corpus {corpus}: {finished} of {len(rows)} cells"
    return "\n\n".join([title, *notes, body, EXPLANATION]) + "\n"


def note_other_trials(rows: Sequence[Row]) -> list[str]:
    """Return a note if a cell was scored on more or fewer utterances than in the paper."""
    differences = []
    for split, expected in UTTERANCES.items():
        counts = {row.utterances(split) for row in rows} - {None, expected}
        if counts:
            ours = " or ".join(f"{count:,}" for count in sorted(filter(None, counts)))
            differences.append(f"{split} has {ours} utterances, {expected:,} in the paper")
    return [OTHER_TRIALS.format(counts="; ".join(differences))] if differences else []


def _cells(row: Row) -> list[str]:
    cell, interval = row.cell, row.interval
    line = [cell.backbone, cell.loss, cell.sampler, str(cell.dim)]
    for split in ("dev", "test"):
        spread = row.spread(split)
        ours = _number(row.eer(split)) + (f" ± {spread:.2f}" if spread is not None else "")
        line += [ours, f"{row.paper_eer(split):.2f}", _number(row.difference(split), sign="+")]
    line.append(f"[{interval[0]:.2f}, {interval[1]:.2f}]" if interval else "-")
    return [
        *line,
        " ".join(map(str, row.results)) or "-",
        " ".join(commit[:10] for commit in row.commits) or "-",
    ]


def _number(value: float | None, *, sign: str = "") -> str:
    return "-" if value is None else f"{value:{sign}.2f}"


def plot_table1(path: Path, rows: Sequence[Row]) -> None:
    """Plot the test EER as colours, for each backbone ours left and the paper's right; grey without results."""
    backbones = list(dict.fromkeys(row.cell.backbone for row in rows))
    corpus = rows[0].corpus
    heights = [len({(r.cell.loss, r.cell.sampler) for r in rows if r.cell.backbone == b}) for b in backbones]
    figure = Figure(figsize=(9, 1.6 + sum(0.42 * height + 0.7 for height in heights)), layout="constrained")
    panels = figure.subplots(len(backbones), 2, squeeze=False, sharey="row", height_ratios=heights)
    for backbone, (left, right) in zip(backbones, panels, strict=True):
        backbone_rows = [row for row in rows if row.cell.backbone == backbone]
        image = _heat(left, backbone_rows, [row.eer("test") for row in backbone_rows])
        _heat(right, backbone_rows, [row.paper_eer("test") for row in backbone_rows])
        left.set_title(f"{backbone}: ours, corpus {corpus}", fontsize=10)
        right.set_title(f"{backbone}: paper, corpus {CORPUS}", fontsize=10)
    figure.colorbar(image, ax=list(panels.flat), label="EER on test, %", extend="max", shrink=0.8)
    save_figure(figure, path)


def _heat(axes: Axes, rows: Sequence[Row], eers: Sequence[float | None]) -> AxesImage:
    arms = list(dict.fromkeys(f"{row.cell.loss}, {row.cell.sampler}" for row in rows))
    dims = sorted({row.cell.dim for row in rows})
    heat = np.full((len(arms), len(dims)), np.nan)
    for row, eer in zip(rows, eers, strict=True):
        y, x = arms.index(f"{row.cell.loss}, {row.cell.sampler}"), dims.index(row.cell.dim)
        if eer is not None:
            heat[y, x] = eer
            colour = "black" if eer > MAX_COLOUR_PERCENT / 2 else "white"
            axes.text(x, y, f"{eer:.1f}", ha="center", va="center", color=colour, fontsize=9)
    axes.set_facecolor("#dddddd")
    axes.set_xticks(range(len(dims)), [str(dim) for dim in dims])
    axes.set_yticks(range(len(arms)), arms)
    axes.set_xlabel("dim")
    return axes.imshow(heat, cmap="viridis", vmin=0, vmax=MAX_COLOUR_PERCENT, aspect="auto")
