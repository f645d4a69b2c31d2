"""The REST interface through an in-process client, without a network."""

import hashlib
import io
import json
import os
import tempfile
import threading

import numpy as np
import pytest
import soundfile
from serving_support import make_app
from starlette.testclient import TestClient
from typer.testing import CliRunner

from makermark.cli.main import app as cli
from makermark.foundation.errors import AudioError
from makermark.serving.service import TraceRequest, TracingService, Upload
from makermark.tracing import Tracer, read_gallery
from makermark.tracing.extractor import ClipExtractor


def clip(path, name="clip.flac"):
    return {"file": (name, path.read_bytes())}


def wav(samples, rate=16000):
    out = io.BytesIO()
    soundfile.write(out, samples, rate, format="WAV", subtype="PCM_16")
    return out.getvalue()


def clips_of(world, system, count=5):
    return [("files", (path.name, path.read_bytes())) for path in world[1][system][:count]]


def system_names(client):
    return {system["name"] for system in client.get("/api/gallery").json()["systems"]}


def run_together(target, arguments):
    threads = [threading.Thread(target=target, args=args) for args in arguments]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()


def test_trace_returns_what_the_command_line_prints(world, client):
    path = world[1]["slow"][0]
    response = client.post("/api/trace", files=clip(path)).json()
    expected = json.loads(json.dumps(Tracer.load(world[0]).trace(path).as_json()))
    assert response.pop("file") == "clip.flac"
    expected.pop("file")
    assert [c["system"] for c in response["candidates"]] == [c["system"] for c in expected["candidates"]]
    np.testing.assert_allclose(
        [candidate["log10_lr"] for candidate in response["candidates"]],
        [candidate["log10_lr"] for candidate in expected["candidates"]],
        rtol=1e-4,
    )
    assert response["conclusion"] == response["verdict"] == expected["conclusion"]


def test_trace_uses_the_prior_of_the_request(world, client):
    for prior in (0.1, 0.9):
        response = client.post(
            "/api/trace", files=clip(world[1]["slow"][0]), data={"prior_known": str(prior)}
        ).json()
        assert response["prior_known"] == prior
    assert (response["posterior_unknown"] is None) == (response["name"] == "")
    assert "trained on 2 systems" in client.get("/api/model").json()["scope"]
    assert client.get("/api/model").json()["prior_known"] == 0.5


def test_compare_returns_the_comparison_of_two_clips(world, client):
    a, b = world[1]["slow"][0], world[1]["fast"][0]
    files = {"a": ("a.flac", a.read_bytes()), "b": ("b.flac", b.read_bytes())}
    response = client.post("/api/compare", files=files, data={"prior_same": "0.2"}).json()
    assert response["prior_same"] == 0.2
    assert response["log10_lr"] == pytest.approx(Tracer.load(world[0]).compare(a, b).log10_lr, rel=1e-4)


def test_system_is_enrolled_traced_and_removed(world, client, tmp_path):
    response = client.post(
        "/api/enroll", data={"name": "fast/1", "family": "vowel"}, files=clips_of(world, "fast")
    )
    assert response.status_code == 200, response.text
    row = {"name": "fast/1", "family": "vowel", "origin": "enrolled", "clips": 5}
    assert row in response.json()["systems"]
    assert row in client.get("/api/gallery").json()["systems"]
    gallery = read_gallery(tmp_path / "gallery.arrow", model_sha256=response.json()["model_sha256"], dim=8)
    assert sorted(gallery.clips["clip"]) == sorted(path.name for path in world[1]["fast"][:5])
    trace = client.post("/api/trace", files=clip(world[1]["fast"][0])).json()
    assert "fast/1" in {candidate["system"] for candidate in trace["candidates"]}
    assert client.delete("/api/gallery/fast%2F1").status_code == 200
    assert client.delete("/api/gallery/fast%2F1").status_code == 404
    error = client.delete("/api/gallery/slow").json()["error"]
    assert error.startswith("system 'slow' is a training system")
    assert system_names(client) == {"middle", "slow"}


def test_system_enrolled_on_the_command_line_is_known_at_once(world, client, tmp_path):
    options = ["--model", str(world[0]), "--gallery", str(tmp_path / "gallery.arrow")]
    result = CliRunner().invoke(cli, ["enroll", "fast", *map(str, world[1]["fast"][:5]), *options])
    assert result.exit_code == 0, result.output
    assert "fast" in system_names(client)


def test_simultaneous_enrolments_are_all_stored(world, client):
    def enroll(name):
        client.post("/api/enroll", data={"name": name}, files=clips_of(world, "fast"))

    run_together(enroll, [(f"fast{number}",) for number in range(4)])
    assert system_names(client) == {"slow", "middle", "fast0", "fast1", "fast2", "fast3"}


