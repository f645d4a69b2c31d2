"""The examiner's page: `makermark serve`."""

from __future__ import annotations

import os
import sys
from importlib.util import find_spec
from pathlib import Path
from typing import Annotated

import typer

from makermark.errors import ServingError, how_to_add
from makermark.tracing_commands import GALLERY, Enrolled, Model, Prior

LOOPBACK = ("127.0.0.1", "localhost", "[::1]")
PACKAGES = ("fastapi", "uvicorn", "python_multipart")
MEGABYTE = 1 << 20
BODIES_AT_ONCE = 8  # of the largest size


def add_to(app: typer.Typer) -> None:
    """Make the command part of `makermark`."""
    app.command()(serve)


def serve(
    host: Annotated[str, typer.Option(help="Address to listen on.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(help="Port; 0 takes a free one.", min=0, max=65535)] = 8000,
    allow_remote: Annotated[
        bool, typer.Option("--allow-remote", help="Listen on an address that other machines reach.")
    ] = False,
    allow_host: Annotated[
        list[str] | None, typer.Option(help="A further name by which clients address this server.")
    ] = None,
    read_only: Annotated[bool, typer.Option("--read-only", help="Enrol and remove nothing.")] = False,
    model: Model = "models",
    gallery: Enrolled = GALLERY,
    corpus: Annotated[
        Path, typer.Option(help="The corpus of the model, to listen to in reports; they do without, too.")
    ] = Path("data/corpus"),
    prior_known: Prior = None,
    device: Annotated[str, typer.Option(help="auto, cpu, cuda or mps.")] = "auto",
    threads: Annotated[int, typer.Option(help="Clips heard side by side; 0: one a processor.", min=0)] = 0,
    waiting: Annotated[int, typer.Option(help="Requests that may wait or be served.", min=1)] = 100,
    max_mb: Annotated[int, typer.Option(help="Of a request.", min=1)] = 64,
    max_seconds: Annotated[float, typer.Option(help="Of a clip.", min=1)] = 600.0,
    per_minute: Annotated[float, typer.Option(help="Uploads and changes of one client.", min=1)] = 300.0,
    burst: Annotated[int, typer.Option(help="How many of them may come at once.", min=1)] = 100,
    body_seconds: Annotated[float, typer.Option(help="Until a request is there.", min=1)] = 60.0,
    answer_seconds: Annotated[float, typer.Option(help="Until it is answered.", min=1)] = 120.0,
) -> None:
    """Serve a page to trace clips in a browser, and a REST beside it, on this machine only.

    Nobody is asked who they are: whoever reaches the address may use it. Uploads are not kept.
    """
    if missing := [name for name in PACKAGES if find_spec(name) is None]:
        raise ServingError(f"{', '.join(missing)}: not installed; {how_to_add('serve')}")
    from makermark.serving import Desk, application, listening
    from makermark.tracing import Tracer

    if not listening.is_loopback(host):
        if not allow_remote:
            raise ServingError(
                f"--host {host}: other machines reach this address, and nobody is asked who they are; add "
                "--allow-remote if that is wanted"
            )
        print(
            f"warning: other machines may reach {host}: whoever does may trace clips"
            f"{'' if read_only else ', enrol systems and remove them'}; nothing is encrypted. "
            "They must call it by that address or by a name given with --allow-host",
            file=sys.stderr,
        )
    socket = listening.bound(host, port)
    tracer = Tracer.load(model, device=device, prior_known=prior_known)
    desk = Desk(tracer, gallery, corpus=corpus, max_seconds=max_seconds)
    named = f"[{host}]" if ":" in host else host
    app = application(
        desk,
        hosts=[*LOOPBACK, named, *(allow_host or [])],
        threads=threads or os.cpu_count() or 1,
        waiting=waiting,
        max_seconds=max_seconds,
        max_bytes=max_mb * MEGABYTE,
        max_bytes_at_once=BODIES_AT_ONCE * max_mb * MEGABYTE,
        per_minute=per_minute,
        burst=burst,
        body_seconds=body_seconds,
        answer_seconds=answer_seconds,
        changeable=not read_only,
    )
    print(f"makermark: http://{named}:{socket.getsockname()[1]} (Ctrl-C ends it)", flush=True)
    listening.serve(app, socket)
