"""Download from the Hugging Face Hub: the real library with a small local hub."""

import hashlib
import json
import re
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Thread

import pytest
from mlaad_support import PATHS, audio_bytes

from makermark.corpora.mlaad.hub import download_folders
from makermark.foundation.errors import CorpusError

constants = pytest.importorskip(
    "huggingface_hub.constants", reason="huggingface_hub is not installed (extra mlaad)"
)

SHA = "0123456789abcdef0123456789abcdef01234567"
FOLDERS = sorted({path.rpartition("/")[0] for path in PATHS})
FILES = {
    path: audio_bytes(path) for path in [*dict.fromkeys(PATHS), "README.md", "fake/en/other_model/x.wav"]
}


class Hub:
    def __init__(self):
        self.files = dict(FILES)
        self.damaged = set()  # sent with the correct length and wrong bytes
        self.refuse = ""  # the X-Error-Code of every response
        self.sent = []


def make_handler(hub):
    class Handler(BaseHTTPRequestHandler):
        def log_message(self, *_):
            pass

        def do_HEAD(self):
            self.do_GET()

        def do_GET(self):
            path = self.path.partition("?")[0]
            if hub.refuse:
                self.respond(
                    b"",
                    status=403 if hub.refuse == "GatedRepo" else 404,
                    extra={"X-Error-Code": hub.refuse},
                )
            elif re.fullmatch(r"/api/datasets/[^/]+/[^/]+/revision/\w+", path):
                self.respond(json.dumps({"id": "mueller91/MLAAD", "sha": SHA, "siblings": []}).encode())
            elif "/tree/" in path:
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
                    for path, content in hub.files.items()
                ]
                self.respond(json.dumps(tree).encode())
            else:
                path = path.partition(f"/resolve/{SHA}/")[2]
                content = hub.files[path]
                etag = hashlib.sha256(content).hexdigest()
                if path in hub.damaged:
                    content = b"?" * len(content)
                if self.command == "GET":
                    hub.sent.append(path)
                self.respond(content, extra={"ETag": f'"{etag}"', "X-Repo-Commit": SHA})

        def respond(self, content, status=200, extra=()):
            self.send_response(status)
            for name, value in {"Content-Length": str(len(content)), **dict(extra)}.items():
                self.send_header(name, value)
            self.end_headers()
            if self.command == "GET":
                self.wfile.write(content)

    return Handler


@contextmanager
def serve(hub):
    server = ThreadingHTTPServer(("127.0.0.1", 0), make_handler(hub))
    Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True).start()
    try:
        yield f"http://127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        server.server_close()


def set_endpoint(url, monkeypatch):
    """Set the endpoint as HF_ENDPOINT does, for a library that is already imported."""
    monkeypatch.setattr(constants, "ENDPOINT", url)
    monkeypatch.setattr(
        constants, "HUGGINGFACE_CO_URL_TEMPLATE", f"{url}/{{repo_id}}/resolve/{{revision}}/{{filename}}"
    )


@pytest.fixture
def hub(monkeypatch, tmp_path):
    hub = Hub()
    with serve(hub) as url:
        set_endpoint(url, monkeypatch)
        monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "cache"))
        monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
        yield hub


def fetch(folder):
    download_folders(folder, repository="mueller91/MLAAD", revision="main", folders=FOLDERS, workers=2)


def test_only_the_given_folders_are_downloaded_and_only_once(hub, tmp_path):
    fetch(tmp_path / "data")
    for path in PATHS:
        assert (tmp_path / "data" / path).read_bytes() == FILES[path]
    assert not (tmp_path / "data" / "fake" / "en" / "other_model").exists()
    assert sorted(hub.sent) == sorted(set(PATHS))
    fetch(tmp_path / "data")
    assert sorted(hub.sent) == sorted(set(PATHS))


def test_wrong_bytes_raise_are_deleted_and_downloaded_again(hub, tmp_path):
    hub.damaged = {PATHS[0]}
    with pytest.raises(
        CorpusError, match=rf"1 files do not have the Hub's checksum .*{re.escape(PATHS[0])}.*run again"
    ):
        fetch(tmp_path / "data")
    assert not (tmp_path / "data" / PATHS[0]).exists()
    hub.damaged = set()
    fetch(tmp_path / "data")
    assert (tmp_path / "data" / PATHS[0]).read_bytes() == FILES[PATHS[0]]


@pytest.mark.parametrize(
    ("code", "remedy"),
    [
        ("GatedRepo", "accepted the terms on that page"),
        ("RepoNotFound", r"correct mlaad\.repository"),
        ("RevisionNotFound", r"correct mlaad\.revision"),
    ],
)
def test_refusal_of_the_hub_raises_with_a_remedy(hub, tmp_path, code, remedy):
    hub.refuse = code
    with pytest.raises(CorpusError, match=remedy) as caught:
        fetch(tmp_path / "data")
    assert "\n" not in str(caught.value)


def test_unreachable_hub_raises_with_a_remedy(tmp_path, monkeypatch):
    with serve(Hub()) as url:
        pass
    set_endpoint(url, monkeypatch)
    monkeypatch.setattr("huggingface_hub.utils._http.time.sleep", lambda _: None)
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "left.wav").write_bytes(b"something")
    with pytest.raises(CorpusError, match="run again to continue the download"):
        fetch(tmp_path / "data")
