"""The commands about many experiments: grid and table1."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

import typer

from makermark.foundation.errors import FilesError, ParamsError

app = typer.Typer()
grids = typer.Typer(help="Grids of experiments, through the queue of DVC.", no_args_is_help=True)
app.add_typer(grids, name="grid")


@grids.command("queue")
def queue_grid(
    grid: Annotated[Path, typer.Argument(help="YAML file of the grid, such as grids/local.yaml.")],
) -> None:
    """Queue the experiments of a grid that have not run; `dvc exp run --run-all` runs them."""
    from makermark.experiments.grid import queue_experiments, read_grid

    names = queue_experiments(read_grid(grid), Path.cwd())
    print("\n".join([*names, f"{len(names)} queued; dvc exp run --run-all runs them"]))


@grids.command("table")
def table_of_grid(
    grid: Annotated[Path, typer.Argument(help="YAML file of the grid, such as grids/local.yaml.")],
    table: Annotated[Path, typer.Argument(help="Markdown file to write, such as docs/grid.md.")],
    picture: Annotated[Path, typer.Argument(help="PNG file to write, such as docs/images/grid.png.")],
) -> None:
    """Write table and plot of the results of a grid; the table goes between <!-- table --> markers if there are any."""
    from makermark.experiments.grid import collect_outcomes, read_grid
    from makermark.foundation.files import atomic_write
    from makermark.reporting.grid import GridResult, baseline_results, grid_markdown, insert_table, plot_grid

    experiments = read_grid(grid)
    outcomes = collect_outcomes(experiments, Path.cwd())
    if not outcomes:
        raise FilesError(
            f"{grid}: none of its {len(experiments)} experiments has run; queue and run them first"
        )
    results = [GridResult(o.experiment.arm, o.score, o.train_seconds) for o in outcomes]
    untaught = baseline_results([o.score for o in outcomes])
    commits = ", ".join(sorted({o.commit[:8] for o in outcomes}))
    before = table.read_text(encoding="utf-8") if table.exists() else ""
    with atomic_write(table) as draft:
        text = f"{grid_markdown([*results, *untaught])}\nMade by {grid} at commit {commits}.\n"
        draft.write_text(insert_table(text, before), encoding="utf-8")
    plot_grid(picture, [*results, *untaught])
    print(f"{len(outcomes)} of {len(experiments)} experiments: {table}, {picture}")


@app.command()
def table1(
    only: Annotated[
        str, typer.Option(help="Backbones, such as resnet34,wav2vec2-aasist. Default: all.")
    ] = "",
    losses: Annotated[str, typer.Option(help="Losses, such as aamsoftmax,ge2e. Default: all.")] = "",
    samplers: Annotated[str, typer.Option(help="Samplers: random,balanced. Default: all.")] = "",
    dims: Annotated[str, typer.Option(help="Embedding sizes, such as 50,200. Default: all.")] = "",
    seeds: Annotated[str, typer.Option(help="Seeds, such as 0,1,2.")] = "0",
    paper_settings: Annotated[
        bool, typer.Option(help="Use schedule, batch size and margins of the preset of each backbone.")
    ] = False,
    queue: Annotated[
        bool, typer.Option(help="Queue the experiments that have not run, or only write the report.")
    ] = True,
    reports: Annotated[Path, typer.Option(help="Folder for table1.md, table1.csv and table1.png.")] = Path(
        "reports"
    ),
) -> None:
    """Queue the experiments of Table 1 of the paper, and report results beside the published figures.

    Run it again after `dvc exp run --run-all`, also after an interruption: experiments that have run with the same
    code, data and params are reported and not queued again.
    """
    from makermark.experiments.grid import queue_experiments
    from makermark.experiments.table1.paper_table import read_paper_table, select_cells
    from makermark.experiments.table1.report import Row, write_report
    from makermark.experiments.table1.runs import check_reproducible, find_results, plan_experiments
    from makermark.foundation.params import read_params

    here = Path.cwd()
    corpus = read_params(here / "params.yaml").corpus
    cells = select_cells(
        read_paper_table(),
        backbones=_split_list(only),
        losses=_split_list(losses),
        samplers=_split_list(samplers),
        dims=_parse_numbers(dims),
    )
    planned = plan_experiments(here, cells, _parse_numbers(seeds), as_in_paper=paper_settings)
    results, problem = find_results(here, planned)
    missing = [plan.experiment for plan in planned if plan.experiment.name not in results]
    by_cell = {cell: [plan.experiment for plan in planned if plan.cell == cell] for cell in cells}
    rows = [
        Row(cell, corpus, {e.seed: results[e.name] for e in experiments if e.name in results})
        for cell, experiments in by_cell.items()
    ]
    written = write_report(reports, rows)
    print(f"{len(results)} of {len(planned)} have run: {', '.join(map(str, written))}")
    if problem:
        print(f"without the MLflow store: {problem}", file=sys.stderr)
    if queue and missing:
        check_reproducible(here, planned)
        names = queue_experiments(missing, here)
        already = len(missing) - len(names)
        print("\n".join([*names, f"{len(names)} queued, {already} already; dvc exp run --run-all runs them"]))


def _split_list(text: str) -> list[str]:
    return [part.strip() for part in text.split(",") if part.strip()]


def _parse_numbers(text: str) -> list[int]:
    try:
        return [int(part) for part in _split_list(text)]
    except ValueError as error:
        raise ParamsError(f"{text!r}: give whole numbers with commas between, such as 0,1,2") from error
