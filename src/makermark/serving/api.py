"""The REST interface below /api: form fields in, JSON out. The work runs in the request queue.

`Trace` and `Comparison` are returned with their own fields; the other responses are the models below.
"""

# No `from __future__ import annotations`: FastAPI evaluates the annotations of the functions below at run time.

from typing import Annotated, Any, Self

from fastapi import APIRouter, Depends, File, Form, HTTPException, UploadFile
from fastapi.responses import HTMLResponse
from pydantic import BaseModel, Field

from makermark import __version__
from makermark.serving.request_queue import RequestQueue
from makermark.serving.service import MIN_ENROLMENT_CLIPS, TraceRequest, TracingService, Upload
from makermark.tracing import Comparison, Gallery, Trace
from makermark.tracing.scope import describe_test_rates, describe_tracer_scope

MAX_ENROLMENT_CLIPS = 50


class Problem(BaseModel):
    """The error of a request that failed."""

    error: str = Field(description="One line of text.")


class Health(BaseModel):
    """State of the server."""

    status: str = "ok"
    in_line: int = Field(description="Number of requests that wait in the queue or run.")


class System(BaseModel):
    """A system of the gallery."""

    name: str
    family: str = Field(description="Empty if unknown.")
    origin: str = Field(description="train: learned in training, cannot be removed; enrolled: added later.")
    clips: int


class Systems(BaseModel):
    """The gallery."""

    model_sha256: str
    systems: list[System]

    @classmethod
    def from_gallery(cls, gallery: Gallery) -> Self:
        """Return the response for `gallery`."""
        systems = [
            System(name=name, family=family, origin=origin, clips=clips)
            for name, family, origin, clips in gallery.summary.itertuples(name=None)
        ]
        return cls(model_sha256=gallery.model_sha256, systems=systems)


class Model(BaseModel):
    """The model, its assumptions and the limits of the server."""

    makermark: str = Field(description="Version of makermark.")
    model_sha256: str
    backbone: str
    git_commit: str = Field(description="Commit of the code that trained the model.")
    scope: str = Field(description="What the model was trained on, and what it cannot tell.")
    test_rates: str = Field(description="How often it named the right system on test.")
    languages: list[str] = Field(description="Languages of the training speech.")
    prior_known: float = Field(
        description="Default prior probability that the system of a clip is in the gallery."
    )
    prior_same: float = Field(description="Default prior probability that one system made both clips.")
    false_accept_rate: float = Field(
        description="Share of dev's clips of unknown systems above the threshold for naming: a quantile, no promise."
    )
    coverage: float = Field(
        description="Share of clips whose system is in the candidate set, if the gallery has it."
    )
    min_speech_seconds: float
    max_seconds: float = Field(description="Longest clip.")
    max_bytes: int = Field(description="Largest request body.")
    min_clips: int = Field(description="Fewest clips to enrol a system from.")
    max_clips: int
    changeable: bool = Field(description="Whether this server enrols and removes systems.")


ClipFile = Annotated[
    UploadFile,
    File(description="WAV, FLAC, Ogg, MP3, M4A, WebM or another format that libsndfile or FFmpeg decodes."),
]
Prior = Annotated[float | None, Form(gt=0, lt=1, description="Replaces the model's default prior.")]
NOT_ENROLLED: dict[int | str, dict[str, Any]] = {
    404: {"model": Problem, "description": "No enrolled system has this name."}
}


def build_router(
    service: TracingService,
    queue: RequestQueue[TraceRequest, Trace],
    *,
    max_seconds: float,
    max_bytes: int,
    changeable: bool,
) -> APIRouter:
    """Return the routes below /api. Unless `changeable`, requests that change the gallery are rejected (403)."""
    router = APIRouter(prefix="/api")

    def check_changeable() -> None:
        if not changeable:
            raise HTTPException(403, "This server is read-only: it does not enrol or remove systems.")

    write_dependencies = [Depends(check_changeable)]

    @router.post("/trace", operation_id="trace")
    async def trace(file: ClipFile, prior_known: Prior = None) -> Trace:
        """Name the system that made a clip, with likelihood ratios, or report that no known system fits."""
        return await queue.submit(TraceRequest(Upload.from_form(file), prior_known))

    @router.post("/compare", operation_id="compare")
    async def compare(a: ClipFile, b: ClipFile, prior_same: Prior = None) -> Comparison:
        """Compare two clips: likelihood ratio of one system against two systems, known or not."""
        first, second = Upload.from_form(a), Upload.from_form(b)
        return await queue.run(lambda: service.compare(first, second, prior_same=prior_same))

    @router.post("/report", operation_id="report", response_class=HTMLResponse)
    async def report(file: ClipFile, prior_known: Prior = None) -> HTMLResponse:
        """Return the evidence report on a clip as one self-contained HTML page."""
        upload = Upload.from_form(file)
        return HTMLResponse(await queue.run(lambda: service.report(upload, prior_known=prior_known)))

    @router.post("/enroll", operation_id="enroll", dependencies=write_dependencies)
    async def enroll(
        name: Annotated[str, Form(description="Name of the system.")],
        files: Annotated[list[UploadFile], File(description="Five or more different clips of the system.")],
        family: Annotated[str, Form(description="Architecture family of the system, if known.")] = "",
    ) -> Systems:
        """Add a system to the gallery without training. Embeddings and file names are stored, audio is not."""
        uploads = [Upload.from_form(file) for file in files]
        gallery = await queue.run(lambda: service.enroll(name, uploads, family=family))
        return Systems.from_gallery(gallery)

    @router.get("/gallery", operation_id="gallery")
    def gallery() -> Systems:
        """List the systems of the gallery."""
        return Systems.from_gallery(service.tracer().gallery)

    @router.delete(
        "/gallery/{name:path}", operation_id="remove", responses=NOT_ENROLLED, dependencies=write_dependencies
    )
    async def remove(name: str) -> Systems:
        """Remove an enrolled system."""
        return Systems.from_gallery(await queue.run(lambda: service.remove(name)))

    @router.get("/model", operation_id="model")
    def model() -> Model:
        """Describe the model, its assumptions and the limits of the server."""
        tracer = service.tracer()
        metadata, settings = tracer.metadata, tracer.settings
        return Model(
            makermark=__version__,
            model_sha256=tracer.model_sha256,
            backbone=metadata.backbone,
            git_commit=metadata.git_commit,
            scope=describe_tracer_scope(tracer),
            test_rates=describe_test_rates(tracer.test_metrics),
            languages=metadata.languages or [],
            prior_known=settings.prior_known,
            prior_same=settings.prior_same,
            false_accept_rate=settings.false_accept_rate,
            coverage=settings.conformal_coverage,
            min_speech_seconds=settings.min_speech_seconds,
            max_seconds=max_seconds,
            max_bytes=max_bytes,
            min_clips=MIN_ENROLMENT_CLIPS,
            max_clips=MAX_ENROLMENT_CLIPS,
            changeable=changeable,
        )

    @router.get("/health", operation_id="health")
    async def health() -> Health:
        """Return the state of the server."""
        return Health(in_line=queue.pending)

    return router
