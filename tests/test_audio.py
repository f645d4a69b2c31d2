"""Reading audio: what comes out, and what is refused in one line with the path and the reason."""

import hashlib
import os
import struct
import wave
from unittest import mock

import numpy as np
import pytest
import soundfile
from hypothesis import given, settings
from hypothesis import strategies as st

from makermark import audio
from makermark.errors import AudioError

RATE_HZ = 16000


def tone(hz, seconds=1.0, rate_hz=RATE_HZ):
    return (0.4 * np.sin(2 * np.pi * hz * np.arange(round(seconds * rate_hz)) / rate_hz)).astype(np.float32)


def refusal(path, **limits):
    with pytest.raises(AudioError) as caught:
        audio.read(path, **limits)
    said = str(caught.value)
    assert said.startswith(f"{path}: ")
    assert "\n" not in said
    return said.removeprefix(f"{path}: ")


@pytest.fixture
def here(tmp_path):
    """A folder whose name has a space and letters outside ASCII."""
    folder = tmp_path / "Grüße 声"
    folder.mkdir()
    return folder


@pytest.mark.parametrize(
    ("suffix", "subtype"),
    [("wav", "PCM_16"), ("wav", "FLOAT"), ("flac", "PCM_16"), ("aiff", "PCM_16"), ("flac", "PCM_24")],
)
def test_16_khz_mono_comes_as_it_was_written(suffix, subtype, here):
    path = here / f"a.{suffix}"
    soundfile.write(path, tone(300), RATE_HZ, subtype=subtype)
    waveform = audio.read(path, sha256=hashlib.sha256(path.read_bytes()).hexdigest())
    assert waveform.dtype == np.float32
    np.testing.assert_allclose(waveform, tone(300), atol=1 / 32768)


@pytest.mark.parametrize("suffix", ["wav", "flac", "aiff"])
@pytest.mark.parametrize("channels", [1, 2])
def test_16_bit_files_are_read_as_libsndfile_reads_them_bit_for_bit(suffix, channels, here):
    samples = np.random.default_rng(0).integers(-32768, 32768, (8000, channels), dtype=np.int16)
    soundfile.write(here / f"a.{suffix}", samples, RATE_HZ, subtype="PCM_16")
    theirs, _ = soundfile.read(here / f"a.{suffix}", dtype="float32", always_2d=True)
    expected = theirs[:, 0] if channels == 1 else theirs.mean(axis=1)
    found = audio.read(here / f"a.{suffix}")
    assert found.dtype == np.float32
    np.testing.assert_array_equal(found, expected)


def test_channels_are_averaged(here):
    channels = np.stack([tone(300), 0.5 * tone(700), np.zeros(RATE_HZ, np.float32)], axis=1)
    soundfile.write(here / "three.wav", channels, RATE_HZ, subtype="FLOAT")
    np.testing.assert_allclose(audio.read(here / "three.wav"), channels.mean(axis=1), atol=1e-7)


@pytest.mark.parametrize("rate_hz", [8000, 22050, 24000, 44100, 48000])
def test_other_rates_are_resampled_to_the_same_tone(rate_hz, here):
    soundfile.write(here / "a.wav", tone(1000, rate_hz=rate_hz), rate_hz, subtype="FLOAT")
    waveform = audio.read(here / "a.wav")
    assert abs(waveform.size - RATE_HZ) <= 1
    middle = slice(2000, 14000)  # away from the edges of the resampling filter
    np.testing.assert_allclose(waveform[middle], tone(1000)[middle], atol=1e-3)


def test_resampling_removes_what_the_lower_rate_cannot_hold(here):
    soundfile.write(
        here / "a.wav", tone(300, rate_hz=48000) + tone(12000, rate_hz=48000), 48000, subtype="FLOAT"
    )
    middle = slice(2000, 14000)
    np.testing.assert_allclose(audio.read(here / "a.wav")[middle], tone(300)[middle], atol=1e-3)


def test_a_missing_file_and_a_folder_are_refused(here):
    assert refusal(here / "nothing.wav").startswith("missing")
    assert "cannot be read" in refusal(here)


def test_an_empty_file_is_refused(here):
    (here / "a.wav").touch()
    assert refusal(here / "a.wav") == "empty: 0 bytes"


@pytest.mark.parametrize("content", [b"x", b"RIFF", b"<html>not found</html>" * 99, bytes(5000)], ids=len)
def test_what_is_not_audio_is_refused(content, here):
    (here / "a.wav").write_bytes(content)
    assert refusal(here / "a.wav").startswith("not audio, or damaged")


def test_a_header_without_samples_is_refused(here):
    soundfile.write(here / "a.wav", np.zeros(0, np.float32), RATE_HZ)
    assert refusal(here / "a.wav").startswith("silent")
    assert refusal(here / "a.wav", min_seconds=0.5).startswith("too short: 0.000 s")


