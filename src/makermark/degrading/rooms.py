"""Rooms, and speech replayed in them: image-source rooms by pyroomacoustics (Scheibler et al. 2018).

A room is a box with a talker and a microphone at random places; its walls absorb as much as the wanted reverberation
time needs (Sabine). Legend of axes: T samples.
"""

from __future__ import annotations

from functools import lru_cache
from typing import NamedTuple

import numpy as np
from scipy.signal import fftconvolve, firwin2

from makermark.audio import Samples
from makermark.degrading.base import RATE_HZ, Change, Draw, as_loud
from makermark.degrading.noise import mixed_at, white


class Kind(NamedTuple):
    """Between what sizes (length, width, height in metres) and reverberation times (seconds) rooms lie."""

    smallest_m: tuple[float, float, float]
    largest_m: tuple[float, float, float]
    rt60_s: tuple[float, float]


ROOM = Kind((3.5, 3.0, 2.5), (8.0, 6.0, 3.6), (0.2, 0.5))
HALL = Kind((10.0, 8.0, 4.0), (18.0, 14.0, 8.0), (0.8, 1.2))
ROOMS = 6  # of a kind, among which an utterance draws
FROM_WALL_M = 0.5
NEAREST_M = 0.3
RIPPLE_DB = 4.0
TAPS = 511


def room(kind: Kind, *, first: int = 0, count: int = ROOMS) -> Change:
    """Heard in one of `count` rooms of a kind, numbered from `first`.

    The direct sound keeps its time, and the whole its level."""

    def change(waveform: Samples, draw: Draw) -> Samples:
        number = first + int(draw.rng.integers(count))
        return as_loud(_in_room(waveform, number, kind), waveform)

    return change


def replay(*, speaker_hz: tuple[float, float], drive: float) -> Change:
    """Played by a loudspeaker of that band, in a room, and recorded: response with ripples, soft saturation (tanh, at
    `drive` times the peak), the room, a microphone's response and its noise 35 dB below."""

    def change(waveform: Samples, draw: Draw) -> Samples:
        played = coloured(waveform, speaker_hz, draw.rng)
        loudest = max(float(np.abs(played).max()), 1e-12)
        played = np.tanh(drive * played / loudest).astype(np.float32)
        heard = _in_room(played, int(draw.rng.integers(ROOMS)), ROOM)
        recorded = coloured(heard, (80.0, 7400.0), draw.rng)
        return as_loud(mixed_at(recorded, white(len(recorded), recorded, draw), 35.0), waveform)

    return change


def coloured(waveform: Samples, band_hz: tuple[float, float], rng: np.random.Generator) -> Samples:
    """Through a device: flat within RIPPLE_DB inside the band, an octave beyond it 30 dB less. No delay."""
    low, high = band_hz
    inside = np.geomspace(low, high, 10)
    top = RATE_HZ / 2
    above = min(2 * high, top - 1)
    points_hz = [0.0, low / 2, *inside, above, top]
    gains_db = [-60.0, -30.0, *rng.uniform(-RIPPLE_DB, RIPPLE_DB, len(inside)), -30.0, -30.0]
    taps = firwin2(TAPS, points_hz, 10 ** (np.array(gains_db) / 20), fs=RATE_HZ)
    return fftconvolve(waveform, taps)[TAPS // 2 :][: len(waveform)].astype(np.float32)


def _in_room(waveform: Samples, number: int, kind: Kind) -> Samples:
    response, direct = impulse_response(number, kind)
    return fftconvolve(waveform, response)[direct:][: len(waveform)].astype(np.float32)


@lru_cache(maxsize=256)
def impulse_response(number: int, kind: Kind) -> tuple[Samples, int]:
    """The response of a room, and the sample at which the direct sound arrives; `number` decides everything."""
    import pyroomacoustics

    rng = np.random.default_rng(number)
    size, talker, microphone = places(kind, rng)
    absorption, order = pyroomacoustics.inverse_sabine(float(rng.uniform(*kind.rt60_s)), size)
    box = pyroomacoustics.ShoeBox(
        size, fs=RATE_HZ, materials=pyroomacoustics.Material(absorption), max_order=order
    )
    box.add_source(talker)
    box.add_microphone(microphone)
    box.compute_rir()
    travelled = np.linalg.norm(np.subtract(talker, microphone)) / pyroomacoustics.constants.get("c") * RATE_HZ
    late = pyroomacoustics.constants.get("frac_delay_length") // 2  # by which its fractional delays are late
    return box.rir[0][0].astype(np.float32), round(travelled) + late


def places(kind: Kind, rng: np.random.Generator) -> tuple[list[float], list[float], list[float]]:
    """Size of the box, talker and microphone (metres), these FROM_WALL_M from every wall and NEAREST_M apart."""
    size = rng.uniform(kind.smallest_m, kind.largest_m)
    while True:
        talker, microphone = rng.uniform(FROM_WALL_M, size - FROM_WALL_M, (2, 3))
        if np.linalg.norm(talker - microphone) >= NEAREST_M:
            return size.tolist(), talker.tolist(), microphone.tolist()
