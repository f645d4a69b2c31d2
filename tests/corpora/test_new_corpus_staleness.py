"""A new corpus is one module and its lines in the registry, and makes no feature cache and no trained model stale."""

import os
import subprocess
import sys

import pytest

from staleness_support import copy_up_to_date, stale_stages

pytest.importorskip("dvc", reason="the pipeline extra is not installed")

pytestmark = pytest.mark.pipeline

READER = '''"""`corpus: flat`: one folder whose files are named SYSTEM-NUMBER.wav."""

from pathlib import Path

import pandas as pd

from makermark.corpora.listing import Listing


def read_listing(root: Path) -> Listing:
    rows = [(file.name, file.stem.partition("-")[0]) for file in sorted(root.glob("*.wav"))]
    return Listing(rows=pd.DataFrame(rows, columns=["path", "system"]), root=root)
'''


@pytest.fixture(scope="module")
def project(tmp_path_factory):
    return copy_up_to_date(tmp_path_factory.mktemp("staleness"))


def test_new_corpus_makes_only_check_and_download_stale(project):
    registry = project / "src/makermark/corpora/corpus_registry.py"
    (project / "src/makermark/corpora/readers/flat.py").write_text(READER)
    insert_after(
        registry, "from makermark.corpora.readers import ", "from makermark.corpora.readers import flat\n"
    )
    insert_after(registry, '    "folders": ', '    "flat": _folder_corpus(flat.read_listing),\n')
    assert stale_stages(project) == {"check", "download"}
    subprocess.run(
        [
            sys.executable,
            "-c",
            "from makermark.corpora.corpus_registry import CORPORA; assert 'flat' in CORPORA",
        ],
        env={**os.environ, "PYTHONPATH": str(project / "src")},
        check=True,
    )


def insert_after(file, prefix, line):
    """Insert `line` into `file` after the first line that starts with `prefix`."""
    lines = file.read_text().splitlines(keepends=True)
    position = next(number for number, text in enumerate(lines, start=1) if text.startswith(prefix))
    file.write_text("".join([*lines[:position], line, *lines[position:]]))
