"""Decoding of odd but playable files: the samples that are present are used, whatever the header states."""

import io
import subprocess
import sys
from unittest import mock

import numpy as np
import pytest
import soundfile

from makermark.foundation import audio
from makermark.foundation.audio import containers, decoders
from makermark.foundation.audio.containers import joined_recordings, missing_end, open_slice
from makermark.foundation.errors import AudioError

av = pytest.importorskip("av")
RATE_HZ = 16000
SPEECH = np.random.default_rng(0).normal(0, 0.1, (2 * RATE_HZ, 1))  # 2 s
SUBTYPES = {
    "WAV": "PCM_16", "WAVEX": "PCM_24", "AIFF": "PCM_16", "W64": "PCM_16", "RF64": "PCM_16", "CAF": "PCM_16",
    "AU": "PCM_16", "NIST": "PCM_16", "RIFX": "PCM_16",
}  # fmt: skip


def encode(container="WAV", *, samples=SPEECH, rate_hz=RATE_HZ, subtype=None):
    """Return a file that libsndfile writes."""
    file, endian = io.BytesIO(), "BIG" if container == "RIFX" else None
    soundfile.write(
        file,
        samples,
        rate_hz,
        format="WAV" if container == "RIFX" else container,
        subtype=subtype or SUBTYPES.get(container),
        endian=endian,
    )
    return file.getvalue()


def encode_with_ffmpeg(container, codec, *, seconds=2.0, rate_hz=RATE_HZ, channels=1, options=None):
    """Return a file that FFmpeg writes; `options` are those of the container."""
    file = io.BytesIO()
    layout = "mono" if channels == 1 else "stereo"
    noise = (
        np.random.default_rng(0).normal(0, 3000, (1, round(seconds * rate_hz) * channels)).astype(np.int16)
    )
    with av.open(file, "w", format=container, options=options or {}) as output:
        stream = output.add_stream(codec, rate=rate_hz, layout=layout)
        resampler = av.AudioResampler(stream.format, stream.layout, stream.rate, stream.frame_size or 1024)
        frame = av.AudioFrame.from_ndarray(noise, format="s16", layout=layout)
        frame.sample_rate = rate_hz
        for part in [*resampler.resample(frame), *resampler.resample(None)]:
            output.mux(stream.encode(part))
        output.mux(stream.encode(None))
    return file.getvalue()


def load(folder, content, name="clip"):
    (folder / name).write_bytes(content)
    return audio.load(folder / name)


def seconds(recording):
    return len(recording.waveform) / RATE_HZ


@pytest.mark.parametrize(
    ("container", "codec", "rate_hz"),
    [
        ("mp3", "libmp3lame", 24000),
        ("ogg", "libopus", 48000),
        ("mp4", "aac", 44100),
        ("webm", "libopus", 48000),
        ("adts", "aac", 16000),
        ("wv", "wavpack", 16000),
    ],
)
def test_load_decodes_compressed_formats(container, codec, rate_hz, tmp_path):
    recording = load(tmp_path, encode_with_ffmpeg(container, codec, rate_hz=rate_hz))
    assert seconds(recording) == pytest.approx(
        2.0, abs=0.13
    )  # without a container the encoder delay is unknown
    assert recording.decoder.startswith("FFmpeg (PyAV ")
    assert recording.notes == ()


@pytest.mark.parametrize("subtype", ["GSM610", "G721_32", "IMA_ADPCM", "MS_ADPCM", "ULAW", "ALAW"])
def test_load_decodes_all_codecs_of_wav(subtype, tmp_path):
    recording = load(tmp_path, encode("WAV", subtype=subtype))
    assert seconds(recording) == pytest.approx(2.0, abs=0.13)
    assert recording.notes == ()


@pytest.mark.parametrize("stated", [0, 0xFFFFFFFF, 0x7FFFFFFF, 0x7FFFF000, 2_000_000_000, 0xFFFFFFFF - 44])
def test_placeholder_sizes_of_streamed_wav_are_no_finding(stated, tmp_path):
    content = bytearray(encode("WAV"))
    position = content.index(b"data") + 4
    content[position : position + 4] = stated.to_bytes(4, "little")
    recording = load(tmp_path, bytes(content))
    assert (len(recording.waveform), recording.notes) == (2 * RATE_HZ, ())


