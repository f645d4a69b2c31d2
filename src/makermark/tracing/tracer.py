"""The tracer: a trained model, a gallery of systems, and what dev says of how sure one may be."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path, PurePath
from typing import Any

import numpy as np
from numpy.typing import NDArray

from makermark.audio import Samples
from makermark.checkpoint import load_checkpoint
from makermark.embedding import Vectors
from makermark.errors import AudioError, TracerError
from makermark.scoring.calibration import posterior
from makermark.scoring.fusion import unit
from makermark.tracing.calibrating import Calibrated, Clips, Lines, calibrate, family_names
from makermark.tracing.gallery import Gallery, read_gallery
from makermark.tracing.hearing import Hearing, pieces, speech_seconds, windows
from makermark.tracing.kept import Settings, at_hand, read_kept
from makermark.tracing.verdict import LOG10, TOO_LITTLE, Decisions, Trace, Window, candidates_of, decide

Audio = Path | str | tuple[NDArray[np.floating[Any]], int]  # a file, or samples and their rate in Hz

MIN_CLIPS = 2  # of a new system
BATCH_FILES = 32  # read, turned into features and embedded together
BATCH_BYTES = 1 << 25  # of such files


@dataclass(frozen=True)
class Comparison:
    """What `Tracer.compare` answers: one system against two as log10 of a likelihood ratio, and the probability that
    one made both, at the stated prior. `enough_speech`: whether both clips hold as much as anything was learned for."""

    cosine: float
    log10_lr: float
    at_bound: bool
    posterior_same: float
    prior_same: float
    speech_s: tuple[float, float]
    enough_speech: bool


@dataclass(frozen=True)
class Heard:
    """A clip: vector (D,) of length 1, and its windows' (W, D) where it is long enough for two."""

    vector: NDArray[np.float32]
    duration_s: float
    speech_s: float
    spans_s: list[tuple[float, float]]
    window_vectors: NDArray[np.float32]
    window_speech_s: NDArray[np.float64]


