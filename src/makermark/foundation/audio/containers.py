"""Structure of audio containers that the decoders do not report.

- The bytes of samples that the header of an uncompressed file states, beside the bytes that are present. Formats: WAV
  (RIFF, RIFX, RF64, BW64), AIFF, W64, CAF, AU and NIST SPHERE.
- The streams of a chained Ogg file, one after the other (RFC 3533, section 4).
- The recordings of a file that was made by appending whole files to each other. Formats: the above, FLAC, TTA, WavPack
  and MP4.
- Whether the end of a file is missing. Formats: Ogg, AAC in ADTS frames, Matroska and WebM.
"""

from __future__ import annotations

import io
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
OGG_FIRST_PAGE, OGG_LAST_PAGE = 2, 4  # flags of the first and the last page of a stream
ID3_BYTES = 10  # of the header of an ID3 block
ADTS_BYTES = 7  # of the header of a frame
MATROSKA_SEGMENT, MATROSKA_CLUSTER = 0x18538067, 0x1F43B675
MAX_PARTS = 1_000_000  # frames or elements, of 10 ms or more each
SPHERE_HEADER = re.compile(rb"NIST_1A\s+(\d{1,6})\n")
CHUNK_NAME = re.compile(rb"[ -~]{4}")
SEARCH_BYTES = 1 << 20
SIGNATURE_BYTES = 64  # no signature is longer
# Bytes whose bit 3 is set: in the flags of a WavPack block, of the first block of its samples.
BIT_3 = b"[" + b"".join(b"\\x%02x-\\x%02x" % (low, low + 7) for low in range(8, 256, 16)) + b"]"
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
        rb"wvpk....[\x02-\x10]\x04\x00.....\x00{4}(?!\x00{4})....." + BIT_3,
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


class FileSlice(io.RawIOBase):
    """The bytes `start` to `end` of a file, as a file; it moves the position of that file."""

    def __init__(self, file: BinaryIO, start: int, end: int) -> None:
        self._file, self._start, self._size, self._position = file, start, end - start, 0

    def readable(self) -> bool:
        """Return True."""
        return True

    def seekable(self) -> bool:
        """Return True."""
        return True

    def readinto(self, buffer: Any) -> int:
        """Read into `buffer` and return the number of bytes, which may be smaller than its size."""
        count = min(len(buffer), max(0, self._size - self._position))
        if count == 0:
            return 0  # a position may be too large for the file below
        self._file.seek(self._start + self._position)
        content = self._file.read(count)
        buffer[: len(content)] = content
        self._position += len(content)
        return len(content)

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        """Move the position, to 0 if it would be before the start: soundfile prints a traceback if this raises."""
        position = {io.SEEK_SET: 0, io.SEEK_CUR: self._position, io.SEEK_END: self._size}[whence] + offset
        self._position = max(0, position)
        return self._position

    def tell(self) -> int:
        """Return the position."""
        return self._position


def open_slice(file: BinaryIO, start: int, end: int) -> io.BufferedReader:
    """Open the bytes `start` to `end` of a file as a file."""
    return io.BufferedReader(FileSlice(file, start, end))


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
    for page in _ogg_pages(file, size):
        is_first = bool(page.flags & OGG_FIRST_PAGE)
        if is_first and not is_header:
            starts.append(page.start)
        if len(starts) == MAX_CHUNKS:
            break
        is_header = is_first
    file.seek(0)
    return list(zip(starts, [*starts[1:], size], strict=True))


class _OggPage(NamedTuple):
    start: int
    end: int  # as its header states
    flags: int
    stream: bytes  # its serial number


def _ogg_pages(file: BinaryIO, size: int) -> Iterator[_OggPage]:
    """Yield the pages of an Ogg file, without the damaged ones."""
    position = 0
    while position + OGG_PAGE_BYTES <= size:
        file.seek(position)
        page = file.read(OGG_PAGE_BYTES + 255)
        if page[:4] != b"OggS":  # damaged: look for the next page
            file.seek(position)
            offset = file.read(1 << 16).find(b"OggS", 1)
            position += offset if offset > 0 else (1 << 16) - 3
            continue
        table = page[OGG_PAGE_BYTES : OGG_PAGE_BYTES + page[26]]
        start, position = position, position + OGG_PAGE_BYTES + page[26] + sum(table)
        yield _OggPage(start, position, page[5], page[14:18])


def missing_end(file: BinaryIO, size: int) -> str:
    """Return what the container of a file of `size` bytes shows of a missing end; empty if it shows nothing.

    The position of `file` is 0 before and after the call.
    """
    head = file.read(4)
    if head.startswith(b"OggS") and _ogg_is_cut(file, size):
        note = "an Ogg stream has no last page: the end of the recording may be missing"
    elif head.startswith(b"\x1a\x45\xdf\xa3") and _matroska_is_cut(file, size):
        note = "its last Matroska element is incomplete: the end of the recording is missing"
    elif (head.startswith(b"ID3") or _is_adts(head)) and _adts_is_cut(file, size):
        note = "its last AAC frame is incomplete: the end of the recording is missing"
    else:
        note = ""
    file.seek(0)
    return note


