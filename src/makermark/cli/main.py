"""The command line `makermark`."""

from __future__ import annotations

import io
import sys
from typing import Annotated, Any

import typer
from typer.core import TyperGroup

from makermark import __version__
from makermark.cli import (
    experiment_commands,
    grid_commands,
    input_commands,
    project_commands,
    serving_commands,
    tracing_commands,
)
from makermark.foundation.entrypoint import run_app

# The groups of `makermark --help`: its commands, in their order. A group of commands, such as `gallery`, counts as one.
PANELS = {
    "Clips": ("trace", "report", "compare", "enroll", "gallery"),
    "Experiments": (
        "check", "download", "features", "train", "embed", "score", "probe", "fuse", "calibrate", "headline",
        "robustness", "foreign", "explain", "results", "evaluate", "baseline", "grid", "table1", "preset", "log-run",
        "ui", "info",
    ),
    "Corpora": ("audit", "convert"),
    "Server": ("serve", "register"),
}  # fmt: skip


class PanelGroup(TyperGroup):
    """The commands in the order and under the headings of PANELS."""

    def list_commands(self, ctx: Any) -> list[str]:
        """Return the names of the commands, those of PANELS first."""
        ordered = [name for names in PANELS.values() for name in names]
        return sorted(
            self.commands, key=lambda name: ordered.index(name) if name in ordered else len(ordered)
        )

    def get_command(self, ctx: Any, cmd_name: str) -> Any:
        """Return a command with the heading of its panel."""
        command = super().get_command(ctx, cmd_name)
        panel = next((panel for panel, names in PANELS.items() if cmd_name in names), None)
        if command is not None and panel is not None:
            command.rich_help_panel = panel  # type: ignore[attr-defined]  # of typer's commands
        return command


app = typer.Typer(
    cls=PanelGroup,
    help="Trace synthetic speech to the TTS system that made it.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
)
for commands in (
    tracing_commands,
    serving_commands,
    project_commands,
    experiment_commands,
    input_commands,
    grid_commands,
):
    app.add_typer(commands.app)


def _print_version(wanted: bool) -> None:
    if wanted:
        print(f"makermark {__version__}")
        raise typer.Exit


@app.callback()
def options(
    version: Annotated[
        bool,
        typer.Option("--version", callback=_print_version, is_eager=True, help="Print the version and exit."),
    ] = False,
) -> None:
    """Trace synthetic speech to the TTS system that made it."""


def main() -> None:
    """Run the command line."""
    if isinstance(sys.stdout, io.TextIOWrapper):  # escape file and system names that the encoding lacks
        sys.stdout.reconfigure(errors="backslashreplace")
    run_app(app)
