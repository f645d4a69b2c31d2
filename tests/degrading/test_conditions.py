"""Every condition keeps one contract; and each against what is known of it from elsewhere."""

import importlib.util
from fractions import Fraction

import numpy as np
import pytest
import soxr
from scipy.signal import welch

from makermark.degrading import augmenting, base, codecs, levels, noise, rooms
from makermark.degrading.augmenting import AUGMENTS, CHANGES, kinds_of
from makermark.degrading.base import Draw
from makermark.degrading.conditions import CONDITIONS, check_conditions, degrade
from makermark.errors import ParamsError
from tests_support import tone

RATE = 16000
ONE_ROOM = rooms.Kind((3.5, 3.0, 2.5), (4.5, 4.0, 3.0), (0.2, 0.3))  # small and dry: quick to make


def speech(seed=0, seconds=1.2):
    """Harmonics under 4 kHz that come and go, over faint noise: (T,) float32."""
    rng = np.random.default_rng(seed)
    voiced = np.resize(tone(5.0, rng), int(seconds * RATE))
    syllables = 0.6 + 0.4 * np.sin(2 * np.pi * 3 * np.arange(len(voiced)) / RATE)
    return (voiced * syllables).astype(np.float32)


def draw(seed=0, voices=()):
    return Draw(np.random.default_rng(seed), voices)


def power(waveform):
    return float(np.mean(np.square(waveform.astype(np.float64))))


def response_db(change, low_hz, high_hz):
    """Lowest and highest gain between two frequencies, measured with ten seconds of white noise."""
    given = (0.05 * np.random.default_rng(0).standard_normal(10 * RATE)).astype(np.float32)
    frequencies, before = welch(given, RATE, nperseg=1024)
    _, after = welch(change(given, draw()), RATE, nperseg=1024)
    inside = (frequencies >= low_hz) & (frequencies <= high_hz)
    gains = 10 * np.log10(np.maximum(after[inside], 1e-20) / before[inside])
    return gains.min(), gains.max()


def lag(given, changed):
    """By how many samples `changed` comes late, and the correlation there."""
    correlation = np.correlate(changed.astype(np.float64), given.astype(np.float64), mode="full")
    near = correlation[len(given) - 1 - 75 : len(given) + 75]  # farther lies another period of the pitch
    place = int(np.argmax(near)) + len(given) - 1 - 75
    return place - len(given) + 1, correlation[place] / len(given) / np.sqrt(power(given) * power(changed))


@pytest.mark.parametrize("name", CONDITIONS)
def test_every_condition_gives_sound_that_its_seed_decides(name):
    given, voices = speech(), [speech(1), speech(2, 0.7)]
    before = given.copy()
    one, again = (degrade(name, given, rng=np.random.default_rng(5), voices=voices) for _ in range(2))
    np.testing.assert_array_equal(one, again)
    np.testing.assert_array_equal(given, before)
    assert one.dtype == np.float32
    assert np.isfinite(one).all()
    assert np.abs(one).max() <= (1.5 if CONDITIONS[name].group == "codec" else 1)
    assert len(one) == len(given) or CONDITIONS[name].cuts
    assert power(one) > 1e-3 * power(given)
    if CONDITIONS[name].group in ("noise", "room"):
        assert not np.array_equal(one, degrade(name, given, rng=np.random.default_rng(6), voices=voices))


def test_what_is_no_condition_is_refused_in_one_line_with_the_choices():
    with pytest.raises(ParamsError, match=r"unknown condition 'mp4'; it is one of \['clean', ") as refused:
        check_conditions(["mulaw", "mp4"])
    assert "\n" not in str(refused.value)


def test_absent_packages_are_named_with_the_remedy(monkeypatch):
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None if name == "av" else object())
    with pytest.raises(ParamsError, match=r"^av not installed.*pip install -e '.\[robustness\]'"):
        check_conditions(["mulaw"])


@pytest.mark.parametrize("source", noise.SOURCES)
@pytest.mark.parametrize("snr_db", [20, 0])
def test_the_signal_to_noise_ratio_is_as_stated(source, snr_db):
    given = 0.1 * speech()
    mixed = noise.with_noise(source, snr_db)(given, draw(voices=[speech(1)]))
    assert 10 * np.log10(power(given) / power(mixed - given)) == pytest.approx(snr_db, abs=0.01)


def test_noise_is_turned_down_with_the_speech_before_it_clips():
    loud = speech() * (0.95 / np.abs(speech()).max())
    mixed = noise.with_noise("white", 0)(loud, draw())
    share = np.dot(mixed, loud) / np.dot(loud, loud)
    assert np.abs(mixed).max() == pytest.approx(base.PEAK)
    assert power(share * loud) / power(mixed - share * loud) == pytest.approx(1, rel=0.1)


def test_speech_shaped_noise_has_the_spectrum_of_the_speech_and_white_noise_none():
    given = speech(seconds=8)
    _, wanted = welch(given, RATE, nperseg=512)
    made = {name: noise.SOURCES[name](len(given), given, draw()) for name in ("speech-shaped", "white")}
    db = {name: 10 * np.log10(welch(samples, RATE, nperseg=512)[1]) for name, samples in made.items()}
    assert np.corrcoef(db["speech-shaped"], 10 * np.log10(wanted))[0, 1] > 0.99
    assert np.ptp(db["white"][2:-2]) < 4


