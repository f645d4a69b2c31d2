"""The wheel: complete without the repository, and its dependencies resolve to versions that load together."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from importlib import metadata
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).parents[1]
NO_INDEX = (
    "Failed to establish a new connection",
    "Connection error",
    "Temporary failure in name resolution",
)


def pip(*arguments: str | Path) -> str:
    """Run pip without the constraints of this environment; skip if no package index answers."""
    environment = {name: value for name, value in os.environ.items() if name != "PIP_CONSTRAINT"}
    result = subprocess.run(
        [sys.executable, "-m", "pip", "--disable-pip-version-check", *map(str, arguments)],
        capture_output=True, text=True, check=False, env=environment, timeout=1800,
    )  # fmt: skip
    if result.returncode != 0 and any(message in result.stderr for message in NO_INDEX):
        pytest.skip("no package index answers")
    assert result.returncode == 0, result.stderr
    return result.stdout


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The wheel of the files that git has, built as `pip install .` builds it."""
    folder = tmp_path_factory.mktemp("wheel")
    source = folder / "source"
    listed = subprocess.run(
        ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard",
         "src", "pyproject.toml", "params.yaml", "README.md", "LICENSE"],
        cwd=REPOSITORY, capture_output=True, text=True, check=True,
    )  # fmt: skip
    for name in filter(None, listed.stdout.split("\0")):
        if (REPOSITORY / name).exists():
            (source / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(REPOSITORY / name, source / name, follow_symlinks=False)
    pip("wheel", "--quiet", "--no-deps", "--wheel-dir", folder, source)
    (built,) = folder.glob("*.whl")
    return built


@pytest.fixture(scope="module")
def installed(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the wheel's files alone; the dependencies come from this environment."""
    folder = tmp_path_factory.mktemp("installed")
    pip("install", "--quiet", "--no-deps", "--target", folder, wheel)
    return folder


def makermark(installed: Path, cwd: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    """Run the command of the installed wheel in a folder outside of the repository."""
    code = (
        f"import makermark, pathlib; assert pathlib.Path(makermark.__file__).is_relative_to({str(installed)!r}); "
        "from makermark.cli.main import main; main()"
    )
    return subprocess.run(
        [sys.executable, "-c", code, *arguments],
        cwd=cwd, capture_output=True, text=True, check=False, timeout=1800,
        env={**os.environ, "PYTHONPATH": str(installed)},
    )  # fmt: skip


def test_wheel_has_every_preset_without_the_repository(installed: Path, tmp_path: Path) -> None:
    local = makermark(installed, tmp_path, "preset", "local")
    assert local.stdout == (REPOSITORY / "params.yaml").read_text(encoding="utf-8")
    mlaad = makermark(installed, tmp_path, "preset", "mlaad-resnet")
    assert "\ncorpus: mlaad-v5" in mlaad.stdout


def test_installed_commands_say_what_is_missing(installed: Path, tmp_path: Path) -> None:
    """Outside of a project there is no model and no tracking store: one line says so and names the remedy."""
    version = makermark(installed, tmp_path, "--version")
    assert version.stdout.startswith("makermark ")
    (tmp_path / "clip.wav").write_bytes((REPOSITORY / "LICENSE").read_bytes())
    trained = ("trace clip.wav", "register", "log-run")
    for arguments in [*map(str.split, trained), ["results"]]:
        result = makermark(installed, tmp_path, *arguments)
        assert result.returncode != 0, arguments
        assert "Traceback" not in result.stderr, arguments
        (line,) = result.stderr.strip().splitlines()
        assert line.startswith("error: "), arguments
        if " ".join(arguments) in trained:
            assert "there is no trained model; run make repro in a clone of the repository" in line
    assert sorted(path.name for path in tmp_path.iterdir()) == ["clip.wav"]


def test_dependencies_resolve_to_torch_and_torchaudio_that_load_together(wheel: Path, tmp_path: Path) -> None:
    """A torchaudio of another version than torch does not load: `undefined symbol`. torchaudio itself is small."""
    report = tmp_path / "report.json"
    pip("install", "--quiet", "--dry-run", "--ignore-installed", "--report", report, wheel)
    packages = [item["metadata"] for item in json.loads(report.read_text())["install"]]
    versions = {package["name"]: package["version"].split("+")[0] for package in packages}
    assert versions["torch"] == versions["torchaudio"]
    if versions["torch"] != metadata.version("torch").split("+")[0]:
        pytest.skip(f"torch {versions['torch']} would be installed; this environment has another version")
    folder = tmp_path / "torchaudio"
    pip("install", "--quiet", "--no-deps", "--target", folder, f"torchaudio=={versions['torchaudio']}")
    code = f"import torchaudio; assert torchaudio.__file__.startswith({str(folder)!r})"
    subprocess.run([sys.executable, "-c", code], env={**os.environ, "PYTHONPATH": str(folder)}, check=True)
