"""Archives in segments: written by the test helper, and by Info-ZIP if it is installed."""

import shutil
import subprocess

import pytest
from mlaad_support import PATHS, audio_bytes, write_split_zip

from makermark.corpora.mlaad.download import ignore_progress
from makermark.corpora.mlaad.split_zip import SplitZip, extract_members
from makermark.foundation.errors import CorpusError

FILES = {f"mlaad_v5/{path}": audio_bytes(path) for path in dict.fromkeys(PATHS)}


def unpack(parts, folder, target_of=lambda name: name):
    extract_members(parts, folder, target_of=target_of, on_progress=ignore_progress)
    return {
        path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()
    }


@pytest.mark.parametrize("size", [1000, 4096, 7777, 10**9])
def test_members_across_segments_are_extracted(tmp_path, size):
    parts = write_split_zip(tmp_path / "parts", FILES, size=size)
    assert len(parts) == 1 or size < 10**9
    assert unpack(parts, tmp_path / "out") == FILES


@pytest.mark.skipif(shutil.which("zip") is None, reason="Info-ZIP's `zip` is not installed")
@pytest.mark.parametrize("zip64", [False, True])
def test_archives_of_info_zip_are_extracted(tmp_path, zip64):
    noise = {
        f"fake/en/m/{k}.wav": bytes((i * i * (k + 3) + i // 7) % 256 for i in range(90_000)) for k in range(3)
    }
    for path, content in noise.items():
        (tmp_path / "in" / path).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "in" / path).write_bytes(content)
    flags = ["-fz"] if zip64 else []
    command = ["zip", "-q", "-0", "-r", "-s", "64k", *flags, str(tmp_path / "x.zip"), "fake"]
    subprocess.run(command, cwd=tmp_path / "in", check=True)
    parts = [*sorted(tmp_path.glob("x.z0*")), tmp_path / "x.zip"]
    assert len(parts) > 3
    extracted = unpack(parts, tmp_path / "out", lambda name: name if name.endswith(".wav") else None)
    assert extracted == noise


def test_only_selected_and_missing_members_are_extracted(tmp_path):
    parts = write_split_zip(tmp_path / "parts", FILES, size=3000)
    name = next(iter(FILES))
    target = tmp_path / "out" / "here.wav"
    unpack(parts, tmp_path / "out", lambda member: "here.wav" if member == name else None)
    before = target.stat().st_mtime_ns
    assert unpack(parts, tmp_path / "out", lambda member: "here.wav" if member == name else None) == {
        "here.wav": FILES[name]
    }
    assert target.stat().st_mtime_ns == before
    target.write_bytes(b"half")
    unpack(parts, tmp_path / "out", lambda member: "here.wav" if member == name else None)
    assert target.read_bytes() == FILES[name]


def test_damaged_segment_raises_and_leaves_no_partial_file(tmp_path):
    parts = write_split_zip(tmp_path / "parts", FILES, size=4096)
    damaged = bytearray(parts[0].read_bytes())
    damaged[200] ^= 0xFF
    parts[0].write_bytes(damaged)
    with pytest.raises(CorpusError, match=r"mlaad_v5\.z01: .*CRC-32.*delete that file"):
        unpack(parts, tmp_path / "out")
    assert not any(path.is_file() for path in (tmp_path / "out").rglob("*"))


@pytest.mark.parametrize("cut", [1, 30, 2000])
def test_truncated_last_segment_raises(tmp_path, cut):
    parts = write_split_zip(tmp_path / "parts", FILES, size=4096)
    parts[-1].write_bytes(parts[-1].read_bytes()[:-cut])
    with pytest.raises(CorpusError, match=r"mlaad_v5\.zip: .*delete that file"), SplitZip(parts) as archive:
        archive.members()


def test_missing_segment_raises(tmp_path):
    parts = write_split_zip(tmp_path / "parts", FILES, size=4096)
    with pytest.raises(
        CorpusError, match=rf"last of {len(parts)} segments, but mlaad\.zip_parts names {len(parts) - 1}"
    ):
        unpack(parts[1:], tmp_path / "out")


def test_segments_in_a_wrong_order_raise(tmp_path):
    parts = write_split_zip(tmp_path / "parts", FILES, size=4096)
    with pytest.raises(CorpusError, match="delete that file"):
        unpack([parts[1], parts[0], *parts[2:]], tmp_path / "out")
