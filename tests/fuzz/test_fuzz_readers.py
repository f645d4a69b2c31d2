"""Damaged files and requests: every reader returns, or raises one line that names the file.

`make fuzz` runs these tests for ten minutes, with the same changes each time; `--fuzz-seed 1000` draws others. A round
of 40 examples each is part of the ordinary tests. A warning of NumPy is a failure, because it would be printed too.
"""

import hashlib
import io
import json
import shutil

import numpy as np
import pandas as pd
import pytest
import soundfile
from mutation import apply_changes
from serving_support import make_app, make_models
from starlette.testclient import TestClient

from makermark.corpora.readers.table import read_table
from makermark.foundation import audio
from makermark.foundation.embeddings import read_embeddings
from makermark.foundation.errors import MakermarkError
from makermark.foundation.manifest import read_manifest
from makermark.foundation.params import read_params
from makermark.models.checkpoint import load_checkpoint
from makermark.tracing.bundle import read_bundle
from makermark.tracing.gallery import read_gallery, write_gallery
from makermark.tracing.tracer import Tracer

pytestmark = [
    pytest.mark.filterwarnings("error::RuntimeWarning"),
    pytest.mark.filterwarnings(
        "error::pytest.PytestUnraisableExceptionWarning"
    ),  # of a callback of a decoder
]
RATE_HZ = 16000
SPEECH = (0.3 * np.random.default_rng(0).standard_normal(RATE_HZ // 2)).astype(np.float32)


def sound(format, subtype):
    out = io.BytesIO()
    rate = 8000 if subtype in ("GSM610", "G721_32") else RATE_HZ
    soundfile.write(out, SPEECH, rate, format=format, subtype=subtype)
    return out.getvalue()


def stereo_sound():
    out = io.BytesIO()
    soundfile.write(
        out, np.stack([SPEECH, np.roll(SPEECH, 5)], axis=1), RATE_HZ, format="WAV", subtype="FLOAT"
    )
    return out.getvalue()


def encoded(container, codec, rate=RATE_HZ):
    """Return the sound as FFmpeg writes it; skips the test where that encoder is absent."""
    av = pytest.importorskip("av")
    out = io.BytesIO()
    try:
        with av.open(out, "w", format=container) as file:
            stream = file.add_stream(codec, rate=rate)
            stream.layout = "mono"
            frame = av.AudioFrame.from_ndarray(SPEECH[None], format="fltp", layout="mono")
            frame.sample_rate = RATE_HZ
            resampler = av.AudioResampler(format=stream.format.name, layout="mono", rate=rate)
            fifo = av.AudioFifo()
            for part in [*resampler.resample(frame), *resampler.resample(None)]:
                part.pts = None
                fifo.write(part)
            size = stream.codec_context.frame_size or 1024
            while (part := fifo.read(size, partial=True)) is not None:
                file.mux(stream.encode(part))
            file.mux(stream.encode(None))
    except (av.FFmpegError, ValueError) as error:
        pytest.skip(f"no encoder for {codec}: {error}")
    return out.getvalue()


AUDIO = {
    "wav": lambda: sound("WAV", "PCM_16"),
    "float.wav": lambda: sound("WAV", "FLOAT"),
    "stereo.wav": stereo_sound,
    "gsm.wav": lambda: sound("WAV", "GSM610"),
    "rf64": lambda: sound("RF64", "PCM_16"),
    "w64": lambda: sound("W64", "PCM_24"),
    "aiff": lambda: sound("AIFF", "PCM_16"),
    "au": lambda: sound("AU", "ULAW"),
    "caf": lambda: sound("CAF", "ALAC_16"),
    "flac": lambda: sound("FLAC", "PCM_16"),
    "ogg": lambda: sound("OGG", "VORBIS"),
    "opus": lambda: sound("OGG", "OPUS"),
    "mp3": lambda: sound("MP3", "MPEG_LAYER_III"),
    "m4a": lambda: encoded("ipod", "aac"),
    "webm": lambda: encoded("webm", "libopus", 48000),
    "aac": lambda: encoded("adts", "aac"),
    "wv": lambda: encoded("wv", "wavpack"),
    "joined.flac": lambda: 2 * sound("FLAC", "PCM_16"),
    "joined.wv": lambda: 2 * encoded("wv", "wavpack"),
}


def assert_one_line(error, path=None):
    message = str(error)
    assert "\n" not in message, message
    assert path is None or path.name in message, message


@pytest.mark.parametrize("suffix", AUDIO)
def test_damaged_audio_is_decoded_or_refused_in_one_line(suffix, tmp_path, fuzz, capfd):
    whole, path = AUDIO[suffix](), tmp_path / f"clip.{suffix}"
    path.write_bytes(whole)
    assert len(audio.load(path, sample_rate_hz=RATE_HZ).waveform) > RATE_HZ // 4

    def check(changes):
        path.write_bytes(apply_changes(whole, changes))
        try:
            recording = audio.load(path, sample_rate_hz=RATE_HZ, min_seconds=0.01, max_seconds=600)
        except MakermarkError as error:
            assert_one_line(error, path)
        else:
            assert np.isfinite(recording.waveform).all()
            assert len(recording.waveform) <= 600 * RATE_HZ

    assert fuzz(check) > 0
    assert "Traceback" not in capfd.readouterr().err  # of a callback of a decoder


TABLE = pd.DataFrame(
    {"path": ["a/1.wav", "b/2.wav"], "system": ["tts é", 'a "b"'], "language": ["en", None], "id": [1, None]}
)


def as_parquet():
    out = io.BytesIO()
    TABLE.to_parquet(out)
    return out.getvalue()


TABLES = {
    "csv": lambda: TABLE.to_csv(index=False).encode(),
    "tsv": lambda: TABLE.to_csv(index=False, sep="\t").encode(),
    "jsonl": lambda: TABLE.to_json(orient="records", lines=True).encode(),
    "parquet": as_parquet,
}


@pytest.mark.parametrize("suffix", TABLES)
def test_damaged_tables_are_read_or_refused_in_one_line(suffix, tmp_path, fuzz):
    whole, path = TABLES[suffix](), tmp_path / f"table.{suffix}"
    path.write_bytes(whole)
    assert len(read_table(path, root="", columns={}).rows) == 2

    def check(changes):
        path.write_bytes(apply_changes(whole, changes))
        try:
            read_table(path, root="", columns={})
        except MakermarkError as error:
            assert_one_line(error, path)

    assert fuzz(check) > 0


@pytest.fixture(scope="module")
def models(tmp_path_factory):
    folder = tmp_path_factory.mktemp("fuzz")
    make_models(folder)
    return folder


def readers(models, folder):
    """(name, file in the folder, function that reads it) of every file of a trained model."""
    shutil.copytree(models, folder, dirs_exist_ok=True)
    tracer = Tracer.load(folder / "models", device="cpu")
    sha256, dim = tracer.model_sha256, tracer.metadata.dim
    write_gallery(folder / "enrolled.arrow", tracer.gallery)
    return {
        "manifest": (folder / "corpus/manifest.parquet", lambda path: read_manifest(path)),
        "embeddings": (folder / "model.arrow", lambda path: read_embeddings(path)),
        "gallery": (
            folder / "enrolled.arrow", lambda path: read_gallery(path, model_sha256=sha256, dim=dim)
        ),
        "dev clips": (
            folder / "models/tracer/dev.arrow",
            lambda path: read_bundle(path.parent, model_sha256=sha256, dim=dim),
        ),
        "tracer": (
            folder / "models/tracer/tracer.json",
            lambda path: read_bundle(path.parent, model_sha256=sha256, dim=dim),
        ),
        "metadata": (folder / "models/best.json", lambda path: load_checkpoint(path.with_suffix(""))),
        "weights": (folder / "models/best.safetensors", load_weights),
        "params": (folder / "params.yaml", lambda path: read_params(path)),
    }  # fmt: skip


def load_weights(path):
    """Load a checkpoint whose JSON states the checksum of the weights as they are."""
    metadata = path.with_suffix(".json")
    content = json.loads(metadata.read_text())
    content["weights_sha256"] = hashlib.sha256(path.read_bytes()).hexdigest()
    metadata.write_text(json.dumps(content))
    return load_checkpoint(path.with_suffix(""))


NAMES = ("manifest", "embeddings", "gallery", "dev clips", "tracer", "metadata", "weights", "params")


@pytest.mark.parametrize("name", NAMES)
def test_damaged_files_of_a_model_are_read_or_refused_in_one_line(name, models, tmp_path, fuzz):
    path, read = readers(models, tmp_path)[name]
    if name == "params":
        shutil.copy("params.yaml", path)
    whole = path.read_bytes()
    read(path)

    def check(changes):
        path.write_bytes(apply_changes(whole, changes))
        try:
            read(path)
        except MakermarkError as error:
            assert_one_line(error)

    assert fuzz(check) > 0


def test_damaged_requests_never_fail_inside_the_server(models, tmp_path, fuzz):
    boundary = "x"
    body = (
        (
            f'--{boundary}\r\nContent-Disposition: form-data; name="file"; filename="clip.wav"\r\n'
            f"Content-Type: audio/wav\r\n\r\n"
        ).encode()
        + sound("WAV", "PCM_16")
        + f"\r\n--{boundary}--\r\n".encode()
    )
    paths = ("/api/trace", "/api/compare", "/api/enroll", "/api/gallery")
    app = make_app(models / "models", tmp_path / "gallery.arrow")
    with TestClient(app, raise_server_exceptions=False) as client:
        headers = {"Content-Type": f"multipart/form-data; boundary={boundary}"}
        assert client.post("/api/trace", content=body, headers=headers).status_code == 200

        def check(changes):
            path = paths[changes[0].number % len(paths)]
            kind = headers if changes[0].kind != "text" else {"Content-Type": "application/json"}
            response = client.post(path, content=apply_changes(body, changes), headers=kind)
            assert response.status_code < 500 or response.status_code == 503, response.text

        assert fuzz(check) > 0