@pytest.mark.parametrize("suffix", ["wav", "aiff"])
def test_a_file_cut_off_is_refused_with_what_was_promised_and_what_is_there(suffix, here):
    path = here / f"a.{suffix}"
    soundfile.write(path, tone(300), RATE_HZ, subtype="PCM_16")
    path.write_bytes(path.read_bytes()[:-10000])
    assert refusal(path).startswith("truncated: its header says 320")
    assert "there" in refusal(path)


@pytest.mark.parametrize("promised", [32002, 10**9, 2**32 - 1])
def test_a_wav_header_that_lies_about_its_length_is_refused(promised, here):
    soundfile.write(here / "a.wav", tone(300), RATE_HZ, subtype="PCM_16")
    content = bytearray((here / "a.wav").read_bytes())
    place = content.index(b"data") + 4
    content[place : place + 4] = promised.to_bytes(4, "little")
    (here / "a.wav").write_bytes(content)
    assert refusal(here / "a.wav") == (
        f"truncated: its header says {promised} bytes of samples, 32000 are there"
    )


def test_a_wav_with_other_chunks_around_its_samples_is_read(here):
    soundfile.write(here / "a.wav", tone(300), RATE_HZ, subtype="PCM_16")
    content = (here / "a.wav").read_bytes()
    note = b"LIST" + (5).to_bytes(4, "little") + b"INFOx" + b"\0"  # odd size: padded
    place = content.index(b"data")
    body = content[8:place] + note + content[place:] + note
    (here / "a.wav").write_bytes(b"RIFF" + len(body).to_bytes(4, "little") + body)
    assert audio.read(here / "a.wav").size == RATE_HZ


@pytest.mark.parametrize("share", [0.1, 0.5, 0.95])
def test_a_flac_cut_off_is_refused(share, here):
    noise = np.random.default_rng(0).uniform(-0.5, 0.5, 2 * RATE_HZ)
    soundfile.write(here / "a.flac", noise, RATE_HZ)
    content = (here / "a.flac").read_bytes()
    (here / "a.flac").write_bytes(content[: int(share * len(content))])
    assert refusal(here / "a.flac").startswith(("truncated", "not audio, or damaged"))


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_samples_that_are_no_numbers_are_refused_and_counted(value, here):
    waveform = tone(300)
    waveform[[5, 900]] = value
    soundfile.write(here / "a.wav", waveform, RATE_HZ, subtype="FLOAT")
    assert refusal(here / "a.wav") == f"NaN or infinite samples: 2 of {RATE_HZ}"


@pytest.mark.parametrize("level", [0.0, 0.25])
def test_digital_silence_is_refused_at_any_level(level, here):
    soundfile.write(here / "a.wav", np.full(RATE_HZ, level), RATE_HZ)
    assert refusal(here / "a.wav").startswith("silent")


def test_channels_that_cancel_are_silence(here):
    soundfile.write(here / "a.wav", np.stack([tone(300), -tone(300)], axis=1), RATE_HZ, subtype="FLOAT")
    assert refusal(here / "a.wav").startswith("silent")


def test_clips_of_10_ms_and_of_30_minutes_are_refused_by_the_limits(here):
    soundfile.write(here / "short.wav", tone(300, 0.01), RATE_HZ)
    soundfile.write(here / "long.flac", np.zeros(30 * 60 * 8000, np.int16), 8000)
    assert refusal(here / "short.wav", min_seconds=0.5) == "too short: 0.010 s, at least 0.5 s are needed"
    assert refusal(here / "long.flac", max_seconds=60) == "too long: 1800.0 s, at most 60 s are taken"


def test_a_clip_of_exactly_a_limit_is_read(here):
    soundfile.write(here / "a.wav", tone(300, 0.5), RATE_HZ)
    assert audio.read(here / "a.wav", min_seconds=0.5, max_seconds=0.5).size == 8000


def test_other_bytes_than_the_manifest_knows_are_refused(here):
    soundfile.write(here / "a.wav", tone(300), RATE_HZ)
    assert refusal(here / "a.wav", sha256="0" * 64).startswith("changed since the manifest was made")


@pytest.mark.parametrize("channels", [1, 2])
def test_a_plain_wav_is_read_without_libsndfile(channels, here):
    samples = np.random.default_rng(0).integers(-32768, 32768, (900, channels), dtype=np.int16)
    soundfile.write(here / "soundfile.wav", samples, RATE_HZ)
    with wave.open(str(here / "wave.wav"), "wb") as file:
        file.setparams((channels, 2, RATE_HZ, 900, "NONE", ""))
        file.writeframes(samples.tobytes())
    with mock.patch.object(audio, "_decode", side_effect=AssertionError):
        for path in here.iterdir():
            np.testing.assert_allclose(audio.read(path), samples.mean(axis=1) / 32768, atol=1e-7)


