"""dvc.yaml against the code: every stage depends on the modules that it really imports, and on no others."""

import ast
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from makermark.cli import PIPELINES, STAGES

REPOSITORY = Path(__file__).parents[1]
SOURCE = REPOSITORY / "src"
PIPELINE = {
    stage: told
    for path in PIPELINES
    for stage, told in yaml.safe_load((REPOSITORY / path).read_text())["stages"].items()
}
KINDS = ("outs", "metrics", "plots")
NO_RESULT = {"__init__.py", "errors.py", "door.py"}  # of the package itself: messages, no figures


def module_file(name: str) -> Path | None:
    base = SOURCE.joinpath(*name.split("."))
    for candidate in (base.with_suffix(".py"), base / "__init__.py"):
        if candidate.exists():
            return candidate
    return None


def imported_modules(path: Path) -> set[str]:
    """The names of makermark's modules that a file imports, at its top or inside functions."""
    names = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module and node.level == 0:
            names |= {node.module, *(f"{node.module}.{alias.name}" for alias in node.names)}
    found = {name for name in names if name.split(".")[0] == "makermark" and module_file(name)}
    return found | {".".join(name.split(".")[:i]) for name in found for i in range(1, name.count(".") + 1)}


def closure(script: Path) -> set[str]:
    """All files of the package that a script imports, directly or not, relative to the repository; with a module the
    table of its name (`families.py` reads `families.yaml`)."""
    files, waiting = set(), [script]
    while waiting:
        for name in imported_modules(waiting.pop()):
            file = module_file(name)
            if file not in files:
                files.add(file)
                waiting.append(file)
    code = {file for file in files if not only_docstring(file)}
    tables = {file.with_suffix(".yaml") for file in code if file.with_suffix(".yaml").exists()}
    return {file.relative_to(REPOSITORY).as_posix() for file in code | tables}


def only_docstring(path: Path) -> bool:
    return all(isinstance(node, ast.Expr) for node in ast.parse(path.read_text()).body)


def script_of(stage: str) -> str:
    return re.search(r"stages/\w+\.py", PIPELINE[stage]["cmd"]).group()


def code_dependencies(stage: str) -> list[str]:
    return [dep for dep in PIPELINE[stage]["deps"] if dep.startswith(("src/", "stages/"))]


@pytest.mark.parametrize("stage", PIPELINE)
def test_a_stage_depends_on_every_module_it_imports(stage):
    imported = closure(REPOSITORY / script_of(stage))
    wanted = {
        f for f in imported if not (Path(f).parent == Path("src/makermark") and Path(f).name in NO_RESULT)
    }
    deps = code_dependencies(stage)
    lacking = sorted(f for f in wanted if not any(f == d or f.startswith(d + "/") for d in deps))
    idle = sorted(
        d for d in deps if d.startswith("src/") and not any(f == d or f.startswith(d + "/") for f in wanted)
    )
    assert not lacking, f"dvc.yaml, stage {stage}: add to deps {lacking}"
    assert not idle, f"dvc.yaml, stage {stage}: nothing imports {idle}"
    assert script_of(stage) in deps


@pytest.mark.parametrize("stage", PIPELINE)
def test_a_stage_names_paths_that_exist_in_git_or_come_from_another_stage(stage):
    outputs = [out for other in PIPELINE.values() for kind in KINDS for out in other.get(kind, [])]
    made = {next(iter(out)) if isinstance(out, dict) else out for out in outputs}
    for dep in PIPELINE[stage]["deps"]:
        assert (REPOSITORY / dep).exists() or any(dep == out or dep.startswith(out + "/") for out in made), (
            dep
        )


@pytest.mark.parametrize("script", sorted((REPOSITORY / "stages").glob("*.py")), ids=lambda path: path.name)
def test_a_stage_says_what_it_takes_before_it_imports_what_is_heavy(script):
    run = (
        "import runpy, sys\n"
        "for heavy in ('torch', 'pandas', 'sklearn', 'numba', 'matplotlib'): sys.modules[heavy] = None\n"
        "sys.argv = [sys.argv[1], '--help']\n"
        "runpy.run_path(sys.argv[0], run_name='__main__')\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", run, script], capture_output=True, text=True, check=False,
        env=os.environ | {"PYTHONPATH": str(SOURCE)},
    )  # fmt: skip
    assert (done.returncode, done.stderr) == (0, "")
    assert "Usage:" in done.stdout


def test_metrics_stay_in_git():
    for stage in PIPELINE.values():
        for metric in stage.get("metrics", []):
            assert next(iter(metric.values())) == {"cache": False}


def test_the_command_line_mirrors_the_stages():
    assert list(STAGES) == list(PIPELINE)
