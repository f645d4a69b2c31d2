"""Waveforms of files: values, errors in one line with path and reason, notes."""

import hashlib
import os
import struct
import threading
import wave
from unittest import mock

import numpy as np
import pytest
import soundfile
from hypothesis import given, settings
from hypothesis import strategies as st

from makermark.foundation import audio
from makermark.foundation.audio import reader
from makermark.foundation.errors import AudioError

RATE_HZ = 16000


def tone(hz, seconds=1.0, rate_hz=RATE_HZ):
    return (0.4 * np.sin(2 * np.pi * hz * np.arange(round(seconds * rate_hz)) / rate_hz)).astype(np.float32)


def error_of(path, **limits):
    with pytest.raises(AudioError) as error:
        audio.read(path, **limits)
    message = str(error.value)
    assert message.startswith(f"{path}: ")
    assert "\n" not in message
    return message.removeprefix(f"{path}: ")


@pytest.fixture
def folder(tmp_path):
    """A folder whose name has a space and letters outside ASCII."""
    path = tmp_path / "Grüße 声"
    path.mkdir()
    return path


@pytest.mark.parametrize(
    ("suffix", "subtype"),
    [("wav", "PCM_16"), ("wav", "FLOAT"), ("flac", "PCM_16"), ("aiff", "PCM_16"), ("flac", "PCM_24")],
)
def test_read_returns_16_khz_mono_samples_unchanged(suffix, subtype, folder):
    path = folder / f"a.{suffix}"
    soundfile.write(path, tone(300), RATE_HZ, subtype=subtype)
    waveform = audio.read(path, sha256=hashlib.sha256(path.read_bytes()).hexdigest())
    assert waveform.dtype == np.float32
    np.testing.assert_allclose(waveform, tone(300), atol=1 / 32768)


@pytest.mark.parametrize("suffix", ["wav", "flac", "aiff"])
@pytest.mark.parametrize("channels", [1, 2])
def test_read_returns_16_bit_samples_as_libsndfile_does_bit_for_bit(suffix, channels, folder):
    samples = np.random.default_rng(0).integers(-32768, 32768, (8000, channels), dtype=np.int16)
    soundfile.write(folder / f"a.{suffix}", samples, RATE_HZ, subtype="PCM_16")
    decoded, _ = soundfile.read(folder / f"a.{suffix}", dtype="float32", always_2d=True)
    expected = decoded[:, 0] if channels == 1 else decoded.mean(axis=1)
    waveform = audio.read(folder / f"a.{suffix}")
    assert waveform.dtype == np.float32
    np.testing.assert_array_equal(waveform, expected)


def test_read_averages_channels(folder):
    channels = np.stack([tone(300), 0.5 * tone(700), np.zeros(RATE_HZ, np.float32)], axis=1)
    soundfile.write(folder / "three.wav", channels, RATE_HZ, subtype="FLOAT")
    np.testing.assert_allclose(audio.read(folder / "three.wav"), channels.mean(axis=1), atol=1e-7)


@pytest.mark.parametrize("rate_hz", [8000, 22050, 24000, 44100, 48000])
def test_read_resamples_other_rates_to_the_same_tone(rate_hz, folder):
    soundfile.write(folder / "a.wav", tone(1000, rate_hz=rate_hz), rate_hz, subtype="FLOAT")
    waveform = audio.read(folder / "a.wav")
    assert abs(waveform.size - RATE_HZ) <= 1
    middle = slice(2000, 14000)  # away from the edges of the resampling filter
    np.testing.assert_allclose(waveform[middle], tone(1000)[middle], atol=1e-3)


def test_resampling_removes_frequencies_above_the_new_band(folder):
    soundfile.write(
        folder / "a.wav", tone(300, rate_hz=48000) + tone(12000, rate_hz=48000), 48000, subtype="FLOAT"
    )
    middle = slice(2000, 14000)
    np.testing.assert_allclose(audio.read(folder / "a.wav")[middle], tone(300)[middle], atol=1e-3)


