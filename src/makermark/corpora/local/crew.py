"""Worker processes that speak: a crash or a hang costs one request and names it, and the rest goes on."""

from __future__ import annotations

import contextlib
import json
import os
import queue
import subprocess
import sys
import tempfile
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from makermark.errors import FilesError

WORKER = (sys.executable, "-m", "makermark.corpora.local.worker")
START_TIMEOUT_S = 180.0  # an engine reads its model from a cold disk
STARTS_IN_VAIN = 2  # an engine that fails so often to start is given up


@dataclass(frozen=True)
class Failure:
    """A file that was not made, and why."""

    path: str
    reason: str


@dataclass(frozen=True)
class Job:
    """All that one engine has to say, and the seconds it will take by a rough guess."""

    engine: str
    requests: Sequence[Mapping[str, Any]]  # see worker.py
    cost_s: float
    environment: Mapping[str, str]  # variables of its worker process


class WorkerLostError(Exception):
    """The worker process ended or did not answer in time; the message says which."""


class Worker:
    """One worker process. Closing it ends the process."""

    def __init__(self, engine: str, *, command: Sequence[str], environment: Mapping[str, str]) -> None:
        self._complaints = tempfile.TemporaryFile()  # noqa: SIM115 (closed with the worker)
        self._process = subprocess.Popen(
            [*command, engine],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._complaints,
            text=True,
            env={**os.environ, **environment},
        )
        self._answers: queue.Queue[str] = queue.Queue()
        self._listener = threading.Thread(target=self._listen, daemon=True)
        self._listener.start()
        self._answer(START_TIMEOUT_S)

    def ask(self, request: Mapping[str, Any], *, timeout_s: float) -> dict[str, Any]:
        """The worker's answer. Raises WorkerLostError."""
        assert self._process.stdin is not None
        with contextlib.suppress(BrokenPipeError):  # it has ended: the missing answer says how
            self._process.stdin.write(json.dumps(request) + "\n")
            self._process.stdin.flush()
        return self._answer(timeout_s)

    def close(self) -> None:
        self._process.kill()
        self._process.wait()
        self._listener.join()
        for pipe in (self._process.stdin, self._process.stdout, self._complaints):
            assert pipe is not None
            with contextlib.suppress(BrokenPipeError):
                pipe.close()

    def _listen(self) -> None:
        assert self._process.stdout is not None
        for line in self._process.stdout:
            self._answers.put(line)
        self._answers.put("")

    def _answer(self, timeout_s: float) -> dict[str, Any]:
        try:
            line = self._answers.get(timeout=timeout_s)
        except queue.Empty:
            self.close()
            raise WorkerLostError(f"no answer within {timeout_s:g} s") from None
        if not line.endswith("\n"):
            code = self._process.wait()
            self._complaints.seek(0)
            said = self._complaints.read().decode(errors="replace").strip().splitlines()
            self.close()
            raise WorkerLostError(f"the worker ended with status {code}" + (f": {said[-1]}" if said else ""))
        answer: dict[str, Any] = json.loads(line)
        return answer


def speak(
    jobs: Sequence[Job],
    *,
    workers: int,
    timeout_s: float,
    heard: Callable[[int, list[Failure]], None],
    command: Sequence[str] = WORKER,
) -> None:
    """Run the jobs, longest first, `workers` at a time; an engine is in one process at a time only if it has
    one job. After each request `heard` gets the number of files asked for and those that failed (from any
    thread, one at a time); what it raises ends the work. Raises FilesError when nothing can be written.
    """
    stop, turn = threading.Event(), threading.Lock()

    def run(job: Job) -> None:
        for files, failures in _answers(job, stop, timeout_s, command):
            with turn:
                if not stop.is_set():
                    heard(files, failures)

    with ThreadPoolExecutor(workers) as pool:
        running = [pool.submit(run, job) for job in sorted(jobs, key=lambda job: -job.cost_s)]
        try:
            for finished in as_completed(running):
                finished.result()
        finally:
            stop.set()
            pool.shutdown(cancel_futures=True)


def _answers(
    job: Job, stop: threading.Event, timeout_s: float, command: Sequence[str]
) -> Iterator[tuple[int, list[Failure]]]:
    worker: Worker | None = None
    vain = 0
    try:
        for request in job.requests:
            if stop.is_set():
                return
            paths = [wanted["path"] for wanted in request["audio"]]
            try:
                if worker is None:
                    vain += 1
                    if vain > STARTS_IN_VAIN:
                        raise WorkerLostError("the engine does not start")
                    worker = Worker(job.engine, command=command, environment=job.environment)
                    vain = 0
                answer = worker.ask(request, timeout_s=timeout_s)
                if "fatal" in answer:
                    raise FilesError(answer["fatal"])
                yield len(paths), [Failure(*failed) for failed in answer["failed"]]
            except WorkerLostError as lost:
                worker = None
                missing = [path for path in paths if not Path(path).exists()]
                yield len(paths), [Failure(path, str(lost)) for path in missing]
    finally:
        if worker is not None:
            worker.close()
