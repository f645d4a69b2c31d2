"""A copy of the repository in which every DVC stage is up to date: which stages does a change of the code make stale?

The outputs are stubs: `dvc status` compares the hashes of the dependencies with dvc.lock and runs no stage.
"""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import yaml

REPOSITORY = Path(__file__).parents[1]
OUTPUT_KINDS = ("outs", "metrics", "plots")


def copy_up_to_date(folder: Path) -> Path:
    """Copy the files of the repository into `folder`, stub the outputs of dvc.yaml and write a matching dvc.lock."""
    for name in run_command(
        REPOSITORY, "git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"
    ).split("\0"):
        if (
            (REPOSITORY / name).is_file()
            and name != "dvc.lock"
            and not name.startswith(("metrics/", "plots/"))
        ):
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(REPOSITORY / name, folder / name)
    run_command(folder, "git", "init", "--quiet")
    stages = yaml.safe_load((folder / "dvc.yaml").read_text())["stages"]
    for stage in stages.values():
        for output in (entry for kind in OUTPUT_KINDS for entry in stage.get(kind, [])):
            _write_stub(folder / (output if isinstance(output, str) else next(iter(output))))
    run_dvc(folder, "commit", "--force")
    assert stale_stages(folder) == set()
    return folder


def stale_stages(project: Path) -> set[str]:
    """Return the stages with a changed dependency, parameter or command."""
    return set(json.loads(run_dvc(project, "status", "--json")))


def drawn_points(project: Path, *plots: str) -> dict[str, list[dict[str, str]]]:
    """Return the values that `dvc plots show` draws in each plot that is not an image, of all plots or of some."""
    shown = json.loads(run_dvc(project, "plots", "show", "--json", *plots))
    assert not shown.get("errors"), shown["errors"]
    contents = {
        name: plot["content"]
        for name, plots in shown["data"].items()
        for plot in plots
        if plot["type"] == "vega"
    }
    return {
        name: (json.loads(content) if isinstance(content, str) else content)["data"]["values"]
        for name, content in contents.items()
    }


def _write_stub(output: Path) -> None:
    """Write a small file, or a folder that holds one, for an output path."""
    path = output if output.suffix else output / "manifest.parquet"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(f"stub of {output.name}")


def run_dvc(folder: Path, *arguments: str) -> str:
    return run_command(folder, sys.executable, "-m", "dvc", *arguments)


def run_command(folder: Path, *command: str) -> str:
    done = subprocess.run(
        command,
        cwd=folder,
        env={**os.environ, "DVC_NO_ANALYTICS": "1"},
        capture_output=True,
        text=True,
        check=False,
        timeout=1800,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout
