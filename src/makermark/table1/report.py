"""Our figures beside the paper's: Markdown, CSV and a heat map."""

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

from makermark.files import replacing
from makermark.reporting.style import save
from makermark.table1.cells import CORPUS, UTTERANCES, Cell
from makermark.table1.holding import Found

HIGHEST_PERCENT = 20.0  # the colours end here: four cells of the paper are near chance
EXPLANATION = (
    "EER in %, over the cosine of every pair (micro). Several seeds: mean ± standard deviation. Interval: 95 %, by "
    "bootstrap over systems, of test; of several seeds from the lowest end to the highest. Paper: Koutsianos et al. "
    "2025, Table 1, on MLAADv5."
)
ELSEWHERE = (
    "**The paper's columns are another corpus, MLAADv5; ours are corpus `{corpus}`.** The figures cannot be compared, "
    "so no difference is given; what may be compared is which arm does better."
)
OTHER_TRIALS = (
    "**The differences are over other trials than the paper's.** {counts}. Its trials are every pair of the protocol's "
    "rows: `external.dedupe: false`, as in the mlaad presets, and no file left out (rejected.csv, quarantine.csv)."
)


@dataclass(frozen=True)
class Row:
    """One cell of the table and what was found for it, by seed; on a corpus."""

    cell: Cell
    corpus: str
    found: Mapping[int, Found]

    def eer(self, split: str) -> float | None:
        """Mean over the seeds, in percent; None before any has run."""
        return fmean(self._eers(split)) if self.found else None

    def spread(self, split: str) -> float | None:
        """Standard deviation over the seeds, in percent; None for fewer than two."""
        return stdev(self._eers(split)) if len(self.found) > 1 else None

    def difference(self, split: str) -> float | None:
        """Ours less the paper's, in percent points; None on another corpus than the paper's."""
        ours = self.eer(split)
        return None if ours is None or self.corpus != CORPUS else ours - self.theirs(split)

    def theirs(self, split: str) -> float:
        """What the paper gives, in percent."""
        return {"dev": self.cell.dev_eer_percent, "test": self.cell.test_eer_percent}[split]

    def utterances(self, split: str) -> int | None:
        """How many were scored, by the seed with the fewest; None before any has run, or where none says."""
        name = f"{split}.utterances"
        counts = [int(found.metrics[name]) for found in self.found.values() if name in found.metrics]
        return min(counts, default=None)

    @property
    def interval(self) -> tuple[float, float] | None:
        """Of test, in percent, around all seeds; None where no seed has one."""
        ends = [
            tuple(found.metrics[f"test.eer_micro_ci95_percent.{end}"] for end in ("low", "high"))
            for found in self.found.values()
            if "test.eer_micro_ci95_percent.low" in found.metrics
        ]
        return (min(low for low, _ in ends), max(high for _, high in ends)) if ends else None

    @property
    def commits(self) -> list[str]:
        """The commits that the seeds were run from."""
        return list(dict.fromkeys(found.commit for found in self.found.values()))

    def _eers(self, split: str) -> list[float]:
        return [found.metrics[f"{split}.eer_micro_percent"] for found in self.found.values()]


def write_report(folder: Path, rows: Sequence[Row]) -> list[Path]:
    """Write table1.md, table1.csv and table1.png into `folder`; returns their paths."""
    paths = [folder / f"table1.{suffix}" for suffix in ("md", "csv", "png")]
    with replacing(paths[0]) as draft:
        draft.write_text(markdown(rows), encoding="utf-8")
    with replacing(paths[1]) as draft:
        table(rows).to_csv(draft, index=False, float_format="%.4f", lineterminator="\n")
    plot_table1(paths[2], rows)
    return paths


def table(rows: Sequence[Row]) -> pd.DataFrame:
    """One line for each cell, empty where nothing has run; percent and percent points."""
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
            f"paper_{split}_eer_percent": row.theirs(split),
            f"{split}_difference_points": row.difference(split),
        }
    return line | {
        "test_ci95_low_percent": low,
        "test_ci95_high_percent": high,
        "seeds": " ".join(map(str, row.found)),
        "commits": " ".join(row.commits),
    }


