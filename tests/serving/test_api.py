"""What a client asks and is answered, without a network in between."""

import io
import json
import tempfile
import threading

import numpy as np
import pytest
import soundfile
from serving_support import app_of
from starlette.testclient import TestClient
from typer.testing import CliRunner

from makermark.cli import app as cli
from makermark.tracing import Tracer, read_gallery


def clip(path, name="clip.flac"):
    return {"file": (name, path.read_bytes())}


def wav(samples, rate=16000):
    out = io.BytesIO()
    soundfile.write(out, samples, rate, format="WAV", subtype="PCM_16")
    return out.getvalue()


def clips_of(world, system, count=5):
    return [("files", (path.name, path.read_bytes())) for path in world[1][system][:count]]


def test_a_clip_is_told_what_the_command_line_tells(world, client):
    path = world[1]["slow"][0]
    told = client.post("/api/trace", files=clip(path)).json()
    expected = json.loads(json.dumps(Tracer.load(world[0]).trace(path).as_json()))
    assert told.pop("file") == "clip.flac"
    expected.pop("file")
    assert [each["system"] for each in told["candidates"]] == [e["system"] for e in expected["candidates"]]
    np.testing.assert_allclose(
        [each["log10_lr"] for each in told["candidates"]],
        [each["log10_lr"] for each in expected["candidates"]],
        rtol=1e-4,
    )
    assert told["verdict"] == expected["verdict"]


def test_the_prior_is_the_requests(world, client):
    for prior in (0.1, 0.9):
        told = client.post(
            "/api/trace", files=clip(world[1]["slow"][0]), data={"prior_known": str(prior)}
        ).json()
        assert told["prior_known"] == prior
    assert told["posterior_unknown"] < 0.9
    assert client.get("/api/model").json()["prior_known"] == 0.5


def test_two_clips_are_compared(world, client):
    a, b = world[1]["slow"][0], world[1]["fast"][0]
    files = {"a": ("a.flac", a.read_bytes()), "b": ("b.flac", b.read_bytes())}
    told = client.post("/api/compare", files=files, data={"prior_same": "0.2"}).json()
    assert told["prior_same"] == 0.2
    assert told["log10_lr"] == pytest.approx(Tracer.load(world[0]).compare(a, b).log10_lr, rel=1e-4)


def test_a_system_is_enrolled_named_and_removed(world, client, tmp_path):
    done = client.post(
        "/api/enroll", data={"name": "fast/1", "family": "tone"}, files=clips_of(world, "fast")
    )
    assert done.status_code == 200, done.text
    row = {"name": "fast/1", "family": "tone", "origin": "enrolled", "clips": 5}
    assert row in done.json()["systems"]
    assert row in client.get("/api/gallery").json()["systems"]
    kept = read_gallery(tmp_path / "gallery.arrow", model_sha256=done.json()["model_sha256"], dim=8)
    assert sorted(kept.clips["clip"]) == sorted(path.name for path in world[1]["fast"][:5])
    told = client.post("/api/trace", files=clip(world[1]["fast"][0])).json()
    assert "fast/1" in {each["system"] for each in told["candidates"]}
    assert client.delete("/api/gallery/fast%2F1").status_code == 200
    assert client.delete("/api/gallery/fast%2F1").status_code == 404
    assert (
        client.delete("/api/gallery/slow").json()["error"].startswith("system 'slow' was learned in training")
    )
    assert {each["name"] for each in client.get("/api/gallery").json()["systems"]} == {"middle", "slow"}


def test_what_the_command_line_enrols_is_known_at_once(world, client, tmp_path):
    options = ["--model", str(world[0]), "--gallery", str(tmp_path / "gallery.arrow")]
    done = CliRunner().invoke(cli, ["enroll", "fast", *map(str, world[1]["fast"][:5]), *options])
    assert done.exit_code == 0, done.output
    assert "fast" in {each["name"] for each in client.get("/api/gallery").json()["systems"]}


