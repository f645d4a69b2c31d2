"""How a stage or command starts and ends: a log on stderr, one line for a user's error, no traceback.

A stage imports what it runs inside its `main`, so that `--help` and a mistyped argument are answered at once.
"""

from __future__ import annotations

import logging
import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import typer

from makermark.errors import MakermarkError
from makermark.files import explain


def run(main: Callable[..., Any]) -> None:
    """Run `main` as a command whose arguments are its parameters; exits with 1 on a user's error."""
    app = typer.Typer(add_completion=False, pretty_exceptions_enable=False)
    app.command()(main)
    guard(app)


def guard(app: Callable[[], Any]) -> None:
    """Call `app`; what the user can mend is told in one line on stderr with exit status 1."""
    logging.basicConfig(
        level=os.environ.get("MAKERMARK_LOG", "INFO"), format="%(message)s", stream=sys.stderr
    )
    logging.captureWarnings(True)
    try:
        app()
    except MakermarkError as error:
        sys.exit(f"error: {error}")
    except OSError as error:
        if error.filename is None:
            raise
        sys.exit(f"error: {explain(error, Path(str(error.filename)))}")
    except KeyboardInterrupt:
        sys.exit(130)