@pytest.mark.parametrize(
    ("name", "system", "count", "message"),
    [
        ("new", "fast", 4, "4 clips; enrolment needs 5 or more"),
        ("slow", "fast", 5, "is already in the gallery"),
        (" new", "fast", 5, "no space at its ends"),
        ("new\n", "fast", 5, "visible characters"),
        ("new", "same", 5, "two of the clips are identical"),
        ("new", "fast", 51, "Too many files"),
    ],
)
def test_enroll_rejects_invalid_input_in_one_line(world, client, name, system, count, message):
    one = clips_of(world, "fast", 1)
    files = one * count if system == "same" else clips_of(world, "fast", count)
    files += [("files", ("empty.wav", b""))] * (count - len(files))
    response = client.post("/api/enroll", data={"name": name}, files=files)
    assert response.status_code in (400, 422)
    assert message in response.json()["error"]
    assert "\n" not in response.json()["error"]


def test_report_is_one_page_with_the_file_name_escaped(world, client):
    response = client.post("/api/report", files=clip(world[1]["slow"][0], "<b>clip.flac"))
    assert response.status_code == 200, response.text
    assert response.headers["content-type"].startswith("text/html")
    assert "&lt;b&gt;clip.flac" in response.text
    assert "<b>clip.flac" not in response.text


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "empty: 0 bytes"),
        (b"no audio at all", "not audio"),
        (wav(np.zeros(16000)), "silent"),
        (wav(np.sin(np.arange(6 * 16000))), "too long: 6.0 s or more, the maximum is 5 s"),
        (wav(np.tile(np.sin(np.arange(62_400.0))[:, None], 8)), "too many samples"),
        (wav(np.sin(np.arange(100)), 1000), "sample rate 1000 Hz"),
        (wav(np.sin(np.arange(40))), "too short"),
    ],
)
def test_trace_rejects_unreadable_audio_in_one_line(client, content, message):
    response = client.post("/api/trace", files={"file": ("../my clip.wav", content)})
    assert response.status_code == 422
    assert response.json()["error"].startswith("my clip.wav: ")
    assert message in response.json()["error"]
    assert "\n" not in response.json()["error"]
    assert "/dev/fd" not in response.json()["error"]


def test_trace_uses_a_truncated_file_with_a_note_and_its_checksum(client):
    content = wav(np.sin(np.arange(48000)))[:-32000]
    response = client.post("/api/trace", files={"file": ("clip.wav", content)})
    assert response.status_code == 200, response.text
    trace = response.json()
    assert trace["notes"] == ["its header states 3.00 s, 2.00 s are present and used"]
    assert trace["sha256"] == hashlib.sha256(content).hexdigest()
    assert trace["decoder"].startswith("libsndfile ")


def test_failure_of_one_clip_is_not_that_of_its_batch(world, tmp_path, monkeypatch):
    models, files = world
    service = TracingService(Tracer.load(models), tmp_path / "gallery.arrow", corpus=None, max_seconds=60)
    embed = ClipExtractor.embed_clips

    def fail_for_short_clips(self, waveforms, **settings):
        if any(len(waveform) == 8000 for waveform in waveforms):
            raise RuntimeError("out of memory")
        return embed(self, waveforms, **settings)

    monkeypatch.setattr(ClipExtractor, "embed_clips", fail_for_short_clips)
    contents = [
        files["slow"][0].read_bytes(),
        wav(np.sin(np.arange(8000))),
        b"no audio",
        files["fast"][0].read_bytes(),
    ]
    requests = []
    for number, content in enumerate(contents):
        with tempfile.TemporaryFile() as file:
            file.write(content)
            file.flush()
            requests.append(TraceRequest(Upload(f"{number}.wav", os.dup(file.fileno()))))
    good, failed, rejected, also_good = service.trace_batch(requests)
    assert (good.file, also_good.file) == ("0.wav", "3.wav")
    assert isinstance(failed, RuntimeError)
    assert isinstance(rejected, AudioError)


@pytest.mark.parametrize(
    "name", ["../../etc/passwd", "/etc/passwd", "C:\\windows\\x.wav", "a\x00b.wav", "..", "x" * 4000, "\n"]
)
def test_file_name_is_never_used_as_a_path(world, client, tmp_path, monkeypatch, name):
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    monkeypatch.setattr(tempfile, "tempdir", None)
    response = client.post("/api/trace", files=clip(world[1]["slow"][0], name))
    assert response.status_code in (200, 400), response.text
    if response.status_code == 200:
        shown = response.json()["file"]
        assert "/" not in shown
        assert "\\" not in shown
        assert shown.isprintable()
        assert 0 < len(shown) <= 120
    assert list(tmp_path.iterdir()) == []  # the audio is not stored either


def test_large_bodies_are_rejected(client):
    response = client.post("/api/trace", files={"file": ("a.wav", b"0" * (1 << 20))})
    assert response.status_code == 413
    assert response.json()["error"].endswith("; the limit is 1048576 bytes.")
    form = b'--x\r\nContent-Disposition: form-data; name="file"; filename="a.wav"\r\n\r\n'
    chunks = (form if number == 0 else b"0" * 65536 for number in range(1000))
    response = client.post(
        "/api/trace", content=chunks, headers={"content-type": "multipart/form-data; boundary=x"}
    )
    assert response.status_code == 413
    assert set(response.json()) == {"error"}


