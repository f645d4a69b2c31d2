"""Speech degraded at random for training: kinds of change, each drawn anew for every utterance and copy.

What `robustness` measures beside them was never trained on: G.722, G.726, AAC, the bare telephone band, babble, replay,
noise below 5 dB, halls, and every single room of the conditions (the rooms here are others of that kind).
"""

from __future__ import annotations

from makermark.audio import Samples
from makermark.degrading.base import Change, Draw
from makermark.degrading.codecs import AMR_BITS, through
from makermark.degrading.noise import with_noise
from makermark.degrading.rooms import ROOM, room
from makermark.errors import ParamsError

MP3_BITS = (16000, 24000, 32000, 48000, 64000)
OPUS_BITS = (6000, 8000, 12000, 16000, 24000)
SNR_DB = (5.0, 25.0)
ROOMS = 24
FIRST_ROOM = 1000  # apart from the numbers of the conditions


def codec(waveform: Samples, draw: Draw) -> Samples:
    """G.711, AMR, MP3 or Opus, each as often, at any of the rates above."""
    choices = {"mulaw": (0,), "amr": AMR_BITS, "mp3": MP3_BITS, "opus": OPUS_BITS}
    name = str(draw.rng.choice(list(choices)))
    return through(waveform, name, int(draw.rng.choice(choices[name])))


def noise(waveform: Samples, draw: Draw) -> Samples:
    """White or speech-shaped, 5 to 25 dB."""
    source = str(draw.rng.choice(["white", "speech-shaped"]))
    return with_noise(source, float(draw.rng.uniform(*SNR_DB)))(waveform, draw)


CHANGES: dict[str, Change] = {
    "codec": codec,
    "noise": noise,
    "rir": room(ROOM, first=FIRST_ROOM, count=ROOMS),
}
AUGMENTS = ("none", *CHANGES, "all")


def kinds_of(augment: str) -> tuple[str, ...]:
    """The kinds of change that `augment` names: none, itself, or all; raises ParamsError for an unknown one."""
    if augment not in AUGMENTS:
        raise ParamsError(f"params.yaml: augment is {augment!r}; it is one of {list(AUGMENTS)}")
    return {"none": (), "all": tuple(CHANGES)}.get(augment, (augment,))
