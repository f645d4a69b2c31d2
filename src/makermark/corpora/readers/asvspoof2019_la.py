"""`corpus: asvspoof2019-la`: the logical-access part of ASVspoof 2019 with its 19 attacks and bona fide speech.

Layout of the published archive LA.zip: the folder LA/ASVspoof2019_LA_cm_protocols holds the files
ASVspoof2019.LA.cm.{train.trn,dev.trl,eval.trl}.txt with lines `speaker file - system key`. The audio is in
LA/ASVspoof2019_LA_{train,dev,eval}/flac/.

The acoustic model ("conversion") and the vocoder ("waveform generator") of each attack are those of table 1 of Wang et
al. 2020 (arXiv:1911.01601), in its words. The table was written from memory twice and compared with a public list for
A07 to A19. A16 and A19 are the algorithms of A04 and A06, trained on other speakers; they share a family, and the
protocol counts them as known. Each of the other 17 attacks is a family of its own. The input of the conversion
(synthetic speech for A13 to A15, recordings for A05, A06 and A17 to A19) does not define a family.
"""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

import pandas as pd

from makermark.corpora.listing import Listing, read_lines
from makermark.foundation.errors import CorpusError

PROTOCOLS = "ASVspoof2019_LA_cm_protocols"
FILES = {  # split -> protocol, folder of the audio
    "train": ("ASVspoof2019.LA.cm.train.trn.txt", "ASVspoof2019_LA_train"),
    "dev": ("ASVspoof2019.LA.cm.dev.trl.txt", "ASVspoof2019_LA_dev"),
    "test": ("ASVspoof2019.LA.cm.eval.trl.txt", "ASVspoof2019_LA_eval"),
}
KEYS = ("bonafide", "spoof")


class Attack(NamedTuple):
    """The parts of an attack; the family is the name of the first attack with the same algorithm."""

    family: str
    acoustic_model: str
    vocoder: str


ATTACKS = {
    "bonafide": Attack("human", "human", "human"),
    "A01": Attack("A01", "AR RNN", "WaveNet"),
    "A02": Attack("A02", "AR RNN", "WORLD"),
    "A03": Attack("A03", "FF", "WORLD"),
    "A04": Attack("A04", "CART", "waveform concatenation"),
    "A05": Attack("A05", "VAE", "WORLD"),
    "A06": Attack("A06", "GMM-UBM", "spectral filtering + OLA"),
    "A07": Attack("A07", "RNN", "WORLD + GAN"),
    "A08": Attack("A08", "AR RNN", "neural source-filter"),
    "A09": Attack("A09", "RNN", "Vocaine"),
    "A10": Attack("A10", "AR RNN + CNN", "WaveRNN"),
    "A11": Attack("A11", "AR RNN + CNN", "Griffin-Lim"),
    "A12": Attack("A12", "RNN", "WaveNet"),
    "A13": Attack("A13", "moment matching", "waveform filtering"),
    "A14": Attack("A14", "RNN", "STRAIGHT"),
    "A15": Attack("A15", "RNN", "WaveNet"),
    "A16": Attack("A04", "CART", "waveform concatenation"),
    "A17": Attack("A17", "VAE", "waveform filtering"),
    "A18": Attack("A18", "linear", "MFCC vocoder"),
    "A19": Attack("A06", "GMM-UBM", "spectral filtering + OLA"),
}
KNOWN_SYSTEMS = {"bonafide", "A01", "A02", "A03", "A04", "A05", "A06", "A16", "A19"}  # by the protocol


def read_listing(root: Path) -> Listing:
    """Return the rows of the three protocols; `root` is the folder LA or its parent.

    `voice` is the speaker (for an attack: the target speaker). Raises FilesError if a protocol is missing, CorpusError
    for a line that does not have the format of the protocol.
    """
    folder = root / "LA" if (root / "LA").is_dir() else root
    rows = [row for split in FILES for row in _read_protocol(folder, split)]
    columns = ["path", "system", "split", "voice", "protocol_system_seen", *Attack._fields]
    table = pd.DataFrame(rows, columns=columns).assign(language="en", protocol_language_seen=True)
    protocols = tuple(folder / PROTOCOLS / name for name, _ in FILES.values())
    return Listing(rows=table, root=folder, tables=protocols)


def _read_protocol(folder: Path, split: str) -> list[tuple[object, ...]]:
    name, audio_folder = FILES[split]
    protocol = folder / PROTOCOLS / name
    rows: list[tuple[object, ...]] = []
    for number, line in enumerate(read_lines(protocol), start=1):
        fields = line.split()
        if not fields:
            continue
        if len(fields) != 5 or fields[4] not in KEYS or (fields[4] == "spoof") == (fields[3] == "-"):
            raise CorpusError(
                f"{protocol}, line {number}: {line!r}; the format of a line is `speaker file - system bonafide|spoof`"
            )
        speaker, file, _, attack, key = fields
        system = key if key == "bonafide" else attack
        if system not in ATTACKS:
            raise CorpusError(f"{protocol}, line {number}: attack {system!r}; it is one of A01 to A19")
        path = f"{audio_folder}/flac/{file}.flac"
        rows.append((path, system, split, speaker, system in KNOWN_SYSTEMS, *ATTACKS[system]))
    return rows
