"""`makermark report`."""

import json
import os

import pytest
from typer.testing import CliRunner

from makermark.cli import app
from reading_html import Page


@pytest.fixture(autouse=True)
def _where_nothing_was_enrolled(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


def run(world, *arguments):
    given = ["--model", world.folder / "models", "--device", "cpu"]
    return CliRunner().invoke(app, [*map(str, arguments), *map(str, given)])


def test_a_report_says_what_trace_says(world, tmp_path):
    file = world.files["slow"][0]
    told = json.loads(run(world, "trace", file, "--json").stdout)
    done = run(world, "report", file, "--corpus", world.folder / "corpus")
    assert done.exit_code == 0, done.output
    page = tmp_path / f"{file.name}.report.html"
    assert list(tmp_path.iterdir()) == [page]
    assert done.stdout.startswith(f"{page.name}: {told['verdict']}")
    text = Page(page.read_text(encoding="utf-8")).text
    assert told["reason"] in text
    assert told["model_sha256"] in text
    assert f"{100 * told['candidates'][0]['posterior']:.1f} %" in text


def test_a_name_that_is_no_utf8_is_reported_too(world, tmp_path):
    odd = tmp_path / os.fsdecode(b"caf\xe9.flac")
    odd.write_bytes(world.files["slow"][0].read_bytes())
    done = run(world, "report", odd, "--out", tmp_path / "out.html")
    assert done.exit_code == 0, done.output
    assert "caf\\udce9.flac" in Page((tmp_path / "out.html").read_text(encoding="utf-8")).text


@pytest.mark.parametrize("out", ["clip.wav", "report", "clip.flac"])
def test_only_a_page_is_ever_written_over(world, tmp_path, out):
    (tmp_path / out).write_bytes(b"precious")
    done = run(world, "report", world.files["slow"][0], "--out", tmp_path / out)
    assert "a report is an HTML file" in str(done.exception)
    assert (tmp_path / out).read_bytes() == b"precious"


@pytest.mark.parametrize("content", [None, b"", b"no audio"])
def test_a_bad_file_is_told_in_one_line_and_leaves_nothing(world, tmp_path, content):
    bad = tmp_path / "bad.wav"
    if content is not None:
        bad.write_bytes(content)
    done = run(world, "report", bad, "--out", tmp_path / "out.html")
    assert str(done.exception).startswith(f"{bad}: ")
    assert "\n" not in str(done.exception)
    assert not (tmp_path / "out.html").exists()
