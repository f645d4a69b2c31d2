"""`corpus: wavefake`: WaveFake (Frank & Schönherr 2021, arXiv:2111.02813), vocoders applied to two corpora.

The folder generated_audio holds one folder per vocoder and corpus. The names in SYSTEMS are those of the published
archive as its users list them. A file name is assumed to be the name of the sentence with `_gen` or `_generated`
appended (observed for LJSpeech and JSUT). The corpus has no splits; the section `split` of params.yaml makes them. All
LJSpeech audio has one speaker, all JSUT audio another; therefore `voice` stays empty: speakers cannot be disjoint.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import NamedTuple

import pandas as pd

from makermark.corpora.listing import Listing
from makermark.corpora.readers.folders import list_audio_files
from makermark.foundation.errors import CorpusError

COPY = "copy-synthesis"  # the input of the vocoder was the spectra of recordings


class System(NamedTuple):
    """The metadata of the audio in one folder."""

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
SYSTEM_OF_FOLDER = {name.lower(): name for name in SYSTEMS}


def read_listing(root: Path) -> Listing:
    """Return the audio in each folder of SYSTEMS below `root` or `root`/generated_audio.

    `text` is the corpus and the number of the sentence, so that the splits have disjoint sentences. Other folders are
    ignored. Raises CorpusError if none of the folders exists.
    """
    folder = root / "generated_audio" if (root / "generated_audio").is_dir() else root
    rows = []
    for system_folder in sorted(folder.iterdir()) if folder.is_dir() else []:
        system = SYSTEM_OF_FOLDER.get(system_folder.name.lower())
        if system is None or not system_folder.is_dir():
            continue
        for file in list_audio_files(system_folder):
            path = file.relative_to(folder).as_posix()
            sentence = re.sub(r"_gen(erated)?$", "", file.stem)
            rows.append((path, system, *SYSTEMS[system], f"{system.split('_')[0]}:{sentence}"))
    if not rows:
        raise CorpusError(
            f"{folder}: has no folder of WaveFake, such as {', '.join(list(SYSTEMS)[:3])}; set external.root to the "
            "folder that holds them"
        )
    return Listing(rows=pd.DataFrame(rows, columns=["path", "system", *System._fields, "text"]), root=folder)
