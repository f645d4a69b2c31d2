"""The contract of a tracker, the tracker that does nothing, and nested figures made flat."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import Any, Protocol, Self

MODEL_TAG = "makermark.model_sha256"


class Tracker(Protocol):
    """One run. As a context manager it closes the run: finished, failed on an error, killed on Ctrl-C."""

    @property
    def run_id(self) -> str | None:
        """What `open_run` takes to go on with this run; None if it is written nowhere."""

    def params(self, values: Mapping[str, Any]) -> None:
        """Record settings, nested or flat; they get dotted names."""

    def metrics(self, values: Mapping[str, float], *, step: int = 0) -> None:
        """Record figures at `step`, the epoch of a training or 0. What stands there already is not repeated."""

    def tags(self, values: Mapping[str, str]) -> None:
        """Record facts; an old value is replaced."""

    def artefact(self, path: Path, folder: str = "") -> None:
        """Copy a file, or what a folder holds, into `folder` of the run."""

    def __enter__(self) -> Self: ...

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None: ...


class NoTracker:
    """A tracker that writes nothing."""

    run_id: str | None = None

    def params(self, values: Mapping[str, Any]) -> None:
        pass

    def metrics(self, values: Mapping[str, float], *, step: int = 0) -> None:
        pass

    def tags(self, values: Mapping[str, str]) -> None:
        pass

    def artefact(self, path: Path, folder: str = "") -> None:
        pass

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        pass


def log_epoch(tracker: Tracker, epoch: Mapping[str, float], *, prefix: str = "") -> None:
    """Record one entry of a training history: `epoch` is the step, the rest are its figures, named PREFIXname."""
    tracker.metrics(
        {f"{prefix}{name}": value for name, value in epoch.items() if name != "epoch"},
        step=int(epoch["epoch"]),
    )


def flatten(params: Mapping[str, Any]) -> dict[str, str | int | float]:
    """Nested settings under dotted names, `losses.ge2e.scale`; lists and None as text, an empty section left out."""
    flat: dict[str, str | int | float] = {}
    for name, value in params.items():
        if isinstance(value, Mapping):
            flat |= {f"{name}.{inner}": found for inner, found in flatten(value).items()}
        else:
            flat[name] = value if isinstance(value, str | int | float) else str(value)
    return flat


def numbers(metrics: Mapping[str, Any]) -> dict[str, float]:
    """The figures of a nested metrics file under dotted names; an interval becomes `.low` and `.high`.

    What is not a number (text, None, a table) is left out.
    """
    flat: dict[str, float] = {}
    for name, value in metrics.items():
        if isinstance(value, list | tuple) and len(value) == 2:
            value = dict(zip(("low", "high"), value, strict=True))
        if isinstance(value, Mapping):
            flat |= {f"{name}.{inner}": found for inner, found in numbers(value).items()}
        elif isinstance(value, int | float) and not isinstance(value, bool):
            flat[name] = float(value)
    return flat
