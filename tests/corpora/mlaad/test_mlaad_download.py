"""Download of one file from a local server that drops connections, truncates, sends wrong ranges or none."""

import hashlib
import os

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from mlaad_server import Web, serve

from makermark.corpora.mlaad.download import download_file
from makermark.foundation.errors import CorpusError

CONTENT = bytes((i * 7919 + i // 251) % 256 for i in range(10_000))
MD5 = hashlib.md5(CONTENT).hexdigest()


@pytest.fixture
def web():
    with serve(Web()) as web:
        web.files["/x.z01"] = CONTENT
        yield web


def fetch(web, path, md5=MD5, attempts=3, **settings):
    download_file(f"{web.url}/x.z01", path, md5=md5, attempts=attempts, pause_s=0.001, **settings)


def test_download_writes_the_file_and_reports_progress(web, tmp_path):
    calls = []
    fetch(web, tmp_path / "deep" / "x.z01", on_progress=lambda done, total: calls.append((done, total)))
    assert (tmp_path / "deep" / "x.z01").read_bytes() == CONTENT
    assert calls[-1] == (10_000, 10_000)
    assert not (tmp_path / "deep" / "x.z01.part").exists()


@pytest.mark.parametrize("url", ["deepfake-total.com/x.zip", "http://127.0.0.1:1/x y.zip"])
def test_invalid_address_raises_without_retry(tmp_path, url):
    with pytest.raises(CorpusError) as caught:
        download_file(url, tmp_path / "x.zip", md5="", attempts=9, pause_s=100.0)
    assert str(caught.value).startswith(f"{url}: not a valid address")


def test_complete_file_is_not_requested_again(web, tmp_path):
    path = tmp_path / "x.z01"
    fetch(web, path)
    requests = len(web.requests)
    fetch(web, path)
    (tmp_path / "x.z01.verified.json").unlink()
    fetch(web, path)
    assert len(web.requests) == requests


def test_dropped_connection_is_resumed_at_the_last_byte(web, tmp_path):
    web.drops["/x.z01"] = 5
    fetch(web, tmp_path / "x.z01")
    assert (tmp_path / "x.z01").read_bytes() == CONTENT
    assert web.sent["/x.z01"] == len(CONTENT)  # no byte twice
    assert [range_header for _, range_header in web.requests] == [
        "",
        *(f"bytes={k}000-" for k in range(1, 6)),
    ]


def test_part_of_a_killed_run_is_resumed(web, tmp_path):
    (tmp_path / "x.z01.part").write_bytes(CONTENT[:6000])
    fetch(web, tmp_path / "x.z01")
    assert (tmp_path / "x.z01").read_bytes() == CONTENT
    assert web.sent["/x.z01"] == 4000


def test_partial_file_with_the_final_name_is_resumed(web, tmp_path):
    (tmp_path / "x.z01").write_bytes(CONTENT[:6000])
    fetch(web, tmp_path / "x.z01")
    assert (tmp_path / "x.z01").read_bytes() == CONTENT
    assert web.sent["/x.z01"] == 4000


def test_complete_part_is_renamed_without_transfer(web, tmp_path):
    (tmp_path / "x.z01.part").write_bytes(CONTENT)
    fetch(web, tmp_path / "x.z01")
    assert (tmp_path / "x.z01").read_bytes() == CONTENT
    assert web.sent["/x.z01"] == 0


@pytest.mark.parametrize("partial", [CONTENT[:10] + b"?" + CONTENT[11:6000], b"?" * 10_000, b"?" * 20_000])
def test_damaged_part_is_downloaded_from_the_start(web, tmp_path, partial):
    (tmp_path / "x.z01.part").write_bytes(partial)
    fetch(web, tmp_path / "x.z01")
    assert (tmp_path / "x.z01").read_bytes() == CONTENT


def test_server_without_ranges_restarts_the_transfer(web, tmp_path):
    web.ranges = False
    web.drops["/x.z01"] = 2
    (tmp_path / "x.z01.part").write_bytes(CONTENT[:6000])
    fetch(web, tmp_path / "x.z01")
    assert (tmp_path / "x.z01").read_bytes() == CONTENT


def test_range_from_a_wrong_position_is_discarded(web, tmp_path):
    web.wrong_start = True
    (tmp_path / "x.z01.part").write_bytes(CONTENT[:6000])
    fetch(web, tmp_path / "x.z01")
    assert (tmp_path / "x.z01").read_bytes() == CONTENT


def test_busy_server_is_retried(web, tmp_path):
    web.busy["/x.z01"] = 2
    fetch(web, tmp_path / "x.z01")
    assert (tmp_path / "x.z01").read_bytes() == CONTENT


def test_wrong_bytes_raise_and_are_deleted(web, tmp_path):
    web.files["/x.z01"] = CONTENT[:-1] + b"?"
    with pytest.raises(CorpusError, match=r"^x\.z01: .*wrong bytes \(MD5 .*run again"):
        fetch(web, tmp_path / "x.z01")
    assert list(tmp_path.iterdir()) == []


def test_truncated_response_without_length_raises_by_md5(web, tmp_path):
    web.length = False
    web.drops["/x.z01"] = 1
    with pytest.raises(CorpusError, match="wrong bytes"):
        fetch(web, tmp_path / "x.z01")


def test_repeated_drops_raise_and_keep_the_received_bytes(web, tmp_path):
    web.drops["/x.z01"], web.drop_after = 1000, 0
    (tmp_path / "x.z01.part").write_bytes(CONTENT[:6000])
    with pytest.raises(CorpusError, match=r"failed after 3 attempts .* 6000 bytes are stored: run again"):
        fetch(web, tmp_path / "x.z01")
    assert (tmp_path / "x.z01.part").read_bytes() == CONTENT[:6000]


def test_status_404_raises_without_retry(web, tmp_path):
    web.status["/x.z01"] = 404
    with pytest.raises(CorpusError, match=r"/x\.z01: the server responds 404 .*params\.yaml"):
        fetch(web, tmp_path / "x.z01")
    assert len(web.requests) == 1


def test_unreachable_server_raises_with_a_remedy(tmp_path):
    with serve(Web()) as web:
        url = web.url
    with pytest.raises(CorpusError, match=r"failed after 2 attempts .*existing copy"):
        download_file(f"{url}/x.z01", tmp_path / "x.z01", md5=MD5, attempts=2, pause_s=0.001)


def test_full_disk_raises_before_the_transfer(web, tmp_path, monkeypatch):
    usage = os.statvfs(tmp_path)
    monkeypatch.setattr(
        "makermark.corpora.mlaad.download.shutil.disk_usage",
        lambda _: type("Usage", (), {"total": usage.f_blocks, "used": 0, "free": 9_999}),
    )
    with pytest.raises(CorpusError, match=r"x\.z01: needs .* GB .*mlaad\.folder"):
        fetch(web, tmp_path / "x.z01")


@given(
    content=st.binary(min_size=1, max_size=400),
    partial=st.integers(0, 450),
    drops=st.integers(0, 3),
    drop_after=st.integers(0, 200),
    ranges=st.booleans(),
)
@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_downloaded_bytes_are_correct_after_any_faults(
    tmp_path_factory, web, content, partial, drops, drop_after, ranges
):
    folder = tmp_path_factory.mktemp("any")
    web.files["/x.z01"], web.ranges, web.drop_after = content, ranges, drop_after
    web.drops["/x.z01"] = drops
    if partial:
        (folder / "x.z01.part").write_bytes((content + b"?" * 450)[:partial])
    fetch(web, folder / "x.z01", md5=hashlib.md5(content).hexdigest(), attempts=6)
    assert (folder / "x.z01").read_bytes() == content
