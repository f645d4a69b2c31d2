"""Counts of the code structure, one column per commit: entries, dependencies, lines, functions, walks, files to change.

    python benchmarks/structure.py                              # 9c4292a (before the rooms) and HEAD
    python benchmarks/structure.py --commit REV --commit REV
    python benchmarks/structure.py --no-walks                   # static counts only, a few seconds

Each commit is unpacked by `git archive` into a temporary folder. Prints a Markdown table.

Rules of the counts:

- Code deps of a stage: its entries in `dvc.yaml` below `src/` or `stages/`.
- Lines of code: lines of the files `src/makermark/**/*.py` that are neither blank nor a comment; docstrings count.
- Functions: every `def`, nested ones included; the length runs from `def` to the last line, without the docstring.
- A walk: the files of the package in which a function body runs while a small real call runs. The code of a module
  and of a class body, which an import runs, does not count. The pipeline of the commit runs on four systems of
  harmonic tones: "utterance" is the stages features, embed and score; "loss" is the stage train up to the first step
  of the optimiser, when the gradients are there; "clip" is `Tracer.load` and `Tracer.trace` on one file.
- Import closure of a walk: the files of the package that its entry files (ENTRIES) import, directly or not, at the top
  of a file or inside a function. It is read from the source; nothing runs.
- Files to change: the files in src/, stages/, params.yaml and dvc.yaml that name an existing example of the same kind
  (EXAMPLES) outside comments, its own file included; its test and the docs come on top. Experiment grids and the tables
  that print a metric are optional and do not count. A command: the files that define its function or register it.
"""

from __future__ import annotations

import argparse
import ast
import io
import json
import os
import re
import shlex
import statistics
import subprocess
import sys
import tarfile
import tempfile
import tokenize
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import yaml

REPOSITORY = Path(__file__).parents[1]
BEFORE = "9c4292a"
EXAMPLES = {
    "loss": r"proxyanchor|ProxyAnchor",
    "backbone": r"\becapa\b|\bEcapa",
    "corpus": r"\bwavefake\b",
    "front end": r"\bWaveform\b",
    "open-set metric": r"\baupr",
    "command": r"def serve\(|command\(\)\(serve\)",
}
SEARCHED = ("src", "stages", "params.yaml", "dvc.yaml")
PARAMS = {  # a corpus and a training run of seconds
    "corpus": "manifest",
    "manifest": {"file": "clips.csv"},
    "bonafide": {"source": "none"},
    "external": {"root": "audio", "workers": 1},
    "features": {"workers": 1, "shard_utterances": 100},
    "train": {"epochs": 1, "warmup_epochs": 0.0, "crop_seconds": 0.5, "evaluate_every_epochs": 1},
    "samplers": {
        "balanced": {"batch_systems": 2, "utterances_per_system": 4},
        "random": {"batch_utterances": 8},
    },
    "embed": {"baselines": []},
    "score": {"bootstrap_samples": 10},
    "trace": {"clips_per_system": 4, "enrol_clips": 2, "enrol_draws": 2, "bootstrap_samples": 10},
}
SYSTEM_HZ = {"low": 110, "middle": 220, "high": 440, "unknown": 880}
ENTRIES = {
    "an utterance": ("stages/features.py", "stages/embed.py", "stages/score.py"),
    "a loss": ("stages/train.py",),
    "a clip": ("src/makermark/tracing/tracer.py",),
}
WALKS = {"an utterance": ("features", "embed", "score"), "a loss": ("train",), "a clip": ("trace",)}
STAGES = ("download", "features", "train", "embed", "score", "calibrate")

# Runs a script, or a trace of a clip, and writes the files of the package in which a function body ran.
RECORDER = """
import json, os, runpy, sys, threading
out, src, target, *arguments = sys.argv[1:]
src, files = os.path.realpath(src) + os.sep, set()

def record(frame, event, argument):
    code = frame.f_code
    if event == "call" and code.co_flags & 1 and not code.co_name.startswith("<"):
        if code.co_filename.startswith(src):
            files.add(code.co_filename[len(src):])

def write():
    sys.setprofile(None)
    with open(out, "w") as file:
        json.dump(sorted(files), file)

def stop(*_):
    write()
    os._exit(0)

if target == "train":
    from torch.optim.optimizer import register_optimizer_step_pre_hook
    register_optimizer_step_pre_hook(stop)
sys.argv = arguments
threading.setprofile(record)
sys.setprofile(record)
try:
    if target == "trace":
        from makermark.tracing import Tracer
        Tracer.load(arguments[0], device="cpu").trace(arguments[1])
    else:
        sys.path.insert(0, os.path.dirname(os.path.abspath(arguments[0])))
        runpy.run_path(arguments[0], run_name="__main__")
finally:
    write()
"""


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--commit", action="append", help="revision to count; may be repeated")
    parser.add_argument("--no-walks", action="store_true", help="do not run the pipeline")
    arguments = parser.parse_args()
    columns = {}
    for commit in arguments.commit or [BEFORE, "HEAD"]:
        name = git("rev-parse", "--short", commit).decode().strip()
        with tempfile.TemporaryDirectory(prefix="makermark-structure-") as folder:
            tree = Path(folder, "tree")
            with tarfile.open(fileobj=io.BytesIO(git("archive", commit))) as archive:
                archive.extractall(tree, filter="data")
            columns[name] = count(tree) | ({} if arguments.no_walks else walk(tree, Path(folder, "work")))
    print(format_table(columns))


