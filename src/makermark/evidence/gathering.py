"""Gather all that can be said of one clip, as plain data: a page, a web server or a test lays it out."""

from __future__ import annotations

import hashlib
from dataclasses import asdict, dataclass, replace
from datetime import UTC, datetime
from pathlib import Path, PurePath

from makermark.audio import Samples
from makermark.corpora.making import MANIFEST
from makermark.corpora.rows import Manifest, read_manifest
from makermark.errors import AttributionError, FilesError, ManifestError
from makermark.evidence.changing import Changes, changes
from makermark.evidence.nearest import Neighbour, listen, nearest
from makermark.evidence.plane import Plane, place
from makermark.evidence.provenance import provenance
from makermark.evidence.sounds import Spectrogram, playable, spectrogram
from makermark.tracing import Trace, Tracer
from makermark.tracing.explaining import Explanation, explain_clip
from makermark.tracing.tracer import Audio
from makermark.tracing.verdict import LOG10

CORPUS = Path("data/corpus")
EXPLAINED_SECONDS = 10.0


@dataclass(frozen=True)
class Clip:
    """What was judged.

    - sha256, form, rate_hz, channels: of the file, before anything was done to it; empty or 0 for samples
    - in_corpus: the utterance with these very bytes, where the corpus at hand has one
    - sound: MP3 of what is played; shorter than the clip where that is long
    """

    name: str
    sha256: str
    form: str
    rate_hz: int
    channels: int
    in_corpus: str
    sound: bytes


@dataclass(frozen=True)
class Evidence:
    """Everything about one clip. `trace` is what `Tracer.trace` answers; `made_at` is UTC, ISO 8601.

    - explanation: what of the clip speaks for its nearest system; None where that cannot be told, and explanation_note
      says why
    - neighbours_note: why sounds of the gallery are missing altogether, else empty
    - bounds_log10: the smallest and the largest ratio that dev can vouch for
    - provenance: a heading, and under it what was used, by name; settings: of the tracer
    """

    trace: Trace
    clip: Clip
    made_at: str
    spectrogram: Spectrogram
    explanation: Explanation | None
    explanation_note: str
    neighbours: list[Neighbour]
    neighbours_note: str
    plane: Plane
    changes: Changes
    bounds_log10: tuple[float, float]
    provenance: dict[str, dict[str, str]]
    settings: dict[str, float]


def gather(
    tracer: Tracer, audio: Audio, *, corpus: Path | None = CORPUS, name: str = "", explain: bool = True
) -> Evidence:
    """The evidence on one clip; raises AudioError for what cannot be heard.

    `corpus` is the folder of the corpus that the model was trained on: without it, or where it is None, there is
    nothing to listen to but the clip. `name` stands for the clip in what people read, else its file's name does.
    Without `explain` it is not asked what speaks for the nearest system, which takes longer than all the rest.
    """
    waveform = tracer.waveform(audio)
    heard = tracer.hear((waveform, tracer.rate_hz))
    trace = tracer.judge(_name(audio), heard)
    manifest, note = _manifest(corpus)
    runner_up = trace.candidates[1].system if len(trace.candidates) > 1 else trace.candidates[0].system
    explanation, why_not = _explanation(tracer, waveform, trace.candidates[0].system, explain=explain)
    near = nearest(tracer.gallery, heard.vector, runner_up=runner_up)
    return Evidence(
        trace=trace if not name else replace(trace, file=name),
        clip=_clip(audio, name, playable(waveform, tracer.rate_hz), manifest),
        made_at=datetime.now(UTC).isoformat(timespec="seconds"),
        spectrogram=spectrogram(waveform, tracer.rate_hz),
        explanation=explanation,
        explanation_note=why_not,
        neighbours=listen(near, manifest, rate_hz=tracer.rate_hz),
        neighbours_note=note,
        plane=place(tracer.gallery, heard.vector, heard.window_vectors),
        changes=changes(tracer, heard),
        bounds_log10=(tracer.calibrated.lowest / LOG10, tracer.calibrated.highest / LOG10),
        provenance=provenance(tracer, manifest),
        settings=asdict(tracer.settings),
    )


def _name(audio: Audio) -> str:
    return "samples" if isinstance(audio, tuple) else str(audio)


def _manifest(corpus: Path | None) -> tuple[Manifest | None, str]:
    """The manifest in `corpus`, or why there is none."""
    if corpus is None:
        return None, "no corpus was asked for"
    try:
        return read_manifest(corpus / MANIFEST), ""
    except (FilesError, ManifestError) as error:
        return None, str(error)


def _explanation(
    tracer: Tracer, waveform: Samples, system: str, *, explain: bool
) -> tuple[Explanation | None, str]:
    """What speaks for a system, or why that is not told."""
    if not explain:
        return None, "it was not asked for"
    try:
        told = explain_clip(tracer, (waveform, tracer.rate_hz), system=system, longest_s=EXPLAINED_SECONDS)
    except AttributionError as error:
        return None, str(error)
    return told, ""


def _clip(audio: Audio, name: str, sound: bytes, manifest: Manifest | None) -> Clip:
    if isinstance(audio, tuple):
        return Clip(name or "samples", "", "", 0, 0, "", sound)
    import soundfile

    with Path(audio).open("rb") as file:
        sha256 = hashlib.file_digest(file, "sha256").hexdigest()
        file.seek(0)
        told = soundfile.info(file)  # by its path soundfile would refuse a name that is no UTF-8
    same = (
        [] if manifest is None else manifest.rows["utterance_id"][manifest.rows["sha256"] == sha256].tolist()
    )
    return Clip(
        name=name or PurePath(audio).name,
        sha256=sha256,
        form=f"{told.format}, {told.subtype}",
        rate_hz=int(told.samplerate),
        channels=int(told.channels),
        in_corpus=str(same[0]) if same else "",
        sound=sound,
    )