def test_wav_of_which_the_header_states_twice_the_length_is_used_with_a_note(tmp_path):
    content = bytearray(encode("WAV"))
    position = content.index(b"data") + 4
    content[position : position + 4] = (8 * RATE_HZ).to_bytes(4, "little")
    recording = load(tmp_path, bytes(content))
    assert len(recording.waveform) == 2 * RATE_HZ
    assert recording.notes == ("its header states 4.00 s, 2.00 s are present and used",)


@pytest.mark.parametrize("container", [name for name in SUBTYPES if name != "WAVEX"])
def test_truncation_is_noted_for_every_uncompressed_container(container, tmp_path):
    content = encode(container)
    recording = load(tmp_path, content[: len(content) - RATE_HZ])  # half a second of 16-bit samples
    assert seconds(recording) == pytest.approx(1.5, abs=0.01)
    assert recording.notes == ("its header states 2.00 s, 1.50 s are present and used",)
    assert load(tmp_path, content).notes == ()


@pytest.mark.parametrize("share", [0.3, 0.5, 0.95])
def test_truncated_flac_is_used_as_far_as_it_decodes(share, tmp_path):
    content = encode("FLAC")
    recording = load(tmp_path, content[: int(share * len(content))])
    assert seconds(recording) == pytest.approx(2 * share, abs=0.35)
    assert "its header states 2.00 s" in recording.notes[0]


def ended(container):
    """Return a file with 4 s in a compressed format."""
    codec, rate_hz, options = {
        "ogg": ("libopus", 48000, {}),
        "adts": ("aac", 16000, {}),
        "webm": ("libopus", 48000, {}),
        "live.webm": ("libopus", 48000, {"live": "1"}),  # clusters and segment of unknown size
    }[container]
    return encode_with_ffmpeg(container.split(".")[-1], codec, seconds=4, rate_hz=rate_hz, options=options)


MISSING_END = {
    "ogg": "an Ogg stream has no last page: the end of the recording may be missing",
    "adts": "its last AAC frame is incomplete: the end of the recording is missing",
    "webm": "its last Matroska element is incomplete: the end of the recording is missing",
}


@pytest.mark.parametrize("container", ["ogg", "adts", "webm", "live.webm"])
@pytest.mark.parametrize("share", [0.5, 0.9, 1])
def test_a_missing_end_is_noted_where_the_container_shows_it(container, share, tmp_path):
    content = ended(container)
    cut = load(tmp_path, content[: round(share * len(content)) - 3])
    assert cut.notes[-1] == MISSING_END[container.split(".")[-1]]
    assert seconds(cut) == pytest.approx(4 * share, abs=1.1 if container == "ogg" else 0.2)  # pages of 1 s
    assert load(tmp_path, content).notes == ()
    assert (
        load(tmp_path, b"ID3\x04\x00\x00\x00\x00\x00\x05tags " * (container == "adts") + content).notes == ()
    )


def test_a_missing_end_is_noted_for_each_of_joined_streams(tmp_path):
    whole = ended("ogg")
    cut = whole[: whole.rindex(b"OggS")]
    assert missing_end(io.BytesIO(whole + whole), 2 * len(whole)) == ""
    for content in (cut + whole, whole + cut):
        assert missing_end(io.BytesIO(content), len(content)) == MISSING_END["ogg"]


@pytest.mark.parametrize("container", ["ogg", "adts", "webm", "live.webm"])
def test_no_damage_ends_the_search_for_a_missing_end(container):
    """Whatever the damage, the walk ends, and the position is that at which it began."""
    content, rng = ended(container), np.random.default_rng(0)
    for _ in range(300):
        damaged = bytearray(content[: rng.integers(4, len(content))])
        for position in rng.integers(4, len(damaged), 3):
            damaged[position] = rng.integers(256)
        file = io.BytesIO(damaged)
        assert missing_end(file, len(damaged)) in ("", *MISSING_END.values())
        assert file.tell() == 0


def test_flac_of_unknown_length_is_read_to_its_end(tmp_path):
    content = bytearray(encode("FLAC"))
    stream_info = 8  # bytes 13 to 17 of this block end with 36 bits for the number of samples; 0: unknown
    content[stream_info + 13] &= 0xF0
    content[stream_info + 14 : stream_info + 18] = bytes(4)
    recording = load(tmp_path, bytes(content))
    assert seconds(recording) == 2.0
    assert audio.probe(tmp_path / "clip").duration_s == 2.0