def git(*arguments: str) -> bytes:
    return subprocess.run(["git", "-C", str(REPOSITORY), *arguments], capture_output=True, check=True).stdout


def format_table(columns: dict[str, dict[str, Any]]) -> str:
    """Return the Markdown table: one row per count, one column per commit."""
    rows = [["", *columns], ["---", *["---:"] * len(columns)]]
    for name in next(iter(columns.values())):
        rows.append([name, *(str(counts[name]) for counts in columns.values())])
    return "\n".join("| " + " | ".join(row) + " |" for row in rows)


def count(tree: Path) -> dict[str, Any]:
    """Return the static counts of a source tree."""
    package = tree / "src/makermark"
    files = sorted(package.rglob("*.py"))
    deps = [len(entries) for entries in code_deps(tree).values()]
    lengths = [length for file in files for length in function_lengths(file)]
    counts: dict[str, Any] = {
        "top-level entries of src/makermark": sum(
            path.name not in ("__init__.py", "__main__.py", "py.typed", "__pycache__") for path in package.iterdir()
        ),
        "code deps per DVC stage (fewest to most)": f"{min(deps)} to {max(deps)}",
        "modules": len(files),
        "lines, all": sum(len(file.read_text(encoding="utf-8").splitlines()) for file in files),
        "lines of code": sum(map(code_lines, files)),
        "functions": len(lengths),
        "median length of a function, lines": statistics.median(lengths),
        "words in README.md": len((tree / "README.md").read_text(encoding="utf-8").split()),
    }  # fmt: skip
    counts |= {
        f"walk of {name}: import closure, files": len(import_closure(tree, entries))
        for name, entries in ENTRIES.items()
    }
    return counts | {
        f"files to change for a new {kind}": len(files_naming(tree, pattern))
        for kind, pattern in EXAMPLES.items()
    }


def code_deps(tree: Path) -> dict[str, list[str]]:
    """Return the code dependencies of each stage in dvc.yaml."""
    stages = yaml.safe_load((tree / "dvc.yaml").read_text(encoding="utf-8"))["stages"]
    deps = {name: stage.get("do", stage).get("deps", []) for name, stage in stages.items()}
    return {
        name: [path for path in paths if path.startswith(("src/", "stages/"))] for name, paths in deps.items()
    }


def code_lines(file: Path) -> int:
    """Return the number of lines that hold a token other than a comment or a line break."""
    blank = (
        tokenize.COMMENT,
        tokenize.NL,
        tokenize.NEWLINE,
        tokenize.INDENT,
        tokenize.DEDENT,
        tokenize.ENDMARKER,
    )
    with file.open("rb") as source:
        tokens = [token for token in tokenize.tokenize(source.readline) if token.type != tokenize.ENCODING]
    lines = (range(token.start[0], token.end[0] + 1) for token in tokens if token.type not in blank)
    return len({line for numbers in lines for line in numbers})


def function_lengths(file: Path) -> Iterator[int]:
    """Yield the number of lines of each function, without its docstring."""
    for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            first, last = node.body[0], node.end_lineno or 0
            docstring = (
                (first.end_lineno or 0) - first.lineno + 1 if ast.get_docstring(node) is not None else 0
            )
            yield last - node.lineno + 1 - docstring


def import_closure(tree: Path, entries: tuple[str, ...]) -> set[Path]:
    """Return the files of the package that the entry files import, directly or not."""
    pending, files = [tree / entry for entry in entries], set()
    while pending:
        file = pending.pop()
        for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
            names = []
            if isinstance(node, ast.Import):
                names = [alias.name for alias in node.names]
            elif isinstance(node, ast.ImportFrom) and node.module:
                names = [node.module, *(f"{node.module}.{alias.name}" for alias in node.names)]
            for name in names:
                pending += [path for path in module_files(tree, name) if path not in files]
                files.update(module_files(tree, name))
    return files


