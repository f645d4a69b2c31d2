"""benchmarks/scale.py at a size that takes seconds: a protocol of MLAAD's form, tones instead of speech."""

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
EACH = 3


def table(rows):
    lines = [
        f"./fake/{language}/{system.replace('/', '_')}/{stem}.wav,{system}" for language, system, stem in rows
    ]
    return "\n".join(["path,model_name", *lines, ""])


@pytest.fixture(scope="module")
def protocol(tmp_path_factory):
    """3 splits x 2 systems x 2 languages x 3 files, and the eight tables of strata."""
    path = tmp_path_factory.mktemp("protocol") / "small.zip"
    with zipfile.ZipFile(path, "w") as archive:
        for split, systems in SYSTEMS.items():
            names = [f"{split}_{number}" for number in range(EACH)]
            rows = list(product(LANGUAGES[split], systems, names))
            archive.writestr(f"{split}.csv", table(rows))
            for language, system in product((True, False), (True, False)) if split != "train" else ():
                of_stratum = [
                    row
                    for row in rows
                    if (row[0] in LANGUAGES["train"], row[1] in SYSTEMS["train"]) == (language, system)
                ]
                said = {True: "seen", False: "not_seen"}
                name = f"fine/{split}___lang_{said[language]}___model_{said[system]}.csv"
                archive.writestr(name, table(of_stratum))
    return path


@pytest.fixture(scope="module")
def recordings(tmp_path_factory):
    folder, rng = tmp_path_factory.mktemp("recordings"), np.random.default_rng(0)
    for number in range(4):
        soundfile.write(folder / f"{number}.flac", np.tile(tone(5.0, rng), 5), 16000)
    return folder


def test_every_stage_is_run_and_measured(tmp_path, protocol, recordings):
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
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    told = json.loads((tmp_path / "share-0.5/scale.json").read_text())["steps"]
    assert list(told) == steps
    rows = 3 * 2 * EACH  # half of each system's two languages
    assert (told["tree"]["files"], told["download"]["rows"]) == (rows, rows)
    assert told["kill"]["same"]
    assert told["kill"]["made_again"] == 0
    assert (tmp_path / "page.md").read_text().count("met |") == 3 + (
        told["features"]["times_real_time"] >= 1000
    )
    assert not (tmp_path / "share-0.5/data/killed").exists()


def test_files_differ_last_2_to_8_s_and_are_made_once(tmp_path, protocol, recordings):
    paths = scale_tree.paths_of(protocol)
    first = scale_tree.build_tree(tmp_path, paths, recordings)
    sounds = [soundfile.info(tmp_path / path) for path in paths]
    assert {(sound.samplerate, sound.channels, sound.subtype) for sound in sounds} == {(16000, 1, "PCM_16")}
    assert all(2 <= sound.duration <= 8 for sound in sounds)
    assert len({hashlib.sha256((tmp_path / path).read_bytes()).digest() for path in paths}) == len(paths)
    assert first["hours"] == pytest.approx(sum(sound.duration for sound in sounds) / 3600)
    assert first["bytes"] == sum((tmp_path / path).stat().st_size for path in paths)
    whole = (tmp_path / paths[3]).read_bytes()
    (tmp_path / paths[3]).write_bytes(whole[:1000])  # a writer that was killed
    again = scale_tree.build_tree(tmp_path, paths, recordings)
    assert (first["written"], again["written"]) == (len(paths), 1)
    assert (tmp_path / paths[3]).read_bytes() == whole


@pytest.mark.skipif(not REAL.exists(), reason="the real protocol is not here")
def test_a_share_of_the_real_protocol_keeps_every_system_of_every_split(tmp_path):
    scale_tree.write_share(REAL, 0.01, tmp_path / "share.zip")
    written = (tmp_path / "share.zip").stat().st_mtime_ns
    scale_tree.write_share(REAL, 0.01, tmp_path / "share.zip")
    assert (tmp_path / "share.zip").stat().st_mtime_ns == written
    share, whole = read_protocol(tmp_path / "share.zip"), read_protocol(REAL)
    assert 560 < len(share) < 640
    assert set(share["path"]) <= set(whole["path"])
    for split, systems in {"train": 24, "dev": 25, "test": 64}.items():
        utterances = share[share["split"] == split].value_counts("system")
        assert len(utterances) == systems
        assert utterances.min() >= 2
    assert share[share["split"] != "train"]["protocol_system_seen"].notna().all()


def test_memory_of_a_process_is_its_own_and_a_kill_is_told(tmp_path):
    code = "import time; held = bytearray(200_000_000); print(len(held)); time.sleep({})"

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
    begun_as = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024  # a copy of this process
    assert 200e6 < ended.peak_bytes < 1000e6 + begun_as
    assert ended.own_bytes is None or ended.own_bytes > 190e6
    assert ended.wall_s > 0.3
    assert (tmp_path / "log").read_text() == ""
    assert killed.killed
    assert killed.wall_s < 30


def test_a_missed_target_is_shown_as_missed():
    steps = {
        "features": {"times_real_time": 999.0, "peak_bytes": 2e9},
        "embed": {"peak_bytes": 3.1e9},
        "score": {"wall_s": 60.1, "peak_bytes": 1e9},
        "open": {"wall_s": 0.2},
    }
    verdicts = {what: verdict for what, _, _, verdict in scale_page.targets(steps)}
    assert list(verdicts.values()) == ["**missed**", "**missed**", "**missed**", "met"]
    assert "3.10 GB (embed)" in scale_page.targets(steps)[1]


def test_nothing_is_put_into_the_repository(protocol):
    command = [
        sys.executable,
        REPOSITORY / "benchmarks/scale.py",
        "--protocol",
        protocol,
        "--work",
        REPOSITORY / "x",
    ]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert "lies in the repository" in done.stderr
    assert not (REPOSITORY / "x").exists()
