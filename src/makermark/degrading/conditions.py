"""The conditions by name. Codecs are the real ones; rooms and devices are simulated.

Legend of axes: T samples.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import numpy as np

from makermark.audio import Samples
from makermark.degrading.bands import below, by_way_of, telephone
from makermark.degrading.base import Condition, Draw, check_packages, unchanged
from makermark.degrading.codecs import coded
from makermark.degrading.levels import clipped_by, equally_loud, louder_by, trimmed, without_pauses
from makermark.degrading.noise import with_noise
from makermark.degrading.rooms import HALL, ROOM, replay, room
from makermark.errors import ParamsError

CLEAN, SHORTCUT = "clean", "shortcut"


def _equalised(waveform: Samples, draw: Draw) -> Samples:
    return equally_loud(below(4000)(without_pauses(waveform, draw), draw), draw)


CONDITIONS: dict[str, Condition] = {
    CLEAN: Condition("as it is", "the file itself", unchanged),
    "telephone": Condition("codec", "300-3400 Hz at 8 kHz, not coded", telephone),
    "mulaw": Condition("codec", "G.711 mu-law, 8 kHz, 64 kbit/s", coded("mulaw")),
    "amr-12.2": Condition("codec", "AMR narrowband, 12.2 kbit/s", coded("amr", 12200)),
    "amr-4.75": Condition("codec", "AMR narrowband, 4.75 kbit/s", coded("amr", 4750)),
    "g722": Condition("codec", "G.722 wideband telephony, 64 kbit/s", coded("g722")),
    "g726-16": Condition("codec", "G.726 ADPCM, 8 kHz, 16 kbit/s", coded("g726", 16000)),
    "mp3-64": Condition("codec", "MP3 (LAME), 64 kbit/s", coded("mp3", 64000)),
    "mp3-32": Condition("codec", "MP3 (LAME), 32 kbit/s", coded("mp3", 32000)),
    "mp3-16": Condition("codec", "MP3 (LAME), 16 kbit/s", coded("mp3", 16000)),
    "opus-24": Condition("codec", "Opus, 24 kbit/s", coded("opus", 24000)),
    "opus-12": Condition("codec", "Opus, 12 kbit/s", coded("opus", 12000)),
    "opus-6": Condition("codec", "Opus, 6 kbit/s", coded("opus", 6000)),
    "aac-32": Condition("codec", "AAC, 32 kbit/s", coded("aac", 32000)),
    "white-20": Condition("noise", "white noise, 20 dB SNR", with_noise("white", 20)),
    "white-10": Condition("noise", "white noise, 10 dB SNR", with_noise("white", 10)),
    "white-0": Condition("noise", "white noise, 0 dB SNR", with_noise("white", 0)),
    "shaped-20": Condition("noise", "speech-shaped noise, 20 dB SNR", with_noise("speech-shaped", 20)),
    "shaped-10": Condition("noise", "speech-shaped noise, 10 dB SNR", with_noise("speech-shaped", 10)),
    "shaped-0": Condition("noise", "speech-shaped noise, 0 dB SNR", with_noise("speech-shaped", 0)),
    "babble-20": Condition("noise", "six other utterances of the split, 20 dB SNR", with_noise("babble", 20)),
    "babble-10": Condition("noise", "six other utterances of the split, 10 dB SNR", with_noise("babble", 10)),
    "babble-0": Condition("noise", "six other utterances of the split, 0 dB SNR", with_noise("babble", 0)),
    "room": Condition("room", "a room, reverberation time 0.2-0.5 s", room(ROOM)),
    "hall": Condition("room", "a hall, reverberation time 0.8-1.2 s", room(HALL)),
    "replay": Condition(
        "room",
        "loudspeaker 100-7000 Hz, room, microphone",
        replay(speaker_hz=(100.0, 7000.0), drive=0.5),
    ),
    "replay-phone": Condition(
        "room",
        "a phone's loudspeaker 500-6000 Hz, overdriven; room, microphone",
        replay(speaker_hz=(500.0, 6000.0), drive=2.0),
    ),
    "by-8k": Condition("rate and level", "resampled to 8 kHz and back", by_way_of(8000)),
    "by-22k": Condition("rate and level", "resampled to 22.05 kHz and back", by_way_of(22050)),
    "by-44k": Condition("rate and level", "resampled to 44.1 kHz and back", by_way_of(44100)),
    "quiet": Condition("rate and level", "20 dB less, in 16 bits", louder_by(-20)),
    "clipped": Condition("rate and level", "peak 6 dB above full scale, cut off", clipped_by(6)),
    "trimmed": Condition("rate and level", "silence before and after cut", trimmed, cuts=True),
    "no-silence": Condition(SHORTCUT, "all silence cut, pauses too", without_pauses, cuts=True),
    "band-4k": Condition(SHORTCUT, "nothing above 4 kHz", below(4000)),
    "loudness": Condition(SHORTCUT, "speech of every file at -26 dBFS", equally_loud),
    "all-equal": Condition(SHORTCUT, "these three together", _equalised, cuts=True),
}


def degrade(
    name: str, waveform: Samples, *, rng: np.random.Generator, voices: Sequence[Samples] = ()
) -> Samples:
    """The waveform (T,) under the condition `name`; `voices` are other utterances, for babble."""
    changed = CONDITIONS[name].change(waveform, Draw(rng, voices))
    return np.ascontiguousarray(changed, dtype=np.float32)


def check_conditions(names: Iterable[str]) -> None:
    """Raise ParamsError for a name that is no condition, or where the packages of codecs and rooms are absent."""
    for name in names:
        if name not in CONDITIONS:
            raise ParamsError(f"unknown condition {name!r}; it is one of {list(CONDITIONS)}")
    check_packages()
