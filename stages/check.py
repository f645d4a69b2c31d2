"""Refuse params.yaml at once if no later stage could carry it out."""

from pathlib import Path

from makermark import door


def main(params: Path = Path("params.yaml")) -> None:
    """Check that the names, settings and combinations in PARAMS exist and go together."""
    from makermark.experiment import check, check_speech
    from makermark.params import read_params

    p = read_params(params)
    check(p)
    check_speech(p)


if __name__ == "__main__":
    door.run(main)