@pytest.mark.parametrize(
    ("container", "codec"), [("mp3", "libmp3lame"), ("ogg", "vorbis"), ("ogg", "libopus")]
)
@pytest.mark.parametrize("header", [True, False])
def test_joined_files_are_decoded_to_the_end(container, codec, header, tmp_path):
    options = {} if header or container == "ogg" else {"write_xing": "0"}
    rate_hz = 48000 if codec == "libopus" else 24000
    one = (
        encode("OGG", rate_hz=16000)
        if codec == "vorbis"
        else encode_with_ffmpeg(container, codec, rate_hz=rate_hz, options=options)
    )
    recording = load(tmp_path, one + one + one)
    assert seconds(recording) == pytest.approx(6.0, abs=0.3)
    assert audio.probe(tmp_path / "clip").duration_s == pytest.approx(6.0, abs=0.3)


JOINED = "{} recordings follow each other in the file, of which players may play only the first"


FFMPEG_CODECS = {"mp4": "aac", "tta": "tta", "wv": "wavpack"}


@pytest.mark.parametrize("container", [*SUBTYPES, "FLAC", *FFMPEG_CODECS])
@pytest.mark.parametrize("seconds_before", [2, 70])  # 70: not in the first block of the search
def test_files_of_formats_that_hold_one_recording_are_decoded_to_the_end_with_a_note(
    container, seconds_before, tmp_path
):
    def make(samples):
        if container in FFMPEG_CODECS:
            return encode_with_ffmpeg(container, FFMPEG_CODECS[container], seconds=len(samples) / RATE_HZ)
        return encode(container, samples=samples)

    first = np.resize(SPEECH, (seconds_before * RATE_HZ, 1))
    recording = load(tmp_path, make(first) + make(SPEECH))
    assert seconds(recording) == pytest.approx(seconds_before + 2.0, abs=0.25)
    assert recording.notes == (JOINED.format(2),)
    assert audio.probe(tmp_path / "clip").duration_s == pytest.approx(seconds(recording), abs=1e-3)
    if container not in FFMPEG_CODECS:
        np.testing.assert_allclose(recording.waveform[-2 * RATE_HZ :], SPEECH[:, 0], atol=1e-4)


def test_the_blocks_of_one_wavpack_file_are_one_recording(tmp_path):
    content = encode_with_ffmpeg("wv", "wavpack", seconds=5, channels=2)
    assert content.count(b"wvpk") > 2
    assert joined_recordings(io.BytesIO(content), len(content)) == [(0, len(content))]
    twice = 2 * content
    assert [start for start, _ in joined_recordings(io.BytesIO(twice), len(twice))] == [0, len(content)]
    second = content.index(b"wvpk", 4)  # two blocks of the same samples, as of more than two channels
    block = bytearray(content[:second])
    block[25] &= ~8  # the flag of the first of them
    four_channels = content[:second] + bytes(block) + content[second:]
    assert len(joined_recordings(io.BytesIO(four_channels), len(four_channels))) == 1


@pytest.mark.parametrize("container", ["FLAC", "mp4"])
def test_an_intact_file_is_searched_once(container, tmp_path):
    content = encode("FLAC") if container == "FLAC" else encode_with_ffmpeg("mp4", "aac")
    path = tmp_path / "clip"
    path.write_bytes(content)
    for function in (audio.load, audio.probe):
        with mock.patch.object(containers, "_search", wraps=containers._search) as search:
            function(path)
        assert search.call_count == (1 if container == "FLAC" else 0)  # the boxes of an MP4 state their sizes


def test_recordings_above_2_gib_are_read_whole(tmp_path):
    """One read of an unbuffered file returns 2 GiB - 4 KiB or less; the file is sparse."""
    with open(tmp_path / "large", "wb+", buffering=0) as file:
        file.truncate(2**31 + 5000)
        file.seek(2**31 + 4000)
        file.write(b"marker")
        part = open_slice(file, 1000, 2**31 + 4500)
        assert part.seek(0, io.SEEK_END) == 2**31 + 3500
        part.seek(2**31 + 2990)
        assert part.read() == bytes(10) + b"marker" + bytes(494)
        assert part.read(1) == b""
        part.seek(2**63 - 100)
        assert part.read(1) == b""
        assert [part.seek(*target) for target in ((-1,), (-(2**32), io.SEEK_END))] == [0, 0]