def markdown(rows: Sequence[Row]) -> str:
    """The table as Markdown; on another corpus than the paper's, or over other utterances of it, it says so above."""
    corpus, paper = rows[0].corpus, "paper" if rows[0].corpus == CORPUS else "paper, on MLAADv5"
    header = ["backbone", "loss", "sampler", "dim"]
    for split in ("dev", "test"):
        header += [f"{split} EER", paper, "difference"]
    header += ["interval", "seeds", "commit"]
    lines = [header, ["---"] * 3 + ["---:"] * (len(header) - 5) + ["---"] * 2, *map(_cells, rows)]
    told = "\n".join("| " + " | ".join(line) + " |" for line in lines)
    done = sum(bool(row.found) for row in rows)
    above = other_trials(rows) if corpus == CORPUS else [ELSEWHERE.format(corpus=corpus)]
    title = f"# Table 1 on corpus {corpus}: {done} of {len(rows)} cells"
    return "\n\n".join([title, *above, told, EXPLANATION]) + "\n"


def other_trials(rows: Sequence[Row]) -> list[str]:
    """The line that says so where some cell was scored over more or fewer utterances than the paper's."""
    told = []
    for split, theirs in UTTERANCES.items():
        counts = {row.utterances(split) for row in rows} - {None, theirs}
        if counts:
            ours = " or ".join(f"{count:,}" for count in sorted(filter(None, counts)))
            told.append(f"{split} has {ours} utterances here and {theirs:,} there")
    return [OTHER_TRIALS.format(counts="; ".join(told))] if told else []


def _cells(row: Row) -> list[str]:
    cell, interval = row.cell, row.interval
    line = [cell.backbone, cell.loss, cell.sampler, str(cell.dim)]
    for split in ("dev", "test"):
        spread = row.spread(split)
        ours = _number(row.eer(split)) + (f" ± {spread:.2f}" if spread is not None else "")
        line += [ours, f"{row.theirs(split):.2f}", _number(row.difference(split), sign="+")]
    line.append(f"[{interval[0]:.2f}, {interval[1]:.2f}]" if interval else "-")
    return [
        *line,
        " ".join(map(str, row.found)) or "-",
        " ".join(commit[:10] for commit in row.commits) or "-",
    ]


def _number(value: float | None, *, sign: str = "") -> str:
    return "-" if value is None else f"{value:{sign}.2f}"


def plot_table1(path: Path, rows: Sequence[Row]) -> None:
    """Test EER as colours: for each backbone ours on the left, the paper's on the right; grey where nothing has run."""
    backbones = list(dict.fromkeys(row.cell.backbone for row in rows))
    corpus = rows[0].corpus
    tall = [len({(r.cell.loss, r.cell.sampler) for r in rows if r.cell.backbone == b}) for b in backbones]
    figure = Figure(figsize=(9, 1.6 + sum(0.42 * t + 0.7 for t in tall)), layout="constrained")
    panels = figure.subplots(len(backbones), 2, squeeze=False, sharey="row", height_ratios=tall)
    for backbone, (left, right) in zip(backbones, panels, strict=True):
        some = [row for row in rows if row.cell.backbone == backbone]
        drawn = _heat(left, some, [row.eer("test") for row in some])
        _heat(right, some, [row.theirs("test") for row in some])
        left.set_title(f"{backbone}: ours, corpus {corpus}", fontsize=10)
        right.set_title(f"{backbone}: paper, corpus {CORPUS}", fontsize=10)
    figure.colorbar(drawn, ax=list(panels.flat), label="EER on test, %", extend="max", shrink=0.8)
    save(figure, path)


def _heat(axes: Axes, rows: Sequence[Row], eers: Sequence[float | None]) -> AxesImage:
    arms = list(dict.fromkeys(f"{row.cell.loss}, {row.cell.sampler}" for row in rows))
    dims = sorted({row.cell.dim for row in rows})
    heat = np.full((len(arms), len(dims)), np.nan)
    for row, eer in zip(rows, eers, strict=True):
        place = arms.index(f"{row.cell.loss}, {row.cell.sampler}"), dims.index(row.cell.dim)
        if eer is not None:
            heat[place] = eer
            colour = "black" if eer > HIGHEST_PERCENT / 2 else "white"
            axes.text(place[1], place[0], f"{eer:.1f}", ha="center", va="center", color=colour, fontsize=9)
    axes.set_facecolor("#dddddd")
    axes.set_xticks(range(len(dims)), [str(dim) for dim in dims])
    axes.set_yticks(range(len(arms)), arms)
    axes.set_xlabel("dim")
    return axes.imshow(heat, cmap="viridis", vmin=0, vmax=HIGHEST_PERCENT, aspect="auto")
