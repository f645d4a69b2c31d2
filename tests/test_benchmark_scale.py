"""benchmarks/scale.py at a size of seconds: a protocol in MLAAD's format, tones instead of speech."""

import hashlib
import json
import resource
import subprocess
import sys
import zipfile
from itertools import product
from pathlib import Path

import numpy as np
import pytest
import soundfile

from makermark.corpora.mlaad.protocol import read_protocol
from tests_support import tone

REPOSITORY = Path(__file__).parents[1]
REAL = REPOSITORY.parent / "shared" / "data" / "mlaad4sourcetracing.zip"
sys.path.insert(0, str(REPOSITORY / "benchmarks"))

import scale_page  # noqa: E402
import scale_process  # noqa: E402
import scale_tree  # noqa: E402

SYSTEMS = {
    "train": ["suno/bark", "griffin_lim"],
    "dev": ["suno/bark", "vixTTS"],
    "eval": ["suno/bark", "OpenVoiceV2"],
}
LANGUAGES = {"train": ["en", "de"], "dev": ["en", "fr"], "eval": ["en", "ja"]}
UTTERANCES = 3  # per system and language


def table(rows):
    lines = [
        f"./fake/{language}/{system.replace('/', '_')}/{stem}.wav,{system}" for language, system, stem in rows
    ]
    return "\n".join(["path,model_name", *lines, ""])


@pytest.fixture(scope="module")
def protocol(tmp_path_factory):
    """A protocol of 3 splits x 2 systems x 2 languages x 3 files, with the eight tables of strata."""
    path = tmp_path_factory.mktemp("protocol") / "small.zip"
    with zipfile.ZipFile(path, "w") as archive:
        for split, systems in SYSTEMS.items():
            names = [f"{split}_{number}" for number in range(UTTERANCES)]
            rows = list(product(LANGUAGES[split], systems, names))
            archive.writestr(f"{split}.csv", table(rows))
            for language, system in product((True, False), (True, False)) if split != "train" else ():
                stratum_rows = [
                    row
                    for row in rows
                    if (row[0] in LANGUAGES["train"], row[1] in SYSTEMS["train"]) == (language, system)
                ]
                seen = {True: "seen", False: "not_seen"}
                name = f"fine/{split}___lang_{seen[language]}___model_{seen[system]}.csv"
                archive.writestr(name, table(stratum_rows))
    return path


@pytest.fixture(scope="module")
def recordings(tmp_path_factory):
    folder, rng = tmp_path_factory.mktemp("recordings"), np.random.default_rng(0)
    for number in range(4):
        soundfile.write(folder / f"{number}.flac", np.tile(tone(5.0, rng), 5), 16000)
    return folder


def test_scale_runs_and_measures_the_chosen_steps(tmp_path, protocol, recordings):
    steps = ["tree", "download", "audit", "features", "kill", "open"]
    command = [
        sys.executable,
        REPOSITORY / "benchmarks/scale.py",
        "--protocol",
        protocol,
        "--audio",
        recordings,
    ]
    command += ["--work", tmp_path, "--share", "0.5", "--docs", tmp_path / "page.md", "--stages", *steps]
    result = subprocess.run(command, capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stderr
    measured = json.loads((tmp_path / "share-0.5/scale.json").read_text())["steps"]
    assert list(measured) == steps
    rows = 3 * 2 * UTTERANCES  # half of each system's two languages
    assert (measured["tree"]["files"], measured["download"]["rows"]) == (rows, rows)
    assert measured["kill"]["same"]
    assert measured["kill"]["made_again"] == 0
    assert (tmp_path / "page.md").read_text().count("met |") == 3 + (
        measured["features"]["times_real_time"] >= 1000
    )
    assert not (tmp_path / "share-0.5/data/killed").exists()


def test_build_tree_writes_different_files_of_2_to_8_s_once(tmp_path, protocol, recordings):
    paths = scale_tree.paths_of(protocol)
    first = scale_tree.build_tree(tmp_path, paths, recordings)
    infos = [soundfile.info(tmp_path / path) for path in paths]
    assert {(info.samplerate, info.channels, info.subtype) for info in infos} == {(16000, 1, "PCM_16")}
    assert all(2 <= info.duration <= 8 for info in infos)
    assert len({hashlib.sha256((tmp_path / path).read_bytes()).digest() for path in paths}) == len(paths)
    assert first["hours"] == pytest.approx(sum(info.duration for info in infos) / 3600)
    assert first["bytes"] == sum((tmp_path / path).stat().st_size for path in paths)
    content = (tmp_path / paths[3]).read_bytes()
    (tmp_path / paths[3]).write_bytes(content[:1000])  # as a killed writer leaves it
    again = scale_tree.build_tree(tmp_path, paths, recordings)
    assert (first["written"], again["written"]) == (len(paths), 1)
    assert (tmp_path / paths[3]).read_bytes() == content


@pytest.mark.skipif(not REAL.exists(), reason="needs the real protocol")
def test_write_share_keeps_every_system_of_every_split(tmp_path):
    scale_tree.write_share(REAL, 0.01, tmp_path / "share.zip")
    written = (tmp_path / "share.zip").stat().st_mtime_ns
    scale_tree.write_share(REAL, 0.01, tmp_path / "share.zip")
    assert (tmp_path / "share.zip").stat().st_mtime_ns == written
    share, protocol = read_protocol(tmp_path / "share.zip"), read_protocol(REAL)
    assert 560 < len(share) < 640
    assert set(share["path"]) <= set(protocol["path"])
    for split, systems in {"train": 24, "dev": 25, "test": 64}.items():
        utterances = share[share["split"] == split].value_counts("system")
        assert len(utterances) == systems
        assert utterances.min() >= 2
    assert share[share["split"] != "train"]["protocol_system_seen"].notna().all()


def test_measure_reports_the_memory_of_a_process_and_a_kill(tmp_path):
    code = "import time; data = bytearray(200_000_000); print(len(data)); time.sleep({})"

    def run(seconds, kill_when=None):
        return scale_process.measure(
            [sys.executable, "-c", code.format(seconds)],
            folder=tmp_path,
            environment={},
            log=tmp_path / "log",
            kill_when=kill_when,
        )

    ended, killed = run(0.3), run(60, kill_when=lambda: True)
    assert (ended.status, ended.killed) == (0, False)
    copied = (
        resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    )  # a process starts as a copy of this one
    assert 200e6 < ended.peak_bytes < 1000e6 + copied
    assert ended.own_bytes is None or ended.own_bytes > 190e6
    assert ended.wall_s > 0.3
    assert (tmp_path / "log").read_text() == ""
    assert killed.killed
    assert killed.wall_s < 30


def test_targets_marks_a_missed_target():
    steps = {
        "features": {"times_real_time": 999.0, "peak_bytes": 2e9},
        "embed": {"peak_bytes": 3.1e9},
        "score": {"wall_s": 60.1, "peak_bytes": 1e9},
        "open": {"wall_s": 0.2},
    }
    results = {what: result for what, _, _, result in scale_page.targets(steps)}
    assert list(results.values()) == ["**missed**", "**missed**", "**missed**", "met"]
    assert "3.10 GB (embed)" in scale_page.targets(steps)[1]


def test_scale_refuses_a_folder_in_the_repository(protocol):
    command = [
        sys.executable,
        REPOSITORY / "benchmarks/scale.py",
        "--protocol",
        protocol,
        "--work",
        REPOSITORY / "x",
    ]
    result = subprocess.run(command, capture_output=True, text=True, check=False)
    assert result.returncode == 1
    assert "is in the repository" in result.stderr
    assert not (REPOSITORY / "x").exists()