def _ogg_is_cut(file: BinaryIO, size: int) -> bool:
    """Return whether a stream of an Ogg file has no last page, or one that goes beyond the end of the file."""
    is_complete: dict[bytes, bool] = {}  # by stream; the parts of a chain may have one serial number
    cut = False
    for page in _ogg_pages(file, size):
        cut |= page.end > size or (
            bool(page.flags & OGG_FIRST_PAGE) and not is_complete.get(page.stream, True)
        )
        is_complete[page.stream] = bool(page.flags & OGG_LAST_PAGE)
    return cut or not all(is_complete.values())


def _is_adts(header: bytes) -> bool:
    return len(header) > 1 and header[0] == 0xFF and header[1] & 0xF6 == 0xF0


def _adts_is_cut(file: BinaryIO, size: int) -> bool:
    """Return whether the last of the AAC frames that follow each other goes beyond the end of the file."""
    file.seek(0)
    head = file.read(ID3_BYTES)
    position = id3_bytes(head)
    for _ in range(MAX_PARTS):
        file.seek(position)
        header = file.read(ADTS_BYTES)
        if not _is_adts(header):  # the end, or a block of tags
            return False
        length = (header[3] & 3) << 11 | header[4] << 3 | header[5] >> 5 if len(header) == ADTS_BYTES else 0
        if length < ADTS_BYTES or position + length > size:
            return position + max(length, ADTS_BYTES) > size
        position += length
    return False


def id3_bytes(head: bytes) -> int:
    """Return the size of the ID3 block at the start of a file that begins with `head`, ID3_BYTES; 0 without one."""
    if not head.startswith(b"ID3") or len(head) < ID3_BYTES:
        return 0
    return ID3_BYTES + sum(byte << shift for byte, shift in zip(head[6:], (21, 14, 7, 0), strict=True))


def _matroska_is_cut(file: BinaryIO, size: int) -> bool:
    """Return whether an element of a Matroska or WebM file (RFC 8794) goes beyond the end of the file."""
    position = 0
    for _ in range(MAX_PARTS):
        file.seek(position)
        head = file.read(12)  # the longest name and size
        name_bytes = _vint_bytes(head)
        size_bytes = _vint_bytes(head[name_bytes:])
        header_bytes = name_bytes + size_bytes
        if not head or not name_bytes or (not size_bytes and len(head) > name_bytes):
            return False  # the end, or no element
        if not size_bytes or len(head) < header_bytes:
            return True
        name = int.from_bytes(head[:name_bytes])
        mask = (1 << 7 * size_bytes) - 1
        stated = int.from_bytes(head[name_bytes:header_bytes]) & mask
        position += header_bytes
        if stated == mask and name not in (MATROSKA_SEGMENT, MATROSKA_CLUSTER):
            return False  # only these two may have an unknown size
        if stated != mask and position + stated > size:
            return True
        if name != MATROSKA_SEGMENT and stated != mask:
            position += stated
    return False


def _vint_bytes(head: bytes) -> int:
    """Return the number of bytes of the variable-size integer at the start of `head`; 0 if there is none."""
    return 9 - head[0].bit_length() if head and head[0] else 0


def joined_recordings(file: BinaryIO, size: int) -> list[tuple[int, int]]:
    """Return start and end of every recording of a file in which whole files of one format follow each other.

    One recording for all other files, and for formats that are not in SIGNATURES. A file whose header does not state
    where its content ends is read to its end. The position of `file` is 0 before and after the call. Raises AudioError
    for more than MAX_RECORDINGS.
    """
    head = file.read(SIGNATURE_BYTES)
    file.seek(0)
    signature = next((pattern for pattern in SIGNATURES if pattern.match(head)), None)
    data = data_size(file, size)
    if signature is None or (data and data.stated == data.present):
        return [(0, size)]
    starts = _mp4_starts(file, size) if head[4:8] == b"ftyp" else []
    file.seek(0)
    starts = starts or _search(file, signature)
    return list(zip(starts, [*starts[1:], size], strict=True))


def _mp4_starts(file: BinaryIO, size: int) -> list[int]:
    """Return the starts of the MP4 files that follow each other; none if their boxes do not fill the file."""
    starts: list[int] = []
    position = 0
    for _ in range(MAX_CHUNKS):
        if position == size:
            return starts
        file.seek(position)
        head = file.read(16)
        stated, name = int.from_bytes(head[:4]), head[4:8]
        if stated == 1:  # a size of 64 bits follows
            stated = int.from_bytes(head[8:])
        if stated < 8 or position + stated > size:
            return []
        if name == b"ftyp":
            starts.append(position)
        position += stated
    return []


def _search(file: BinaryIO, signature: re.Pattern[bytes]) -> list[int]:
    """Return 0 and where a file matches the signature; the position of `file` is 0 before and after the call."""
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
    file.seek(0)
    return sorted(offsets)


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