class Tracer:
    """Which system made a clip, how sure that is, and when it is none of those known.

    - `gallery`: what can be named
    - `settings`: priors, promises and lengths
    - `model_sha256`: of the weights
    - `description`: what the checkpoint says of itself
    - `rate_hz`: of the waveforms that the model hears
    """

    def __init__(self, hearing: Hearing, gallery: Gallery, lines: Lines, settings: Settings) -> None:
        self._hearing, self._lines = hearing, lines
        self.gallery, self.settings = gallery, settings
        self.model_sha256 = gallery.model_sha256
        self.description, self.rate_hz = hearing.description, hearing.rate_hz

    @property
    def dev(self) -> list[Clips]:
        """Dev's clips at each length, that all was learned from."""
        return self._lines.parts

    @classmethod
    def load(
        cls,
        where: Path | str,
        *,
        gallery: Path | None = None,
        device: str = "auto",
        prior_known: float | None = None,
        prior_same: float | None = None,
    ) -> Tracer:
        """The tracer in the folder that `make repro` leaves (`models`: best.* and tracer/), or in a folder that MLflow
        names (`runs:/RUN/checkpoint`, `models:/NAME/VERSION`).

        `gallery` holds systems enrolled later. The priors replace those of params.yaml. Raises FilesError for what is
        missing, CheckpointError for a damaged model, TracerError for a gallery of another model, TrackingError where
        MLflow does not give what it is asked for.
        """
        with at_hand(where) as folder:
            checkpoint = load_checkpoint(folder / "best")
            kept = read_kept(
                folder / "tracer", model_sha256=checkpoint.digest, dim=checkpoint.description.dim
            )
        s = kept.settings
        lines = Lines(kept.dev, kept.gallery, prior=s.calibration_prior, seed=s.seed)
        known = kept.gallery
        if gallery is not None and gallery.exists():
            known = known.joined(enrolled_in(gallery, known))
        priors = {"prior_known": prior_known, "prior_same": prior_same}
        tracer = cls(Hearing(checkpoint, device=device), known, lines, s)
        return tracer.with_settings(**{name: value for name, value in priors.items() if value is not None})

    @cached_property
    def calibrated(self) -> Calibrated:
        """What dev says for the gallery as it is now."""
        return calibrate(
            self.gallery,
            self._lines,
            false_accept_rate=self.settings.false_accept_rate,
            coverage=self.settings.conformal_coverage,
        )

    @cached_property
    def _directions(self) -> NDArray[np.float64]:
        return self.gallery.directions()

    @cached_property
    def _families(self) -> list[str]:
        return [str(name) for name in family_names(self.gallery.table)]

    @property
    def hearing(self) -> Hearing:
        """The model as a function of sound."""
        return self._hearing

    def direction(self, system: str) -> NDArray[np.float64]:
        """(D,), of length 1, that a system of the gallery stands for; raises TracerError for any other name."""
        if system not in self.gallery.systems:
            raise TracerError(
                f"system {system!r} is not in the gallery; `makermark gallery list` shows those that are"
            )
        return np.asarray(self._directions[self.gallery.systems.index(system)])

    def with_gallery(self, gallery: Gallery) -> Tracer:
        """The same model and dev, other systems: calibrated anew."""
        return Tracer(self._hearing, gallery, self._lines, self.settings)

    def with_settings(self, **changes: float) -> Tracer:
        """The same with other settings, by their names in Settings; what they do not touch is not learned again.

        Raises TracerError for a prior that is none.
        """
        return Tracer(self._hearing, self.gallery, self._lines, dataclasses.replace(self.settings, **changes))  # type: ignore[arg-type]

    def trace(self, audio: Audio) -> Trace:
        """Who made this clip; raises AudioError for what cannot be heard."""
        return self.judge(_named(audio)[0], self.hear(audio))

    def hear(self, audio: Audio) -> Heard:
        """What is judged of a clip: its vector and those of its windows; raises AudioError."""
        return self._listen([self.waveform(audio)])[0]

    def hear_all(self, audios: Sequence[Audio]) -> list[Heard]:
        """As `hear`, of each; together that is sooner done than one after another."""
        return self._listen([self.waveform(audio) for audio in audios])

    def waveform(self, audio: Audio) -> Samples:
        """The samples (T,) that the model hears of a clip, at `rate_hz`; raises AudioError."""
        return self._hearing.take(*audio) if isinstance(audio, tuple) else self._hearing.read(Path(audio))

    def trace_all(
        self, files: Sequence[Path], *, workers: int = 2, failed: Callable[[Path, str], None]
    ) -> Iterator[Trace]:
        """Trace many files, in their order; `failed` is told of each that cannot be heard and why."""
        with ThreadPoolExecutor(workers) as pool:
            for some in _batches(files):
                read = list(pool.map(self._try_to_read, some))
                for path, given in zip(some, read, strict=True):
                    if isinstance(given, AudioError):
                        failed(path, str(given).removeprefix(f"{path}: "))
                good = [(str(p), w) for p, w in zip(some, read, strict=True) if not isinstance(w, AudioError)]
                for (name, _), heard in zip(good, self._listen([w for _, w in good]), strict=True):
                    yield self.judge(name, heard)

    def enroll(
        self, name: str, files: Sequence[Audio], *, family: str = "", clip_names: Sequence[str] = ()
    ) -> Tracer:
        """This tracer with a system more, known by the clips in `files`, without training.

        `clip_names` stand for the clips in the gallery and in errors, else the names of the files do.

        Raises AudioError for a clip that cannot be heard, TracerError for one with too little speech, too few clips,
        the same clip twice, or a name that is taken.
        """
        if len(files) < MIN_CLIPS:
            raise TracerError(
                f"system {name!r}: {len(files)} clip; give {MIN_CLIPS} or more, better 5 or more"
            )
        named = [_named(each) for each in files]
        if clip_names:
            named = [(given, audio) for given, (_, audio) in zip(clip_names, named, strict=True)]
        waveforms = [self.waveform(audio) for _, audio in named]
        heard = self._listen(waveforms)
        for (clip, _), each in zip(named, heard, strict=True):
            if each.speech_s < self.settings.min_speech_seconds:
                raise TracerError(f"{clip}: {each.speech_s:.1f} s of speech; too little to enrol from")
        vectors = np.stack([each.vector for each in heard])
        if len(np.unique(vectors, axis=0)) < len(vectors):
            raise TracerError(f"system {name!r}: two of the clips are the same; give different ones")
        clips = [PurePath(clip).name for clip, _ in named]
        return self.with_gallery(self.gallery.with_system(name, vectors, clips, family=family))

    def compare(self, a: Audio, b: Audio) -> Comparison:
        """Whether one system made both clips, whichever it is; raises AudioError."""
        first, second = self._listen([self.waveform(audio) for _, audio in (_named(a), _named(b))])
        cosine = float(first.vector @ second.vector)
        speech = (first.speech_s, second.speech_s)
        llr = self._lines.pair_llrs(np.array([cosine]), np.array([min(speech)]))
        bounded = np.clip(llr, *self._lines.bounds)
        prior = self.settings.prior_same
        return Comparison(
            cosine=cosine,
            log10_lr=float(bounded[0] / LOG10),
            at_bound=bool(bounded[0] != llr[0]),
            posterior_same=float(posterior(bounded, prior=prior)[0]),
            prior_same=prior,
            speech_s=speech,
            enough_speech=min(speech) >= self.settings.min_speech_seconds,
        )

    def vectors(self, files: Sequence[Path]) -> Vectors:
        """(N, D), of whole files, as the embed stage gives them; raises AudioError."""
        return self._hearing.vectors([self._hearing.read(path) for path in files])

    def pair_llrs(
        self, cosines: NDArray[np.floating[Any]], speech_s: NDArray[np.float64]
    ) -> NDArray[np.floating[Any]]:
        """(N,), natural logarithm, one system against two, from the cosines of pairs of clips (N,) of which the shorter
        has so many seconds of speech (N,); no larger than dev can vouch for."""
        return np.clip(self._lines.pair_llrs(cosines, speech_s), *self._lines.bounds)

    def decide(self, vectors: NDArray[np.floating[Any]], speech_s: NDArray[np.float64]) -> Decisions:
        """Verdicts on vectors (N, D) of clips with so many seconds of speech (N,)."""
        return decide(
            np.asarray(unit(vectors) @ self._directions.T),
            speech_s,
            calibrated=self.calibrated,
            systems=self.gallery.systems,
            families=self._families,
            prior_known=self.settings.prior_known,
            min_speech_seconds=self.settings.min_speech_seconds,
        )

    def judge(self, name: str, heard: Heard) -> Trace:
        """What is said of a clip that was heard."""
        told = self.decide(heard.vector[None], np.array([heard.speech_s]))
        cosines = np.asarray(heard.vector[None] @ self._directions.T)
        systems = self.gallery.systems
        candidates = candidates_of(
            told, 0, cosines, calibrated=self.calibrated, systems=systems, families=self._families
        )
        along = self._along(heard)
        spoken = [window for window in along if window.verdict != TOO_LITTLE]
        agreement = sum(w.best == candidates[0].system for w in spoken) / len(spoken) if spoken else None
        return Trace(
            file=name,
            duration_s=heard.duration_s,
            speech_s=heard.speech_s,
            verdict=told.kinds[0],
            name=told.names[0],
            reason=told.reasons[0],
            posterior_unknown=float(told.unknown[0]),
            prior_known=self.settings.prior_known,
            coverage=self.settings.conformal_coverage,
            candidates=candidates,
            agreement=agreement,
            makers_along_time=sorted({w.name for w in along if w.verdict == "one system"}),
            windows=along,
            model_sha256=self.model_sha256,
        )

    def _along(self, heard: Heard) -> list[Window]:
        if not heard.spans_s:
            return []
        told = self.decide(heard.window_vectors, heard.window_speech_s)
        best = told.llrs.argmax(axis=1)
        ratios = self.calibrated.bounded(told.llrs.max(axis=1)) / LOG10
        return [
            Window(start, end, told.kinds[w], told.names[w], self.gallery.systems[best[w]], float(ratios[w]))
            for w, (start, end) in enumerate(heard.spans_s)
        ]

    def _try_to_read(self, path: Path) -> Samples | AudioError:
        try:
            return self._hearing.read(path)
        except AudioError as error:
            return error

    def _listen(self, waveforms: Sequence[Samples]) -> list[Heard]:
        """Vectors of whole clips (of long ones the mean over pieces) and of their windows, all embedded together."""
        rate, s = self._hearing.rate_hz, self.settings
        parts: list[Samples] = []
        places = []
        for waveform in waveforms:
            whole = pieces(len(waveform), longest=round(s.max_seconds * rate))
            spans = windows(
                len(waveform), size=round(s.window_seconds * rate), hop=round(s.hop_seconds * rate)
            )
            spans = spans if len(spans) > 1 else []
            places.append((len(whole), spans))
            parts += [waveform[start:end] for start, end in [*whole, *spans]]
        if not parts:
            return []
        vectors = unit(self._hearing.vectors(parts)).astype(np.float32)
        heard, first = [], 0
        for waveform, (count, spans) in zip(waveforms, places, strict=True):
            middle, last = first + count, first + count + len(spans)
            heard.append(
                Heard(
                    vector=unit(vectors[first:middle].mean(axis=0, keepdims=True))[0],
                    duration_s=len(waveform) / rate,
                    speech_s=speech_seconds(waveform, rate),
                    spans_s=[(start / rate, end / rate) for start, end in spans],
                    window_vectors=vectors[middle:last],
                    window_speech_s=np.array([speech_seconds(part, rate) for part in parts[middle:last]]),
                )
            )
            first = last
        return heard


def enrolled_in(path: Path, trained: Gallery) -> Gallery:
    """The systems enrolled in the file at `path`, for a tracer whose own gallery is `trained`.

    Raises TracerError where they are of another model, or name one that was trained.
    """
    return read_gallery(path, model_sha256=trained.model_sha256, dim=trained.vectors.shape[1]).enrolled()


def _batches(files: Sequence[Path]) -> Iterator[list[Path]]:
    """At most BATCH_FILES together, and no more than one where they are large."""
    batch: list[Path] = []
    size = 0
    for path in files:
        more = path.stat().st_size if path.is_file() else 0
        if batch and (len(batch) == BATCH_FILES or size + more > BATCH_BYTES):
            yield batch
            batch, size = [], 0
        batch.append(path)
        size += more
    if batch:
        yield batch


def _named(audio: Audio) -> tuple[str, Audio]:
    return ("samples" if isinstance(audio, tuple) else str(audio)), audio
