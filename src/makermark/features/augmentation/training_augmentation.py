"""Random augmentation for training: kinds of augmentation, drawn anew for every utterance and copy.

Left out of training, so that the robustness test has unseen conditions: G.722, G.726, AAC, the telephone band without
coding (training has other bands, before G.711 and AMR), babble, replay, noise below 5 dB, halls, and the rooms of the
conditions (training uses others of that kind).
"""

from __future__ import annotations

import zlib
from collections.abc import Sequence
from typing import Any

import numpy as np

from makermark.features.augmentation.bandwidth import telephone_band
from makermark.features.augmentation.base import SAMPLE_RATE_HZ, AugmentationContext, Transform
from makermark.features.augmentation.codecs import AMR_BITS_PER_SECOND, encode_decode
from makermark.features.augmentation.noise import add_noise
from makermark.features.augmentation.reverberation import ROOM, reverberate
from makermark.features.front_end import Features, FrontEnd, Scalar
from makermark.foundation.audio import Samples
from makermark.foundation.errors import ParamsError

AUGMENTATION_VERSION = 2  # increase when the same kind and copy would give another waveform
MP3_BITS_PER_SECOND = (16000, 24000, 32000, 48000, 64000)
OPUS_BITS_PER_SECOND = (6000, 8000, 12000, 16000, 24000)
NARROWBAND = ("mulaw", "amr")
HANDSET_SHARE = 0.5
LOWEST_HZ, HIGHEST_HZ = (150.0, 400.0), (3200.0, 3700.0)  # edges of the telephone bands
SNR_DB = (5.0, 25.0)
ROOMS = 24
FIRST_ROOM = 1000  # beyond the room numbers of the conditions


def random_codec(waveform: Samples, context: AugmentationContext) -> Samples:
    """Encode and decode with G.711, AMR, MP3 or Opus, with equal probability, at a random bit rate.

    Half of the speech for G.711 and AMR passes a random telephone band first, as in a handset.
    """
    bit_rates = {
        "mulaw": (0,),
        "amr": AMR_BITS_PER_SECOND,
        "mp3": MP3_BITS_PER_SECOND,
        "opus": OPUS_BITS_PER_SECOND,
    }
    name = str(context.rng.choice(list(bit_rates)))
    if name in NARROWBAND and context.rng.random() < HANDSET_SHARE:
        band_hz = float(context.rng.uniform(*LOWEST_HZ)), float(context.rng.uniform(*HIGHEST_HZ))
        waveform = telephone_band(waveform, band_hz)
    return encode_decode(waveform, name, int(context.rng.choice(bit_rates[name])))


def random_noise(waveform: Samples, context: AugmentationContext) -> Samples:
    """Add white or speech-shaped noise at an SNR of 5 to 25 dB."""
    source = str(context.rng.choice(["white", "speech-shaped"]))
    return add_noise(source, float(context.rng.uniform(*SNR_DB)))(waveform, context)


AUGMENTATIONS: dict[str, Transform] = {
    "codec": random_codec,
    "noise": random_noise,
    "rir": reverberate(ROOM, first=FIRST_ROOM, count=ROOMS),
}
AUGMENT_CHOICES = ("none", *AUGMENTATIONS, "all")


def augmentation_kinds(augment: str) -> tuple[str, ...]:
    """Return the keys of AUGMENTATIONS that the setting `augment` selects. Raises ParamsError for an unknown one."""
    if augment not in AUGMENT_CHOICES:
        raise ParamsError(f"params.yaml: augment is {augment!r}; it must be one of {list(AUGMENT_CHOICES)}")
    return {"none": (), "all": tuple(AUGMENTATIONS)}.get(augment, (augment,))


class AugmentedFrontEnd:
    """`front_end` applied to waveforms augmented with AUGMENTATIONS[kind].

    The random generator is seeded with the number of the copy and the samples, so the features of an utterance depend
    on nothing else, and copies with different numbers differ. Features are as long as those of `front_end`.
    """

    def __init__(self, front_end: FrontEnd, *, kind: str, copy: int) -> None:
        """Raises ParamsError if the sample rate of the front end is not that of the augmentations."""
        if front_end.sample_rate_hz != SAMPLE_RATE_HZ:
            raise ParamsError(
                f"augment: {kind}: front end {front_end.name} takes {front_end.sample_rate_hz} Hz, augmentation "
                f"{SAMPLE_RATE_HZ} Hz; set augment: none, or that sample rate"
            )
        self._front_end, self._kind, self._copy = front_end, kind, copy
        self.name = f"{front_end.name}-{kind}-{copy}"
        self.width = front_end.width
        self.dtype: np.dtype[Any] = front_end.dtype
        self.frames_per_second = front_end.frames_per_second
        self.sample_rate_hz = front_end.sample_rate_hz
        self.min_samples = front_end.min_samples
        self.chunk_samples = front_end.chunk_samples

    def parameters(self) -> dict[str, Scalar]:
        return {
            **self._front_end.parameters(),
            "augment": self._kind,
            "augment_copy": self._copy,
            "augment_recipe": AUGMENTATION_VERSION,
        }

    def libraries(self) -> Sequence[str]:
        return (*self._front_end.libraries(), "av", "pyroomacoustics", "scipy")

    def transform(self, waveforms: Sequence[Samples]) -> list[Features]:
        return self._front_end.transform([self._augment(waveform) for waveform in waveforms])

    def _augment(self, waveform: Samples) -> Samples:
        rng = np.random.default_rng([self._copy, zlib.crc32(np.ascontiguousarray(waveform).data)])
        return AUGMENTATIONS[self._kind](waveform, AugmentationContext(rng))
