"""What a shell does to the command line: closed and full streams, odd input, missing files, signals."""

import os
import signal
import subprocess
import sys
import time

import pytest
from typer.main import get_command

from makermark import __version__
from makermark.cli import project_commands
from makermark.cli.main import PANELS, app
from makermark.cli.tracing_commands import read_paths
from makermark.foundation.errors import FilesError

MAKERMARK = "from makermark.cli.main import main; main()"


def run(*arguments, **options):
    command = [sys.executable, "-c", MAKERMARK, *map(str, arguments)]
    return subprocess.run(command, stderr=subprocess.PIPE, text=True, check=False, **options)


def test_version_is_printed():
    result = run("--version", stdout=subprocess.PIPE)
    assert (result.returncode, result.stdout) == (0, f"makermark {__version__}\n")


def test_every_command_is_in_one_group_of_the_help():
    listed = [name for names in PANELS.values() for name in names]
    assert sorted(listed) == sorted(get_command(app).commands)
    result = run("--help", stdout=subprocess.PIPE, env=os.environ | {"COLUMNS": "80"})
    positions = [
        result.stdout.index(f"─ {panel} ─") for panel in ("Clips", "Experiments", "Corpora", "Server")
    ]
    assert positions == sorted(positions)
    assert "─ Commands ─" not in result.stdout
    assert max(map(len, result.stdout.splitlines())) <= 80


@pytest.mark.parametrize(
    ("content", "paths"),
    [
        (b"a.wav\nb c.wav\n", ["a.wav", "b c.wav"]),
        (b"a\nb.wav\0c.wav\0", ["a\nb.wav", "c.wav"]),
        (b"a.wav\r\nb.wav\r\n\r\n", ["a.wav", "b.wav"]),
        (b"gr\xf6sse.wav", [os.fsdecode(b"gr\xf6sse.wav")]),
    ],
)
def test_paths_in_standard_input_end_with_a_line_or_a_zero_byte(content, paths):
    assert [str(path) for path in read_paths(content)] == paths


@pytest.mark.parametrize("content", [b"", b"RIFF\x24\0\0\0WAVEfmt ", b"\xff\xfb\x90\0abc", b"x" * 9000])
def test_input_that_is_no_list_of_paths_is_refused(content):
    with pytest.raises(FilesError, match="standard input: no"):
        read_paths(content)


@pytest.mark.parametrize(
    ("arguments", "lines"),
    [
        (("trace", "gone.wav", "gone too.wav"), ["gone.wav: missing", "gone too.wav: missing"]),
        (("trace", "x" * 5000), ["missing"]),
        (("compare", "gone.wav", "b.wav"), ["error: gone.wav: missing"]),
        (("report", "gone.wav"), ["error: gone.wav: missing"]),
        (("enroll", "name", "gone.wav", "b.wav"), ["error: gone.wav: missing"]),
    ],
)
def test_missing_file_is_reported_before_the_model_is_looked_for(tmp_path, arguments, lines):
    result = run(*arguments, "--model", tmp_path / "no-model", stdout=subprocess.DEVNULL, cwd=tmp_path)
    assert result.returncode == 1
    assert len(result.stderr.splitlines()) == len(lines)
    for line, expected in zip(result.stderr.splitlines(), lines, strict=True):
        assert expected in line
    assert "no-model" not in result.stderr


@pytest.mark.parametrize(
    "arguments",
    [
        ("ui",),
        ("trace", "clip.wav", "--model", "runs:/a/checkpoint"),
        ("serve", "--model", "models:/a/1"),
    ],
    ids=" ".join,
)
def test_a_command_that_reads_the_store_creates_none_outside_of_a_project(arguments, tmp_path):
    (tmp_path / "clip.wav").write_bytes(b"not read")
    environment = {key: value for key, value in os.environ.items() if key != "MLFLOW_TRACKING_URI"}
    result = run(*arguments, stdout=subprocess.PIPE, cwd=tmp_path, env=environment)
    assert result.returncode == 1
    (line,) = result.stderr.splitlines()
    assert line == (
        f"error: {tmp_path / 'mlflow.db'}: there is no MLflow store; run makermark in a clone of its repository after "
        "make repro or makermark log-run, or set MLFLOW_TRACKING_URI"
    )
    assert [path.name for path in tmp_path.iterdir()] == ["clip.wav"]


def test_info_says_that_a_folder_is_no_project_and_creates_nothing(tmp_path):
    result = run("info", stdout=subprocess.PIPE, cwd=tmp_path, env=os.environ | {"COLUMNS": "200"})
    assert (result.returncode, result.stderr) == (0, "")
    assert "project       none in this folder; run makermark in the root of a clone" in result.stdout
    assert "MLflow store" not in result.stdout
    assert list(tmp_path.iterdir()) == []


def test_closed_standard_input_is_one_line(tmp_path):
    command = f'exec <&-; "{sys.executable}" -c "{MAKERMARK}" trace -'
    result = subprocess.run(["sh", "-c", command], capture_output=True, text=True, check=False, cwd=tmp_path)
    assert result.returncode == 1
    assert result.stderr.startswith("error: standard input: no paths")
    assert len(result.stderr.splitlines()) == 1


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="needs /dev/full")
@pytest.mark.parametrize("arguments", [("preset", "local"), ("--version",), ("info",)])
def test_full_standard_output_is_one_line(arguments, tmp_path):
    with open("/dev/full", "w") as full:
        result = run(*arguments, stdout=full, cwd=tmp_path)
    assert result.returncode == 1
    assert [line for line in result.stderr.splitlines() if "No space left on device" in line] == [
        result.stderr.splitlines()[-1]
    ]
    assert "Traceback" not in result.stderr
    assert "Exception ignored" not in result.stderr


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGHUP])
def test_signal_ends_everything_that_a_command_started(number, tmp_path):
    child = (
        "import os, subprocess, sys, time\n"
        "worker = subprocess.Popen([sys.executable, '-c', 'import time; time.sleep(600)'])\n"
        "open('pids', 'w').write(f'{os.getpid()} {worker.pid} '); time.sleep(600)"
    )
    code = f"from makermark.cli.project_commands import _run_python; _run_python(['-c', {child!r}], {{}})"
    process = subprocess.Popen(
        [sys.executable, "-c", code],
        cwd=tmp_path,
        stderr=subprocess.DEVNULL,
        preexec_fn=lambda: signal.signal(
            number, signal.SIG_DFL
        ),  # a job in the background, or nohup, ignores it
    )
    pids = ""
    for _ in range(1200):
        if (tmp_path / "pids").exists() and (pids := (tmp_path / "pids").read_text()).endswith(" "):
            break
        time.sleep(0.1)
    process.send_signal(number)
    assert process.wait(timeout=300) != 0
    time.sleep(0.2)
    assert not [pid for pid in pids.split() if is_running(int(pid))]


def is_running(pid):
    try:
        with open(f"/proc/{pid}/stat") as state:
            return state.read().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


def test_status_of_a_command_is_passed_on():
    with pytest.raises(Exception) as caught:  # noqa: PT011  typer.Exit is no ValueError
        project_commands._run_python(["-c", "raise SystemExit(3)"], {})
    assert caught.value.exit_code == 3
