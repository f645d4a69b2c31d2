"""The commands that offer the tracer to other programs: serve (page and REST interface) and register (MLflow)."""

from __future__ import annotations

import os
import re
import sys
from importlib.util import find_spec
from pathlib import Path
from typing import Annotated

import typer

from makermark.cli.tracing_commands import CORPUS, GALLERY, Corpus, Device, Enrolled, Model, Prior
from makermark.foundation.errors import ServingError, install_hint

LOOPBACK_HOSTS = ("127.0.0.1", "localhost", "[::1]")
PACKAGES = ("fastapi", "uvicorn", "python_multipart", "throttled")
HOST_NAME = re.compile(r"(\*\.)?[\w.-]+|\[[0-9a-fA-F:.]+\]")  # not `*`, which would disable the host check
MEGABYTE = 1 << 20
MAX_CONCURRENT_BODIES = 8  # of the largest size


app = typer.Typer()


@app.command()
def serve(
    host: Annotated[str, typer.Option(help="Address to listen on.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(help="Port; 0 takes a free one.", min=0, max=65535)] = 8000,
    allow_remote: Annotated[
        bool, typer.Option("--allow-remote", help="Allow an address that other machines can reach.")
    ] = False,
    allow_host: Annotated[
        list[str] | None, typer.Option(help="Additional host name of this server; may be repeated.")
    ] = None,
    read_only: Annotated[bool, typer.Option("--read-only", help="Do not enrol or remove systems.")] = False,
    model: Model = "models",
    gallery: Enrolled = GALLERY,
    corpus: Corpus = CORPUS,
    prior_known: Prior = None,
    device: Device = "auto",
    threads: Annotated[
        int, typer.Option(help="Clips processed in parallel; 0: one per CPU core.", min=0)
    ] = 0,
    waiting: Annotated[int, typer.Option(help="Maximum number of requests that wait or run.", min=1)] = 100,
    max_mb: Annotated[int, typer.Option(help="Largest request body, MiB.", min=1)] = 64,
    max_seconds: Annotated[float, typer.Option(help="Longest clip.", min=1)] = 600.0,
    per_minute: Annotated[
        float, typer.Option(help="Uploads and changes per client and minute.", min=1)
    ] = 300.0,
    burst: Annotated[int, typer.Option(help="Number of these that may arrive at once.", min=1)] = 100,
    body_seconds: Annotated[
        float, typer.Option(help="Time limit for receiving a request body.", min=1)
    ] = 60.0,
    answer_seconds: Annotated[float, typer.Option(help="Time limit for a response.", min=1)] = 120.0,
) -> None:
    """Serve a page for tracing clips in a browser, and a REST interface, on this machine only.

    There is no authentication: everyone who can reach the address can use it. Uploads are not stored.
    """
    if missing := [name for name in PACKAGES if find_spec(name) is None]:
        raise ServingError(f"{', '.join(missing)}: not installed; {install_hint('serve')}")
    from makermark.serving import server
    from makermark.serving.application import build_application
    from makermark.serving.service import TracingService
    from makermark.tracing import Tracer

    if not server.is_loopback(host):
        if not allow_remote:
            raise ServingError(
                f"--host {host}: other machines can reach this address, and there is no authentication; add "
                "--allow-remote to allow this"
            )
        print(
            f"warning: other machines can reach {host}. Everyone who does can trace clips"
            f"{'' if read_only else ', enrol and remove systems'}. The connection is not encrypted. "
            "Clients must use this address or a name from --allow-host.",
            file=sys.stderr,
        )
    for name in allow_host or []:
        if not HOST_NAME.fullmatch(name):
            raise ServingError(
                f"--allow-host {name!r}: not a host name; give NAME or *.DOMAIN, without a port"
            )
    socket = server.bind_socket(host, port)
    tracer = Tracer.load(model, device=device, prior_known=prior_known)
    service = TracingService(tracer, gallery, corpus=corpus, max_seconds=max_seconds)
    url_host = f"[{host}]" if ":" in host else host
    app = build_application(
        service,
        hosts=[*LOOPBACK_HOSTS, url_host, *(allow_host or [])],
        threads=threads or os.cpu_count() or 1,
        queue_capacity=waiting,
        max_seconds=max_seconds,
        max_bytes=max_mb * MEGABYTE,
        max_total_bytes=MAX_CONCURRENT_BODIES * max_mb * MEGABYTE,
        per_minute=per_minute,
        burst=burst,
        body_timeout_s=body_seconds,
        response_timeout_s=answer_seconds,
        changeable=not read_only,
    )
    print(f"makermark: http://{url_host}:{socket.getsockname()[1]} (stop with Ctrl-C)", flush=True)
    server.run_server(app, socket)


@app.command()
def register(
    alias: Annotated[str, typer.Option(help="Alias that is set to this version; empty: none.")] = "champion",
    name: Annotated[str, typer.Option(help="Name of the registered model.")] = "makermark",
    models: Annotated[Path, typer.Option(help="Folder with best.* and tracer/.")] = Path("models"),
    metrics: Annotated[
        Path, typer.Option(help="Folder with the score.json and trace.json of the model.")
    ] = Path("metrics"),
) -> None:
    """Register the tracer and its model card in MLflow, as a version that MLflow can serve."""
    from makermark.serving.registered_model.package import register_tracer

    version = register_tracer(models, metrics, name=name, alias=alias, start=Path.cwd())
    print(f"{name} version {version}: makermark trace --model models:/{name}/{version} clip.wav")
    if alias:
        print(f"alias {alias}: mlflow models serve -m models:/{name}@{alias} --env-manager local")
