"""`corpus: stopa`: STOPA (Firc et al. 2025, arXiv:2505.19644), 13 attacks of 8 acoustic models and 6 vocoders.

The archive (Zenodo record 15606628) unpacks to the folders EET (training of the embedding), TEE (enrolment of the
sources) and Trials, each with wav/LA_*.wav and protocols: text files whose first line names the columns, separated by
blanks. That layout is taken from public code that reads the corpus (github.com/Manasi2001/STOPA and a third-party
loader); the archive itself was not at hand. Columns are therefore found by name (tables.USUAL), the attack under ATK;
acoustic model and vocoder are taken where a protocol has columns for them, and are unknown otherwise.
"""

from __future__ import annotations

from pathlib import Path

import pandas as pd

from makermark.corpora.lines import read_lines
from makermark.corpora.listing import NEEDED, Listing
from makermark.corpora.tables import USUAL, find
from makermark.errors import CorpusError

FOLDERS = {"EET": "train", "TEE": "dev", "Trials": "test"}
KNOWN = ("AA01", "AA03", "AA05", "AA07", "AA10")  # those with enrolment
COLUMNS = ("path", "system", "acoustic_model", "vocoder", "voice")  # the path is a file name here
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
    rows = rows.assign(language="en", protocol_language_seen=True)
    return Listing(rows=rows, root=root, tables=tuple(table for table, _ in protocols))


def _rows(table: Path, *, root: Path, split: str) -> pd.DataFrame:
    header, *lines = read_lines(table) or [""]
    names = header.split()
    place = {ours: find(ours, names) for ours in COLUMNS}
    lacking = [ours for ours in NEEDED if place[ours] is None]
    if lacking:
        raise CorpusError(
            f"{table}, line 1: no column for the {lacking[0]} (such as {', '.join(USUAL[lacking[0]][:4])}); it has "
            f"{names}. Mend that line, or move the file away if it is no protocol"
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
        at = dict(zip(names, parts, strict=True))
        value = {ours: at[theirs] if theirs else "" for ours, theirs in place.items()}
        file = value["path"]
        path = f"{folder}/wav/{file if file.endswith('.wav') else f'{file}.wav'}"
        system = "bonafide" if value["system"].lower() in BONAFIDE else value["system"]
        rows.append(value | {"path": path, "system": system, "split": split})
    return pd.DataFrame(rows, columns=[*COLUMNS, "split"])
