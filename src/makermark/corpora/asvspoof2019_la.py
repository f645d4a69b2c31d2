"""`corpus: asvspoof2019-la`: the logical-access part of ASVspoof 2019, its 19 attacks and bona fide speech.

Layout of the published archive LA.zip: in LA/ the folder ASVspoof2019_LA_cm_protocols with the files
ASVspoof2019.LA.cm.{train.trn,dev.trl,eval.trl}.txt, lines of `speaker file - system key`, and the audio in
ASVspoof2019_LA_{train,dev,eval}/flac/. Acoustic model ("conversion") and vocoder ("waveform generator") of each attack:
table 1 of Wang et al. 2020 (arXiv:1911.01601), in its words, written down from memory twice and compared with a public
list for A07 to A19. A16 and A19 are the algorithms of A04 and A06 trained on other speakers: one family each, and the
protocol calls them known. The others are 17 families of one attack; that A13 to A15 convert synthetic speech, and A05,
A06 and A17 to A19 recordings, is no family.
"""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

import pandas as pd

from makermark.corpora.lines import read_lines
from makermark.corpora.listing import Listing
from makermark.errors import CorpusError

PROTOCOLS = "ASVspoof2019_LA_cm_protocols"
FILES = {
    "train": ("ASVspoof2019.LA.cm.train.trn.txt", "ASVspoof2019_LA_train"),
    "dev": ("ASVspoof2019.LA.cm.dev.trl.txt", "ASVspoof2019_LA_dev"),
    "test": ("ASVspoof2019.LA.cm.eval.trl.txt", "ASVspoof2019_LA_eval"),
}
KEYS = ("bonafide", "spoof")


class Attack(NamedTuple):
    """The algorithm, named by the attack that was first made with it, and its parts."""

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
KNOWN = {"bonafide", "A01", "A02", "A03", "A04", "A05", "A06", "A16", "A19"}


def listing(root: Path) -> Listing:
    """All rows of the three protocols; `root` is the folder LA, or the one that holds it. `voice` is the speaker: the
    target of an attack.

    Raises FilesError where a protocol is missing, CorpusError for a line that is not of a protocol.
    """
    place = root / "LA" if (root / "LA").is_dir() else root
    rows = [row for split in FILES for row in _rows(place, split)]
    columns = ["path", "system", "split", "voice", "protocol_system_seen", *Attack._fields]
    table = pd.DataFrame(rows, columns=columns).assign(language="en", protocol_language_seen=True)
    protocols = tuple(place / PROTOCOLS / name for name, _ in FILES.values())
    return Listing(rows=table, root=place, tables=protocols)


def _rows(place: Path, split: str) -> list[tuple[object, ...]]:
    name, folder = FILES[split]
    protocol = place / PROTOCOLS / name
    rows: list[tuple[object, ...]] = []
    for number, line in enumerate(read_lines(protocol), start=1):
        parts = line.split()
        if not parts:
            continue
        if len(parts) != 5 or parts[4] not in KEYS or (parts[4] == "spoof") == (parts[3] == "-"):
            raise CorpusError(
                f"{protocol}, line {number}: {line!r}; a line is `speaker file - system bonafide|spoof`"
            )
        speaker, file, _, attack, key = parts
        system = key if key == "bonafide" else attack
        if system not in ATTACKS:
            raise CorpusError(f"{protocol}, line {number}: attack {system!r}; it is one of A01 to A19")
        path = f"{folder}/flac/{file}.flac"
        rows.append((path, system, split, speaker, system in KNOWN, *ATTACKS[system]))
    return rows
