"""Whole files or none, whatever the disk does; and one line that says what to do."""

import os
import subprocess
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pyarrow as pa
import pytest

from makermark.foundation.errors import FilesError
from makermark.foundation.files import (
    atomic_folder,
    atomic_write,
    read_arrow,
    read_json,
    write_arrow,
    write_json,
)


@pytest.fixture
def small_disk(tmp_path):
    """A mounted file system of 256 KiB, and how to make it read-only."""
    mount_point = tmp_path / "disk"
    mount_point.mkdir()
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=256k", "makermark", str(mount_point)],
        capture_output=True,
        check=False,
    )
    if mounted.returncode:
        pytest.skip(f"this user may not mount a tmpfs: {mounted.stderr.decode().strip()}")
    yield mount_point
    subprocess.run(["umount", str(mount_point)], check=True)


def refusal(action):
    with pytest.raises(FilesError) as caught:
        action()
    assert "\n" not in str(caught.value)
    return str(caught.value)


def big_table():
    return pa.table({"x": np.random.default_rng(0).random(100_000)})


@pytest.mark.parametrize(
    "write",
    [
        lambda path: write_json(path, ["x" * 400_000]),
        lambda path: write_arrow(path, big_table()),
    ],
    ids=["json", "arrow"],
)
def test_a_full_disk_leaves_the_old_file_and_no_draft(write, small_disk):
    path = small_disk / "a.file"
    path.write_text("old")
    message = refusal(lambda: write(path))
    assert message.startswith(f"{path}: ")
    assert "No space left on device; free some space there and run again" in message
    assert path.read_text() == "old"
    assert [p.name for p in small_disk.iterdir()] == ["a.file"]


def test_a_read_only_folder_is_named(small_disk):
    path = small_disk / "a.json"
    write_json(path, {"a": 1})
    subprocess.run(["mount", "-o", "remount,ro", str(small_disk)], check=True)
    message = refusal(lambda: write_json(path, {"a": 2}))
    assert str(small_disk) in message
    assert "read-only" in message
    assert read_json(path) == {"a": 1}


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write anywhere")
def test_a_folder_without_permission_is_named(tmp_path):
    tmp_path.chmod(0o555)
    assert "change its permissions" in refusal(lambda: write_json(tmp_path / "a.json", {}))


def test_a_folder_in_the_files_place_is_named_and_kept(tmp_path):
    (tmp_path / "a.json" / "inside").mkdir(parents=True)
    message = refusal(lambda: write_json(tmp_path / "a.json", {}))
    assert message == (
        f"{tmp_path / 'a.json'}: Is a directory; this is a folder where a file was expected: "
        "move it away or correct the path"
    )
    assert (tmp_path / "a.json" / "inside").is_dir()
    assert len(list(tmp_path.iterdir())) == 1


def test_a_file_in_a_folders_place_is_named(tmp_path):
    (tmp_path / "folder").write_text("in the way")
    message = refusal(lambda: write_json(tmp_path / "folder" / "a.json", {}))
    assert message.startswith(f"{tmp_path / 'folder'}: File exists; a file is where a folder is needed")
    message = refusal(lambda: write_json(tmp_path / "folder" / "deeper" / "a.json", {}))
    assert "a part of this path is a file" in message or "a file is where a folder is needed" in message


def test_an_error_about_another_file_names_that_file(tmp_path):
    def copy_what_is_not_there():
        with atomic_write(tmp_path / "a.txt") as draft:
            draft.write_bytes((tmp_path / "source.txt").read_bytes())

    assert refusal(copy_what_is_not_there).startswith(f"{tmp_path / 'source.txt'}: No such file")
    assert not list(tmp_path.iterdir())


def test_folders_are_made_as_needed_and_names_may_hold_spaces_and_any_letters(tmp_path):
    path = tmp_path / "größe 声" / "b c" / "résumé 1.json"
    write_json(path, {"système": "über"})
    assert read_json(path) == {"système": "über"}
    assert "système" in path.read_text(encoding="utf-8")
    write_arrow(path.with_suffix(".arrow"), big_table())
    assert read_arrow(path.with_suffix(".arrow")).equals(big_table())
    assert sorted(p.name for p in path.parent.iterdir()) == ["résumé 1.arrow", "résumé 1.json"]


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_json_without_nan_or_infinity_and_the_old_file_stays(value, tmp_path):
    path = tmp_path / "a.json"
    write_json(path, {"eer_percent": 4.5})
    with pytest.raises(ValueError, match="JSON"):
        write_json(path, {"eer_percent": value})
    assert read_json(path) == {"eer_percent": 4.5}
    assert len(list(tmp_path.iterdir())) == 1


