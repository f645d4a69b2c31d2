"""`corpus: stopa`: STOPA (Firc et al. 2025, arXiv:2505.19644), 13 attacks of 8 acoustic models and 6 vocoders.

The archive (Zenodo record 15606628) holds the folders EET (training of the embedding), TEE (enrolment of the sources)
and Trials. Each has wav/LA_*.wav and protocols: text files whose first line names the columns, separated by blanks.
This layout comes from public code that reads the corpus (github.com/Manasi2001/STOPA and a third-party loader); it was
not checked with the archive itself. The columns are therefore matched by usual names (table.USUAL_NAMES); the attack is
in the column ATK. Acoustic model and vocoder are read if a protocol has columns for them; otherwise they are unknown.
"""

from __future__ import annotations

from pathlib import Path

import pandas as pd

from makermark.corpora.listing import REQUIRED_COLUMNS, Listing, read_lines
from makermark.corpora.readers.table import USUAL_NAMES, find_column
from makermark.foundation.errors import CorpusError

FOLDERS = {"EET": "train", "TEE": "dev", "Trials": "test"}
KNOWN_SYSTEMS = ("AA01", "AA03", "AA05", "AA07", "AA10")  # the attacks with enrolment data
COLUMNS = ("path", "system", "acoustic_model", "vocoder", "voice")  # here the path is a file name
BONAFIDE = ("-", "bonafide", "bona-fide")


def read_listing(root: Path) -> Listing:
    """Return the files in the protocols of EET, TEE and Trials, each file once.

    Raises CorpusError if there is no folder or no protocol, and for a line that does not match its header.
    """
    protocols = [
        (protocol, split)
        for folder, split in FOLDERS.items()
        for protocol in sorted((root / folder).rglob("*.txt"))
        if not protocol.name.lower().startswith(("readme", "license"))
    ]
    if not protocols:
        raise CorpusError(
            f"no protocol (*.txt) in {', '.join(FOLDERS)}; name the folder that holds STOPA",
            setting="external.root",
            value=str(root),
        )
    parts = [_read_protocol(protocol, root=root, split=split) for protocol, split in protocols]
    rows = pd.concat(parts, ignore_index=True).drop_duplicates(["path", "system"], ignore_index=True)
    rows["protocol_system_seen"] = rows["system"].isin([*KNOWN_SYSTEMS, "bonafide"])
    rows = rows.assign(language="en", protocol_language_seen=True)
    return Listing(rows=rows, root=root, tables=tuple(protocol for protocol, _ in protocols))


def _read_protocol(protocol: Path, *, root: Path, split: str) -> pd.DataFrame:
    header, *lines = read_lines(protocol) or [""]
    names = header.split()
    name_of = _match_columns(protocol, names)
    folder = protocol.relative_to(root).parts[0]
    rows = []
    for number, line in enumerate(lines, start=2):
        fields = line.split()
        if not fields:
            continue
        if len(fields) != len(names):
            raise CorpusError(
                f"{protocol}, line {number}: {len(fields)} values, but line 1 names {len(names)} columns: {line!r}"
            )
        field_of = dict(zip(names, fields, strict=True))
        row = {column: field_of[name] if name else "" for column, name in name_of.items()}
        file = row["path"]
        path = f"{folder}/wav/{file if file.endswith('.wav') else f'{file}.wav'}"
        system = "bonafide" if row["system"].lower() in BONAFIDE else row["system"]
        rows.append(row | {"path": path, "system": system, "split": split})
    return pd.DataFrame(rows, columns=[*COLUMNS, "split"])


def _match_columns(protocol: Path, names: list[str]) -> dict[str, str | None]:
    """Return the name of each of COLUMNS in the protocol, None for a missing optional column."""
    name_of = {column: find_column(column, names) for column in COLUMNS}
    missing = [column for column in REQUIRED_COLUMNS if name_of[column] is None]
    if missing:
        raise CorpusError(
            f"{protocol}, line 1: no column for the {missing[0]} (such as {', '.join(USUAL_NAMES[missing[0]][:4])}); "
            f"it has {names}. Correct that line, or move the file away if it is not a protocol"
        )
    return name_of