def test_joined_streamed_wavs_are_split_at_their_headers(tmp_path):
    content = bytearray(encode("WAV"))
    position = content.index(b"data") + 4
    content[position : position + 4] = bytes([255] * 4)
    recording = load(tmp_path, bytes(content) * 3)
    np.testing.assert_allclose(recording.waveform, np.tile(SPEECH[:, 0], 3), atol=1e-4)
    assert recording.notes == (JOINED.format(3),)


def test_a_damaged_one_of_joined_recordings_is_left_out_with_a_note(tmp_path):
    one = encode("FLAC")
    recording = load(tmp_path, one + one[:30] + one)
    assert seconds(recording) == 4.0
    assert recording.notes[0] == JOINED.format(3)
    assert recording.notes[1].startswith("recording 2 of 3 is left out (not audio, or damaged")
    (tmp_path / "none").write_bytes(2 * one[:30])
    with pytest.raises(AudioError, match="none: not audio, or damaged: none of 2 recordings"):
        audio.load(tmp_path / "none")


def test_the_maximum_holds_for_joined_recordings_together(tmp_path):
    (tmp_path / "clip").write_bytes(3 * encode("FLAC"))
    assert len(audio.load(tmp_path / "clip", max_seconds=6.0).waveform) == 6 * RATE_HZ
    with pytest.raises(AudioError, match=r"too long: 6\.0 s or more, the maximum is 5\.9 s"):
        audio.load(tmp_path / "clip", max_seconds=5.9)


def test_a_file_of_nothing_but_headers_is_refused(tmp_path):
    (tmp_path / "clip").write_bytes(encode("FLAC")[:42] * 2000)
    with pytest.raises(AudioError, match="clip: more than 1000 recordings follow each other"):
        audio.load(tmp_path / "clip")


def test_a_recording_of_an_impossible_rate_is_left_out_with_a_note(tmp_path):
    slow = encode("WAV", rate_hz=100)
    recording = load(tmp_path, encode("WAV") + slow + encode("WAV"))
    assert seconds(recording) == 4.0
    assert (
        recording.notes[1]
        == "recording 2 of 3 is left out (sample rate 100 Hz: the limits are 4000 and 768000 Hz)"
    )


def test_what_looks_like_a_header_in_an_only_recording_does_not_split_it(tmp_path):
    """FFmpeg writes the index of an MP4 last; its media data may contain the bytes of a file type."""
    content = encode_with_ffmpeg("mp4", "aac")
    start = content.index(b"mdat") + 4
    assert start < content.index(b"moov")
    lookalike = bytes.fromhex("0000001c") + b"ftypisom" + bytes(16)
    patched = content[:start] + lookalike + content[start + len(lookalike) :]
    recording = load(tmp_path, patched)
    assert seconds(recording) == pytest.approx(2.0, abs=0.25)