def test_read_raises_for_a_missing_file_and_a_folder(folder):
    assert error_of(folder / "missing.wav").startswith("missing")
    assert "cannot be read" in error_of(folder)


def test_read_raises_for_an_empty_file(folder):
    (folder / "a.wav").touch()
    assert error_of(folder / "a.wav") == "empty: 0 bytes"


@pytest.mark.parametrize("content", [b"x", b"RIFF", b"<html>not found</html>" * 99, bytes(5000)], ids=len)
def test_read_raises_for_other_content(content, folder):
    (folder / "a.wav").write_bytes(content)
    assert error_of(folder / "a.wav").startswith("not audio, or damaged")


def test_read_raises_for_a_header_without_samples(folder):
    soundfile.write(folder / "a.wav", np.zeros(0, np.float32), RATE_HZ)
    assert error_of(folder / "a.wav") == "too short: no samples follow its header"


def test_read_skips_other_chunks_of_a_wav(folder):
    soundfile.write(folder / "a.wav", tone(300), RATE_HZ, subtype="PCM_16")
    content = (folder / "a.wav").read_bytes()
    note = b"LIST" + (5).to_bytes(4, "little") + b"INFOx" + b"\0"  # odd size: padded
    position = content.index(b"data")
    body = content[8:position] + note + content[position:] + note
    (folder / "a.wav").write_bytes(b"RIFF" + len(body).to_bytes(4, "little") + body)
    assert audio.read(folder / "a.wav").size == RATE_HZ


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_read_counts_samples_that_are_not_finite(value, folder):
    waveform = tone(300)
    waveform[[5, 900]] = value
    soundfile.write(folder / "a.wav", waveform, RATE_HZ, subtype="FLOAT")
    assert error_of(folder / "a.wav") == f"NaN or infinite samples: 2 of {RATE_HZ}"


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("channels", [1, 2])
@pytest.mark.parametrize("values", [[np.nan, 0.5], [np.inf, -np.inf], [3e38, 3e38]], ids=str)
def test_samples_that_are_not_finite_give_no_warning(values, channels, folder):
    samples = (tone(300)[:, None] * [1, 0.5][:channels]).astype(np.float32)
    samples[100] = values[:channels]
    samples[200] = values[::-1][:channels]
    soundfile.write(folder / "a.wav", samples, RATE_HZ, subtype="FLOAT")
    if np.isfinite(samples).all() and channels == 1:
        assert audio.read(folder / "a.wav").max() == np.float32(3e38)
    else:
        assert error_of(folder / "a.wav").startswith("NaN or infinite samples")


@pytest.mark.parametrize("level", [0.0, 0.25])
def test_read_raises_for_constant_samples(level, folder):
    soundfile.write(folder / "a.wav", np.full(RATE_HZ, level), RATE_HZ)
    assert error_of(folder / "a.wav").startswith("silent")


def test_the_loudest_channel_is_used_if_channels_cancel(folder):
    speech = np.random.default_rng(0).normal(0, 0.1, RATE_HZ).astype(np.float32)
    soundfile.write(folder / "a.wav", np.stack([0.9 * speech, -speech], axis=1), RATE_HZ, subtype="FLOAT")
    recording = audio.load(folder / "a.wav")
    np.testing.assert_array_equal(recording.waveform, -speech)
    assert recording.notes == ("the channels cancel each other out in their mean; only channel 2 is used",)


