"""Tracer: source tracing with a trained model, a gallery of systems and a calibration on dev."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import cached_property
from pathlib import Path, PurePath
from types import MappingProxyType
from typing import Any

import numpy as np

from makermark.foundation.arrays import Float32Array, FloatArray
from makermark.foundation.audio import Recording, Samples
from makermark.foundation.embeddings import l2_normalise
from makermark.foundation.errors import AudioError, TracerError
from makermark.models.checkpoint import load_checkpoint
from makermark.scoring.calibration import posterior
from makermark.tracing.bundle import ClipSet, TracerSettings, read_bundle, resolve_model_uri
from makermark.tracing.calibration import (
    FalseAccepts,
    GalleryCalibration,
    ScoreCalibrator,
    calibrate_gallery,
    measure_system_threshold,
)
from makermark.tracing.decision import (
    LOG10,
    ONE_SYSTEM,
    TOO_LITTLE_SPEECH,
    Candidate,
    Comparison,
    Decisions,
    Trace,
    Window,
    decide,
)
from makermark.tracing.extractor import Audio, ClipEmbedding, ClipExtractor, batch_files, clip_name
from makermark.tracing.gallery import Gallery, read_enrolled_systems

MIN_ENROLMENT_CLIPS = 2
NO_METRICS: Mapping[str, Any] = MappingProxyType({})


class Tracer:
    """Attribution of clips to the systems of a gallery.

    - gallery: the systems that can be named
    - settings: priors, error rates and durations
    - extractor: computes the embeddings of clips
    - test_metrics: its metrics on test by clip length, of `evaluate_tracer`; empty if they are not recorded
    - model_sha256, metadata: of the checkpoint
    - rate_hz: sample rate of the waveforms
    """

    def __init__(
        self,
        extractor: ClipExtractor,
        gallery: Gallery,
        calibrator: ScoreCalibrator,
        settings: TracerSettings,
        *,
        test_metrics: Mapping[str, Any] = NO_METRICS,
    ) -> None:
        self.test_metrics = test_metrics
        self.extractor, self.gallery, self.settings = extractor, gallery, settings
        self.model_sha256, self.metadata, self.rate_hz = (
            gallery.model_sha256,
            extractor.metadata,
            extractor.rate_hz,
        )
        self._calibrator = calibrator

    @classmethod
    def load(
        cls,
        model: Path | str,
        *,
        gallery: Path | None = None,
        device: str = "auto",
        prior_known: float | None = None,
        prior_same: float | None = None,
    ) -> Tracer:
        """Load a tracer from a folder with best.* and tracer/ (`models` after `make repro`) or from an MLflow URI.

        MLflow URIs are `runs:/RUN/checkpoint` and `models:/NAME/VERSION`. `gallery` is a file of enrolled systems; a
        missing file means none. The priors replace those of the bundle. Raises FilesError for missing files,
        CheckpointError for a damaged model, TracerError for a gallery of another model, TrackingError for MLflow.
        """
        with resolve_model_uri(model) as folder:
            checkpoint = load_checkpoint(folder / "best")
            bundle = read_bundle(
                folder / "tracer", model_sha256=checkpoint.digest, dim=checkpoint.metadata.dim
            )
        settings = bundle.settings
        calibrator = ScoreCalibrator(
            bundle.dev,
            bundle.gallery,
            prior=settings.calibration_prior,
            seed=settings.seed,
            bonafide=bundle.bonafide,
        )
        systems = bundle.gallery
        if gallery is not None and gallery.exists():
            systems = systems.merge(read_enrolled_systems(gallery, systems))
        extractor = ClipExtractor(checkpoint, device=device)
        tracer = cls(extractor, systems, calibrator, settings, test_metrics=bundle.test_metrics)
        priors = {"prior_known": prior_known, "prior_same": prior_same}
        return tracer.with_settings(**{name: value for name, value in priors.items() if value is not None})

    @cached_property
    def calibration(self) -> GalleryCalibration:
        """Calibration and decision thresholds of the current gallery."""
        return calibrate_gallery(
            self.gallery,
            self._calibrator,
            false_accept_rate=self.settings.false_accept_rate,
            coverage=self.settings.conformal_coverage,
        )

    @property
    def dev_by_length(self) -> list[ClipSet]:
        """Clips of dev that the calibration was fitted on, one set per length."""
        return self._calibrator.dev_by_length

    @property
    def human_clips(self) -> int:
        """Number of clips of human speech in the reference population at each length."""
        bonafide = self._calibrator.bonafide
        return 0 if bonafide is None else len(bonafide.of_length(bonafide.lengths[0]).systems)

    def measure_threshold(self, system: int, speech_s: float) -> tuple[FalseAccepts | None, float]:
        """Return how well dev determines the threshold of the system with number `system`, and dev's amount of speech.

        Both are those of the length of dev's clips that is nearest to `speech_s`. None if dev has no unknown systems.
        """
        known_seconds = self.calibration.speech_seconds
        length = int(np.abs(np.log(known_seconds / max(speech_s, 1e-3))).argmin())
        measured = measure_system_threshold(
            self.calibration,
            self._calibrator,
            system=system,
            length=length,
            rate=self.settings.false_accept_rate,
        )
        return measured, float(known_seconds[length])

    def centroid(self, system: str) -> FloatArray:
        """Return the centroid (D,) of a system, of unit length; raises TracerError if it is not in the gallery."""
        if system not in self.gallery.systems:
            raise TracerError(f"system {system!r} is not in the gallery; `makermark gallery list` lists it")
        return np.asarray(self.gallery.centroids()[self.gallery.systems.index(system)])

    def with_gallery(self, gallery: Gallery) -> Tracer:
        """Return a tracer of the same model for another gallery, with its own calibration."""
        return Tracer(
            self.extractor, gallery, self._calibrator, self.settings, test_metrics=self.test_metrics
        )

    def with_settings(self, **changes: float) -> Tracer:
        """Return a tracer with other settings, by their names in TracerSettings; fits are reused.

        Raises TracerError for a prior that is not between 0 and 1.
        """
        settings = dataclasses.replace(self.settings, **changes)  # type: ignore[arg-type]
        return Tracer(
            self.extractor, self.gallery, self._calibrator, settings, test_metrics=self.test_metrics
        )

    def load_clip(self, clip: Audio) -> Recording:
        """Return the waveform (T,) of a clip at `rate_hz`, with notes on its file; raises AudioError."""
        return self.extractor.load(clip)

    def embed_clip(self, clip: Audio) -> ClipEmbedding:
        """Return the embeddings of a clip and of its windows; raises AudioError."""
        return self.embed_clips([clip])[0]

    def embed_clips(self, clips: Sequence[Audio]) -> list[ClipEmbedding]:
        """Embed several clips together, which is faster than one after another; raises AudioError."""
        return self.embed_waveforms([self.extractor.read(clip) for clip in clips])

    def embed_waveforms(self, waveforms: Sequence[Samples]) -> list[ClipEmbedding]:
        """Embed waveforms (T,) at `rate_hz` together."""
        s = self.settings
        return self.extractor.embed_clips(
            waveforms, max_seconds=s.max_seconds, window_seconds=s.window_seconds, hop_seconds=s.hop_seconds
        )

    def trace(self, clip: Audio) -> Trace:
        """Assess which system made a clip; raises AudioError if the clip is unusable."""
        recording = self.load_clip(clip)
        return self.assess(clip_name(clip), self.embed_waveforms([recording.waveform])[0], recording)

    def trace_files(
        self, files: Sequence[Path], *, workers: int = 2, on_error: Callable[[Path, str], None]
    ) -> Iterator[Trace]:
        """Trace many files, in their order; `on_error(file, reason)` is called for an unusable file."""
        with ThreadPoolExecutor(workers) as pool:
            for batch in batch_files(files):
                recordings: list[tuple[str, Recording]] = []
                for path, recording in zip(batch, pool.map(self._try_load, batch), strict=True):
                    if isinstance(recording, AudioError):
                        on_error(path, str(recording).removeprefix(f"{path}: "))
                    else:
                        recordings.append((str(path), recording))
                embeddings = self.embed_waveforms([recording.waveform for _, recording in recordings])
                for (name, recording), embedding in zip(recordings, embeddings, strict=True):
                    yield self.assess(name, embedding, recording)

    def _try_load(self, path: Path) -> Recording | AudioError:
        try:
            return self.load_clip(path)
        except AudioError as error:
            return error

    def assess(self, name: str, clip: ClipEmbedding, recording: Recording | None = None) -> Trace:
        """Return the assessment of an embedded clip; `name` is the value of `Trace.file`.

        `recording` gives the checksum, decoder and notes of the file.
        """
        decisions = self.decide(clip.embedding[None], np.array([clip.speech_s]))
        calibration, llrs = self.calibration, decisions.llrs[0]
        cosines = np.asarray(clip.embedding[None] @ calibration.centroids.T)[0]
        limited = calibration.limit(llrs)
        is_named = bool(decisions.names[0])
        candidates = [
            Candidate(
                system=calibration.systems[index],
                family=calibration.families[index],
                cosine=float(cosines[index]),
                log10_lr=float(limited[index] / LOG10),
                at_bound=bool(limited[index] != llrs[index]),
                posterior=float(decisions.posteriors[0, index]) if is_named else None,
                in_set=bool(decisions.in_set[0, index]),
            )
            for index in np.argsort(-llrs, kind="stable")
        ]
        windows = self._assess_windows(clip)
        with_speech = [window for window in windows if window.conclusion != TOO_LITTLE_SPEECH]
        agreeing = sum(window.best == candidates[0].system for window in with_speech)
        return Trace(
            file=name,
            duration_s=clip.duration_s,
            speech_s=clip.speech_s,
            conclusion=decisions.conclusions[0],
            name=decisions.names[0],
            reason=decisions.reasons[0],
            posterior_unknown=float(decisions.posterior_unknown[0]) if is_named else None,
            prior_known=self.settings.prior_known,
            coverage=self.settings.conformal_coverage,
            candidates=candidates,
            agreement=agreeing / len(with_speech) if with_speech else None,
            makers_along_time=sorted({w.name for w in windows if w.conclusion == ONE_SYSTEM}),
            windows=windows,
            model_sha256=self.model_sha256,
            sha256=recording.sha256 if recording else "",
            decoder=recording.decoder if recording else "",
            notes=list(recording.notes) if recording else [],
        )

    def _assess_windows(self, clip: ClipEmbedding) -> list[Window]:
        if not clip.window_spans_s:
            return []
        decisions = self.decide(clip.window_embeddings, clip.window_speech_s)
        top_system = decisions.llrs.argmax(axis=1)
        log10_lrs = self.calibration.limit(decisions.llrs.max(axis=1)) / LOG10
        return [
            Window(
                start_s=start,
                end_s=end,
                conclusion=decisions.conclusions[index],
                name=decisions.names[index],
                best=self.calibration.systems[top_system[index]],
                log10_lr=float(log10_lrs[index]),
            )
            for index, (start, end) in enumerate(clip.window_spans_s)
        ]

    def decide(self, embeddings: Float32Array, speech_seconds: FloatArray) -> Decisions:
        """Decide on clips with embeddings (N, D) and `speech_seconds` (N,) of speech."""
        embeddings = l2_normalise(embeddings)
        return decide(
            np.asarray(embeddings @ self.calibration.centroids.T),
            speech_seconds,
            human_cosines=self.calibration.human_cosines(embeddings),
            calibration=self.calibration,
            prior_known=self.settings.prior_known,
            min_speech_seconds=self.settings.min_speech_seconds,
        )

    def enroll(
        self, name: str, clips: Sequence[Audio], *, family: str = "", clip_names: Sequence[str] = ()
    ) -> Tracer:
        """Return a tracer with one more system, enrolled from `clips` without training.

        `clip_names` replace the file names of the clips in the gallery and in errors. Raises AudioError for an unusable
        clip; TracerError for a clip with too little speech, too few clips, identical clips, or an invalid name.
        """
        if len(clips) < MIN_ENROLMENT_CLIPS:
            raise TracerError(
                f"system {name!r}: {len(clips)} clip; give at least {MIN_ENROLMENT_CLIPS}, better 5 or more"
            )
        names = list(clip_names) if clip_names else [clip_name(clip) for clip in clips]
        embedded = self.embed_clips(clips)
        for label, clip in zip(names, embedded, strict=True):
            if clip.speech_s < self.settings.min_speech_seconds:
                raise TracerError(
                    f"{label}: {clip.speech_s:.1f} s of speech is too little for enrolment; the minimum is "
                    f"{self.settings.min_speech_seconds:g} s"
                )
        embeddings = np.stack([clip.embedding for clip in embedded])
        if len(np.unique(embeddings, axis=0)) < len(embeddings):
            raise TracerError(f"system {name!r}: two of the clips are identical; give different clips")
        stems = [PurePath(label).name for label in names]
        return self.with_gallery(self.gallery.with_system(name, embeddings, stems, family=family))

    def compare(self, a: Audio, b: Audio) -> Comparison:
        """Assess whether one system made both clips, in or outside the gallery; raises AudioError."""
        return self.compare_recordings(self.load_clip(a), self.load_clip(b))

    def compare_recordings(self, a: Recording, b: Recording) -> Comparison:
        """Assess whether one system made both recordings, in or outside the gallery."""
        first, second = self.embed_waveforms([a.waveform, b.waveform])
        cosine = float(first.embedding @ second.embedding)
        speech = (first.speech_s, second.speech_s)
        llr = self._calibrator.pair_llrs(np.array([cosine]), np.array([min(speech)]))
        limited = np.clip(llr, *self._calibrator.llr_range)
        prior = self.settings.prior_same
        return Comparison(
            cosine=cosine,
            log10_lr=float(limited[0] / LOG10),
            at_bound=bool(limited[0] != llr[0]),
            posterior_same=float(posterior(limited, prior=prior)[0]),
            prior_same=prior,
            speech_s=speech,
            enough_speech=min(speech) >= self.settings.min_speech_seconds,
            sha256=(a.sha256, b.sha256),
            notes=[f"clip {number}: {note}" for number, clip in ((1, a), (2, b)) for note in clip.notes],
        )

    def pair_llrs(self, cosines: FloatArray, speech_seconds: FloatArray) -> FloatArray:
        """Return the LLRs (N,) of one system against two for pairs of clips, limited to the range that dev supports.

        `speech_seconds` (N,) is the amount of speech of the shorter clip of each pair.
        """
        llrs = self._calibrator.pair_llrs(cosines, speech_seconds)
        return np.clip(llrs, *self._calibrator.llr_range)
