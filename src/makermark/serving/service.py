"""The tracing service: traces, compares, reports and enrols uploads with one tracer and one gallery file.

Uploaded files are opened without using the client's file name. The bytes lie in an anonymous temporary file: it has no
name on the disk and is deleted when it is closed. The audio reader opens it through its file descriptor.
"""

from __future__ import annotations

import os
import threading
import weakref
from collections import OrderedDict
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath, PureWindowsPath
from typing import NamedTuple, TypeVar

from fastapi import UploadFile

from makermark.examination.report import collect_report_data, render_report
from makermark.foundation.audio import Recording, Samples
from makermark.foundation.errors import AudioError, TracerError
from makermark.tracing import (
    Comparison,
    Gallery,
    Trace,
    Tracer,
    lock_gallery,
    read_enrolled_systems,
    write_gallery,
)
from makermark.tracing.extractor import ClipEmbedding
from makermark.tracing.gallery import sanitise_name

T = TypeVar("T")

MIN_ENROLMENT_CLIPS = 5
MAX_CACHED_TRACERS = 8  # one per pair of priors
MAX_NAME_CHARACTERS = 120

FileStamp = tuple[int, int, int] | None  # inode, modification time, size; None: no file


@dataclass(frozen=True, eq=False)
class Upload:
    """An uploaded file. `name` is for display only; `descriptor` stays open while this object exists."""

    name: str
    descriptor: int

    @classmethod
    def from_form(cls, file: UploadFile) -> Upload:
        """Return an upload with its own descriptor: the request closes `file` when it ends, even during reading."""
        upload = cls(display_name(file.filename or ""), os.dup(file.file.fileno()))
        weakref.finalize(upload, os.close, upload.descriptor)
        return upload

    @property
    def path(self) -> Path:
        """Path of the open file, at its first byte."""
        os.lseek(self.descriptor, 0, os.SEEK_SET)  # on macOS, opening /dev/fd/N keeps the position
        return Path(f"/dev/fd/{self.descriptor}")

    def error_message(self, error: AudioError) -> str:
        """Return the message of `error` with the client's file name instead of the descriptor's path."""
        return f"{self.name}: {str(error).removeprefix(f'{self.path}: ').removeprefix(f'{self.name}: ')}"


class TraceRequest(NamedTuple):
    """A clip to trace. `prior_known` replaces the model's prior that the system is in the gallery."""

    upload: Upload
    prior_known: float | None = None