def test_babble_is_made_of_the_other_utterances():
    whistle = np.sin(2 * np.pi * 1000 * np.arange(RATE) / RATE).astype(np.float32)
    made = noise.babble(2 * RATE, speech(), draw(voices=[whistle]))
    frequencies, found = welch(made, RATE, nperseg=4096)
    assert frequencies[found.argmax()] == pytest.approx(1000, abs=8)
    with pytest.raises(ValueError, match="needs other utterances"):
        noise.babble(RATE, speech(), draw())


def test_the_telephone_passes_300_to_3400_hz():
    change = CONDITIONS["telephone"].change
    lowest, highest = response_db(change, 400, 3200)
    assert -1 < lowest <= highest < 0.5
    assert response_db(change, 20, 150)[1] < -40
    assert response_db(change, 4000, 8000)[1] < -60


@pytest.mark.parametrize(("name", "edge_hz"), [("by-8k", 4000), ("band-4k", 4000)])
def test_nothing_is_left_above_the_band(name, edge_hz):
    change = CONDITIONS[name].change
    assert response_db(change, edge_hz + 150, 8000)[1] < -55
    lowest, highest = response_db(change, 100, edge_hz - 400)
    assert -0.3 < lowest <= highest < 0.3


@pytest.mark.parametrize("name", ["by-22k", "by-44k"])
def test_a_higher_rate_leaves_speech_as_it_was(name):
    given = speech()
    assert power(degrade(name, given, rng=np.random.default_rng(0)) - given) < 1e-3 * power(given)


def mu_law(samples):
    """Coded and decoded by ITU-T G.711, table 2a: 14 bits, eight segments of sixteen steps each."""
    whole = np.clip(np.round(samples * 32768), -32768, 32767).astype(int)
    magnitude = np.minimum(np.where(whole < 0, -whole, whole), 32635) + 132
    segment = np.floor(np.log2(magnitude)).astype(int) - 7
    step = magnitude >> (segment + 3) & 15
    decoded = ((2 * step + 33) << (segment + 2)) - 132
    return np.where(whole < 0, -decoded, decoded) / 32768


def test_mu_law_is_that_of_g711():
    narrow = soxr.resample(speech(), RATE, 8000, quality="HQ")
    found, rate_hz = codecs.decode(codecs.encode(speech(), codecs.CODECS["mulaw"], 0))
    expected, levels_of_it = mu_law(narrow), np.unique(mu_law(np.arange(-32768, 32768) / 32768))
    assert rate_hz == 8000
    assert len(levels_of_it) == 255  # 256 codes, two of which are zero
    place, wanted = np.searchsorted(levels_of_it, found), np.searchsorted(levels_of_it, expected)
    np.testing.assert_array_equal(levels_of_it[place], found)
    assert np.abs(place - wanted).max() <= 1  # FFmpeg decides by table, so that a tie may go to the neighbour
    assert (place == wanted).mean() > 0.85
    assert power(found - narrow) == pytest.approx(power(expected - narrow), rel=0.1)


@pytest.mark.parametrize(
    ("name", "bits", "correlation"),
    [
        ("mulaw", 0, 0.98), ("g722", 0, 0.98), ("g726", 16000, 0.9), ("amr", 12200, 0.4), ("amr", 4750, 0.4),
        ("mp3", 64000, 0.98), ("mp3", 16000, 0.9), ("opus", 24000, 0.95), ("opus", 12000, 0.8), ("aac", 32000, 0.95),
    ],
)  # fmt: skip
def test_a_codec_changes_speech_but_neither_its_length_nor_its_time(name, bits, correlation):
    given = speech()
    changed = codecs.through(given, name, bits)
    late, alike = lag(given, changed)
    assert len(changed) == len(given)
    assert abs(late) <= 2  # an eighth of a millisecond
    assert correlation < alike < 1
    assert power(changed - given) > 1e-7


@pytest.mark.parametrize(("name", "bits"), [("mp3", 32000), ("opus", 12000), ("aac", 32000), ("g726", 16000)])
def test_a_file_has_the_size_that_its_rate_says(name, bits):
    seconds = 8
    size = len(codecs.encode(speech(seconds=seconds), codecs.CODECS[name], bits))
    assert size * 8 / seconds == pytest.approx(bits, rel=0.25)


def test_an_amr_file_has_the_frames_of_its_mode():
    file = codecs.encode(speech(seconds=1.0), codecs.CODECS["amr"], 12200)
    assert file.startswith(b"#!AMR\n")
    frames, rest = divmod(
        len(file) - 6, 32
    )  # RFC 4867: a byte that names the mode, 31 of speech, every 20 ms
    assert (frames, rest) == (51, 0)
    assert {file[6 + 32 * frame] for frame in range(frames)} == {0x3C}  # mode 7: 12.2 kbit/s
    assert codecs.AMR_BITS[7] == 12200
    samples, rate_hz = codecs.decode(file)
    assert Fraction(len(samples), rate_hz) == Fraction(51, 50)


