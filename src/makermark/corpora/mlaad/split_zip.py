"""Reader for a zip archive in segments (`x.z01`, `x.z02`, ..., `x.zip`), without joining them on disk.

Hand-written because Python's zipfile refuses such archives. Layout: PKWARE APPNOTE 6.3, sections 4.3 and 8. The
segments form one stream of bytes; the central directory gives the segment of each member and the offset in it.
"""

from __future__ import annotations

import struct
import zlib
from bisect import bisect_right
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from itertools import accumulate
from pathlib import Path
from types import TracebackType

from makermark.corpora.mlaad.download import ProgressCallback
from makermark.foundation.errors import CorpusError
from makermark.foundation.files import atomic_write

CHUNK_BYTES = 1 << 20
STORED, DEFLATED = 0, 8
END_RECORD, END_RECORD_BYTES, MAX_COMMENT_BYTES = b"PK\5\6", 22, 65535
ZIP64_LOCATOR, ZIP64_LOCATOR_BYTES = b"PK\6\7", 20
ZIP64_END_RECORD, ZIP64_END_RECORD_BYTES = b"PK\6\6", 56
ENTRY, ENTRY_BYTES = b"PK\1\2", 46
LOCAL_HEADER, LOCAL_HEADER_BYTES = b"PK\3\4", 30
ZIP64_EXTRA_FIELD = 1
ZIP64_FORMATS = (  # value that marks a number as stored in the extra field, and its format there
    (0xFFFFFFFF, "<Q"),  # size
    (0xFFFFFFFF, "<Q"),  # compressed size
    (0xFFFFFFFF, "<Q"),  # offset
    (0xFFFF, "<L"),  # segment
)
UTF8_FLAG, ENCRYPTED_FLAG = 0x800, 0x1
REMEDY = "delete that file and run again"


@dataclass(frozen=True)
class Member:
    """A file in the archive; `start` is the position of its local header in the stream, sizes are in bytes."""

    name: str
    start: int
    compressed_size: int
    size: int
    method: int
    crc32: int
    encrypted: bool


