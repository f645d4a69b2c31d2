"""The command `makermark serve`: addresses, missing packages, start and stop."""

import json
import os
import re
import signal
import subprocess
import sys
import urllib.request

import pytest
from typer.testing import CliRunner

from makermark.cli import serving_commands
from makermark.cli.main import app
from makermark.foundation.errors import ServingError
from makermark.serving.server import bind_socket


def error_of(*arguments):
    result = CliRunner().invoke(app, ["serve", *arguments])
    assert isinstance(result.exception, ServingError)
    return str(result.exception)


def test_serve_requires_allow_remote_for_a_public_address():
    assert "add --allow-remote" in error_of("--host", "0.0.0.0")


def test_serve_reports_a_port_in_use(world):
    with bind_socket("127.0.0.1", 0) as listener:
        port = listener.getsockname()[1]
        message = error_of("--port", str(port), "--model", str(world[0]))
    assert message.endswith("another program uses this port: choose another --port")


@pytest.mark.parametrize("name", ["*", "clips.*", "*clips", "a b"])
def test_serve_rejects_a_host_name_that_disables_the_host_check(name):
    assert "--allow-host" in error_of("--allow-host", name)


def test_serve_names_missing_packages(monkeypatch):
    monkeypatch.setattr(serving_commands, "PACKAGES", ("fastapi", "not_there_at_all"))
    message = error_of()
    assert message == "not_there_at_all: not installed; pip install -e '.[serve]' in the clone of makermark"


@pytest.mark.parametrize("end", [signal.SIGINT, signal.SIGTERM])
def test_serve_runs_until_a_signal(world, tmp_path, end):
    command = [
        sys.executable,
        "-c",
        "from makermark.cli.main import main; main()",
        "serve",
        "--port",
        "0",
        "--model",
        str(world[0]),
    ]
    with subprocess.Popen([*command, "--gallery", str(tmp_path / "g.arrow")], stdout=subprocess.PIPE, text=True,
                          env=os.environ) as process:  # fmt: skip
        address = re.search(r"http://\S+", process.stdout.readline())[0]
        with urllib.request.urlopen(f"{address}/api/health") as response:
            assert json.load(response)["status"] == "ok"
        process.send_signal(end)
        assert process.wait(300) in (0, -end, 130)