def test_a_room_begins_with_the_direct_sound_and_dies_away_as_told():
    response, direct = rooms.impulse_response(3, ONE_ROOM)
    _, talker, microphone = rooms.places(ONE_ROOM, np.random.default_rng(3))
    metres = np.linalg.norm(np.subtract(talker, microphone))
    assert direct - 40 == pytest.approx(
        metres / 343 * RATE, abs=1
    )  # 40: half of a fractional delay of 81 taps
    assert np.abs(response[: direct - 42]).max(initial=0) < 0.05 * response.max()  # what its high-pass leaks
    assert np.abs(response[direct - 2 : direct + 3]).max() == pytest.approx(1 / metres, rel=0.5)
    left_db = 10 * np.log10(
        np.cumsum(response[::-1].astype(float) ** 2)[::-1] / (response.astype(float) ** 2).sum()
    )
    decay = [np.flatnonzero(left_db < db)[0] / RATE for db in (-5, -25)]
    assert 0.1 < 3 * (decay[1] - decay[0]) < 0.6  # a slope of 60 dB, from 20


def test_a_room_keeps_level_and_time():
    given = speech()
    heard = rooms.room(ONE_ROOM)(given, draw())
    assert power(heard) == pytest.approx(power(given), rel=0.01)
    click = np.zeros(RATE, dtype=np.float32)
    click[4000] = 0.5
    heard = rooms.room(ONE_ROOM, first=3, count=1)(click, draw())
    response, direct = rooms.impulse_response(3, ONE_ROOM)
    np.testing.assert_allclose(
        heard[4000:8000] / heard[4000], response[direct:][:4000] / response[direct], atol=1e-3
    )


def test_a_phone_plays_no_bass():
    given = (0.1 * np.random.default_rng(0).standard_normal(2 * RATE)).astype(np.float32)
    played = rooms.coloured(given, (500.0, 6000.0), np.random.default_rng(0))
    frequencies, before = welch(given, RATE, nperseg=512)
    gains = 10 * np.log10(welch(played, RATE, nperseg=512)[1] / before)
    assert gains[(frequencies > 20) & (frequencies < 200)].max() < -20
    inside = (frequencies > 700) & (frequencies < 5500)
    assert np.abs(gains[inside]).max() < rooms.RIPPLE_DB + 1.5
    assert lag(given, played)[0] == 0


def test_level_and_clipping_by_hand():
    given = np.array([0.5, -0.25, 1 / 32768, 0.0], dtype=np.float32)
    quiet = levels.louder_by(-20)(given, draw())
    np.testing.assert_array_equal(quiet * 32768, [1638, -819, 0, 0])
    np.testing.assert_allclose(
        levels.clipped_by(20 * np.log10(2))(given, draw()), [1, -1, 1 / 8192, 0], atol=1e-6
    )


def test_equal_loudness_is_that_of_the_speech_alone():
    given = np.concatenate(
        [np.zeros(8000, dtype=np.float32), 0.3 * np.sin(np.arange(16000) / 5).astype(np.float32)]
    )
    found = levels.equally_loud(given, draw())
    assert 10 * np.log10(power(found[8000:])) == pytest.approx(-26, abs=0.1)
    np.testing.assert_allclose(levels.equally_loud(0.01 * given, draw()), found, atol=1e-6)


def test_silence_is_cut_around_and_within():
    voiced = (0.3 * np.sin(np.arange(3200) / 5)).astype(np.float32)
    faint = (1e-4 * np.random.default_rng(0).standard_normal(1600)).astype(np.float32)
    given = np.concatenate([faint, voiced, faint, voiced, faint])
    np.testing.assert_array_equal(levels.trimmed(given, draw()), given[1600:9600])
    np.testing.assert_array_equal(levels.without_pauses(given, draw()), np.concatenate([voiced, voiced]))


@pytest.mark.parametrize("kind", CHANGES)
def test_what_training_hears_differs_from_draw_to_draw_and_keeps_time(kind, monkeypatch):
    monkeypatch.setitem(augmenting.CHANGES, "rir", rooms.room(ONE_ROOM, first=1000, count=3))
    given = speech(seconds=0.6)
    heard = [CHANGES[kind](given, draw(seed)) for seed in (0, 0, 1, 2)]
    np.testing.assert_array_equal(heard[0], heard[1])
    assert not np.array_equal(heard[0], heard[2])
    assert not np.array_equal(heard[2], heard[3])
    assert all(len(each) == len(given) for each in heard)


def test_training_meets_none_of_the_rooms_that_conditions_have():
    assert augmenting.FIRST_ROOM >= rooms.ROOMS


def test_kinds_of_augment_by_hand():
    assert [kinds_of(name) for name in AUGMENTS] == [
        (),
        ("codec",),
        ("noise",),
        ("rir",),
        ("codec", "noise", "rir"),
    ]
    with pytest.raises(ParamsError, match=r"augment is 'codecs'; it is one of \['none', 'codec'"):
        kinds_of("codecs")
