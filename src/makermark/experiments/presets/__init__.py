"""Presets: params.yaml with some of its lines replaced.

`params.yaml` here is a link to the file of the repository, and `local` is that file itself. The other presets are files
with the lines that they replace.
"""

from __future__ import annotations

import re
import subprocess
from collections.abc import Iterator
from importlib import resources
from itertools import takewhile
from pathlib import Path

from makermark.foundation.errors import ParamsError

LOCAL = "local"
PRESETS = (LOCAL, "local-small", "local-full", "mlaad-resnet", "mlaad-ssl")
LINE = re.compile(r"(?P<indent> *)(?P<key>[\w-]+):(?: +(?P<value>[^\s#].*))?")


def preset(name: str) -> str:
    """Return the params.yaml of a preset, comments included; raises ParamsError for an unknown name."""
    if name not in PRESETS:
        raise ParamsError(
            f"unknown preset {name!r}; it is one of {list(PRESETS)}. If `> params.yaml` has emptied that file: "
            "git restore params.yaml"
        )
    base = read_base()
    return base if name == LOCAL else replace_lines(base, read_changes(name))


def read_base() -> str:
    """Return params.yaml as git has it, because `makermark preset NAME > params.yaml` empties the file first.

    Outside a repository, as in an installed package, return the file.
    """
    path = Path(str(resources.files(__name__).joinpath("params.yaml"))).resolve()
    command = ["git", "show", f"HEAD:./{path.name}"]
    try:
        return subprocess.run(command, cwd=path.parent, capture_output=True, text=True, check=True).stdout
    except (OSError, subprocess.CalledProcessError):
        return path.read_text(encoding="utf-8")


def read_changes(name: str) -> str:
    """Return the file of a preset other than `local`."""
    return resources.files(__name__).joinpath(f"{name}.yaml").read_text(encoding="utf-8")


def replace_lines(base: str, changes: str) -> str:
    """Return `base` with each line replaced by the line of `changes` that sets the same key; comments come along.

    Both are YAML with one key a line: block style indented by two spaces, or a section in braces on one line. The
    comment at the top of `changes` is put first. Raises ParamsError for a key that `base` does not have.
    """
    changed = {key: line for key, line in split_keys(changes) if key}
    lines = [changed.pop(key, line) for key, line in split_keys(base)]
    if changed:
        raise ParamsError(f"a preset sets {'.'.join(next(iter(changed)))}, which params.yaml does not have")
    heading = takewhile(lambda line: line.startswith("#"), changes.splitlines())
    return "\n".join([*heading, *lines, ""])


def split_keys(text: str) -> Iterator[tuple[tuple[str, ...], str]]:
    """Yield every line after the key that it sets, such as ("train", "epochs"); () for a line that sets none."""
    parents: list[str] = []
    for line in text.splitlines():
        match = LINE.match(line)
        if not match:
            yield (), line
            continue
        parents = [*parents[: len(match["indent"]) // 2], match["key"]]
        yield tuple(parents) if match["value"] else (), line
