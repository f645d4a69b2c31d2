"""The page, the REST and what guards them, as one ASGI application."""

from __future__ import annotations

import logging
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import FileResponse, JSONResponse
from fastapi.staticfiles import StaticFiles
from starlette.exceptions import HTTPException
from starlette.responses import Response

from makermark import __version__
from makermark.errors import AudioError, MakermarkError, TracerError
from makermark.serving import api
from makermark.serving.answers import Problem
from makermark.serving.desk import Desk
from makermark.serving.guarding import RETRY_SECONDS, Guard
from makermark.serving.line import Line, LineFullError

PAGE = Path(__file__).parent / "page"
FIELD_BYTES = 4_096  # of what is no file in a form
FIELDS = 8
log = logging.getLogger(__name__)

REASONS = {
    400: "Not a form as it should be.",
    403: "Sent by another site's page, or nothing may be changed here.",
    408: "The body did not arrive in time.",
    413: "The body is larger than is taken.",
    421: "The Host header names another server.",
    422: "Not audio, too long, too little speech, a name that is taken ...",
    429: "Too many requests of one client; Retry-After says when to come back.",
    500: "A bug, or a disk that is full; the server's log says more.",
    503: "Too much to do; Retry-After says when to come back.",
}
REFUSALS: dict[int | str, dict[str, Any]] = {
    status: {
        "description": reason,
        "content": {"application/json": {"schema": {"$ref": f"#/components/schemas/{Problem.__name__}"}}},
    }
    for status, reason in REASONS.items()
}


def application(
    desk: Desk,
    *,
    hosts: Sequence[str],
    threads: int,
    waiting: int,
    max_seconds: float,
    max_bytes: int,
    max_bytes_at_once: int,
    per_minute: float,
    burst: int,
    body_seconds: float,
    answer_seconds: float,
    changeable: bool,
) -> Guard:
    """An ASGI application; what the limits mean, `Guard`, `Line` and `api.routes` say."""
    line = Line(desk.trace_all, threads=threads, waiting=waiting)

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        yield
        line.close()

    app = FastAPI(
        title="makermark",
        version=__version__,
        description='Which TTS system made this voice? Every error is one line: `{"error": ...}`.',
        docs_url=None,  # they load scripts from elsewhere
        redoc_url=None,
        redirect_slashes=False,
        lifespan=lifespan,
        responses=REFUSALS,
        form_limits={"max_files": api.MOST_CLIPS, "max_fields": FIELDS, "max_part_size": FIELD_BYTES},
    )
    app.include_router(
        api.routes(desk, line, max_seconds=max_seconds, max_bytes=max_bytes, changeable=changeable)
    )
    for kind, answer in ANSWERS.items():
        app.add_exception_handler(kind, answer)

    @app.get("/", include_in_schema=False)
    async def page() -> FileResponse:
        return FileResponse(PAGE / "index.html", headers={"cache-control": "no-cache"})

    app.mount("/page", StaticFiles(directory=PAGE))
    return Guard(
        app,
        hosts=hosts,
        max_bytes=max_bytes,
        max_bytes_at_once=max_bytes_at_once,
        per_minute=per_minute,
        burst=burst,
        body_seconds=body_seconds,
        answer_seconds=answer_seconds,
    )


async def _http(request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    return JSONResponse({"error": error.detail}, error.status_code, error.headers)


async def _invalid(request: Request, error: Exception) -> Response:
    assert isinstance(error, RequestValidationError)
    first = error.errors()[0]
    return JSONResponse({"error": f"{first['loc'][-1]}: {first['msg']}"}, 422)


async def _full(request: Request, error: Exception) -> Response:
    headers = {"Retry-After": str(RETRY_SECONDS)}
    return JSONResponse({"error": "as many wait as may; come back soon"}, 503, headers)


async def _unheard(request: Request, error: Exception) -> Response:
    return JSONResponse({"error": str(error)}, 422)


async def _refused(request: Request, error: Exception) -> Response:
    return JSONResponse({"error": str(error)}, 404 if request.method == "DELETE" else 422)


async def _broken(request: Request, error: Exception) -> Response:
    log.error("%s %s: %s", request.method, request.url.path, error)
    return JSONResponse({"error": "the server cannot do this now; its log says why"}, 500)


ANSWERS = {
    HTTPException: _http,
    RequestValidationError: _invalid,
    LineFullError: _full,
    AudioError: _unheard,
    TracerError: _refused,
    MakermarkError: _broken,
    Exception: _broken,
}