@pytest.mark.parametrize("shared", ["offset", "hum", "noise", "gain"])
def test_channels_that_cancel_are_found_beside_other_signals(shared, folder):
    rng = np.random.default_rng(0)
    speech = rng.normal(0, 0.1, (2 * RATE_HZ, 1)).astype(np.float32) * np.float32([1, -1])
    others = {
        "offset": np.full_like(speech, 0.3),
        "hum": np.tile(0.5 * np.sin(2 * np.pi * 50 / RATE_HZ * np.arange(len(speech)))[:, None], 2),
        "noise": rng.normal(0, 0.1, speech.shape),  # as loud, and different in each channel
        "gain": speech * [0, -0.5],  # one of them at half the amplitude
    }
    soundfile.write(folder / "a.wav", speech + others[shared], RATE_HZ, subtype="FLOAT")
    recording = audio.load(folder / "a.wav")
    assert recording.notes[0].startswith("the channels cancel each other out in their mean")
    assert np.corrcoef(np.diff(recording.waveform), np.diff(speech[:, 0]))[0, 1] ** 2 > 0.45


@pytest.mark.parametrize("channels", [2, 3])
def test_copies_of_one_channel_are_that_channel(channels, folder):
    speech = np.random.default_rng(0).normal(0, 0.1, (RATE_HZ, 1)).astype(np.float32)
    soundfile.write(folder / "a.wav", np.tile(speech, channels), RATE_HZ, subtype="FLOAT")
    np.testing.assert_array_equal(audio.load(folder / "a.wav").waveform, speech[:, 0])


