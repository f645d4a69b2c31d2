"""Structure of audio containers that the decoders do not report.

- The bytes of samples that the header of an uncompressed file states, beside the bytes that are present. Formats: WAV
  (RIFF, RIFX, RF64, BW64), AIFF, W64, CAF, AU and NIST SPHERE.
- The streams of a chained Ogg file, one after the other (RFC 3533, section 4).
- The recordings of a file that was made by appending whole files to each other. Formats: the above, FLAC, TTA and MP4.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from typing import Any, BinaryIO, Literal, NamedTuple

from makermark.foundation.errors import AudioError

MAX_CHUNKS = 1000  # bounds the time for a header of zeros
MAX_RECORDINGS = 1000  # bounds the time for a file of nothing but headers
# A program that does not know the size yet writes 0, or a number of at least this size.
PLACEHOLDER_BYTES = 2_000_000_000
W64_CHUNK = bytes.fromhex("f3acd3118cd100c04f8edb8a")  # the end of the GUID of every chunk but the first
UNKNOWN_64 = (1 << 64) - 1
OGG_PAGE_BYTES = 27  # of the header of a page, before its table of segment sizes
OGG_FIRST_PAGE = 2  # flag of the first page of a stream
SPHERE_HEADER = re.compile(rb"NIST_1A\s+(\d{1,6})\n")
CHUNK_NAME = re.compile(rb"[ -~]{4}")
SEARCH_BYTES = 1 << 20
SIGNATURE_BYTES = 64  # no signature is longer
# The beginning of a file, long enough that samples do not contain it by chance.
SIGNATURES = tuple(
    re.compile(pattern, re.DOTALL)
    for pattern in (
        rb"(?:RIFF|RIFX|RF64|BW64)....WAVE[ -~]{4}",
        rb"FORM....AIF[FC][ -~]{4}",
        rb"fLaC[\x00\x80]\x00\x00\x22",
        rb"\x00\x00\x00.ftyp[ -~]{4}",
        rb"caff\x00\x01\x00\x00desc",
        rb"TTA1[\x01\x02]\x00[\x01-\x08]\x00[\x08\x10\x18]\x00",
        rb"riff\x2e\x91\xcf\x11\xa5\xd6\x28\xdb\x04\xc1\x00\x00",
        rb"(?:\.snd\x00\x00......\x00\x00\x00|dns\...\x00\x00....)[\x01-\x1b]",
        rb"NIST_1A\s{1,32}\d{1,6}\n",
    )
)


class DataSize(NamedTuple):
    """Size of the samples of a file in bytes."""

    stated: int
    present: int
    uncounted: int = 0  # bytes after the stated ones that are no chunk

    @property
    def is_placeholder(self) -> bool:
        """True if the header was written before the size was known, as programs that stream audio do."""
        return self.stated == 0 or self.stated >= PLACEHOLDER_BYTES

    @property
    def is_incomplete(self) -> bool:
        """True if fewer bytes are present than the header states."""
        return not self.is_placeholder and self.present < self.stated


def data_size(file: BinaryIO, size: int) -> DataSize | None:
    """Return the size of the samples of a file of `size` bytes; None for a container without such a header.

    The position of `file` is 0 before and after the call.
    """
    magic = file.read(4)
    try:
        measured = next(
            (measure(file, size) for start, measure in CONTAINERS if magic.startswith(start)), None
        )
    finally:
        file.seek(0)
    return measured


def ogg_streams(file: BinaryIO, size: int) -> list[tuple[int, int]]:
    """Return start and end of every stream of an Ogg file in which streams follow each other; one if there is no chain.

    Streams that run side by side count as one. The position of `file` is 0 after the call.
    """
    starts, is_header = [0], True
    position = 0
    while position + OGG_PAGE_BYTES <= size and len(starts) < MAX_CHUNKS:
        file.seek(position)
        page = file.read(OGG_PAGE_BYTES + 255)
        if page[:4] != b"OggS":  # damaged: look for the next page
            file.seek(position)
            offset = file.read(1 << 16).find(b"OggS", 1)
            position += offset if offset > 0 else (1 << 16) - 3
            continue
        is_first = bool(page[5] & OGG_FIRST_PAGE)
        if is_first and not is_header:
            starts.append(position)
        is_header = is_first
        table = page[OGG_PAGE_BYTES : OGG_PAGE_BYTES + page[26]]
        position += OGG_PAGE_BYTES + page[26] + sum(table)
    file.seek(0)
    return list(zip(starts, [*starts[1:], size], strict=True))


def joined_recordings(file: BinaryIO, size: int) -> list[tuple[int, int]]:
    """Return start and end of every recording of a file in which whole files of one format follow each other.

    One recording for all other files, and for formats that are not in SIGNATURES. The position of `file` is 0 before
    and after the call. Raises AudioError for more than MAX_RECORDINGS.
    """
    head = file.read(SIGNATURE_BYTES)
    file.seek(0)
    signature = next((pattern for pattern in SIGNATURES if pattern.match(head)), None)
    data = data_size(file, size)
    if signature is None or (data and data.stated == data.present):
        return [(0, size)]
    offsets, position, tail = {0}, 0, b""
    while block := file.read(SEARCH_BYTES):
        offsets |= {position - len(tail) + match.start() for match in signature.finditer(tail + block)}
        if len(offsets) > MAX_RECORDINGS:
            file.seek(0)
            raise AudioError(
                f"more than {MAX_RECORDINGS} recordings follow each other in the file: split it, or convert it to one "
                "recording"
            )
        position += len(block)
        tail = (tail + block)[-SIGNATURE_BYTES:]
    starts = sorted(offsets)
    file.seek(0)
    return list(zip(starts, [*starts[1:], size], strict=True))


def _riff(order: Literal["little", "big"]) -> Callable[[BinaryIO, int], DataSize | None]:
    """Return a function that measures the data chunk of WAV or the SSND chunk of AIFF."""

    def measure(file: BinaryIO, size: int) -> DataSize | None:
        stated_64 = data = None
        for name, stated, start in _chunks(file, size, order):
            if data and CHUNK_NAME.fullmatch(name) is None:
                return data._replace(uncounted=size - start + 8)
            if name == b"ds64":  # RF64 and BW64: sizes of 64 bits
                file.seek(start + 8)
                stated_64 = int.from_bytes(file.read(8), "little")
            if name in (b"data", b"SSND") and data is None:
                data = DataSize(stated if stated_64 is None else stated_64, size - start)
                if data.is_placeholder or data.present <= data.stated:
                    return data
        return data

    return measure


def _chunks(file: BinaryIO, size: int, order: Literal["little", "big"]) -> Iterator[tuple[bytes, int, int]]:
    """Yield name, stated size and start of the content of every chunk."""
    position = 12  # past the name, size and kind of the container
    for _ in range(MAX_CHUNKS):
        if position + 8 > size:
            return
        file.seek(position)
        name, stated = file.read(4), int.from_bytes(file.read(4), order)
        yield name, stated, position + 8
        position += 8 + stated + stated % 2


def _w64(file: BinaryIO, size: int) -> DataSize | None:
    """Measure the data chunk of a Sony Wave64 file."""
    position = 40  # past the GUID and size of the container and the GUID of its kind
    for _ in range(MAX_CHUNKS):
        if position + 24 > size:
            return None
        file.seek(position)
        name = file.read(16)
        stated = int.from_bytes(file.read(8), "little")  # includes these 24 bytes
        if name == b"data" + W64_CHUNK:
            return DataSize(max(0, stated - 24), size - position - 24)
        position += max(24, (stated + 7) // 8 * 8)
    return None


def _caf(file: BinaryIO, size: int) -> DataSize | None:
    """Measure the data chunk of a Core Audio file."""
    position = 8
    for _ in range(MAX_CHUNKS):
        if position + 12 > size:
            return None
        file.seek(position)
        name, stated = file.read(4), int.from_bytes(file.read(8), "big")
        if name == b"data":
            edits = 4  # bytes before the samples
            return DataSize(
                0 if stated == UNKNOWN_64 else max(0, stated - edits), size - position - 12 - edits
            )
        position += 12 + stated
    return None


def _au(order: Literal["little", "big"]) -> Callable[[BinaryIO, int], DataSize | None]:
    """Return a function that measures the samples of an AU file."""

    def measure(file: BinaryIO, size: int) -> DataSize | None:
        offset, stated = (int.from_bytes(file.read(4), order) for _ in range(2))
        return DataSize(stated, size - offset, uncounted=max(0, size - offset - stated))

    return measure


def _sphere(file: BinaryIO, size: int) -> DataSize | None:
    """Measure the samples of a NIST SPHERE file from the counts in its header."""
    file.seek(0)
    header = file.read(1024)
    match = SPHERE_HEADER.match(header)
    if match is None:
        return None
    counts: dict[str, Any] = {}
    for name in ("sample_count", "channel_count", "sample_n_bytes"):
        field = re.search(rb"\n%b -i (\d{1,18})\n" % name.encode(), header)
        counts[name] = int(field[1]) if field else (1 if name == "channel_count" else 0)
    stated = counts["sample_count"] * counts["channel_count"] * counts["sample_n_bytes"]
    return DataSize(stated, size - int(match[1]))


CONTAINERS: tuple[tuple[bytes, Callable[[BinaryIO, int], DataSize | None]], ...] = (
    (b"RIFF", _riff("little")),
    (b"RF64", _riff("little")),
    (b"BW64", _riff("little")),
    (b"RIFX", _riff("big")),
    (b"FORM", _riff("big")),
    (b"riff", _w64),
    (b"caff", _caf),
    (b".snd", _au("big")),
    (b"dns.", _au("little")),
    (b"NIST", _sphere),
)
