"""The Hugging Face way: the real library against a small hub on this machine."""

import hashlib
import json
import re
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Thread

import pytest
from mlaad_support import PATHS, audio

from makermark.corpora.mlaad.hub import download_folders
from makermark.errors import CorpusError

constants = pytest.importorskip(
    "huggingface_hub.constants", reason="huggingface_hub is not installed (extra mlaad)"
)

SHA = "0123456789abcdef0123456789abcdef01234567"
FOLDERS = sorted({path.rpartition("/")[0] for path in PATHS})
FILES = {path: audio(path) for path in [*dict.fromkeys(PATHS), "README.md", "fake/en/other_model/x.wav"]}


class Hub:
    def __init__(self):
        self.files = dict(FILES)
        self.damaged = set()  # sent with the right length, but other bytes
        self.refuse = ""  # an X-Error-Code for every question
        self.sent = []


def handler_of(served):
    class Handler(BaseHTTPRequestHandler):
        def log_message(self, *_):
            pass

        def do_HEAD(self):
            self.do_GET()

        def do_GET(self):
            place = self.path.partition("?")[0]
            if served.refuse:
                self.reply(
                    b"",
                    status=403 if served.refuse == "GatedRepo" else 404,
                    extra={"X-Error-Code": served.refuse},
                )
            elif re.fullmatch(r"/api/datasets/[^/]+/[^/]+/revision/\w+", place):
                self.reply(json.dumps({"id": "mueller91/MLAAD", "sha": SHA, "siblings": []}).encode())
            elif "/tree/" in place:
                tree = [
                    {
                        "type": "file",
                        "path": path,
                        "size": len(content),
                        "oid": hashlib.sha1(b"blob %d\0" % len(content) + content).hexdigest(),
                        "lfs": {
                            "oid": hashlib.sha256(content).hexdigest(),
                            "size": len(content),
                            "pointerSize": 130,
                        },
                    }
                    for path, content in served.files.items()
                ]
                self.reply(json.dumps(tree).encode())
            else:
                path = place.partition(f"/resolve/{SHA}/")[2]
                content = served.files[path]
                etag = hashlib.sha256(content).hexdigest()
                if path in served.damaged:
                    content = b"?" * len(content)
                if self.command == "GET":
                    served.sent.append(path)
                self.reply(content, extra={"ETag": f'"{etag}"', "X-Repo-Commit": SHA})

        def reply(self, content, status=200, extra=()):
            self.send_response(status)
            for name, value in {"Content-Length": str(len(content)), **dict(extra)}.items():
                self.send_header(name, value)
            self.end_headers()
            if self.command == "GET":
                self.wfile.write(content)

    return Handler


@contextmanager
def serving(served):
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler_of(served))
    Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True).start()
    try:
        yield f"http://127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        server.server_close()


def point_to(url, monkeypatch):
    """What HF_ENDPOINT does, for a library that is already imported."""
    monkeypatch.setattr(constants, "ENDPOINT", url)
    monkeypatch.setattr(
        constants, "HUGGINGFACE_CO_URL_TEMPLATE", f"{url}/{{repo_id}}/resolve/{{revision}}/{{filename}}"
    )


@pytest.fixture
def served(monkeypatch, tmp_path):
    served = Hub()
    with serving(served) as url:
        point_to(url, monkeypatch)
        monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "cache"))
        monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
        yield served


def fetch(folder):
    download_folders(folder, repository="mueller91/MLAAD", revision="main", folders=FOLDERS, workers=2)


def test_the_folders_of_the_protocol_arrive_and_no_others_and_once_only(served, tmp_path):
    fetch(tmp_path / "data")
    for path in PATHS:
        assert (tmp_path / "data" / path).read_bytes() == FILES[path]
    assert not (tmp_path / "data" / "fake" / "en" / "other_model").exists()
    assert sorted(served.sent) == sorted(set(PATHS))
    fetch(tmp_path / "data")
    assert sorted(served.sent) == sorted(set(PATHS))


def test_wrong_bytes_are_named_deleted_and_fetched_by_the_next_run(served, tmp_path):
    served.damaged = {PATHS[0]}
    with pytest.raises(
        CorpusError, match=rf"1 files do not have the Hub's checksum .*{re.escape(PATHS[0])}.*run again"
    ):
        fetch(tmp_path / "data")
    assert not (tmp_path / "data" / PATHS[0]).exists()
    served.damaged = set()
    fetch(tmp_path / "data")
    assert (tmp_path / "data" / PATHS[0]).read_bytes() == FILES[PATHS[0]]


@pytest.mark.parametrize(
    ("code", "remedy"),
    [
        ("GatedRepo", "accept its terms there"),
        ("RepoNotFound", r"correct mlaad\.repository"),
        ("RevisionNotFound", r"correct mlaad\.revision"),
    ],
)
def test_what_the_hub_refuses_is_told_with_the_remedy(served, tmp_path, code, remedy):
    served.refuse = code
    with pytest.raises(CorpusError, match=remedy) as told:
        fetch(tmp_path / "data")
    assert "\n" not in str(told.value)


def test_a_hub_out_of_reach_is_told_even_when_something_is_there(tmp_path, monkeypatch):
    with serving(Hub()) as url:
        pass
    point_to(url, monkeypatch)
    monkeypatch.setattr("huggingface_hub.utils._http.time.sleep", lambda _: None)
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "left.wav").write_bytes(b"something")
    with pytest.raises(CorpusError, match="run again to go on where it stopped"):
        fetch(tmp_path / "data")