def test_an_interruption_leaves_the_old_file_and_no_draft(tmp_path):
    (tmp_path / "a.txt").write_text("old")

    def write_half():
        with atomic_write(tmp_path / "a.txt") as draft:
            draft.write_text("half")
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        write_half()
    assert (tmp_path / "a.txt").read_text() == "old"
    assert len(list(tmp_path.iterdir())) == 1


def test_a_folder_is_replaced_only_when_the_new_one_is_whole(tmp_path):
    path = tmp_path / "plots"
    path.mkdir()
    (path / "old.png").touch()

    def fill_half():
        with atomic_folder(path) as draft:
            (draft / "half.png").touch()
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        fill_half()
    assert [p.name for p in path.iterdir()] == ["old.png"]
    with atomic_folder(path) as draft:
        (draft / "new.png").touch()
    assert [p.name for p in path.iterdir()] == ["new.png"]
    assert [p.name for p in tmp_path.iterdir()] == ["plots"]


@pytest.mark.parametrize(("mask", "file_mode", "folder_mode"), [(0o022, 0o644, 0o755), (0o077, 0o600, 0o700)])
def test_files_get_the_permissions_that_the_user_asked_for(mask, file_mode, folder_mode, tmp_path):
    before = os.umask(mask)
    try:
        write_json(tmp_path / "a.json", {})
        with atomic_folder(tmp_path / "folder"):
            pass
    finally:
        os.umask(before)
    assert (tmp_path / "a.json").stat().st_mode & 0o777 == file_mode
    assert (tmp_path / "folder").stat().st_mode & 0o777 == folder_mode


def test_many_threads_write_at_once_and_the_umask_stays(tmp_path):
    mask = os.umask(0o022)
    try:
        with ThreadPoolExecutor(8) as pool:
            list(pool.map(lambda n: write_json(tmp_path / f"{n % 5}.json", {"n": n}), range(200)))
        assert os.umask(0o022) == 0o022
    finally:
        os.umask(mask)
    assert sorted(p.name for p in tmp_path.iterdir()) == [f"{n}.json" for n in range(5)]
    for n in range(5):
        assert read_json(tmp_path / f"{n}.json")["n"] % 5 == n
        assert (tmp_path / f"{n}.json").stat().st_mode & 0o777 == 0o644


@pytest.mark.parametrize("content", [b"", b"{", b'{"a": }', b"\xff\xfe{}"], ids=repr)
def test_what_is_not_json_is_named(content, tmp_path):
    (tmp_path / "a.json").write_bytes(content)
    message = refusal(lambda: read_json(tmp_path / "a.json"))
    assert message.startswith(f"{tmp_path / 'a.json'}: not JSON")


@pytest.mark.parametrize("read", [read_json, read_arrow])
def test_a_file_that_is_not_there_is_named(read, tmp_path):
    message = refusal(lambda: read(tmp_path / "a"))
    assert message.startswith(f"{tmp_path / 'a'}: ")
    assert "run the stage that writes it" in message


@pytest.mark.parametrize("kept_bytes", [0, 5, 100, 5000, -1])
def test_a_truncated_arrow_file_is_named(kept_bytes, tmp_path):
    path = tmp_path / "a.arrow"
    write_arrow(path, big_table())
    path.write_bytes(path.read_bytes()[:kept_bytes])
    assert refusal(lambda: read_arrow(path)).startswith(f"{path}: damaged Arrow file")


def test_arrow_file_with_a_damaged_column_name_is_refused(tmp_path):
    path = tmp_path / "a.arrow"
    write_arrow(path, pa.table({"system": ["a"]}))
    path.write_bytes(path.read_bytes().replace(b"system", b"sy\xf3tem"))
    assert refusal(lambda: read_arrow(path)).startswith(f"{path}: damaged Arrow file")
