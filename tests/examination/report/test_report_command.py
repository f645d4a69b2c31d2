"""Command `makermark report`."""

import json
import os
import shutil
from types import SimpleNamespace

import pytest
from typer.testing import CliRunner

from makermark.cli.main import app
from makermark.foundation.files import read_json, write_json
from makermark.tracing import Tracer
from reading_html import Page


@pytest.fixture(autouse=True)
def _empty_working_folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


def run(world, *arguments):
    options = ["--model", world.folder / "models", "--device", "cpu"]
    return CliRunner().invoke(app, [*map(str, arguments), *map(str, options)])


@pytest.fixture(scope="module")
def generous(world, tmp_path_factory):
    """The world with a tracer whose thresholds 90 % of the clips of unknown systems may exceed."""
    folder = tmp_path_factory.mktemp("generous")
    shutil.copytree(world.folder / "models", folder / "models")
    content = read_json(folder / "models/tracer/tracer.json")
    content["settings"]["false_accept_rate"] = 0.9
    write_json(folder / "models/tracer/tracer.json", content)
    return SimpleNamespace(folder=folder, tracer=Tracer.load(folder / "models", device="cpu"))


def test_report_contains_the_result_of_trace(world, generous, tmp_path):
    files = (path for paths in world.files.values() for path in paths)
    file = next(path for path in files if generous.tracer.trace(path).name)  # posteriors are given
    trace = json.loads(run(generous, "trace", file, "--json").stdout)
    done = run(generous, "report", file, "--corpus", world.folder / "corpus")
    assert done.exit_code == 0, done.output
    page = tmp_path / f"{file.name}.report.html"
    assert list(tmp_path.iterdir()) == [page]
    assert done.stdout.startswith(f"{page.name}: {trace['verdict']}")
    text = Page(page.read_text(encoding="utf-8")).text
    assert trace["reason"] in text
    assert trace["model_sha256"] in text
    assert f"{100 * trace['candidates'][0]['posterior']:.1f} %" in text


def test_file_name_that_is_not_utf8_is_accepted(world, tmp_path):
    odd = tmp_path / os.fsdecode(b"caf\xe9.flac")
    odd.write_bytes(world.files["slow"][0].read_bytes())
    done = run(world, "report", odd, "--out", tmp_path / "out.html")
    assert done.exit_code == 0, done.output
    assert "caf\\udce9.flac" in Page((tmp_path / "out.html").read_text(encoding="utf-8")).text


@pytest.mark.parametrize("out", ["clip.wav", "report", "clip.flac"])
def test_only_html_files_are_overwritten(world, tmp_path, out):
    (tmp_path / out).write_bytes(b"precious")
    done = run(world, "report", world.files["slow"][0], "--out", tmp_path / out)
    assert "a report is an HTML file" in str(done.exception)
    assert (tmp_path / out).read_bytes() == b"precious"


@pytest.mark.parametrize("content", [None, b"", b"no audio"])
def test_unusable_file_is_reported_in_one_line_and_writes_nothing(world, tmp_path, content):
    bad = tmp_path / "bad.wav"
    if content is not None:
        bad.write_bytes(content)
    done = run(world, "report", bad, "--out", tmp_path / "out.html")
    assert str(done.exception).startswith(f"{bad}: ")
    assert "\n" not in str(done.exception)
    assert not (tmp_path / "out.html").exists()
