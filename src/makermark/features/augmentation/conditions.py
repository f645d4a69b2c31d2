"""Registry of the conditions of the robustness test. Codecs are real; rooms and devices are simulated.

Axes: T samples.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import numpy as np

from makermark.features.augmentation.bandwidth import low_pass, resample_roundtrip, telephone
from makermark.features.augmentation.base import AugmentationContext, Condition, check_packages, identity
from makermark.features.augmentation.codecs import codec_roundtrip
from makermark.features.augmentation.levels import (
    clip_peaks,
    gain,
    normalise_speech_level,
    remove_pauses,
    trim_silence,
)
from makermark.features.augmentation.noise import add_noise
from makermark.features.augmentation.reverberation import HALL, ROOM, replay, reverberate
from makermark.foundation.audio import Samples
from makermark.foundation.errors import ParamsError

CLEAN, SHORTCUT = "clean", "shortcut"


def _remove_shortcuts(waveform: Samples, context: AugmentationContext) -> Samples:
    """Remove pauses, the band above 4 kHz, and level differences."""
    without_pauses = remove_pauses(waveform, context)
    return normalise_speech_level(low_pass(4000)(without_pauses, context), context)


CONDITIONS: dict[str, Condition] = {
    CLEAN: Condition("as it is", "the file itself", identity),
    "telephone": Condition("codec", "300-3400 Hz at 8 kHz, not coded", telephone),
    "mulaw": Condition("codec", "G.711 mu-law, 8 kHz, 64 kbit/s", codec_roundtrip("mulaw")),
    "amr-12.2": Condition("codec", "AMR narrowband, 12.2 kbit/s", codec_roundtrip("amr", 12200)),
    "amr-4.75": Condition("codec", "AMR narrowband, 4.75 kbit/s", codec_roundtrip("amr", 4750)),
    "g722": Condition("codec", "G.722 wideband telephony, 64 kbit/s", codec_roundtrip("g722")),
    "g726-16": Condition("codec", "G.726 ADPCM, 8 kHz, 16 kbit/s", codec_roundtrip("g726", 16000)),
    "mp3-64": Condition("codec", "MP3 (LAME), 64 kbit/s", codec_roundtrip("mp3", 64000)),
    "mp3-32": Condition("codec", "MP3 (LAME), 32 kbit/s", codec_roundtrip("mp3", 32000)),
    "mp3-16": Condition("codec", "MP3 (LAME), 16 kbit/s", codec_roundtrip("mp3", 16000)),
    "opus-24": Condition("codec", "Opus, 24 kbit/s", codec_roundtrip("opus", 24000)),
    "opus-12": Condition("codec", "Opus, 12 kbit/s", codec_roundtrip("opus", 12000)),
    "opus-6": Condition("codec", "Opus, 6 kbit/s", codec_roundtrip("opus", 6000)),
    "aac-32": Condition("codec", "AAC, 32 kbit/s", codec_roundtrip("aac", 32000)),
    "white-20": Condition("noise", "white noise, 20 dB SNR", add_noise("white", 20)),
    "white-10": Condition("noise", "white noise, 10 dB SNR", add_noise("white", 10)),
    "white-0": Condition("noise", "white noise, 0 dB SNR", add_noise("white", 0)),
    "shaped-20": Condition("noise", "speech-shaped noise, 20 dB SNR", add_noise("speech-shaped", 20)),
    "shaped-10": Condition("noise", "speech-shaped noise, 10 dB SNR", add_noise("speech-shaped", 10)),
    "shaped-0": Condition("noise", "speech-shaped noise, 0 dB SNR", add_noise("speech-shaped", 0)),
    "babble-20": Condition("noise", "six other utterances of the split, 20 dB SNR", add_noise("babble", 20)),
    "babble-10": Condition("noise", "six other utterances of the split, 10 dB SNR", add_noise("babble", 10)),
    "babble-0": Condition("noise", "six other utterances of the split, 0 dB SNR", add_noise("babble", 0)),
    "room": Condition("room", "a room, reverberation time 0.2-0.5 s", reverberate(ROOM)),
    "hall": Condition("room", "a hall, reverberation time 0.8-1.2 s", reverberate(HALL)),
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
    "by-8k": Condition("rate and level", "resampled to 8 kHz and back", resample_roundtrip(8000)),
    "by-22k": Condition("rate and level", "resampled to 22.05 kHz and back", resample_roundtrip(22050)),
    "by-44k": Condition("rate and level", "resampled to 44.1 kHz and back", resample_roundtrip(44100)),
    "quiet": Condition("rate and level", "20 dB less, in 16 bits", gain(-20)),
    "clipped": Condition("rate and level", "peak 6 dB above full scale, cut off", clip_peaks(6)),
    "trimmed": Condition(
        "rate and level", "silence before and after cut", trim_silence, changes_duration=True
    ),
    "no-silence": Condition(SHORTCUT, "all silence cut, pauses too", remove_pauses, changes_duration=True),
    "band-4k": Condition(SHORTCUT, "nothing above 4 kHz", low_pass(4000)),
    "loudness": Condition(SHORTCUT, "speech of every file at -26 dBFS", normalise_speech_level),
    "all-equal": Condition(SHORTCUT, "these three together", _remove_shortcuts, changes_duration=True),
}


def apply_condition(
    name: str, waveform: Samples, *, rng: np.random.Generator, voices: Sequence[Samples] = ()
) -> Samples:
    """Return the waveform (T,) under CONDITIONS[name]; `voices` are other utterances for babble noise."""
    augmented = CONDITIONS[name].transform(waveform, AugmentationContext(rng, voices))
    return np.ascontiguousarray(augmented, dtype=np.float32)


def check_conditions(names: Iterable[str]) -> None:
    """Raise ParamsError for an unknown condition, or if the packages for codecs and rooms are not installed."""
    for name in names:
        if name not in CONDITIONS:
            raise ParamsError(f"unknown condition {name!r}; it must be one of {list(CONDITIONS)}")
    check_packages()
