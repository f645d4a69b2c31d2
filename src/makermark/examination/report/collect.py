"""Collection of all data of a report on one clip, independent of its rendering, and their provenance."""

from __future__ import annotations

import hashlib
import platform
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from importlib import metadata
from pathlib import Path, PurePath

from makermark import __version__
from makermark.examination.attribution.clip_explanation import Explanation, explain_clip
from makermark.examination.report.media import Spectrogram, compute_spectrogram, encode_mp3
from makermark.examination.report.neighbours import (
    Neighbour,
    PcaMap,
    find_nearest,
    load_neighbours,
    project_gallery,
)
from makermark.examination.report.sensitivity import Sensitivity, analyse_sensitivity
from makermark.foundation.audio import Recording, Samples
from makermark.foundation.embeddings import utterances_sha256
from makermark.foundation.errors import AttributionError, FilesError, ManifestError
from makermark.foundation.manifest import MANIFEST_FILE, Manifest, read_manifest
from makermark.tracing import Gallery, Trace, Tracer
from makermark.tracing.decision import LOG10
from makermark.tracing.extractor import Audio, clip_name
from makermark.tracing.gallery import TEXT_COLUMNS
from makermark.tracing.scope import describe_test_rates, describe_tracer_scope

CORPUS = Path("data/corpus")
MAX_EXPLAINED_SECONDS = 10.0
LIBRARIES = ("torch", "torchaudio", "numpy", "scipy", "soundfile", "soxr", "silero-vad", "onnxruntime")
NOT_RECORDED = "not recorded"


@dataclass(frozen=True)
class ClipInfo:
    """The examined clip.

    - sha256, decoder, rate_hz, channels: of the original file; empty or 0 for samples
    - notes: what is unusual about the file
    - in_corpus: the utterance of the corpus with the same content, else empty
    - mp3: sound for playback, which may be shorter than the clip
    """

    name: str
    sha256: str
    decoder: str
    rate_hz: int
    channels: int
    notes: tuple[str, ...]
    in_corpus: str
    mp3: bytes


@dataclass(frozen=True)
class ReportData:
    """All data of a report.

    - trace: result of `Tracer.trace`
    - created_at: UTC, ISO 8601
    - explanation: attribution of the similarity to the top-scoring system; None if it is not available, with the reason
      in explanation_note
    - neighbours_note: why no neighbour has sound, else empty
    - scope, test_rates: what the model knows, and how often it named the right system on test
    - posterior_error_percent: mean difference of posteriors and shares of right answers on test; None if not recorded
    - log10_lr_range: smallest and largest log10 likelihood ratio that dev supports
    - human_clips: number of clips of human speech in the reference population, at each length
    - provenance: facts by name, under headings
    - settings: settings of the tracer
    """

    trace: Trace
    clip: ClipInfo
    created_at: str
    spectrogram: Spectrogram
    explanation: Explanation | None
    explanation_note: str
    neighbours: list[Neighbour]
    neighbours_note: str
    pca_map: PcaMap
    sensitivity: Sensitivity
    scope: str
    test_rates: str
    posterior_error_percent: float | None
    log10_lr_range: tuple[float, float]
    human_clips: int
    provenance: dict[str, dict[str, str]]
    settings: dict[str, float]


def collect_report_data(
    tracer: Tracer, audio: Audio, *, corpus: Path | None = CORPUS, name: str = "", explain: bool = True
) -> ReportData:
    """Collect the data of a report on one clip; raises AudioError for an unusable clip.

    `corpus` is the folder of the training corpus, the source of the neighbours' sound; None means no corpus. `name`
    replaces the file name of the clip. `explain=False` omits the attribution, which takes longer than everything else.
    """
    recording = tracer.load_clip(audio)
    waveform = recording.waveform
    embedding = tracer.embed_waveforms([waveform])[0]
    trace = tracer.assess(name or clip_name(audio), embedding, recording)
    manifest, neighbours_note = _read_manifest(corpus)
    best = trace.candidates[0].system
    runner_up = trace.candidates[1].system if len(trace.candidates) > 1 else best
    explanation, explanation_note = _explain(tracer, waveform, best, explain=explain)
    neighbours = find_nearest(tracer.gallery, embedding.embedding, runner_up=runner_up)
    calibration = tracer.calibration
    return ReportData(
        trace=trace,
        clip=_describe_clip(
            recording, PurePath(trace.file).name, encode_mp3(waveform, tracer.rate_hz), manifest
        ),
        created_at=datetime.now(UTC).isoformat(timespec="seconds"),
        spectrogram=compute_spectrogram(waveform, tracer.rate_hz),
        explanation=explanation,
        explanation_note=explanation_note,
        neighbours=load_neighbours(neighbours, manifest, rate_hz=tracer.rate_hz),
        neighbours_note=neighbours_note,
        pca_map=project_gallery(tracer.gallery, embedding.embedding, embedding.window_embeddings),
        sensitivity=analyse_sensitivity(tracer, embedding),
        scope=describe_tracer_scope(tracer),
        test_rates=describe_test_rates(tracer.test_metrics),
        posterior_error_percent=tracer.test_metrics.get("whole", {}).get("posterior_error_percent"),
        log10_lr_range=(calibration.min_llr / LOG10, calibration.max_llr / LOG10),
        human_clips=tracer.human_clips,
        provenance=describe_provenance(tracer, manifest),
        settings=asdict(tracer.settings),
    )