def test_enrolling_at_once_loses_none(world, client):
    def enrol(name):
        client.post("/api/enroll", data={"name": name}, files=clips_of(world, "fast"))

    threads = [threading.Thread(target=enrol, args=(f"fast{number}",)) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    names = {each["name"] for each in client.get("/api/gallery").json()["systems"]}
    assert names == {"slow", "middle", "fast0", "fast1", "fast2", "fast3"}


@pytest.mark.parametrize(
    ("name", "system", "count", "said"),
    [
        ("new", "fast", 4, "4 clips; give 5 or more"),
        ("slow", "fast", 5, "is in the gallery already"),
        (" new", "fast", 5, "no space at its ends"),
        ("new\n", "fast", 5, "visible characters"),
        ("new", "same", 5, "two of the clips are the same"),
        ("new", "fast", 51, "Too many files"),
    ],
)
def test_what_cannot_be_enrolled_is_refused_in_one_line(world, client, name, system, count, said):
    one = clips_of(world, "fast", 1)
    files = one * count if system == "same" else clips_of(world, "fast", count)
    files += [("files", ("empty.wav", b""))] * (count - len(files))
    done = client.post("/api/enroll", data={"name": name}, files=files)
    assert done.status_code in (400, 422)
    assert said in done.json()["error"]
    assert "\n" not in done.json()["error"]


def test_a_report_is_one_page_with_the_name_escaped(world, client):
    done = client.post("/api/report", files=clip(world[1]["slow"][0], "<b>clip.flac"))
    assert done.status_code == 200, done.text
    assert done.headers["content-type"].startswith("text/html")
    assert "&lt;b&gt;clip.flac" in done.text
    assert "<b>clip.flac" not in done.text


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"", "not audio"),
        (b"no audio at all", "not audio"),
        (wav(np.zeros(16000)), "silent"),
        (wav(np.sin(np.arange(16000)))[:9000], "truncated"),
        (wav(np.sin(np.arange(6 * 16000))), "too long: at most 5 s"),
        (wav(np.tile(np.sin(np.arange(62_400.0))[:, None], 8)), "too many samples"),
        (wav(np.sin(np.arange(100)), 1000), "at 1000 Hz"),
        (wav(np.tile(np.sin(np.arange(999.0))[:, None], 9)), "9 channels"),
        (wav(np.sin(np.arange(40))), "too short"),
    ],
)
def test_what_cannot_be_heard_is_refused_in_one_line(client, content, said):
    done = client.post("/api/trace", files={"file": ("../my clip.wav", content)})
    assert done.status_code == 422
    assert done.json()["error"].startswith("my clip.wav: ")
    assert said in done.json()["error"]
    assert "\n" not in done.json()["error"]
    assert "/dev/fd" not in done.json()["error"]


@pytest.mark.parametrize(
    "name", ["../../etc/passwd", "/etc/passwd", "C:\\windows\\x.wav", "a\x00b.wav", "..", "x" * 4000, "\n"]
)
def test_a_name_is_never_a_path(world, client, tmp_path, monkeypatch, name):
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    monkeypatch.setattr(tempfile, "tempdir", None)
    done = client.post("/api/trace", files=clip(world[1]["slow"][0], name))
    assert done.status_code in (200, 400), done.text
    if done.status_code == 200:
        shown = done.json()["file"]
        assert "/" not in shown
        assert "\\" not in shown
        assert shown.isprintable()
        assert 0 < len(shown) <= 120
    assert list(tmp_path.iterdir()) == []  # nor is the sound kept


