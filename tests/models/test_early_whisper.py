"""First layers of the Whisper encoder in pipecat-ai: log-mels against the package's own code, states, errors."""

import importlib.util
import runpy

import numpy as np
import onnxruntime
import pytest
import soundfile
import torch

from makermark.features.encoders.whisper import compute_log_mels, mel_filters
from makermark.foundation.errors import EncoderError
from makermark.models import early_whisper
from makermark.models.early_whisper import (
    EMBEDDING_DIM,
    STATES,
    cut_windows,
    early_embeddings,
    find_weights,
    load_session,
    pool,
    with_outputs,
)
from tests_support import recorded_speech

installed = pytest.mark.skipif(
    importlib.util.find_spec("pipecat") is None, reason="pipecat-ai is not installed"
)


def noise(seconds, seed=0):
    return recorded_speech(seconds, 16000, np.random.default_rng(seed)).astype(np.float32)


def log_mels(windows):
    return compute_log_mels(windows, mel_filters(80), torch.hann_window(400))


@installed
def test_log_mels_equal_those_of_the_package():
    """Its own file of features needs NumPy alone."""
    own = runpy.run_path(str(find_weights().parents[1] / "_whisper_features.py"))
    windows, _ = cut_windows(torch.from_numpy(noise(5.3)))
    expected = own["compute_whisper_log_mel_features"](windows[0].numpy(), do_normalize=False)
    np.testing.assert_allclose(log_mels(windows)[0].numpy(), expected, atol=2e-4)


@installed
def test_additional_outputs_do_not_change_the_output_of_the_package():
    features = {"input_features": log_mels(cut_windows(torch.from_numpy(noise(3.0)))[0]).numpy()}
    (expected,) = onnxruntime.InferenceSession(find_weights().read_bytes()).run(None, features)
    session = load_session(find_weights())
    assert [output.name for output in session.get_outputs()] == ["logits", *STATES]
    logits, *states = session.run(["logits", *STATES], features)
    np.testing.assert_allclose(logits, expected, atol=1e-6)
    assert [state.shape for state in states] == [(1, 400, 384)] * 2


@installed
def test_embeddings_are_statistics_of_the_frames_of_speech_in_order_of_files(tmp_path):
    files = [tmp_path / f"{seconds}.wav" for seconds in (2, 9)]
    for file, seconds in zip(files, (2.0, 9.01), strict=True):
        soundfile.write(file, noise(seconds), 16000, subtype="FLOAT")
    session = load_session(find_weights())
    embeddings = early_embeddings(session, files)
    assert embeddings.shape == (2, EMBEDDING_DIM)
    assert np.abs(embeddings - early_embeddings(session, files[::-1])[::-1]).max() == 0
    windows, frames = cut_windows(torch.from_numpy(noise(9.01)))
    assert frames == [400, 51]
    speech = []
    for window, count in zip(windows, frames, strict=True):
        (state,) = session.run(STATES[:1], {"input_features": log_mels(window[None]).numpy()})
        speech.extend(state[0, 400 - count :])
    np.testing.assert_allclose(embeddings[1, :384], np.mean(speech, axis=0), atol=1e-4)
    np.testing.assert_allclose(embeddings[1, 384:768], np.std(speech, axis=0), atol=1e-4)


def test_windows_hold_normalised_speech_at_their_end_whatever_its_level():
    waveform = torch.from_numpy(noise(9.0)) + 0.3
    windows, frames = cut_windows(waveform)
    assert windows.shape == (2, 128_000)
    assert frames == [400, 50]
    assert not windows[1, :112_000].any()
    joined = torch.cat([windows[0], windows[1, 112_000:]])
    assert joined.mean() == pytest.approx(0, abs=1e-5)
    assert joined.var() == pytest.approx(1, abs=1e-4)
    torch.testing.assert_close(cut_windows(3 * waveform)[0], windows, rtol=1e-3, atol=1e-4)


def test_pool_reads_the_last_frames_of_every_window():
    state = np.arange(8, dtype=np.float32).reshape(2, 4, 1)
    np.testing.assert_allclose(pool(state, [4, 1]), [np.mean([0, 1, 2, 3, 7]), np.std([0, 1, 2, 3, 7])])


def test_with_outputs_appends_messages_of_the_protocol_buffer_format():
    """Field 7 of a model is its graph, field 12 of a graph its output, field 1 of that its name; all are type 2."""
    assert with_outputs(b"m", ["ab"]) == b"m" + bytes([7 * 8 + 2, 6, 12 * 8 + 2, 4, 8 + 2, 2]) + b"ab"


def test_load_session_raises_for_another_file(tmp_path):
    (tmp_path / "other.onnx").write_bytes(b"no model")
    with pytest.raises(
        EncoderError, match=r"other\.onnx: not the Whisper encoder of pipecat-ai; pip install"
    ):
        load_session(tmp_path / "other.onnx")


def test_find_weights_raises_with_install_command(monkeypatch):
    monkeypatch.setattr(early_whisper, "PACKAGE", "a_package_that_is_not_there")
    with pytest.raises(EncoderError, match=r"pipecat-ai is not installed; pip install --no-deps"):
        find_weights()
