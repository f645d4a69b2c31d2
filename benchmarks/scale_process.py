"""A command in a process of its own: how long it took, and how much memory it held at most."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

LOOK_EVERY_S = 0.01


@dataclass(frozen=True)
class Spent:
    """What a process cost; memory as `getrusage` gives it, the largest of it and its own children."""

    status: int
    killed: bool
    wall_s: float
    cpu_s: float
    peak_bytes: int  # with the files that it maps into memory, which the system takes back when it needs them
    own_bytes: int | None  # without those, the highest of what was seen every LOOK_EVERY_S; None but on Linux

    def figures(self) -> dict[str, float | None]:
        """As JSON values."""
        return {
            "wall_s": self.wall_s,
            "cpu_s": self.cpu_s,
            "peak_bytes": self.peak_bytes,
            "own_bytes": self.own_bytes,
        }


def measure(
    command: Sequence[str],
    *,
    folder: Path,
    environment: Mapping[str, str],
    log: Path,
    kill_when: Callable[[], bool] | None = None,
) -> Spent:
    """Run the command to its end, or to a SIGKILL as soon as `kill_when()` is true; what it prints goes to `log`.

    A process begins as a copy of this one, whose own memory therefore counts: this program imports nothing heavy.
    """
    own, killed = 0, False
    with log.open("wb") as output:
        start = time.perf_counter()
        process = subprocess.Popen(
            command, cwd=folder, env=dict(environment), stdin=subprocess.DEVNULL, stdout=output, stderr=output
        )
        while True:
            pid, status, usage = os.wait4(process.pid, os.WNOHANG)
            if pid:
                break
            own = max(own, _own_bytes(process.pid))
            if kill_when is not None and not killed and kill_when():
                os.kill(process.pid, signal.SIGKILL)
                killed = True
            time.sleep(LOOK_EVERY_S)
        wall_s = time.perf_counter() - start
    process.returncode = os.waitstatus_to_exitcode(status)
    return Spent(
        status=process.returncode,
        killed=process.returncode == -signal.SIGKILL and killed,
        wall_s=wall_s,
        cpu_s=usage.ru_utime + usage.ru_stime,
        peak_bytes=usage.ru_maxrss * (1 if sys.platform == "darwin" else 1024),
        own_bytes=own or None,
    )


def _own_bytes(pid: int) -> int:
    """Memory of the process that stands in no file; 0 where Linux does not tell."""
    try:
        lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    except OSError:
        return 0
    return sum(1024 * int(line.split()[1]) for line in lines if line.startswith("RssAnon:"))
