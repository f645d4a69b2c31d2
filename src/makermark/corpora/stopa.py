"""`corpus: stopa`: STOPA (Firc et al. 2025, arXiv:2505.19644), 13 attacks of 8 acoustic models and 6 vocoders.

The archive (Zenodo record 15606628) unpacks to the folders EET (training of the embedding), TEE (enrolment of the
sources) and Trials, each with wav/LA_*.wav and protocols: text files whose first line names the columns, separated by
blanks. That layout is taken from public code that reads the corpus (github.com/Manasi2001/STOPA and a third-party
loader); the archive itself was not at hand. Columns are therefore found by name, the attack under ATK; acoustic model
and vocoder are taken where a protocol has columns for them, and are unknown otherwise.
"""

from __future__ import annotations

from pathlib import Path

import pandas as pd

from makermark.corpora.listing import Listing
from makermark.errors import CorpusError

FOLDERS = {"EET": "train", "TEE": "dev", "Trials": "test"}
KNOWN = ("AA01", "AA03", "AA05", "AA07", "AA10")  # those with enrolment
COLUMNS = {
    "file": ("filename", "file", "file_name", "utterance"),
    "system": ("atk", "attack", "attacktype", "attack_type", "attackid", "attack_id", "system"),
    "acoustic_model": ("acousticmodel", "acoustic_model", "am"),
    "vocoder": ("vocodermodel", "vocoder_model", "vocoder", "vm"),
    "voice": ("speaker", "speakerid", "speaker_id", "spk"),
}
NEEDED = ("file", "system")
BONAFIDE = ("-", "bonafide", "bona-fide")


def listing(root: Path) -> Listing:
    """The files that the protocols in EET, TEE and Trials name; a file of several protocols once.

    Raises CorpusError where no folder or no protocol is there, and for a line that does not fit its header.
    """
    protocols = [
        (table, split)
        for folder, split in FOLDERS.items()
        for table in sorted((root / folder).rglob("*.txt"))
        if not table.name.lower().startswith(("readme", "license"))
    ]
    if not protocols:
        raise CorpusError(
            f"external.root: {root} has no protocol (*.txt) in {', '.join(FOLDERS)}; it is no STOPA"
        )
    parts = [_rows(table, root=root, split=split) for table, split in protocols]
    rows = pd.concat(parts, ignore_index=True).drop_duplicates(["path", "system"], ignore_index=True)
    rows["protocol_system_seen"] = rows["system"].isin([*KNOWN, "bonafide"])
    return Listing(rows=rows.assign(language="en", protocol_language_seen=True), root=root)


def _rows(table: Path, *, root: Path, split: str) -> pd.DataFrame:
    header, *lines = table.read_text(encoding="utf-8-sig").splitlines() or [""]
    names = header.split()
    place = {ours: _place(names, usual) for ours, usual in COLUMNS.items()}
    lacking = [ours for ours in NEEDED if place[ours] is None]
    if lacking:
        raise CorpusError(
            f"{table}, line 1: no column for the {lacking[0]} ({', '.join(COLUMNS[lacking[0]][:3])}); it has {names}"
        )
    folder = table.relative_to(root).parts[0]
    rows = []
    for number, line in enumerate(lines, start=2):
        parts = line.split()
        if not parts:
            continue
        if len(parts) != len(names):
            raise CorpusError(
                f"{table}, line {number}: {len(parts)} values where line 1 names {len(names)}: {line!r}"
            )
        value = {ours: "" if at is None else parts[at] for ours, at in place.items()}
        file = value.pop("file")
        path = f"{folder}/wav/{file if file.endswith('.wav') else f'{file}.wav'}"
        system = "bonafide" if value["system"].lower() in BONAFIDE else value["system"]
        rows.append(value | {"path": path, "system": system, "split": split})
    return pd.DataFrame(rows, columns=["path", "system", "split", "acoustic_model", "vocoder", "voice"])


def _place(names: list[str], usual: tuple[str, ...]) -> int | None:
    plain = [name.lower() for name in names]
    return next((plain.index(name) for name in usual if name in plain), None)