def test_bodies_in_progress_are_limited_together(world, tmp_path):
    with TestClient(make_app(world[0], tmp_path / "g.arrow", max_total_bytes=1000)) as client:
        for _ in range(2):  # the bytes of a rejected body are released
            response = client.post("/api/trace", files=clip(world[1]["slow"][0]))
            assert response.status_code == 503
            assert "the uploads in progress exceed 1000 bytes" in response.json()["error"]
            assert response.headers["retry-after"] == "2"


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ({"host": "evil.example"}, 421),
        ({"host": "testserver.evil.example"}, 421),
        ({"host": ""}, 421),
        ({"host": "[::1"}, 421),
        ({"host": "testserver:81"}, 200),
        ({"host": "TestServer"}, 200),
        ({"host": "[::1]:8000"}, 200),
        ({"origin": "http://testserver"}, 200),
        ({"origin": "http://evil.example"}, 403),
        ({"origin": "http://testserver.evil.example"}, 403),
        ({"origin": "null"}, 403),
        ({"sec-fetch-site": "cross-site"}, 403),
        ({"sec-fetch-site": "same-site"}, 403),
        ({"sec-fetch-site": "same-origin"}, 200),
    ],
)
def test_requests_of_other_sites_are_rejected(world, tmp_path, headers, status):
    with TestClient(make_app(world[0], tmp_path / "g.arrow", hosts=["testserver", "[::1]"])) as client:
        response = client.post("/api/trace", files=clip(world[1]["slow"][0]), headers=headers)
    assert response.status_code == status
    assert (set(response.json()) == {"error"}) == (status != 200)


def test_every_response_has_the_security_headers(client):
    for path in ("/", "/page/page.js", "/api/gallery", "/api/none"):
        headers = client.get(path).headers
        assert "frame-ancestors 'none'" in headers["content-security-policy"]
        assert "script-src 'self';" in headers["content-security-policy"]
        assert headers["x-content-type-options"] == "nosniff"
        assert "access-control-allow-origin" not in headers
    assert "content-security-policy" in client.get("/", headers={"host": "evil.example"}).headers
    assert client.get("/page/%2e%2e/api.py").status_code == 404
    assert client.get("/docs").status_code == 404


def test_rate_limit_answers_with_the_time_to_wait(world, tmp_path):
    with TestClient(make_app(world[0], tmp_path / "g.arrow", per_minute=6, burst=2)) as client:
        responses = [client.post("/api/trace", files={"file": ("a.wav", b"no")}) for _ in range(3)]
        assert [response.status_code for response in responses] == [422, 422, 429]
        assert 1 <= int(responses[2].headers["retry-after"]) <= 10
        assert client.get("/api/health").status_code == 200


def test_full_queue_rejects_requests_and_completes_those_it_accepted(world, tmp_path):
    with TestClient(make_app(world[0], tmp_path / "g.arrow", threads=1, queue_capacity=2)) as client:
        responses = []

        def trace():
            responses.append(client.post("/api/trace", files=clip(world[1]["slow"][0])))

        run_together(trace, [()] * 12)
        statuses = sorted(response.status_code for response in responses)
        assert set(statuses) <= {200, 503}
        assert statuses.count(200) >= 2
        rejected = [response for response in responses if response.status_code == 503]
        assert all(response.headers["retry-after"] == "2" for response in rejected)
        message = "Server busy: the queue is full. Retry in 2 s."
        assert {response.json()["error"] for response in rejected} <= {message}
        assert client.get("/api/health").json() == {"status": "ok", "in_line": 0}


def test_slow_response_is_abandoned(world, tmp_path):
    with TestClient(make_app(world[0], tmp_path / "g.arrow", response_timeout_s=0.001)) as client:
        response = client.post("/api/trace", files=clip(world[1]["slow"][0]))
        assert response.status_code == 503
        assert "no response within 0.001 s" in response.json()["error"]


def test_read_only_server_does_not_change_the_gallery(world, tmp_path):
    with TestClient(make_app(world[0], tmp_path / "g.arrow", changeable=False)) as client:
        response = client.post("/api/enroll", data={"name": "fast"}, files=clips_of(world, "fast"))
        assert response.status_code == 403
        assert client.delete("/api/gallery/fast").status_code == 403
        assert not (tmp_path / "g.arrow").exists()


def test_openapi_document_describes_the_responses(world, client):
    document = client.get("/openapi.json").json()
    assert set(document["paths"]) == {
        "/api/trace", "/api/compare", "/api/report", "/api/enroll", "/api/gallery", "/api/gallery/{name}",
        "/api/model", "/api/health",
    }  # fmt: skip
    trace = client.post("/api/trace", files=clip(world[1]["slow"][0])).json()
    assert set(document["components"]["schemas"]["Trace"]["properties"]) == set(trace)
    assert set(document["components"]["schemas"]["Candidate"]["properties"]) == set(trace["candidates"][0])
    for methods in document["paths"].values():
        for operation in methods.values():
            problem = operation["responses"]["422"]["content"]["application/json"]["schema"]
            assert problem == {"$ref": "#/components/schemas/Problem"}
