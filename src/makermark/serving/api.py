"""The REST: uploads in, answers out. What an answer costs is done in `line`, by `desk`."""

# FastAPI reads the annotations of the functions below while it runs: names in them are looked up in this module

from typing import Annotated, Any

from fastapi import APIRouter, Depends, File, Form, UploadFile
from fastapi.responses import HTMLResponse

from makermark import __version__
from makermark.serving.answers import Health, Model, Problem, Systems
from makermark.serving.desk import Asked, Desk
from makermark.serving.guarding import Refused
from makermark.serving.line import Line
from makermark.serving.uploads import Upload
from makermark.tracing import Comparison, Trace

MOST_CLIPS = 50  # of a system that is enrolled

Clip = Annotated[UploadFile, File(description="WAV, FLAC, Ogg, MP3 or what else libsndfile reads.")]
Prior = Annotated[float | None, Form(gt=0, lt=1, description="Instead of the model's prior.")]
NO_PLACE: dict[int | str, dict[str, Any]] = {
    404: {"model": Problem, "description": "There is no such enrolled system."}
}


def routes(
    desk: Desk, line: Line[Asked, Trace], *, max_seconds: float, max_bytes: int, changeable: bool
) -> APIRouter:
    """The paths below /api. Where the gallery is not `changeable`, those that change it are refused."""
    api = APIRouter(prefix="/api")

    def may_change() -> None:
        if not changeable:
            raise Refused(403, "systems are not enrolled or removed here")

    changing = [Depends(may_change)]

    @api.post("/trace", operation_id="trace")
    async def trace(file: Clip, prior_known: Prior = None) -> Trace:
        """Say which system made a clip, how sure that is, and when it is none of those known."""
        return await line.answer((Upload.of(file), prior_known))

    @api.post("/compare", operation_id="compare")
    async def compare(a: Clip, b: Clip, prior_same: Prior = None) -> Comparison:
        """Say whether one system made both clips, whichever it is."""
        first, second = Upload.of(a), Upload.of(b)
        return await line.run(lambda: desk.compare(first, second, prior_same=prior_same))

    @api.post("/report", operation_id="report", response_class=HTMLResponse)
    async def report(file: Clip, prior_known: Prior = None) -> HTMLResponse:
        """Lay out the evidence on a clip as one HTML page that needs nothing else to be read."""
        upload = Upload.of(file)
        return HTMLResponse(await line.run(lambda: desk.report(upload, prior_known=prior_known)))

    @api.post("/enroll", operation_id="enroll", dependencies=changing)
    async def enroll(
        name: Annotated[str, Form(description="What to call the system.")],
        files: Annotated[list[UploadFile], File(description="Five or more different clips that it made.")],
        family: Annotated[str, Form(description="What kind of system it is, where that is known.")] = "",
    ) -> Systems:
        """Add a system to the gallery, without training; vectors and names of its clips are kept, no sound."""
        uploads = [Upload.of(file) for file in files]
        return Systems.of(await line.run(lambda: desk.enrol(name, uploads, family=family)))

    @api.get("/gallery", operation_id="gallery")
    def gallery() -> Systems:
        """List the systems that a clip can be traced to."""
        return Systems.of(desk.tracer().gallery)

    @api.delete("/gallery/{name:path}", operation_id="remove", responses=NO_PLACE, dependencies=changing)
    async def remove(name: str) -> Systems:
        """Remove an enrolled system."""
        return Systems.of(await line.run(lambda: desk.remove(name)))

    @api.get("/model", operation_id="model")
    def model() -> Model:
        """Tell what answers, what it assumes, and what it takes."""
        return Model.of(
            desk.tracer(),
            version=__version__,
            max_seconds=max_seconds,
            max_bytes=max_bytes,
            max_clips=MOST_CLIPS,
            changeable=changeable,
        )

    @api.get("/health", operation_id="health")
    async def health() -> Health:
        """Tell that the server is there."""
        return Health(in_line=line.inside)

    return api
