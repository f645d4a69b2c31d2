"""The entry point of stages and commands: logging to stderr, and one line instead of a traceback for a user's error.

A stage imports its modules inside `main`, so that `--help` and invalid arguments are answered at once.
"""

from __future__ import annotations

import logging
import os
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import typer

from makermark.foundation.errors import MakermarkError, OptionFormats
from makermark.foundation.files import describe_os_error


def run_stage(main: Callable[..., Any]) -> None:
    """Run `main` as a command whose arguments are the parameters of `main`."""
    app = typer.Typer(add_completion=False, pretty_exceptions_enable=False)
    app.command()(main)
    run_app(app)


def run_app(app: Callable[[], Any]) -> None:
    """Call `app`. A MakermarkError or OSError prints one line on stderr and exits with status 1."""
    logging.basicConfig(
        level=os.environ.get("MAKERMARK_LOG", "INFO"), format="%(message)s", stream=sys.stderr
    )
    logging.captureWarnings(True)
    try:
        try:
            app()
        finally:
            if sys.stdout is not None:  # closed by the caller
                sys.stdout.flush()  # here, not at the exit of Python, where an error has no message
    except MakermarkError as error:
        sys.exit(f"error: {error}")
    except OSError as error:
        if error.filename is None and error.errno is None:
            raise
        if error.filename is None:  # a file that is open already; mostly standard output
            _discard_stdout()
            sys.exit(f"error: {describe_os_error(error, Path('standard output or an open file'))}")
        sys.exit(f"error: {describe_os_error(error, Path(os.fsdecode(error.filename)))}")
    except KeyboardInterrupt:
        sys.exit(130)


def _discard_stdout() -> None:
    """Direct standard output to nowhere, so that Python does not try to write the rest of it again."""
    if sys.stdout is not None:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


@contextmanager
def settings_as_options(options: OptionFormats) -> Iterator[None]:
    """Replace the settings of params.yaml in the errors raised inside by the options of a command."""
    try:
        yield
    except MakermarkError as error:
        raise type(error)(error.describe(options)) from error
