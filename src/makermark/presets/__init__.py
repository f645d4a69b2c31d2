"""Whole params.yaml files by name: `local` as it stands in the repository, the others as what they change in it.

local.yaml is a copy of the repository's params.yaml (a test holds the two equal): `makermark preset NAME > params.yaml`
has emptied that file before anything here could read it.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from importlib import resources
from itertools import takewhile

from makermark.errors import ParamsError

BASE = "local"
PRESETS = (BASE, "mlaad-resnet", "mlaad-ssl")
LINE = re.compile(r"(?P<indent> *)(?P<key>[\w-]+):(?: +(?P<value>[^\s#].*))?")


def preset(name: str) -> str:
    """The text of the params.yaml called `name`, comments and all; raises ParamsError for an unknown name."""
    if name not in PRESETS:
        raise ParamsError(
            f"unknown preset {name!r}; it is one of {list(PRESETS)}. If `> params.yaml` has emptied that file: "
            "git restore params.yaml"
        )
    base = text_of(BASE)
    return base if name == BASE else overlaid(base, text_of(name))


def text_of(name: str) -> str:
    """The file of one preset as it is kept: `local` whole, of the others what they change."""
    return resources.files(__name__).joinpath(f"{name}.yaml").read_text(encoding="utf-8")


def overlaid(base: str, changes: str) -> str:
    """`base` with its lines replaced by those of `changes` that set the same key, under the heading of `changes`.

    Both are YAML with one key a line, as params.yaml is: block style by two spaces, or a section in braces on the line
    of its name. The line brings its comment along. Raises ParamsError for a key that `base` has not.
    """
    changed = {key: line for key, line in keyed(changes) if key}
    lines = [changed.pop(key, line) for key, line in keyed(base)]
    if changed:
        raise ParamsError(f"a preset sets {'.'.join(next(iter(changed)))}, which params.yaml has not")
    heading = takewhile(lambda line: line.startswith("#"), changes.splitlines())
    return "\n".join([*heading, *lines, ""])


def keyed(text: str) -> Iterator[tuple[tuple[str, ...], str]]:
    """Every line with the key that it sets, such as ("train", "epochs"); () where it sets none."""
    above: list[str] = []
    for line in text.splitlines():
        found = LINE.match(line)
        if not found:
            yield (), line
            continue
        above = [*above[: len(found["indent"]) // 2], found["key"]]
        yield tuple(above) if found["value"] else (), line