def test_bodies_that_are_too_large_are_refused(client):
    done = client.post("/api/trace", files={"file": ("a.wav", b"0" * (1 << 20))})
    assert (done.status_code, done.json()["error"].partition("; ")[2]) == (413, "at most 1048576 are taken")
    form = b'--x\r\nContent-Disposition: form-data; name="file"; filename="a.wav"\r\n\r\n'
    chunks = (form if number == 0 else b"0" * 65536 for number in range(1000))
    done = client.post(
        "/api/trace", content=chunks, headers={"content-type": "multipart/form-data; boundary=x"}
    )
    assert done.status_code == 413
    assert set(done.json()) == {"error"}


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ({"host": "evil.example"}, 421),
        ({"host": "testserver.evil.example"}, 421),
        ({"host": "testserver:81"}, 200),
        ({"host": "TestServer"}, 200),
        ({"origin": "http://testserver"}, 200),
        ({"origin": "http://evil.example"}, 403),
        ({"origin": "http://testserver.evil.example"}, 403),
        ({"origin": "null"}, 403),
        ({"sec-fetch-site": "cross-site"}, 403),
        ({"sec-fetch-site": "same-site"}, 403),
        ({"sec-fetch-site": "same-origin"}, 200),
    ],
)
def test_other_sites_pages_are_refused(world, client, headers, status):
    done = client.post("/api/trace", files=clip(world[1]["slow"][0]), headers=headers)
    assert done.status_code == status
    assert (set(done.json()) == {"error"}) == (status != 200)


def test_no_answer_lets_other_sites_in(client):
    for path in ("/", "/page/page.js", "/api/gallery", "/api/none"):
        headers = client.get(path).headers
        assert "frame-ancestors 'none'" in headers["content-security-policy"]
        assert "script-src 'self';" in headers["content-security-policy"]
        assert headers["x-content-type-options"] == "nosniff"
        assert "access-control-allow-origin" not in headers
    assert client.get("/page/%2e%2e/api.py").status_code == 404
    assert client.get("/docs").status_code == 404


def test_a_client_that_asks_too_often_is_told_when_to_come_back(world, tmp_path):
    with TestClient(app_of(world[0], tmp_path / "g.arrow", per_minute=6, burst=2)) as client:
        answers = [client.post("/api/trace", files={"file": ("a.wav", b"no")}) for _ in range(3)]
        assert [each.status_code for each in answers] == [422, 422, 429]
        assert 1 <= int(answers[2].headers["retry-after"]) <= 10
        assert client.get("/api/health").status_code == 200


def test_a_full_line_turns_away_and_serves_all_it_took(world, tmp_path):
    with TestClient(app_of(world[0], tmp_path / "g.arrow", threads=1, waiting=2)) as client:
        answers = []

        def ask():
            answers.append(client.post("/api/trace", files=clip(world[1]["slow"][0])))

        threads = [threading.Thread(target=ask) for _ in range(12)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        statuses = sorted(each.status_code for each in answers)
        assert set(statuses) <= {200, 503}
        assert statuses.count(200) >= 2
        assert all(each.headers["retry-after"] == "2" for each in answers if each.status_code == 503)
        assert client.get("/api/health").json() == {"status": "ok", "in_line": 0}


def test_an_answer_that_takes_too_long_is_given_up(world, tmp_path):
    with TestClient(app_of(world[0], tmp_path / "g.arrow", answer_seconds=0.001)) as client:
        done = client.post("/api/trace", files=clip(world[1]["slow"][0]))
        assert done.status_code == 503
        assert "no answer within" in done.json()["error"]


def test_nothing_changes_where_it_may_not(world, tmp_path):
    with TestClient(app_of(world[0], tmp_path / "g.arrow", changeable=False)) as client:
        done = client.post("/api/enroll", data={"name": "fast"}, files=clips_of(world, "fast"))
        assert done.status_code == 403
        assert client.delete("/api/gallery/fast").status_code == 403
        assert not (tmp_path / "g.arrow").exists()


def test_the_openapi_document_tells_what_is_answered(world, client):
    told = client.get("/openapi.json").json()
    assert set(told["paths"]) == {
        "/api/trace", "/api/compare", "/api/report", "/api/enroll", "/api/gallery", "/api/gallery/{name}",
        "/api/model", "/api/health",
    }  # fmt: skip
    answer = client.post("/api/trace", files=clip(world[1]["slow"][0])).json()
    assert set(told["components"]["schemas"]["Trace"]["properties"]) == set(answer)
    assert set(told["components"]["schemas"]["Candidate"]["properties"]) == set(answer["candidates"][0])
    for methods in told["paths"].values():
        for operation in methods.values():
            refusal = operation["responses"]["422"]["content"]["application/json"]["schema"]
            assert refusal == {"$ref": "#/components/schemas/Problem"}
