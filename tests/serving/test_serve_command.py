"""`makermark serve`: where it listens, and what it says instead of starting."""

import json
import os
import re
import signal
import subprocess
import sys
import urllib.request

import pytest
from typer.testing import CliRunner

from makermark import serving_commands
from makermark.cli import app
from makermark.errors import ServingError
from makermark.serving.listening import bound


def refused(*arguments):
    done = CliRunner().invoke(app, ["serve", *arguments])
    assert isinstance(done.exception, ServingError)
    return str(done.exception)


def test_other_machines_are_let_in_only_where_that_is_said():
    assert "add --allow-remote" in refused("--host", "0.0.0.0")


def test_a_port_that_is_taken_is_said(world):
    with bound("127.0.0.1", 0) as taken:
        taken.listen()
        port = taken.getsockname()[1]
        said = refused("--port", str(port), "--model", str(world[0]))
    assert said.endswith("another program listens there: choose another --port")


def test_packages_that_are_missing_are_said(monkeypatch):
    monkeypatch.setattr(serving_commands, "PACKAGES", ("fastapi", "not_there_at_all"))
    assert refused() == "not_there_at_all: not installed; pip install -e '.[serve]' in the clone of makermark"


@pytest.mark.parametrize("end", [signal.SIGINT, signal.SIGTERM])
def test_it_serves_until_it_is_told_to_end(world, tmp_path, end):
    command = [
        sys.executable,
        "-c",
        "from makermark.cli import main; main()",
        "serve",
        "--port",
        "0",
        "--model",
        str(world[0]),
    ]
    with subprocess.Popen([*command, "--gallery", str(tmp_path / "g.arrow")], stdout=subprocess.PIPE, text=True,
                          env=os.environ) as serving:  # fmt: skip
        address = re.search(r"http://\S+", serving.stdout.readline())[0]
        with urllib.request.urlopen(f"{address}/api/health") as answer:
            assert json.load(answer)["status"] == "ok"
        serving.send_signal(end)
        assert serving.wait(30) in (0, -end, 130)
