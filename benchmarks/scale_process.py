"""Wall time, CPU time and peak memory of a command."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

SAMPLE_EVERY_S = 0.01


@dataclass(frozen=True)
class Spent:
    """The cost of a process; memory is the largest of the process and its children, from `getrusage`."""

    status: int
    killed: bool
    wall_s: float
    cpu_s: float
    peak_bytes: int  # including the pages of mapped files, which the system can reclaim
    own_bytes: int | None  # without those pages, sampled every SAMPLE_EVERY_S; None except on Linux

    def figures(self) -> dict[str, float | None]:
        """Return the values for JSON."""
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
    """Run the command until it ends or until `kill_when()` is true, then by SIGKILL; write its output to `log`.

    A process starts as a copy of this one, so the memory of this process counts: import no large packages here.
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
            time.sleep(SAMPLE_EVERY_S)
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
    """Return the anonymous memory of the process; 0 except on Linux."""
    try:
        lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    except OSError:
        return 0
    return sum(1024 * int(line.split()[1]) for line in lines if line.startswith("RssAnon:"))