class TracingService:
    """Answers requests about uploads; every method may be called from any thread.

    Nothing of an upload is stored, except the embeddings and file names of the clips of an enrolled system.
    """

    def __init__(self, tracer: Tracer, gallery: Path, *, corpus: Path | None, max_seconds: float) -> None:
        """Read the enrolled systems from `gallery`, now and whenever the file has changed.

        `tracer` knows the systems of training only. Reports play examples from the folder `corpus`.
        Raises FilesError or TracerError if the file is not a gallery of this model.
        """
        self._trained, self._gallery_file = tracer, gallery
        tracer.extractor.max_clip_seconds = max_seconds
        self._corpus, self._lock = corpus, threading.Lock()
        self._stamp: FileStamp = None
        self._tracers: OrderedDict[tuple[float, float], Tracer] = OrderedDict()
        self._current = tracer
        _ = self.tracer().calibration

    def tracer(self, *, prior_known: float | None = None, prior_same: float | None = None) -> Tracer:
        """Return a tracer with the current gallery and these priors; raise TracerError for an invalid prior."""
        with self._lock:
            if (stamp := _file_stamp(self._gallery_file)) != self._stamp:
                self._set_current(self._read_gallery(), stamp)
            settings = self._current.settings
            priors = (
                settings.prior_known if prior_known is None else prior_known,
                settings.prior_same if prior_same is None else prior_same,
            )
            if priors == (settings.prior_known, settings.prior_same):
                return self._current
            if priors not in self._tracers:
                self._tracers[priors] = self._current.with_settings(
                    prior_known=priors[0], prior_same=priors[1]
                )
                if len(self._tracers) > MAX_CACHED_TRACERS:
                    self._tracers.popitem(last=False)
            return self._tracers[priors]

    def trace_batch(self, requests: Sequence[TraceRequest]) -> list[Trace | Exception]:
        """Trace clips in one batch; return a trace, or the exception to raise, per request."""
        results: list[Trace | Exception | None] = [None] * len(requests)
        readable: list[tuple[int, Tracer, Recording]] = []
        for index, (upload, prior_known) in enumerate(requests):
            try:
                tracer = self.tracer(prior_known=prior_known)
                readable.append((index, tracer, self._read(upload, tracer.load_clip)))
            except Exception as error:  # of any kind: it must not fail the other requests
                results[index] = error
        embeddings = self._embed([recording.waveform for _, _, recording in readable])
        for (index, tracer, recording), embedding in zip(readable, embeddings, strict=True):
            if isinstance(embedding, Exception):
                results[index] = embedding
            else:
                results[index] = tracer.assess(requests[index].upload.name, embedding, recording)
        return [result for result in results if result is not None]

    def _embed(self, waveforms: Sequence[Samples]) -> Sequence[ClipEmbedding | Exception]:
        """Embed waveforms together; if that fails, one by one, so that the failure of one is not that of all."""
        try:
            return self._trained.embed_waveforms(waveforms)
        except Exception as error:
            if len(waveforms) == 1:
                return [error]
            return [result for waveform in waveforms for result in self._embed([waveform])]

    def compare(self, a: Upload, b: Upload, *, prior_same: float | None) -> Comparison:
        """Compare two clips: did one system make both? Raises AudioError for an unreadable clip."""
        tracer = self.tracer(prior_same=prior_same)
        return tracer.compare_recordings(*(self._read(upload, tracer.load_clip) for upload in (a, b)))

    def report(self, upload: Upload, *, prior_known: float | None) -> str:
        """Return the evidence report on a clip as one self-contained HTML page; raise AudioError if unreadable."""
        tracer = self.tracer(prior_known=prior_known)
        return render_report(
            self._read(
                upload, lambda path: collect_report_data(tracer, path, corpus=self._corpus, name=upload.name)
            )
        )

    def enroll(self, name: str, uploads: Sequence[Upload], *, family: str) -> Gallery:
        """Add a system to the gallery and its file; return the new gallery.

        Raises AudioError, TracerError or FilesError.
        """
        if len(uploads) < MIN_ENROLMENT_CLIPS:
            raise TracerError(
                f"system {name!r}: {len(uploads)} clips; enrolment needs {MIN_ENROLMENT_CLIPS} or more"
            )
        reader = self.tracer()
        clips = [(self._read(upload, reader.load_clip).waveform, reader.rate_hz) for upload in uploads]
        with lock_gallery(self._gallery_file):
            tracer = self.tracer().enroll(
                name, clips, family=family, clip_names=[upload.name for upload in uploads]
            )
            return self._write_gallery(tracer)

    def remove(self, name: str) -> Gallery:
        """Remove an enrolled system from the gallery and its file; raise TracerError for any other system."""
        with lock_gallery(self._gallery_file):
            tracer = self.tracer()
            return self._write_gallery(tracer.with_gallery(tracer.gallery.without_system(name)))

    def _write_gallery(self, tracer: Tracer) -> Gallery:
        _ = tracer.calibration  # fails before an unusable gallery is written
        write_gallery(self._gallery_file, tracer.gallery.enrolled())
        with self._lock:
            self._set_current(tracer, _file_stamp(self._gallery_file))
        return tracer.gallery

    def _set_current(self, tracer: Tracer, stamp: FileStamp) -> None:
        self._current, self._stamp = tracer, stamp
        self._tracers.clear()

    def _read_gallery(self) -> Tracer:
        trained = self._trained.gallery
        if not self._gallery_file.exists():
            return self._trained
        return self._trained.with_gallery(trained.merge(read_enrolled_systems(self._gallery_file, trained)))

    def _read(self, upload: Upload, read: Callable[[Path], T]) -> T:
        """Return `read(path)` of an upload; raise AudioError with the client's file name."""
        try:
            return read(upload.path)
        except AudioError as error:
            raise AudioError(upload.error_message(error)) from error.__cause__


def _file_stamp(path: Path) -> FileStamp:
    try:
        status = path.stat()
    except FileNotFoundError:
        return None
    return status.st_ino, status.st_mtime_ns, status.st_size


def display_name(name: str) -> str:
    """Return the last part of a client's file name, without control characters, at most MAX_NAME_CHARACTERS long."""
    last = PurePosixPath(PureWindowsPath(name).name).name
    return sanitise_name(last, longest=MAX_NAME_CHARACTERS).strip(" .") or "clip"