@pytest.mark.parametrize("inverted_s", [1.0, 2.0, 3.4])
def test_channels_that_cancel_in_a_part_of_the_file_are_found(inverted_s, folder):
    speech = np.random.default_rng(0).normal(0, 0.1, 4 * RATE_HZ).astype(np.float32)
    other = 0.9 * speech
    other[RATE_HZ // 5 : RATE_HZ // 5 + int(inverted_s * RATE_HZ)] *= -1
    soundfile.write(folder / "a.wav", np.stack([speech, other], axis=1), RATE_HZ, subtype="FLOAT")
    recording = audio.load(folder / "a.wav")
    np.testing.assert_array_equal(recording.waveform, speech)
    assert recording.notes == ("the channels cancel each other out in their mean; only channel 1 is used",)


def test_channels_that_cancel_where_the_file_is_quiet_are_averaged(folder):
    speech = np.random.default_rng(0).normal(0, 0.1, (4 * RATE_HZ, 1)).astype(np.float32)
    samples = np.hstack([speech, 0.8 * speech])
    samples[:RATE_HZ] *= np.float32([0.1, -0.1])  # 20 dB below the rest: 0.3 % of the energy
    soundfile.write(folder / "a.wav", samples, RATE_HZ, subtype="FLOAT")
    recording = audio.load(folder / "a.wav")
    assert recording.notes == ()
    np.testing.assert_allclose(recording.waveform, samples.mean(axis=1), atol=1e-7)


def test_channels_that_share_their_speech_are_averaged(folder):
    speech = np.random.default_rng(0).normal(0, 0.1, (RATE_HZ, 1)).astype(np.float32)
    samples = np.hstack([speech, np.roll(speech, 40, axis=0), 0.3 * speech])
    soundfile.write(folder / "a.wav", samples, RATE_HZ, subtype="FLOAT")
    recording = audio.load(folder / "a.wav")
    assert recording.notes == ()
    np.testing.assert_allclose(recording.waveform, samples.mean(axis=1), atol=1e-7)


@pytest.mark.parametrize("channels", [2, 8])
def test_uncorrelated_and_partly_silent_channels_are_averaged(channels, folder):
    noise = np.random.default_rng(0).normal(0, 0.1, (RATE_HZ, channels)).astype(np.float32)
    for name, samples in (("noise", noise), ("one", noise * (np.arange(channels) == 1))):
        soundfile.write(folder / f"{name}.wav", samples, RATE_HZ, subtype="FLOAT")
        recording = audio.load(folder / f"{name}.wav")
        assert recording.notes == ()
        np.testing.assert_allclose(recording.waveform, samples.mean(axis=1), atol=1e-7)


def test_read_logs_the_notes(folder, caplog):
    tone_ = tone(300)
    soundfile.write(folder / "a.wav", np.stack([tone_, -tone_], axis=1), RATE_HZ, subtype="FLOAT")
    audio.read(folder / "a.wav")
    assert caplog.messages == [
        f"{folder / 'a.wav'}: the channels cancel each other out in their mean; only channel 1 is used"
    ]


def test_read_accepts_a_pipe(folder):
    soundfile.write(folder / "a.wav", tone(300), RATE_HZ)
    pipe = folder / "pipe"
    os.mkfifo(pipe)
    writer = threading.Thread(target=lambda: pipe.write_bytes((folder / "a.wav").read_bytes()))
    writer.start()
    waveform = audio.read(pipe)
    writer.join()
    np.testing.assert_array_equal(waveform, audio.read(folder / "a.wav"))


def test_read_raises_for_an_empty_and_an_endless_pipe(monkeypatch):
    assert error_of("/dev/null") == "a pipe from which nothing came"
    monkeypatch.setattr(reader, "MAX_PIPE_BYTES", 3 << 20)
    assert error_of("/dev/zero") == "a pipe with more than 3 MiB; save it as a file"


def test_read_names_the_temporary_folder_if_a_pipe_cannot_be_copied(monkeypatch):
    monkeypatch.setattr("tempfile.tempdir", "/missing")
    assert error_of("/dev/zero") == (
        "a pipe, which cannot be copied to /missing (No such file or directory); set TMPDIR"
    )


def test_read_raises_for_a_null_character_in_a_name():
    with pytest.raises(AudioError, match=r"^'a\\x00b': not a file name \(embedded null byte\)$"):
        audio.read("a\0b")


def test_read_raises_outside_the_limits_of_the_duration(folder):
    soundfile.write(folder / "short.wav", tone(300, 0.01), RATE_HZ)
    soundfile.write(folder / "long.flac", np.zeros(100 * 8000, np.int16), 8000)
    assert error_of(folder / "short.wav", min_seconds=0.5) == "too short: 0.010 s, at least 0.5 s are needed"
    assert error_of(folder / "long.flac", max_seconds=60) == "too long: 100.0 s or more, the maximum is 60 s"


def test_read_accepts_exactly_the_limit(folder):
    soundfile.write(folder / "a.wav", tone(300, 0.5), RATE_HZ)
    assert audio.read(folder / "a.wav", min_seconds=0.5, max_seconds=0.5).size == 8000


def test_read_raises_for_another_checksum(folder):
    soundfile.write(folder / "a.wav", tone(300), RATE_HZ)
    assert error_of(folder / "a.wav", sha256="0" * 64).startswith("changed since the manifest was made")


@pytest.mark.parametrize("channels", [1, 2])
def test_plain_wav_is_read_without_a_decoder(channels, folder):
    samples = np.random.default_rng(0).integers(-32768, 32768, (900, channels), dtype=np.int16)
    soundfile.write(folder / "soundfile.wav", samples, RATE_HZ)
    with wave.open(str(folder / "wave.wav"), "wb") as file:
        file.setparams((channels, 2, RATE_HZ, 900, "NONE", ""))
        file.writeframes(samples.tobytes())
    with mock.patch.object(reader, "decode", side_effect=AssertionError):
        for path in folder.iterdir():
            np.testing.assert_allclose(audio.read(path), samples.mean(axis=1) / 32768, atol=1e-7)


def test_only_the_head_of_a_plain_wav_is_read_if_it_is_too_long(folder):
    soundfile.write(folder / "a.wav", tone(300, 40), RATE_HZ)
    with mock.patch.object(reader, "_plain_samples", side_effect=AssertionError):
        assert error_of(folder / "a.wav", max_seconds=30) == "too long: 40.0 s or more, the maximum is 30 s"


def test_read_raises_for_a_file_that_shrinks_meanwhile(folder):
    soundfile.write(folder / "a.wav", tone(300, 40), RATE_HZ)  # more than is read at once

    def shrink(*arguments):
        os.truncate(folder / "a.wav", 44 + 32001)
        return header_of(*arguments)

    header_of = reader._plain_header
    with mock.patch.object(reader, "_plain_header", side_effect=shrink):
        assert error_of(folder / "a.wav").startswith("changed while it was read")


PLAIN = {
    "kind": b"RIFF", "code": 1, "channels": 1, "rate_hz": 16000, "bits": 16, "align": 0, "fmt": b"", "more": b"",
    "excess": 0, "front": b"", "between": b"", "behind": b"", "reversed": False,
}  # fmt: skip
NOTES = st.sampled_from([b"LIST", b"fact", b"junk", b"data", b"fmt "]).flatmap(
    lambda name: st.binary(max_size=9).map(lambda content: chunk(name, content))
)
ODDITIES = {
    "kind": st.sampled_from([b"RIFX", b"FORM"]),
    "code": st.sampled_from([3, 6, 0xFFFE]),
    "channels": st.sampled_from([0, 2, 3, 8, 9]),
    "rate_hz": st.sampled_from([8000, 44100, 0, 2**31]),
    "bits": st.sampled_from([8, 12, 24]),
    "align": st.sampled_from([1, -1]),  # beyond what channels and bits give
    "fmt": st.sampled_from([bytes(2), bytes(24)]),
    "more": st.sampled_from([b"x"]),  # an odd number of bytes
    "excess": st.sampled_from([1, 2, -2, -200, 10**6]),
    "front": NOTES, "between": NOTES, "behind": NOTES | st.sampled_from([b"\0", b"tail"]), "reversed": st.just(True),
}  # fmt: skip


@st.composite
def wav_files(draw):
    """The bytes of a plain WAV with up to two deviations."""
    odd = draw(st.sets(st.sampled_from(sorted(ODDITIES)), max_size=2))
    header = PLAIN | {name: draw(ODDITIES[name]) for name in sorted(odd)}
    width = header["channels"] * header["bits"] // 8
    samples = draw(st.binary(min_size=30, max_size=150) | st.just(b""))
    samples = samples[: len(samples) // width * width] if width else samples
    layout = (
        header["code"],
        header["channels"],
        header["rate_hz"],
        header["rate_hz"],
        max(0, width + header["align"]),
        header["bits"],
    )
    fmt = chunk(b"fmt ", struct.pack("<HHIIHH", *layout) + header["fmt"])
    data = chunk(b"data", samples + header["more"], excess=header["excess"])
    first, last = (data, fmt) if header["reversed"] else (fmt, data)
    body = b"WAVE" + header["front"] + first + header["between"] + last + header["behind"]
    return header["kind"] + struct.pack("<I", len(body)) + body


def chunk(name, content, *, excess=0):
    """A chunk padded to an even length; its header states `excess` bytes more than it has."""
    return name + struct.pack("<I", max(0, len(content) + excess)) + content + bytes(len(content) % 2)


@given(
    wav_files(), st.sampled_from([(0.0, 3600.0), (0.002, 0.003)]), st.sampled_from([reader.READ_BYTES, 50])
)
@settings(max_examples=500, deadline=None)
def test_plain_wav_gives_the_same_as_the_decoders(tmp_path_factory, content, limits, at_once):
    path = tmp_path_factory.getbasetemp() / "any.wav"
    path.write_bytes(content)
    checksum = hashlib.sha256(content).hexdigest()
    with mock.patch.object(reader, "_plain_header", return_value=None):
        expected = outcome(path, limits, checksum)
    with mock.patch.object(reader, "READ_BYTES", at_once):
        result = outcome(path, limits, checksum)
    assert type(result) is type(expected)
    np.testing.assert_array_equal(result, expected)


def outcome(path, limits, sha256):
    """The samples, or the message of the error."""
    try:
        return audio.read(
            path, sample_rate_hz=RATE_HZ, min_seconds=limits[0], max_seconds=limits[1], sha256=sha256
        )
    except AudioError as error:
        return str(error)