def module_files(tree: Path, name: str) -> list[Path]:
    """Return the file of a module and of its parent packages; an empty list outside the package makermark."""
    parts = name.split(".")
    if parts[0] != "makermark":
        return []
    folders = [tree.joinpath("src", *parts[:depth]) for depth in range(1, len(parts) + 1)]
    candidates = [path for folder in folders for path in (folder / "__init__.py", folder.with_suffix(".py"))]
    return [path for path in candidates if path.exists()]


def files_naming(tree: Path, pattern: str) -> list[str]:
    """Return the source and settings files that match `pattern`."""
    paths = [
        path
        for name in SEARCHED
        for path in ([tree / name] if (tree / name).is_file() else (tree / name).rglob("*"))
    ]
    paths = [path for path in paths if path.suffix in (".py", ".yaml") and not path.is_symlink()]
    texts = {path: path.read_text(encoding="utf-8") for path in paths}
    texts = {path: re.sub(r"(^|\s)#.*", "", text) for path, text in texts.items()}  # without comments
    return sorted(str(path.relative_to(tree)) for path, text in texts.items() if re.search(pattern, text))


def walk(tree: Path, work: Path) -> dict[str, int]:
    """Run the pipeline of `tree` on tones in `work`; return the number of files of each walk and of its imports."""
    clip = write_corpus(work)
    write_params(tree, work)
    commands = yaml.safe_load((tree / "dvc.yaml").read_text(encoding="utf-8"))["stages"]
    records: dict[str, list[str]] = {}
    for stage in STAGES:
        script, *arguments = shlex.split(commands[stage]["cmd"].partition("python ")[2])
        if stage in ("features", "train", "embed", "score"):
            records[stage] = record(tree, work, stage, str(tree / script), *arguments)
        if stage in ("download", "train", "calibrate"):  # the record of `train` ends at its first step
            run(tree, work, [str(tree / script), *arguments])
    records["trace"] = record(tree, work, "trace", "models", str(clip))
    return {
        f"walk of {name}: files that run": len({file for stage in stages for file in records[stage]})
        for name, stages in WALKS.items()
    }


def record(tree: Path, work: Path, stage: str, *arguments: str) -> list[str]:
    """Run a stage, or a trace, under the recorder; return its files."""
    out = work / f"{stage}.json"
    run(tree, work, ["-c", RECORDER, str(out), str(tree / "src/makermark"), stage, *arguments])
    files: list[str] = json.loads(out.read_text(encoding="utf-8"))
    return files


def run(tree: Path, work: Path, arguments: list[str]) -> None:
    environment = os.environ | {
        "PYTHONPATH": str(tree / "src"),
        "MLFLOW_TRACKING_URI": f"sqlite:///{work}/mlflow.db",
    }
    result = subprocess.run(
        [sys.executable, *arguments], cwd=work, env=environment, capture_output=True, text=True, check=False
    )
    if result.returncode:
        sys.exit(f"error: {' '.join(arguments[-6:])} failed:\n{result.stdout[-2000:]}{result.stderr[-4000:]}")


def write_params(tree: Path, work: Path) -> None:
    """Write params.yaml of `tree` with the changes of PARAMS."""
    params = yaml.safe_load((tree / "params.yaml").read_text(encoding="utf-8"))
    for name, value in PARAMS.items():
        params[name] = params[name] | value if isinstance(value, dict) else value
    params["manifest"]["file"] = str(work / "clips.csv")
    params["external"]["root"] = str(work / "audio")
    (work / "params.yaml").write_text(yaml.safe_dump(params, sort_keys=False), encoding="utf-8")


def write_corpus(work: Path) -> Path:
    """Write tones of four systems, one of them unknown in train, and their table; return the path of a clip."""
    import numpy as np
    import soundfile

    (work / "audio").mkdir(parents=True)
    rng, rows = np.random.default_rng(0), ["path,system,language,split"]
    for split, systems in {"train": ("low", "middle", "high"), "dev": SYSTEM_HZ, "test": SYSTEM_HZ}.items():
        for system in systems:
            for index in range(12):
                time_s = np.arange(48000 + 1600 * index) / 16000
                pitch = SYSTEM_HZ[system] * (1 + 0.1 * rng.random()) * time_s
                tone = sum(np.sin(2 * np.pi * k * pitch) / k for k in range(1, 8)) * (1 + np.sin(19 * time_s))
                name = f"{split}-{system}-{index}.wav"
                noise = 0.01 * rng.standard_normal(len(time_s))
                soundfile.write(work / "audio" / name, 0.1 * tone + noise, 16000)
                rows.append(f"{name},{system},en,{split}")
    (work / "clips.csv").write_text("\n".join(rows) + "\n", encoding="utf-8")
    return work / "audio/test-low-0.wav"


if __name__ == "__main__":
    main()
