"""dvc.yaml against the code: every stage depends on the modules that it imports, and on no others."""

import ast
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from makermark.cli.project_commands import STAGES

REPOSITORY = Path(__file__).parents[1]
SOURCE = REPOSITORY / "src"
PIPELINE = yaml.safe_load((REPOSITORY / "dvc.yaml").read_text())["stages"]
OUTPUT_KINDS = ("outs", "metrics", "plots")
VERSION_FILE = "src/makermark/__init__.py"  # results do not depend on the version
MAX_CODE_DEPENDENCIES = 6


def module_file(name: str) -> Path | None:
    base = SOURCE.joinpath(*name.split("."))
    for candidate in (base.with_suffix(".py"), base / "__init__.py"):
        if candidate.exists():
            return candidate
    return None


def imported_modules(path: Path) -> set[str]:
    """Return the names of makermark's modules that a file imports, at its top or inside functions."""
    names = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module and node.level == 0:
            names |= {node.module, *(f"{node.module}.{alias.name}" for alias in node.names)}
    modules = {name for name in names if name.split(".")[0] == "makermark" and module_file(name)}
    return modules | {
        ".".join(name.split(".")[:i]) for name in modules for i in range(1, name.count(".") + 1)
    }


def import_closure(script: Path) -> set[str]:
    """Return the files of the package that a script imports, directly or not, relative to the repository.

    A table with the name of a module belongs to it: `families.py` reads `families.yaml`.
    """
    files, queue = set(), [script]
    while queue:
        for name in imported_modules(queue.pop()):
            file = module_file(name)
            if file not in files:
                files.add(file)
                queue.append(file)
    code = {file for file in files if not has_only_docstring(file)}
    tables = {file.with_suffix(".yaml") for file in code if file.with_suffix(".yaml").exists()}
    return {file.relative_to(REPOSITORY).as_posix() for file in code | tables} - {VERSION_FILE}


def has_only_docstring(path: Path) -> bool:
    return all(isinstance(node, ast.Expr) for node in ast.parse(path.read_text()).body)


def script_of(stage: str) -> str:
    return re.search(r"stages/\w+\.py", PIPELINE[stage]["cmd"]).group()


def code_dependencies(stage: str) -> list[str]:
    return [dep for dep in PIPELINE[stage]["deps"] if dep.startswith(("src/", "stages/"))]


def is_inside(file: str, dependency: str) -> bool:
    return file == dependency or file.startswith(dependency + "/")


@pytest.mark.parametrize("stage", PIPELINE)
def test_stage_depends_on_every_module_that_it_imports_and_on_no_other(stage):
    imported = import_closure(REPOSITORY / script_of(stage))
    deps = code_dependencies(stage)
    missing = sorted(file for file in imported if not any(is_inside(file, dep) for dep in deps))
    unused = [
        dep for dep in deps if dep.startswith("src/") and not any(is_inside(file, dep) for file in imported)
    ]
    assert not missing, f"dvc.yaml, stage {stage}: add to deps {missing}"
    assert not unused, f"dvc.yaml, stage {stage}: nothing imports {unused}"
    assert script_of(stage) in deps


@pytest.mark.parametrize("stage", PIPELINE)
def test_stage_has_few_code_dependencies(stage):
    assert len(code_dependencies(stage)) <= MAX_CODE_DEPENDENCIES


@pytest.mark.parametrize("stage", PIPELINE)
def test_stage_depends_on_paths_in_git_or_outputs_of_other_stages(stage):
    declared = [out for other in PIPELINE.values() for kind in OUTPUT_KINDS for out in other.get(kind, [])]
    outputs = {next(iter(out)) if isinstance(out, dict) else out for out in declared}
    for dep in PIPELINE[stage]["deps"]:
        assert (REPOSITORY / dep).exists() or any(is_inside(dep, output) for output in outputs), dep


@pytest.mark.parametrize("script", sorted((REPOSITORY / "stages").glob("*.py")), ids=lambda path: path.name)
def test_stage_help_imports_no_heavy_package(script):
    run = (
        "import runpy, sys\n"
        "for heavy in ('torch', 'pandas', 'sklearn', 'numba', 'matplotlib'): sys.modules[heavy] = None\n"
        "sys.argv = [sys.argv[1], '--help']\n"
        "runpy.run_path(sys.argv[0], run_name='__main__')\n"
    )
    result = subprocess.run(
        [sys.executable, "-c", run, script], capture_output=True, text=True, check=False,
        env=os.environ | {"PYTHONPATH": str(SOURCE)},
    )  # fmt: skip
    assert (result.returncode, result.stderr) == (0, "")
    assert "Usage:" in result.stdout


def test_metrics_are_stored_in_git():
    for stage in PIPELINE.values():
        for metric in stage.get("metrics", []):
            assert next(iter(metric.values())) == {"cache": False}


def test_command_line_has_the_stages_of_the_pipeline():
    assert list(STAGES) == list(PIPELINE)
