"""Refuse params.yaml at once if no later stage could carry it out."""

from pathlib import Path

from makermark import door
from makermark.experiment import check
from makermark.params import read_params


def main(params: Path = Path("params.yaml")) -> None:
    """Check that the names, settings and combinations in PARAMS exist and go together."""
    check(read_params(params))


if __name__ == "__main__":
    door.run(main)
