"""`corpus: wavefake`: WaveFake (Frank & Schönherr 2021, arXiv:2111.02813), vocoders applied to two corpora.

Its folder generated_audio holds one folder per vocoder and corpus. The names in SYSTEMS are those of the published
archive as users list it; names of files are taken to be the sentence's, with `_gen` or `_generated` behind (seen for
LJSpeech and JSUT). It has no splits; split.* makes some. All LJSpeech audio is one speaker's, all JSUT audio another's,
so `voice` stays empty: speakers cannot be kept apart.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import NamedTuple

import pandas as pd

from makermark.corpora.folders import audio_files
from makermark.corpora.listing import Listing
from makermark.errors import CorpusError

COPY = "copy-synthesis"  # the vocoder was given spectra of recordings


class System(NamedTuple):
    """What one folder holds."""

    language: str
    family: str
    acoustic_model: str
    vocoder: str


SYSTEMS = {
    "ljspeech_melgan": System("en", "MelGAN", COPY, "melgan"),
    "ljspeech_melgan_large": System("en", "MelGAN", COPY, "melgan-large"),
    "ljspeech_multi_band_melgan": System("en", "MelGAN", COPY, "multi-band-melgan"),
    "ljspeech_full_band_melgan": System("en", "MelGAN", COPY, "full-band-melgan"),
    "ljspeech_hifiGAN": System("en", "HiFi-GAN", COPY, "hifigan"),
    "ljspeech_parallel_wavegan": System("en", "Parallel WaveGAN", COPY, "parallel-wavegan"),
    "ljspeech_waveglow": System("en", "WaveGlow", COPY, "waveglow"),
    "jsut_multi_band_melgan": System("ja", "MelGAN", COPY, "multi-band-melgan"),
    "jsut_parallel_wavegan": System("ja", "Parallel WaveGAN", COPY, "parallel-wavegan"),
    "common_voices_prompts_from_conformer_fastspeech2_pwg_ljspeech": System(
        "en", "FastSpeech 2", "conformer-fastspeech2", "parallel-wavegan"
    ),
}
BY_NAME = {name.lower(): name for name in SYSTEMS}


def listing(root: Path) -> Listing:
    """The audio below each folder of SYSTEMS in `root`, or in `root`/generated_audio; `text` is the sentence's number,
    with the corpus, so that the splitter keeps sentences apart.

    Raises CorpusError where none of the folders is there. Other folders are passed over.
    """
    place = root / "generated_audio" if (root / "generated_audio").is_dir() else root
    rows = []
    for folder in sorted(place.iterdir()) if place.is_dir() else []:
        name = BY_NAME.get(folder.name.lower())
        if name is None or not folder.is_dir():
            continue
        for file in audio_files(folder):
            sentence = re.sub(r"_gen(erated)?$", "", file.stem)
            rows.append(
                (file.relative_to(place).as_posix(), name, *SYSTEMS[name], f"{name.split('_')[0]}:{sentence}")
            )
    if not rows:
        raise CorpusError(
            f"{place}: none of the folders of WaveFake is here, such as {', '.join(list(SYSTEMS)[:3])}"
        )
    return Listing(rows=pd.DataFrame(rows, columns=["path", "system", *System._fields, "text"]), root=place)