@pytest.mark.parametrize("container", ["WAV", "AIFF", "AU"])
def test_samples_that_the_header_does_not_count_are_noted(container, tmp_path):
    content = encode(container)
    shorter = encode(container, samples=SPEECH[: RATE_HZ // 2])
    header = len(shorter) - RATE_HZ  # half a second of 16 bits
    recording = load(tmp_path, shorter[:header] + content[header:])
    assert seconds(recording) == 0.5
    assert recording.notes == (f"{3 * RATE_HZ} bytes after the 0.50 s that its header states are not used",)


def test_chunks_after_the_samples_are_no_finding(tmp_path):
    comment = b"LIST" + (5000).to_bytes(4, "little") + bytes(5000)
    assert load(tmp_path, encode("WAV") + comment).notes == ()


def test_parts_with_different_rates_are_resampled_one_by_one(tmp_path):
    parts = [encode("OGG", samples=np.repeat(SPEECH, 2, axis=1)), encode("OGG", rate_hz=24000)]  # 2 s, 1.33 s
    assert seconds(load(tmp_path, b"".join(parts))) == pytest.approx(2 + 4 / 3, abs=0.1)


def test_a_damaged_stream_of_a_chain_is_left_out_with_a_note(tmp_path):
    one = encode("OGG")
    damaged = bytearray(one)
    damaged[60:4000] = bytes(3940)  # the headers of the codec
    recording = load(tmp_path, one + bytes(damaged) + one)
    assert seconds(recording) == pytest.approx(4.0, abs=0.1)
    assert recording.notes[0].startswith("stream 2 of 3 is left out")


def test_mp3_with_a_header_that_states_more_frames_is_used_with_a_note(tmp_path):
    content = encode_with_ffmpeg("mp3", "libmp3lame", seconds=6, rate_hz=24000)
    recording = load(tmp_path, content[: len(content) // 2])
    assert seconds(recording) == pytest.approx(3.0, abs=0.3)
    assert recording.notes[0].startswith("its header states 6.0")


def test_damaged_packets_are_left_out_with_a_note(tmp_path):
    content = bytearray(encode_with_ffmpeg("ogg", "libopus", rate_hz=48000, seconds=8))
    middle = len(content) // 2
    content[middle : middle + 300] = bytes(300)
    recording = load(tmp_path, bytes(content))
    assert seconds(recording) > 6


def test_load_stops_as_soon_as_the_maximum_is_exceeded(tmp_path):
    content = encode_with_ffmpeg("mp3", "libmp3lame", rate_hz=24000)
    (tmp_path / "clip").write_bytes(content * 20)
    with pytest.raises(AudioError, match=r"clip: too long: 3\.\d s or more, the maximum is 3 s$"):
        audio.load(tmp_path / "clip", max_seconds=3)


def test_header_of_zeros_is_answered_without_walking_all_chunks(tmp_path):
    header = bytearray(encode("WAV")[:44])
    header[40:44] = bytes(4)
    (tmp_path / "clip").write_bytes(bytes(header) + bytes(20_000_000))
    with mock.patch.object(decoders, "data_size", wraps=decoders.data_size) as walk:
        with pytest.raises(AudioError, match="clip: silent"):
            audio.load(tmp_path / "clip")
        assert walk.call_count <= 2


@pytest.mark.parametrize(
    "content", [b"\xff\xfb" + bytes(3000), b"ID3" + bytes(3000), b"OggS" + bytes(3000)], ids=len
)
def test_content_that_only_begins_as_audio_is_refused(content, tmp_path):
    with pytest.raises(
        AudioError, match=r"clip: not audio, or damaged \(FFmpeg .*; libsndfile .*\); convert it to WAV"
    ):
        load(tmp_path, content)


def test_playlist_opens_no_other_file(tmp_path):
    (tmp_path / "secret.wav").write_bytes(encode("WAV"))
    playlists = (
        f"ffconcat version 1.0\nfile '{tmp_path}/secret.wav'\n",
        f"#EXTM3U\n#EXT-X-TARGETDURATION:2\n#EXTINF:2,\n{tmp_path}/secret.wav\n#EXT-X-ENDLIST\n",
    )
    for playlist in playlists:
        with pytest.raises(AudioError, match="not audio, or damaged"):
            load(tmp_path, playlist.encode())


def test_errors_print_nothing(tmp_path):
    content = bytearray(encode_with_ffmpeg("mp4", "aac", rate_hz=44100))
    for name, damaged in (
        ("a", content[:3000]),
        ("b", content[-3000:]),
        ("c", content[:200] + content[2000:]),
    ):
        (tmp_path / name).write_bytes(damaged)
    program = """
import sys
from makermark.foundation import audio
from makermark.foundation.errors import AudioError
for path in sys.argv[1:]:
    try:
        audio.load(path)
    except AudioError:
        pass
"""
    files = [str(tmp_path / name) for name in "abc"]
    result = subprocess.run(
        [sys.executable, "-c", program, *files], capture_output=True, text=True, check=True
    )
    assert (result.stdout, result.stderr) == ("", "")


def test_without_pyav_the_remedy_is_named(tmp_path):
    with mock.patch.dict(sys.modules, {"av": None}):
        with pytest.raises(AudioError, match="FFmpeg is not installed: pip install av"):
            load(tmp_path, encode_with_ffmpeg("mp4", "aac"))
        assert seconds(load(tmp_path, encode("FLAC"))) == 2.0
        recording = load(tmp_path, encode("OGG"))
        assert recording.notes[0].startswith(
            "decoded without FFmpeg (FFmpeg is not installed: pip install av)"
        )