def test_of_a_long_plain_wav_only_the_head_is_read_before_it_is_refused(here):
    soundfile.write(here / "a.wav", tone(300, 40), RATE_HZ)
    with mock.patch.object(audio, "_plain_samples", side_effect=AssertionError):
        assert refusal(here / "a.wav", max_seconds=30) == "too long: 40.0 s, at most 30 s are taken"


def test_a_file_that_shrinks_while_it_is_read_is_refused(here):
    soundfile.write(here / "a.wav", tone(300, 40), RATE_HZ)  # more than is read at once

    def shrink(*given):
        os.truncate(here / "a.wav", 44 + 32001)
        return header_of(*given)

    header_of = audio._plain_header
    with mock.patch.object(audio, "_plain_header", side_effect=shrink):
        assert refusal(here / "a.wav").startswith("changed while it was read")


PLAIN = {
    "kind": b"RIFF", "code": 1, "channels": 1, "rate_hz": 16000, "bits": 16, "align": 0, "fmt": b"", "more": b"",
    "lie": 0, "front": b"", "between": b"", "behind": b"", "turned": False,
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
    "lie": st.sampled_from([1, 2, -2, -200, 10**6]),
    "front": NOTES, "between": NOTES, "behind": NOTES | st.sampled_from([b"\0", b"tail"]), "turned": st.just(True),
}  # fmt: skip


@st.composite
def wav_files(draw):
    """The bytes of a plain WAV with up to two things about it otherwise."""
    odd = draw(st.sets(st.sampled_from(sorted(ODDITIES)), max_size=2))
    it = PLAIN | {name: draw(ODDITIES[name]) for name in sorted(odd)}
    width = it["channels"] * it["bits"] // 8
    samples = draw(st.binary(min_size=30, max_size=150) | st.just(b""))
    samples = samples[: len(samples) // width * width] if width else samples
    layout = (
        it["code"],
        it["channels"],
        it["rate_hz"],
        it["rate_hz"],
        max(0, width + it["align"]),
        it["bits"],
    )
    fmt = chunk(b"fmt ", struct.pack("<HHIIHH", *layout) + it["fmt"])
    data = chunk(b"data", samples + it["more"], lie=it["lie"])
    first, last = (data, fmt) if it["turned"] else (fmt, data)
    body = b"WAVE" + it["front"] + first + it["between"] + last + it["behind"]
    return it["kind"] + struct.pack("<I", len(body)) + body


def chunk(name, content, *, lie=0):
    """Padded to an even length; says that it is longer by `lie` bytes."""
    return name + struct.pack("<I", max(0, len(content) + lie)) + content + bytes(len(content) % 2)


@given(wav_files(), st.sampled_from([(0.0, 3600.0), (0.002, 0.003)]), st.sampled_from([audio.AT_ONCE, 50]))
@settings(max_examples=500, deadline=None)
def test_a_wav_is_read_or_refused_as_libsndfile_alone_would(tmp_path_factory, content, limits, at_once):
    path = tmp_path_factory.getbasetemp() / "any.wav"
    path.write_bytes(content)
    known = hashlib.sha256(content).hexdigest()
    with mock.patch.object(audio, "_plain_header", return_value=None):
        expected = outcome(path, limits, known)
    with mock.patch.object(audio, "AT_ONCE", at_once):
        found = outcome(path, limits, known)
    assert type(found) is type(expected)
    np.testing.assert_array_equal(found, expected)


def outcome(path, limits, sha256):
    """The samples, or what was said."""
    try:
        return audio.read(
            path, sample_rate_hz=RATE_HZ, min_seconds=limits[0], max_seconds=limits[1], sha256=sha256
        )
    except AudioError as error:
        return str(error)


waveforms = st.integers(1, 50).map(lambda n: np.arange(n, dtype=np.float32))


@given(waveforms, st.integers(0, 200))
def test_repeating_goes_round_from_the_start(waveform, length):
    repeated = audio.repeat_to(waveform, length)
    assert repeated.dtype == np.float32
    assert repeated.tolist() == [float(t % waveform.size) for t in range(length)]


@given(waveforms, st.integers(1, 120), st.integers(0, 9))
def test_a_crop_is_a_stretch_of_the_waveform_or_of_its_repetition(waveform, length, seed):
    cut = audio.crop(waveform, length=length, rng=np.random.default_rng(seed))
    assert cut.size == length
    assert (np.diff(cut) % waveform.size == 1 % waveform.size).all()
    if length <= waveform.size:
        assert (np.diff(cut) == 1).all()
    again = audio.crop(waveform, length=length, rng=np.random.default_rng(seed))
    np.testing.assert_array_equal(cut, again)


def test_nothing_cannot_be_repeated():
    with pytest.raises(ValueError, match="nothing to repeat"):
        audio.repeat_to(np.empty(0, np.float32), 5)
