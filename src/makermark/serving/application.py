"""The ASGI application: the page, the REST interface and the middleware in front of them."""

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
from starlette.types import ASGIApp

from makermark import __version__
from makermark.foundation.errors import AudioError, MakermarkError, TracerError
from makermark.serving import middleware
from makermark.serving.api import MAX_ENROLMENT_CLIPS, Problem, build_router
from makermark.serving.request_queue import QueueFullError, RequestQueue
from makermark.serving.service import TracingService

PAGE = Path(__file__).parent / "page"
MAX_FORM_FIELDS = 8
MAX_FIELD_BYTES = 4_096  # of a form field that is not a file
log = logging.getLogger(__name__)

ERROR_STATUSES = {
    400: "The form is malformed.",
    403: "A page of another site sent the request, or the server is read-only.",
    408: "The request body did not arrive in time.",
    413: "The request body is too large.",
    421: "The Host header is not allowed.",
    422: "Not audio, too long, too little speech, a name that is in use ...",
    429: "Too many requests from one client; see Retry-After.",
    500: "A bug, or a full disk; see the server's log.",
    503: "Server busy; see Retry-After.",
}
ERROR_RESPONSES: dict[int | str, dict[str, Any]] = {
    status: {
        "description": description,
        "content": {"application/json": {"schema": {"$ref": f"#/components/schemas/{Problem.__name__}"}}},
    }
    for status, description in ERROR_STATUSES.items()
}


def build_application(
    service: TracingService,
    *,
    hosts: Sequence[str],
    threads: int,
    queue_capacity: int,
    max_seconds: float,
    max_bytes: int,
    max_total_bytes: int,
    per_minute: float,
    burst: int,
    body_timeout_s: float,
    response_timeout_s: float,
    changeable: bool,
) -> ASGIApp:
    """Return the application; the classes of `middleware`, `RequestQueue` and `build_router` explain the limits."""
    app = _build_fastapi(
        service,
        RequestQueue(service.trace_batch, threads=threads, capacity=queue_capacity),
        max_seconds=max_seconds,
        max_bytes=max_bytes,
        changeable=changeable,
    )
    # outside FastAPI's own middleware stack, so that its responses to unhandled errors pass through it, too
    wrapped: ASGIApp = middleware.ResponseTimeout(app, timeout_s=response_timeout_s)
    wrapped = middleware.RateLimit(wrapped, per_minute=per_minute, burst=burst)
    wrapped = middleware.SameOriginCheck(wrapped)
    wrapped = middleware.HostCheck(wrapped, hosts=hosts)
    wrapped = middleware.BodyLimits(
        wrapped, max_bytes=max_bytes, max_total_bytes=max_total_bytes, timeout_s=body_timeout_s
    )
    return middleware.SecurityHeaders(wrapped)


def _build_fastapi(
    service: TracingService,
    queue: RequestQueue[Any, Any],
    *,
    max_seconds: float,
    max_bytes: int,
    changeable: bool,
) -> FastAPI:
    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        yield
        queue.close()

    app = FastAPI(
        title="makermark",
        version=__version__,
        description='Source tracing of synthetic speech. Every error is one line: `{"error": ...}`.',
        docs_url=None,  # the documentation pages load scripts from other servers
        redoc_url=None,
        redirect_slashes=False,
        lifespan=lifespan,
        responses=ERROR_RESPONSES,
        form_limits={
            "max_files": MAX_ENROLMENT_CLIPS,
            "max_fields": MAX_FORM_FIELDS,
            "max_part_size": MAX_FIELD_BYTES,
        },
    )
    app.include_router(
        build_router(service, queue, max_seconds=max_seconds, max_bytes=max_bytes, changeable=changeable)
    )
    for exception, handler in EXCEPTION_HANDLERS.items():
        app.add_exception_handler(exception, handler)

    @app.get("/", include_in_schema=False)
    async def page() -> FileResponse:
        return FileResponse(PAGE / "index.html", headers={"cache-control": "no-cache"})

    app.mount("/page", StaticFiles(directory=PAGE))
    return app


async def _handle_http(request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    return JSONResponse({"error": error.detail}, error.status_code, error.headers)


async def _handle_invalid_form(request: Request, error: Exception) -> Response:
    assert isinstance(error, RequestValidationError)
    first = error.errors()[0]
    return middleware.reject(422, f"{first['loc'][-1]}: {first['msg']}")


async def _handle_full_queue(request: Request, error: Exception) -> Response:
    retry_s = middleware.RETRY_AFTER_S
    message = f"Server busy: the queue is full. Retry in {retry_s} s."
    return middleware.reject(503, message, retry_after_s=retry_s)


async def _handle_audio(request: Request, error: Exception) -> Response:
    return middleware.reject(422, str(error))


async def _handle_tracer(request: Request, error: Exception) -> Response:
    return middleware.reject(404 if request.method == "DELETE" else 422, str(error))


async def _handle_internal(request: Request, error: Exception) -> Response:
    log.error("%s %s: %s", request.method, request.url.path, error)
    return middleware.reject(500, "Internal server error. The server's log has the details.")


EXCEPTION_HANDLERS = {
    HTTPException: _handle_http,
    RequestValidationError: _handle_invalid_form,
    QueueFullError: _handle_full_queue,
    AudioError: _handle_audio,
    TracerError: _handle_tracer,
    MakermarkError: _handle_internal,
    Exception: _handle_internal,
}
