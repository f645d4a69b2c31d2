"""A pool of worker processes for TTS engines: a crash or a timeout fails one request, and the others continue."""

from __future__ import annotations

import contextlib
import json
import os
import queue
import subprocess
import sys
import tempfile
import threading
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from makermark.foundation.errors import FilesError

WORKER = (sys.executable, "-m", "makermark.corpora.local.worker")
START_TIMEOUT_S = 180.0  # an engine may read its model from a slow disk
MIN_SHARED_S = (
    30.0  # a job with less left is not shared: starting an engine and its vocoders takes up to 10 s
)
MAX_FAILED_STARTS = 2  # in succession; then the remaining requests of the engine fail


@dataclass(frozen=True)
class Failure:
    """A file that was not made, and the reason."""

    path: str
    reason: str


@dataclass(frozen=True)
class Job:
    """All requests to one engine, with a rough estimate of their run time."""

    engine: str
    requests: Sequence[Mapping[str, Any]]  # see worker.py
    estimated_s: float
    environment: Mapping[str, str]  # variables of the worker process


class WorkerLostError(Exception):
    """The worker process ended or did not respond in time; the message gives the details."""


class Worker:
    """One worker process. `close` ends the process."""

    def __init__(self, engine: str, *, command: Sequence[str], environment: Mapping[str, str]) -> None:
        self._stderr = tempfile.TemporaryFile()  # noqa: SIM115 (closed with the worker)
        self._process = subprocess.Popen(
            [*command, engine],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._stderr,
            text=True,
            env={**os.environ, **environment},
        )
        self._lines: queue.Queue[str] = queue.Queue()
        self._reader = threading.Thread(target=self._read_lines, daemon=True)
        self._reader.start()
        self._read_response(START_TIMEOUT_S)

    def send(self, request: Mapping[str, Any], *, timeout_s: float) -> dict[str, Any]:
        """Send a request and return the response. Raises WorkerLostError."""
        assert self._process.stdin is not None
        with contextlib.suppress(BrokenPipeError):  # the process has ended; _read_response raises the reason
            self._process.stdin.write(json.dumps(request) + "\n")
            self._process.stdin.flush()
        return self._read_response(timeout_s)

    def close(self) -> None:
        self._process.kill()
        self._process.wait()
        self._reader.join()
        for pipe in (self._process.stdin, self._process.stdout, self._stderr):
            assert pipe is not None
            with contextlib.suppress(BrokenPipeError):
                pipe.close()

    def _read_lines(self) -> None:
        assert self._process.stdout is not None
        for line in self._process.stdout:
            self._lines.put(line)
        self._lines.put("")

    def _read_response(self, timeout_s: float) -> dict[str, Any]:
        try:
            line = self._lines.get(timeout=timeout_s)
        except queue.Empty:
            self.close()
            raise WorkerLostError(f"no response within {timeout_s:g} s") from None
        if not line.endswith("\n"):
            status = self._process.wait()
            self._stderr.seek(0)
            output = self._stderr.read().decode(errors="replace").strip().splitlines()
            self.close()
            last_line = f": {output[-1]}" if output else ""
            raise WorkerLostError(f"the worker ended with status {status}{last_line}")
        response: dict[str, Any] = json.loads(line)
        return response


class _JobQueue:
    """The requests of a job that no worker has taken yet. Several threads may take."""

    def __init__(self, job: Job) -> None:
        self.job = job
        self.is_started = False
        self._requests = deque(job.requests)

    @property
    def remaining_s(self) -> float:
        """The estimated run time of the requests that no worker has taken."""
        return self.job.estimated_s * len(self._requests) / max(len(self.job.requests), 1)

    def take(self) -> Mapping[str, Any] | None:
        """Return the next request, or None at the end."""
        try:
            return self._requests.popleft()
        except IndexError:
            return None


def run_jobs(
    jobs: Sequence[Job],
    *,
    workers: int,
    timeout_s: float,
    on_result: Callable[[int, list[Failure]], None],
    command: Sequence[str] = WORKER,
) -> None:
    """Run the jobs, longest first, with `workers` worker processes at a time; each process runs one engine.

    When every job has a worker, further workers join the jobs of which most is left. After each request, `on_result` is
    called with the number of requested files and the failures, from any thread but never from two at once. An exception
    that it raises stops all jobs. Raises FilesError if no file can be written.
    """
    stop, lock = threading.Event(), threading.Lock()
    queues = [_JobQueue(job) for job in sorted(jobs, key=lambda job: -job.estimated_s)]

    def run() -> None:
        while not stop.is_set():
            with lock:
                queue = _choose(queues)
            if queue is None:
                return
            for count, failures in _run_job(queue, stop, timeout_s, command):
                with lock:
                    if not stop.is_set():
                        on_result(count, failures)

    with ThreadPoolExecutor(workers) as pool:
        running = [pool.submit(run) for _ in range(workers)]
        try:
            for finished in as_completed(running):
                finished.result()
        finally:
            stop.set()
            pool.shutdown(cancel_futures=True)


def _choose(queues: Sequence[_JobQueue]) -> _JobQueue | None:
    """Return the next job for a free worker, now marked as started, or None if no job is worth another worker."""
    waiting = [queue for queue in queues if not queue.is_started]
    if waiting:
        waiting[0].is_started = True
        return waiting[0]
    longest = max(queues, key=lambda queue: queue.remaining_s, default=None)
    return longest if longest is not None and longest.remaining_s > MIN_SHARED_S else None


def _run_job(
    queue: _JobQueue, stop: threading.Event, timeout_s: float, command: Sequence[str]
) -> Iterator[tuple[int, list[Failure]]]:
    """Yield the number of files and the failures of each request; a lost worker is started again."""
    job = queue.job
    worker: Worker | None = None
    failed_starts = 0
    try:
        while (request := queue.take()) is not None:
            if stop.is_set():
                return
            paths = [output["path"] for output in request["audio"]]
            try:
                if worker is None:
                    failed_starts += 1
                    if failed_starts > MAX_FAILED_STARTS:
                        raise WorkerLostError("the engine does not start")
                    worker = Worker(job.engine, command=command, environment=job.environment)
                    failed_starts = 0
                response = worker.send(request, timeout_s=timeout_s)
                if "fatal" in response:
                    raise FilesError(response["fatal"])
                yield len(paths), [Failure(*failure) for failure in response["failed"]]
            except WorkerLostError as lost:
                worker = None
                missing = [path for path in paths if not Path(path).exists()]
                yield len(paths), [Failure(path, str(lost)) for path in missing]
    finally:
        if worker is not None:
            worker.close()