class SplitZip:
    """The segments as one stream of bytes, and its members. Errors are raised as CorpusError with the segment."""

    def __init__(self, paths: Sequence[Path]) -> None:
        self.paths = list(paths)
        self._ends = list(accumulate(path.stat().st_size for path in paths))
        self._starts = [0, *self._ends[:-1]]
        with ExitStack() as stack:
            self._files = [stack.enter_context(path.open("rb")) for path in paths]
            self._stack = stack.pop_all()

    def __enter__(self) -> SplitZip:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stack.close()

    def members(self) -> list[Member]:
        """Return all files in the archive in the order of the central directory."""
        start, size, count = self._find_directory()
        directory = self._read(start, size)
        members, offset = [], 0
        for _ in range(count):
            if directory[offset : offset + 4] != ENTRY or offset + ENTRY_BYTES > len(directory):
                raise self._damaged(start + offset, "no entry of the central directory")
            member, offset = self._parse_entry(directory, offset)
            members.append(member)
        return members

    def extract(self, member: Member, target: Path) -> None:
        """Write one member and verify its size and CRC-32; after an error nothing is written."""
        if member.encrypted or member.method not in (STORED, DEFLATED):
            reason = "has a password" if member.encrypted else f"has compression method {member.method}"
            raise CorpusError(
                f"{self.paths[-1]}: {member.name} {reason}; unpack it by hand and set mlaad.root"
            )
        crc32 = 0
        with atomic_write(target) as draft, draft.open("wb") as file:
            for chunk in self._decompress(member):
                crc32 = zlib.crc32(chunk, crc32)
                file.write(chunk)
            if crc32 != member.crc32 or file.tell() != member.size:
                raise self._damaged(member.start, f"{member.name} does not have its CRC-32")

    def _decompress(self, member: Member) -> Iterator[bytes]:
        header = self._read(member.start, LOCAL_HEADER_BYTES)
        if header[:4] != LOCAL_HEADER:
            raise self._damaged(member.start, f"no header of {member.name}")
        name_bytes, extra_bytes = struct.unpack_from("<HH", header, 26)
        start = member.start + LOCAL_HEADER_BYTES + name_bytes + extra_bytes
        stop = start + member.compressed_size
        decompressor = zlib.decompressobj(-zlib.MAX_WBITS)
        for position in range(start, stop, CHUNK_BYTES):
            chunk = self._read(position, min(CHUNK_BYTES, stop - position))
            try:
                yield decompressor.decompress(chunk) if member.method == DEFLATED else chunk
            except zlib.error as error:
                raise self._damaged(position, f"{member.name} cannot be decompressed ({error})") from error

    def _find_directory(self) -> tuple[int, int, int]:
        """Return the position of the central directory in the stream, its size in bytes, its number of entries."""
        length = self._ends[-1]
        first = max(0, length - END_RECORD_BYTES - MAX_COMMENT_BYTES)
        tail = self._read(first, length - first)
        index = tail.rfind(END_RECORD)
        if index < 0 or index + END_RECORD_BYTES > len(tail):
            raise self._damaged(
                length - 1, "no end record of a zip archive: it is truncated or not a zip archive"
            )
        last, segment, _, count, size, offset = struct.unpack_from("<4H2L", tail, index + 4)
        end = first + index
        locator = (
            self._read(end - ZIP64_LOCATOR_BYTES, ZIP64_LOCATOR_BYTES) if end >= ZIP64_LOCATOR_BYTES else b""
        )
        if locator[:4] == ZIP64_LOCATOR:
            zip64_segment, zip64_offset, segments = struct.unpack_from("<LQL", locator, 4)
            self._check_segment_count(segments)
            record = self._read(self._position(zip64_segment, zip64_offset), ZIP64_END_RECORD_BYTES)
            if record[:4] != ZIP64_END_RECORD:
                raise self._damaged(end, "no zip64 end record")
            segment, _, count, size, offset = struct.unpack_from("<L4Q", record, 20)
        else:
            self._check_segment_count(last + 1)
        return self._position(segment, offset), size, count

    def _parse_entry(self, directory: bytes, start: int) -> tuple[Member, int]:
        """Return the member whose entry begins at `start`, and the position of the next entry."""
        flags, method = struct.unpack_from("<2H", directory, start + 8)
        crc32, compressed_size, size, name_bytes, extra_bytes, comment_bytes, segment = struct.unpack_from(
            "<3L4H", directory, start + 16
        )
        (offset,) = struct.unpack_from("<L", directory, start + 42)
        name_start = start + ENTRY_BYTES
        extra_start = name_start + name_bytes
        extra = directory[extra_start : extra_start + extra_bytes]
        size, compressed_size, offset, segment = _read_zip64_values(
            extra, size=size, compressed_size=compressed_size, offset=offset, segment=segment
        )
        encoding = "utf-8" if flags & UTF8_FLAG else "cp437"
        member = Member(
            name=directory[name_start:extra_start].decode(encoding, "replace"),
            start=self._position(segment, offset),
            compressed_size=compressed_size,
            size=size,
            method=method,
            crc32=crc32,
            encrypted=bool(flags & ENCRYPTED_FLAG),
        )
        return member, extra_start + extra_bytes + comment_bytes

    def _position(self, segment: int, offset: int) -> int:
        """Return the position in the stream of an offset in a segment."""
        if segment >= len(self.paths) or self._starts[segment] + offset > self._ends[-1]:
            raise self._damaged(
                self._ends[-1] - 1, f"names a position outside the archive ({segment}, {offset})"
            )
        return self._starts[segment] + offset

    def _read(self, start: int, size: int) -> bytes:
        """Return bytes of the stream, across segments."""
        chunks, position = [], start
        while position < start + size:
            segment = bisect_right(self._ends, position)
            if segment == len(self.paths):
                raise self._damaged(self._ends[-1] - 1, "ends too early")
            self._files[segment].seek(position - self._starts[segment])
            chunk = self._files[segment].read(min(start + size, self._ends[segment]) - position)
            if not chunk:
                raise self._damaged(position, "became shorter during reading")
            chunks.append(chunk)
            position += len(chunk)
        return b"".join(chunks)

    def _check_segment_count(self, segments: int) -> None:
        if segments != len(self.paths):
            raise CorpusError(
                f"{self.paths[-1]}: is the last of {segments} segments, but mlaad.zip_parts names {len(self.paths)}; "
                "name all of them in order, the .zip last"
            )

    def _damaged(self, position: int, reason: str) -> CorpusError:
        segment = min(bisect_right(self._ends, max(0, position)), len(self.paths) - 1)
        return CorpusError(f"{self.paths[segment]}: {reason}; {REMEDY}")


def _read_zip64_values(
    extra: bytes, *, size: int, compressed_size: int, offset: int, segment: int
) -> tuple[int, int, int, int]:
    """Return the four values, each from the zip64 extra field if it does not fit into its own (APPNOTE 4.5.3)."""
    values, start = [size, compressed_size, offset, segment], 0
    while start + 4 <= len(extra):
        kind, length = struct.unpack_from("<2H", extra, start)
        start += 4
        if kind == ZIP64_EXTRA_FIELD:
            position = start
            for index, (marker, code) in enumerate(ZIP64_FORMATS):
                if values[index] == marker and position + struct.calcsize(code) <= start + length:
                    (values[index],) = struct.unpack_from(code, extra, position)
                    position += struct.calcsize(code)
        start += length
    return values[0], values[1], values[2], values[3]


def extract_members(
    paths: Sequence[Path],
    folder: Path,
    *,
    target_of: Callable[[str], str | None],
    on_progress: ProgressCallback,
) -> None:
    """Extract into `folder` every member for which `target_of(name)` returns a relative path.

    A file of the right size is not extracted again, so that a killed run continues. `on_progress` is called with the
    number of members done and in total.
    """
    with SplitZip(paths) as archive:
        targets: Mapping[str, Member] = {
            path: member for member in archive.members() if (path := target_of(member.name))
        }
        for done, (path, member) in enumerate(targets.items(), start=1):
            target = folder / path
            if not target.is_file() or target.stat().st_size != member.size:
                archive.extract(member, target)
            on_progress(done, len(targets))
