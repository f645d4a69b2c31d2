"""Random damage of files: hypothesis draws the changes, so that a failing input is shrunk to few of them."""

from __future__ import annotations

import struct
import time
from collections.abc import Callable
from typing import NamedTuple

from hypothesis import HealthCheck, Phase, given, seed, settings
from hypothesis import strategies as st

EXAMPLES = 40  # in a round; `make fuzz` runs rounds until the time is over
LARGE = [0, 1, 0x7F, 0x80, 0xFF, 0x7FFF, 0x8000, 0xFFFF, 0x7FFFFFFF, 0x80000000, 0xFFFFFFFF, 2**63, 2**64 - 1]


class Change(NamedTuple):
    """A change of bytes: `kind` at the relative position `at` (0 to 1), with a number and bytes to use."""

    kind: str
    at: float
    number: int
    content: bytes


KINDS = ("flip", "integer", "delete", "insert", "truncate", "repeat", "text")
CHANGES = st.lists(
    st.builds(
        Change,
        st.sampled_from(KINDS),
        st.one_of(st.floats(0, 1), st.floats(0, 0.02)),  # headers are at the beginning
        st.one_of(st.sampled_from(LARGE), st.integers(0, 300)),
        st.binary(min_size=1, max_size=16),
    ),
    min_size=1,
    max_size=6,
)


def apply_changes(content: bytes, changes: list[Change]) -> bytes:
    """Return `content` after the changes."""
    data = bytearray(content)
    for change in changes:
        start = min(int(change.at * len(data)), max(len(data) - 1, 0))
        if change.kind == "flip" and data:
            data[start] ^= 1 << change.number % 8
        elif change.kind == "integer":
            width = (1, 2, 4, 8)[len(change.content) % 4]
            order = "<" if change.content[0] % 2 else ">"
            value = struct.pack(f"{order}Q", change.number)
            data[start : start + width] = value[:width] if order == "<" else value[-width:]
        elif change.kind == "delete":
            del data[start : start + 1 + change.number % 64]
        elif change.kind == "insert":
            data[start:start] = change.content
        elif change.kind == "truncate":
            del data[start:]
        elif change.kind == "repeat":
            data[start:start] = data[start : start + 1 + change.number % 256]
        else:
            text = [
                b'"',
                b"\n",
                b"\r",
                b"\0",
                b",",
                b"\xff\xfe",
                "é".encode(),
                b"..",
                b"/",
                b"NaN",
                b"1e999",
                b"{",
                b"]",
            ]
            data[start:start] = text[change.number % len(text)]
    return bytes(data)


def fuzz(check: Callable[[list[Change]], None], *, seconds: float, first_round: int) -> int:
    """Run `check` on drawn changes for `seconds`, at least one round; return the number of rounds.

    The number of a round determines its changes: a second call with the same `first_round` repeats the first call.
    """
    end, rounds = time.monotonic() + seconds, 0
    run = settings(
        max_examples=EXAMPLES, database=None, deadline=None, phases=[Phase.generate, Phase.shrink],
        suppress_health_check=list(HealthCheck),
    )(given(CHANGES)(check))  # fmt: skip
    while rounds == 0 or time.monotonic() < end:
        seed(first_round + rounds)(run)()
        rounds += 1
    return rounds