def _read_manifest(corpus: Path | None) -> tuple[Manifest | None, str]:
    """Return the manifest of `corpus`, or None and the reason."""
    if corpus is None:
        return None, "no corpus is configured"
    try:
        return read_manifest(corpus / MANIFEST_FILE), ""
    except (FilesError, ManifestError) as error:
        return None, str(error)


def _explain(
    tracer: Tracer, waveform: Samples, system: str, *, explain: bool
) -> tuple[Explanation | None, str]:
    """Return the attribution, or None and the reason."""
    if not explain:
        return None, "the attribution was not requested"
    try:
        explanation = explain_clip(
            tracer, (waveform, tracer.rate_hz), system=system, longest_s=MAX_EXPLAINED_SECONDS
        )
    except AttributionError as error:
        return None, str(error)
    return explanation, ""


def _describe_clip(recording: Recording, name: str, mp3: bytes, manifest: Manifest | None) -> ClipInfo:
    in_corpus: list[str] = []
    if manifest is not None and recording.sha256:
        in_corpus = manifest.rows["utterance_id"][manifest.rows["sha256"] == recording.sha256].tolist()
    return ClipInfo(
        name=name,
        sha256=recording.sha256,
        decoder=recording.decoder,
        rate_hz=recording.rate_hz if recording.sha256 else 0,
        channels=recording.channels if recording.sha256 else 0,
        notes=recording.notes,
        in_corpus=str(in_corpus[0]) if in_corpus else "",
        mp3=mp3,
    )


def describe_provenance(tracer: Tracer, manifest: Manifest | None) -> dict[str, dict[str, str]]:
    """Return facts by name, under headings."""
    return {
        "Model": _describe_model(tracer),
        "Data": _describe_data(tracer, manifest),
        "Gallery": _describe_gallery(tracer),
        "This report": {
            "makermark": __version__,
            "python": platform.python_version(),
            "libraries": _format_versions({name: metadata.version(name) for name in LIBRARIES}),
            "machine": platform.platform(),
        },
    }


def _describe_model(tracer: Tracer) -> dict[str, str]:
    model = tracer.metadata
    return {
        "checkpoint (SHA-256)": tracer.model_sha256,
        "git commit at training": model.git_commit or NOT_RECORDED,
        "backbone": f"{model.backbone}, {model.dim} dimensions",
        "loss": model.loss,
        "epoch": f"{model.epoch}, dev EER {model.dev_eer_percent:.2f} %",
        "libraries at training": _format_versions(model.versions),
    }


def _describe_data(tracer: Tracer, manifest: Manifest | None) -> dict[str, str]:
    model = tracer.metadata
    facts = {
        "corpus": str(model.params.get("corpus", NOT_RECORDED)),
        "training set": f"{len(model.systems)} systems, languages {', '.join(model.languages or [NOT_RECORDED])}",
        "features (hash of parameters and contents)": model.feature_fingerprint,
        "front end": f"{model.front_end}, {tracer.rate_hz} Hz",
    }
    if manifest is not None:
        facts["utterances of the available corpus (hash)"] = utterances_sha256(manifest.rows)
    return facts


def _describe_gallery(tracer: Tracer) -> dict[str, str]:
    gallery, dev = tracer.gallery, tracer.dev_by_length
    unseen = tracer.calibration.thresholds_from == "unseen"
    return {
        "systems": f"{len(gallery.systems)}, {len(gallery.clips)} utterances",
        "enrolled systems": ", ".join(gallery.enrolled().systems) or "none",
        "contents (SHA-256)": gallery_sha256(gallery),
        "calibration data": f"dev, {len(dev)} clip lengths, {sum(len(clips.systems) for clips in dev)} clips",
        "human speech": f"{tracer.human_clips} clips at each length" if tracer.human_clips else "none",
        "unknown systems in dev": "systems that are not in the gallery"
        if unseen
        else "none; each system of the gallery was left out in turn",
    }


def gallery_sha256(gallery: Gallery) -> str:
    """Return the SHA-256 of the names, families, origins and clips of a gallery and of its embeddings."""
    digest = hashlib.sha256()
    for row in gallery.clips[list(TEXT_COLUMNS)].itertuples(index=False):
        digest.update("\t".join(map(str, row)).encode() + b"\n")
    digest.update(gallery.embeddings.astype("<f4").tobytes())
    return digest.hexdigest()


def _format_versions(versions: dict[str, str]) -> str:
    return ", ".join(f"{name} {version}" for name, version in versions.items()) or NOT_RECORDED
