"""MLAADv5 with its source-tracing protocol (docs/mlaad.md): 56,891 utterances of 82 systems in 38 languages."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from pathlib import Path

from makermark.corpora.listing import Listing
from makermark.corpora.mlaad.fetching import LICENCE, audio_root, protocol_file
from makermark.corpora.mlaad.protocol import read_protocol
from makermark.corpora.mlaad.transcripts import transcripts

log = logging.getLogger(__name__)


def listing(
    *,
    root: str,
    protocol: str,
    licence: str,
    folder: Path,
    source: str,
    protocol_url: str,
    protocol_md5: str,
    repository: str,
    revision: str,
    workers: int,
    zip_url: str,
    zip_parts: Sequence[str],
    zip_md5: str,
    attempts: int,
) -> Listing:
    """The protocol's rows and the folder with their audio, which stays where it is.

    `root` is an existing copy (the folder that holds `fake/`) and `protocol` the zip or its unpacked folder; what is
    empty is fetched into `folder`, once `licence` accepts the corpus's licence: the audio from `repository` at
    `revision` (source huggingface) or from `zip_parts` at `zip_url` (source zip), whose MD5 sums `zip_md5` lists.
    Rows are as in `protocol.read_protocol`, with `text` where the copy has its meta.csv tables. Raises CorpusError.
    """
    log.info("MLAAD: %s", LICENCE)
    table = protocol_file(
        protocol, folder, licence=licence, url=protocol_url, md5=protocol_md5, attempts=attempts
    )
    rows = read_protocol(table)
    place = audio_root(
        root,
        folder,
        paths=rows["path"].unique().tolist(),
        licence=licence,
        source=source,
        repository=repository,
        revision=revision,
        workers=workers,
        zip_url=zip_url,
        zip_parts=zip_parts,
        zip_md5=zip_md5,
        attempts=attempts,
    )
    rows = rows.assign(text=transcripts(rows["path"], root=place))
    files = sorted(table.rglob("*.csv")) if table.is_dir() else [table]
    return Listing(rows=rows, root=place, source=str(table), tables=tuple(files))
