"""What is done for a client: the tracer, the file with the systems enrolled here, and who may change it."""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TypeVar

from makermark.errors import AudioError, MakermarkError, TracerError
from makermark.evidence import gather, html_report
from makermark.serving.uploads import Upload
from makermark.tracing import Comparison, Gallery, Trace, Tracer, changing, enrolled_in, write_gallery

T = TypeVar("T")

LEAST_CLIPS = 5  # to enrol a system from
PRIORS_KEPT = 8  # tracers for as many priors are kept at hand

Asked = tuple[
    Upload, float | None
]  # a clip, and the prior that its maker is in the gallery, if not the usual one
Stamp = tuple[int, int, int] | None  # of the gallery's file: whether it is another one than was read


class Desk:
    """Answers for uploads, each by one method that any thread may call; nothing of an upload is kept but, where a
    system is enrolled, the vectors and names of its clips."""

    def __init__(self, tracer: Tracer, gallery: Path, *, corpus: Path | None, max_seconds: float) -> None:
        """`tracer` knows the systems of training only; those enrolled are read from `gallery`, now and whenever that
        file has changed. Reports play what the folder `corpus` holds. Raises FilesError or TracerError where the file
        is no gallery of this model."""
        self._trained, self._file, self._max_seconds = tracer, gallery, max_seconds
        self._corpus, self._lock = corpus, threading.Lock()
        self._stamp: Stamp = None
        self._tracers: OrderedDict[tuple[float, float], Tracer] = OrderedDict()
        self._current = tracer
        _ = self.tracer().calibrated

    def tracer(self, *, prior_known: float | None = None, prior_same: float | None = None) -> Tracer:
        """With the systems enrolled now and, where given, other priors; raises TracerError for what is no prior."""
        with self._lock:
            if (stamp := _stamp(self._file)) != self._stamp:
                self._adopt(self._read(), stamp)
            usual = self._current.settings
            priors = (
                usual.prior_known if prior_known is None else prior_known,
                usual.prior_same if prior_same is None else prior_same,
            )
            if priors == (usual.prior_known, usual.prior_same):
                return self._current
            if priors not in self._tracers:
                self._tracers[priors] = self._current.with_settings(
                    prior_known=priors[0], prior_same=priors[1]
                )
                if len(self._tracers) > PRIORS_KEPT:
                    self._tracers.popitem(last=False)
            return self._tracers[priors]

    def trace_all(self, asked: Sequence[Asked]) -> list[Trace | Exception]:
        """Who made each clip, heard together; for one that cannot be heard, what to raise."""
        told: dict[int, Trace | Exception] = {}
        judges: dict[int, Tracer] = {}
        clips = []
        for place, (upload, prior_known) in enumerate(asked):
            try:
                judges[place] = tracer = self.tracer(prior_known=prior_known)
                clips.append((place, (self._heard(upload, tracer.waveform), tracer.rate_hz)))
            except MakermarkError as error:
                told[place] = error
        heard = self._trained.hear_all([clip for _, clip in clips])
        for (place, _), each in zip(clips, heard, strict=True):
            told[place] = judges[place].judge(asked[place][0].name, each)
        return [told[place] for place in range(len(asked))]

    def compare(self, a: Upload, b: Upload, *, prior_same: float | None) -> Comparison:
        """Whether one system made both; raises AudioError."""
        tracer = self.tracer(prior_same=prior_same)
        heard = [self._heard(upload, tracer.waveform) for upload in (a, b)]
        first, second = ((waveform, tracer.rate_hz) for waveform in heard)
        return tracer.compare(first, second)

    def report(self, upload: Upload, *, prior_known: float | None) -> str:
        """The evidence as one HTML page that needs nothing else; raises AudioError."""
        tracer = self.tracer(prior_known=prior_known)
        return html_report(
            self._heard(upload, lambda path: gather(tracer, path, corpus=self._corpus, name=upload.name))
        )

    def enrol(self, name: str, uploads: Sequence[Upload], *, family: str) -> Gallery:
        """The gallery with a further system, which is also in its file; raises AudioError, TracerError, FilesError."""
        if len(uploads) < LEAST_CLIPS:
            raise TracerError(f"system {name!r}: {len(uploads)} clips; give {LEAST_CLIPS} or more")
        hears = self.tracer()
        clips = [(self._heard(upload, hears.waveform), hears.rate_hz) for upload in uploads]
        with changing(self._file):
            tracer = self.tracer().enroll(
                name, clips, family=family, clip_names=[upload.name for upload in uploads]
            )
            return self._keep(tracer)

    def remove(self, name: str) -> Gallery:
        """The gallery without an enrolled system; raises TracerError for any other."""
        with changing(self._file):
            tracer = self.tracer()
            return self._keep(tracer.with_gallery(tracer.gallery.without(name)))

    def _keep(self, tracer: Tracer) -> Gallery:
        _ = tracer.calibrated  # nothing is written that could not be used
        write_gallery(self._file, tracer.gallery.enrolled())
        with self._lock:
            self._adopt(tracer, _stamp(self._file))
        return tracer.gallery

    def _adopt(self, tracer: Tracer, stamp: Stamp) -> None:
        self._current, self._stamp = tracer, stamp
        self._tracers.clear()

    def _read(self) -> Tracer:
        trained = self._trained.gallery
        if not self._file.exists():
            return self._trained
        return self._trained.with_gallery(trained.joined(enrolled_in(self._file, trained)))

    def _heard(self, upload: Upload, hear: Callable[[Path], T]) -> T:
        """What `hear` makes of the upload; raises AudioError with the client's name for it."""
        try:
            upload.check(max_seconds=self._max_seconds)
            return hear(upload.path)
        except AudioError as error:
            raise AudioError(upload.reason(error)) from error.__cause__


def _stamp(path: Path) -> Stamp:
    try:
        found = path.stat()
    except FileNotFoundError:
        return None
    return found.st_ino, found.st_mtime_ns, found.st_size
