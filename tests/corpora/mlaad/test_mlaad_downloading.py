"""One file over HTTP, against a real server that drops, truncates, lies, and can or cannot do ranges."""

import hashlib
import os

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from mlaad_server import Web, serving

from makermark.corpora.mlaad.downloading import download
from makermark.errors import CorpusError

CONTENT = bytes((i * 7919 + i // 251) % 256 for i in range(10_000))
MD5 = hashlib.md5(CONTENT).hexdigest()


@pytest.fixture
def web():
    with serving(Web()) as web:
        web.files["/x.z01"] = CONTENT
        yield web


def fetch(web, path, md5=MD5, attempts=3, **settings):
    download(f"{web.url}/x.z01", path, md5=md5, attempts=attempts, pause_s=0.001, **settings)


def test_a_file_arrives_whole_and_is_told_of(web, tmp_path):
    told = []
    fetch(web, tmp_path / "deep" / "x.z01", tell=lambda there, of: told.append((there, of)))
    assert (tmp_path / "deep" / "x.z01").read_bytes() == CONTENT
    assert told[-1] == (10_000, 10_000)
    assert not (tmp_path / "deep" / "x.z01.part").exists()


@pytest.mark.parametrize("url", ["deepfake-total.com/x.zip", "http://127.0.0.1:1/x y.zip"])
def test_what_is_no_address_is_refused_at_once(tmp_path, url):
    with pytest.raises(CorpusError) as caught:
        download(url, tmp_path / "x.zip", md5="", attempts=9, pause_s=100.0)
    assert str(caught.value).startswith(f"{url}: no address")


def test_what_is_whole_is_never_asked_for_again(web, tmp_path):
    path = tmp_path / "x.z01"
    fetch(web, path)
    asked = len(web.asked)
    fetch(web, path)
    (tmp_path / "x.z01.verified.json").unlink()
    fetch(web, path)
    assert len(web.asked) == asked


def test_dropped_connections_are_continued_where_they_broke(web, tmp_path):
    web.drops["/x.z01"] = 5
    fetch(web, tmp_path / "x.z01")
    assert (tmp_path / "x.z01").read_bytes() == CONTENT
    assert web.sent["/x.z01"] == len(CONTENT)  # no byte twice
    assert [wanted for _, wanted in web.asked] == ["", *(f"bytes={k}000-" for k in range(1, 6))]


def test_a_killed_run_goes_on_at_the_next_one(web, tmp_path):
    (tmp_path / "x.z01.part").write_bytes(CONTENT[:6000])
    fetch(web, tmp_path / "x.z01")
    assert (tmp_path / "x.z01").read_bytes() == CONTENT
    assert web.sent["/x.z01"] == 4000


def test_a_partial_file_under_the_final_name_is_continued_too(web, tmp_path):
    (tmp_path / "x.z01").write_bytes(CONTENT[:6000])
    fetch(web, tmp_path / "x.z01")
    assert (tmp_path / "x.z01").read_bytes() == CONTENT
    assert web.sent["/x.z01"] == 4000


def test_a_part_that_was_whole_but_not_yet_named_is_taken(web, tmp_path):
    (tmp_path / "x.z01.part").write_bytes(CONTENT)
    fetch(web, tmp_path / "x.z01")
    assert (tmp_path / "x.z01").read_bytes() == CONTENT
    assert web.sent["/x.z01"] == 0


@pytest.mark.parametrize("left", [CONTENT[:10] + b"?" + CONTENT[11:6000], b"?" * 10_000, b"?" * 20_000])
def test_what_an_earlier_run_left_damaged_is_fetched_from_the_start(web, tmp_path, left):
    (tmp_path / "x.z01.part").write_bytes(left)
    fetch(web, tmp_path / "x.z01")
    assert (tmp_path / "x.z01").read_bytes() == CONTENT


def test_a_server_without_ranges_sends_all_again(web, tmp_path):
    web.ranges = False
    web.drops["/x.z01"] = 2
    (tmp_path / "x.z01.part").write_bytes(CONTENT[:6000])
    fetch(web, tmp_path / "x.z01")
    assert (tmp_path / "x.z01").read_bytes() == CONTENT


def test_a_range_from_another_place_is_not_believed(web, tmp_path):
    web.wrong_start = True
    (tmp_path / "x.z01.part").write_bytes(CONTENT[:6000])
    fetch(web, tmp_path / "x.z01")
    assert (tmp_path / "x.z01").read_bytes() == CONTENT


def test_a_busy_server_is_asked_again(web, tmp_path):
    web.busy["/x.z01"] = 2
    fetch(web, tmp_path / "x.z01")
    assert (tmp_path / "x.z01").read_bytes() == CONTENT


def test_wrong_bytes_are_refused_by_name_and_deleted(web, tmp_path):
    web.files["/x.z01"] = CONTENT[:-1] + b"?"
    with pytest.raises(CorpusError, match=r"^x\.z01: .*wrong bytes \(MD5 .*run again"):
        fetch(web, tmp_path / "x.z01")
    assert list(tmp_path.iterdir()) == []


def test_a_truncated_answer_without_a_length_is_refused_by_its_md5(web, tmp_path):
    web.length = False
    web.drops["/x.z01"] = 1
    with pytest.raises(CorpusError, match="wrong bytes"):
        fetch(web, tmp_path / "x.z01")


def test_a_server_that_always_drops_is_given_up_and_what_came_is_kept(web, tmp_path):
    web.drops["/x.z01"], web.drop_after = 1000, 0
    (tmp_path / "x.z01.part").write_bytes(CONTENT[:6000])
    with pytest.raises(CorpusError, match=r"given up after 3 attempts .* 6000 bytes are kept: run again"):
        fetch(web, tmp_path / "x.z01")
    assert (tmp_path / "x.z01.part").read_bytes() == CONTENT[:6000]


def test_an_address_that_does_not_exist_is_told_at_once(web, tmp_path):
    web.status["/x.z01"] = 404
    with pytest.raises(CorpusError, match=r"/x\.z01: the server answers 404 .*params\.yaml"):
        fetch(web, tmp_path / "x.z01")
    assert len(web.asked) == 1


def test_nobody_listening_is_told_with_the_remedy(tmp_path):
    with serving(Web()) as web:
        url = web.url
    with pytest.raises(CorpusError, match=r"given up after 2 attempts .*existing copy"):
        download(f"{url}/x.z01", tmp_path / "x.z01", md5=MD5, attempts=2, pause_s=0.001)


def test_a_disk_too_small_is_told_before_a_byte_is_written(web, tmp_path, monkeypatch):
    usage = os.statvfs(tmp_path)
    monkeypatch.setattr(
        "makermark.corpora.mlaad.downloading.shutil.disk_usage",
        lambda _: type("Usage", (), {"total": usage.f_blocks, "used": 0, "free": 9_999}),
    )
    with pytest.raises(CorpusError, match=r"x\.z01: needs .* GB .*mlaad\.folder"):
        fetch(web, tmp_path / "x.z01")


@given(
    content=st.binary(min_size=1, max_size=400),
    left=st.integers(0, 450),
    drops=st.integers(0, 3),
    drop_after=st.integers(0, 200),
    ranges=st.booleans(),
)
@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_whatever_happens_the_bytes_are_right(
    tmp_path_factory, web, content, left, drops, drop_after, ranges
):
    folder = tmp_path_factory.mktemp("any")
    web.files["/x.z01"], web.ranges, web.drop_after = content, ranges, drop_after
    web.drops["/x.z01"] = drops
    if left:
        (folder / "x.z01.part").write_bytes((content + b"?" * 450)[:left])
    fetch(web, folder / "x.z01", md5=hashlib.md5(content).hexdigest(), attempts=6)
    assert (folder / "x.z01").read_bytes() == content
