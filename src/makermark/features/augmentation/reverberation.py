"""Reverberation and replay in simulated rooms: pyroomacoustics' image-source method (Scheibler et al. 2018).

A room is a box with a talker and a microphone at random positions. The absorption of its walls follows from the
reverberation time (Sabine).

Axes: T samples.
"""

from __future__ import annotations

from functools import lru_cache
from typing import NamedTuple

import numpy as np

from makermark.features.augmentation.base import (
    SAMPLE_RATE_HZ,
    AugmentationContext,
    Transform,
    match_level,
)
from makermark.features.augmentation.noise import mix_at_snr, white_noise
from makermark.foundation.audio import Samples


class RoomKind(NamedTuple):
    """Ranges of room sizes (length, width, height in metres) and of reverberation times."""

    smallest_m: tuple[float, float, float]
    largest_m: tuple[float, float, float]
    rt60_s: tuple[float, float]


ROOM = RoomKind((3.5, 3.0, 2.5), (8.0, 6.0, 3.6), (0.2, 0.5))
HALL = RoomKind((10.0, 8.0, 4.0), (18.0, 14.0, 8.0), (0.8, 1.2))
ROOMS_PER_KIND = 6  # an utterance is assigned to one of them at random
MIN_WALL_DISTANCE_M = 0.5
MIN_TALKER_DISTANCE_M = 0.3
MICROPHONE_BAND_HZ = (80.0, 7400.0)
MICROPHONE_SNR_DB = 35.0
DEVICE_RIPPLE_DB = 4.0
DEVICE_TAPS = 511


def reverberate(kind: RoomKind, *, first: int = 0, count: int = ROOMS_PER_KIND) -> Transform:
    """Return a transform that places speech in one of `count` rooms of a kind, numbered from `first`.

    The time of the direct sound and the overall level stay.
    """

    def transform(waveform: Samples, context: AugmentationContext) -> Samples:
        number = first + int(context.rng.integers(count))
        return match_level(_convolve_room(waveform, number, kind), waveform)

    return transform


def replay(*, speaker_hz: tuple[float, float], drive: float) -> Transform:
    """Return a transform that plays speech through a loudspeaker of this band in a room and records it.

    The chain: device response of the loudspeaker, soft saturation (tanh of `drive` times the waveform at peak 1),
    room, device response of the microphone, and microphone noise at an SNR of 35 dB.
    """

    def transform(waveform: Samples, context: AugmentationContext) -> Samples:
        played = device_response(waveform, speaker_hz, context.rng)
        peak = max(float(np.abs(played).max()), 1e-12)
        played = np.tanh(drive * played / peak).astype(np.float32)
        reverberant = _convolve_room(played, int(context.rng.integers(ROOMS_PER_KIND)), ROOM)
        recorded = device_response(reverberant, MICROPHONE_BAND_HZ, context.rng)
        noise = white_noise(len(recorded), recorded, context)
        return match_level(mix_at_snr(recorded, noise, MICROPHONE_SNR_DB), waveform)

    return transform


def device_response(waveform: Samples, band_hz: tuple[float, float], rng: np.random.Generator) -> Samples:
    """Apply a random device response: flat within DEVICE_RIPPLE_DB in the band, -30 dB an octave outside. No delay."""
    from scipy.signal import fftconvolve, firwin2  # here, as in noise.py

    low, high = band_hz
    band_points = np.geomspace(low, high, 10)
    nyquist = SAMPLE_RATE_HZ / 2
    above = min(2 * high, nyquist - 1)
    points_hz = [0.0, low / 2, *band_points, above, nyquist]
    ripple_db = rng.uniform(-DEVICE_RIPPLE_DB, DEVICE_RIPPLE_DB, len(band_points))
    gains_db = [-60.0, -30.0, *ripple_db, -30.0, -30.0]
    taps = firwin2(DEVICE_TAPS, points_hz, 10 ** (np.array(gains_db) / 20), fs=SAMPLE_RATE_HZ)
    return fftconvolve(waveform, taps)[DEVICE_TAPS // 2 :][: len(waveform)].astype(np.float32)


def _convolve_room(waveform: Samples, number: int, kind: RoomKind) -> Samples:
    from scipy.signal import fftconvolve

    response, direct = room_impulse_response(number, kind)
    return fftconvolve(waveform, response)[direct:][: len(waveform)].astype(np.float32)


@lru_cache(maxsize=256)
def room_impulse_response(number: int, kind: RoomKind) -> tuple[Samples, int]:
    """Return the impulse response of room `number`, and the sample of the direct sound in it."""
    import pyroomacoustics

    rng = np.random.default_rng(number)
    size, talker, microphone = draw_room(kind, rng)
    absorption, order = pyroomacoustics.inverse_sabine(float(rng.uniform(*kind.rt60_s)), size)
    box = pyroomacoustics.ShoeBox(
        size, fs=SAMPLE_RATE_HZ, materials=pyroomacoustics.Material(absorption), max_order=order
    )
    box.add_source(talker)
    box.add_microphone(microphone)
    box.compute_rir()
    distance_m = np.linalg.norm(np.subtract(talker, microphone))
    travel_samples = distance_m / pyroomacoustics.constants.get("c") * SAMPLE_RATE_HZ
    filter_delay = pyroomacoustics.constants.get("frac_delay_length") // 2  # of its fractional delay filters
    return box.rir[0][0].astype(np.float32), round(travel_samples) + filter_delay


def draw_room(kind: RoomKind, rng: np.random.Generator) -> tuple[list[float], list[float], list[float]]:
    """Draw the size of the box and the positions of talker and microphone, in metres.

    Both are at least MIN_WALL_DISTANCE_M from every wall and MIN_TALKER_DISTANCE_M apart.
    """
    size = rng.uniform(kind.smallest_m, kind.largest_m)
    while True:
        talker, microphone = rng.uniform(MIN_WALL_DISTANCE_M, size - MIN_WALL_DISTANCE_M, (2, 3))
        if np.linalg.norm(talker - microphone) >= MIN_TALKER_DISTANCE_M:
            return size.tolist(), talker.tolist(), microphone.tolist()
