"""Progress bars on standard error, drawn only if it is a terminal."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, TypeVar

if TYPE_CHECKING:
    from rich.progress import Progress, TaskID

T = TypeVar("T")


class ProgressBar:
    """A bar that `progress_bar` draws."""

    def __init__(self, progress: Progress, task: TaskID) -> None:
        self._progress, self._task = progress, task

    def advance(self, steps: int = 1) -> None:
        """Move the bar by `steps`."""
        self._progress.advance(self._task, steps)

    def update(self, completed: int, *, total: int | None = None, note: str = "") -> None:
        """Move the bar to `completed` of `total` (None: as before) and show `note` after it."""
        self._progress.update(self._task, completed=completed, total=total, note=note)


@contextmanager
def progress_bar(
    description: str,
    *,
    total: int | None = None,
    show_counts: bool = True,
    hidden: bool = False,
    redirect_stdout: bool = True,
) -> Iterator[ProgressBar]:
    """Draw a bar of `total` steps (None: unknown) until the context ends, with their counts or in percent.

    With `redirect_stdout` the lines that are printed meanwhile appear above the bar, on standard error. Pass False if
    standard output is a file or a pipe that must receive them.
    """
    from rich.console import Console
    from rich.progress import (
        MofNCompleteColumn,
        Progress,
        TaskProgressColumn,
        TextColumn,
        TimeRemainingColumn,
    )

    console = Console(stderr=True)
    counts = MofNCompleteColumn() if show_counts else TaskProgressColumn()
    note = TextColumn("{task.fields[note]}")
    columns = (*Progress.get_default_columns()[:2], counts, TimeRemainingColumn(), note)
    disable = hidden or not console.is_terminal
    with Progress(*columns, console=console, disable=disable, redirect_stdout=redirect_stdout) as progress:
        yield ProgressBar(progress, progress.add_task(description, total=total, note=""))


def track(items: Iterable[T], *, description: str, total: int | None = None) -> Iterator[T]:
    """Yield `items` with a bar that advances after each; `total` is their number where they have no length."""
    if total is None and isinstance(items, Collection):
        total = len(items)
    with progress_bar(description, total=total) as bar:
        for item in items:
            yield item
            bar.advance()
