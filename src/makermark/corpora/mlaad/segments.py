"""A zip archive split into segments (`x.z01`, `x.z02`, ..., `x.zip`), read where it lies.

Python's zipfile refuses archives of several segments. Layout: PKWARE APPNOTE 6.3, sections 4.3 and 8; the
segments are one stream, in which the central directory gives each member's segment and its place therein.
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

from makermark.errors import CorpusError
from makermark.files import replacing

CHUNK = 1 << 20
STORED, DEFLATED = 0, 8
END, END_SIZE, LONGEST_COMMENT = b"PK\5\6", 22, 65535
LOCATOR, LOCATOR_SIZE = b"PK\6\7", 20
END64, END64_SIZE = b"PK\6\6", 56
ENTRY, ENTRY_SIZE = b"PK\1\2", 46
HEADER, HEADER_SIZE = b"PK\3\4", 30
ZIP64_FIELDS = 1  # the extra field that holds what does not fit into 32 bits
WIDE = (
    (0xFFFFFFFF, "<Q"),
    (0xFFFFFFFF, "<Q"),
    (0xFFFFFFFF, "<Q"),
    (0xFFFF, "<L"),
)  # size, packed, offset, segment
UTF8, ENCRYPTED = 0x800, 0x1
REMEDY = "delete that file and run again"


@dataclass(frozen=True)
class Member:
    """A file in the archive, and where in the stream its header starts."""

    name: str
    start: int
    packed: int  # bytes
    size: int  # bytes
    method: int
    crc32: int
    encrypted: bool


class Segments:
    """The segments as one stream of bytes, and the members it holds. Raises CorpusError naming a segment."""

    def __init__(self, paths: Sequence[Path]) -> None:
        self.paths = list(paths)
        self._ends = list(accumulate(path.stat().st_size for path in paths))
        self._starts = [0, *self._ends[:-1]]
        with ExitStack() as opened:
            self._files = [opened.enter_context(path.open("rb")) for path in paths]
            self._close = opened.pop_all()

    def __enter__(self) -> Segments:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._close.close()

    def members(self) -> list[Member]:
        """All files in the archive, as its central directory lists them."""
        start, size, count = self._directory()
        entries = self._read(start, size)
        members, at = [], 0
        for _ in range(count):
            if entries[at : at + 4] != ENTRY or at + ENTRY_SIZE > len(entries):
                raise self._damaged(start + at, "no entry of the central directory")
            member, at = self._member(entries, at)
            members.append(member)
        return members

    def extract(self, member: Member, target: Path) -> None:
        """Write one member, whole and with the CRC-32 that the archive gives for it, or nothing."""
        if member.encrypted or member.method not in (STORED, DEFLATED):
            why = "has a password" if member.encrypted else f"is packed by method {member.method}"
            raise CorpusError(f"{self.paths[-1]}: {member.name} {why}; unpack by hand and set mlaad.root")
        crc32 = 0
        with replacing(target) as draft, draft.open("wb") as file:
            for chunk in self._unpacked(member):
                crc32 = zlib.crc32(chunk, crc32)
                file.write(chunk)
            if crc32 != member.crc32 or file.tell() != member.size:
                raise self._damaged(member.start, f"{member.name} does not have its CRC-32")

    def _unpacked(self, member: Member) -> Iterator[bytes]:
        header = self._read(member.start, HEADER_SIZE)
        if header[:4] != HEADER:
            raise self._damaged(member.start, f"no header of {member.name}")
        name, extra = struct.unpack_from("<HH", header, 26)
        at = member.start + HEADER_SIZE + name + extra
        stop = at + member.packed
        unpack = zlib.decompressobj(-zlib.MAX_WBITS)
        for place in range(at, stop, CHUNK):
            chunk = self._read(place, min(CHUNK, stop - place))
            try:
                yield unpack.decompress(chunk) if member.method == DEFLATED else chunk
            except zlib.error as error:
                raise self._damaged(place, f"{member.name} cannot be unpacked ({error})") from error

    def _directory(self) -> tuple[int, int, int]:
        """Where the central directory starts in the stream, its bytes, its entries."""
        length = self._ends[-1]
        first = max(0, length - END_SIZE - LONGEST_COMMENT)
        tail = self._read(first, length - first)
        found = tail.rfind(END)
        if found < 0 or found + END_SIZE > len(tail):
            raise self._damaged(length - 1, "no end of a zip archive, so it is truncated or no zip")
        last, segment, _, count, size, offset = struct.unpack_from("<4H2L", tail, found + 4)
        end = first + found
        locator = self._read(end - LOCATOR_SIZE, LOCATOR_SIZE) if end >= LOCATOR_SIZE else b""
        if locator[:4] == LOCATOR:
            segment64, offset64, segments = struct.unpack_from("<LQL", locator, 4)
            self._refuse_other_count(segments)
            record = self._read(self._place(segment64, offset64), END64_SIZE)
            if record[:4] != END64:
                raise self._damaged(end, "no zip64 end record")
            segment, _, count, size, offset = struct.unpack_from("<L4Q", record, 20)
        else:
            self._refuse_other_count(last + 1)
        return self._place(segment, offset), size, count

    def _member(self, entries: bytes, at: int) -> tuple[Member, int]:
        """The member whose entry starts at `at`, and where the next one starts."""
        flags, method = struct.unpack_from("<2H", entries, at + 8)
        crc32, packed, size, name, extra, comment, segment = struct.unpack_from("<3L4H", entries, at + 16)
        (offset,) = struct.unpack_from("<L", entries, at + 42)
        names = at + ENTRY_SIZE
        extras = names + name
        fields = entries[extras : extras + extra]
        size, packed, offset, segment = _wide(
            fields, size=size, packed=packed, offset=offset, segment=segment
        )
        member = Member(
            name=entries[names:extras].decode("utf-8" if flags & UTF8 else "cp437", "replace"),
            start=self._place(segment, offset),
            packed=packed,
            size=size,
            method=method,
            crc32=crc32,
            encrypted=bool(flags & ENCRYPTED),
        )
        return member, extras + extra + comment

    def _place(self, segment: int, offset: int) -> int:
        if segment >= len(self.paths) or self._starts[segment] + offset > self._ends[-1]:
            raise self._damaged(
                self._ends[-1] - 1, f"names a place outside the archive ({segment}, {offset})"
            )
        return self._starts[segment] + offset

    def _read(self, start: int, size: int) -> bytes:
        """Bytes of the stream, across segments."""
        chunks, at = [], start
        while at < start + size:
            segment = bisect_right(self._ends, at)
            if segment == len(self.paths):
                raise self._damaged(self._ends[-1] - 1, "ends too early")
            self._files[segment].seek(at - self._starts[segment])
            chunk = self._files[segment].read(min(start + size, self._ends[segment]) - at)
            if not chunk:
                raise self._damaged(at, "became shorter while it was read")
            chunks.append(chunk)
            at += len(chunk)
        return b"".join(chunks)

    def _refuse_other_count(self, segments: int) -> None:
        if segments != len(self.paths):
            raise CorpusError(
                f"{self.paths[-1]}: is the last of {segments} segments, but mlaad.zip_parts names {len(self.paths)}; "
                "name all, in order, the .zip last"
            )

    def _damaged(self, place: int, why: str) -> CorpusError:
        segment = min(bisect_right(self._ends, max(0, place)), len(self.paths) - 1)
        return CorpusError(f"{self.paths[segment]}: {why}; {REMEDY}")


def _wide(extra: bytes, *, size: int, packed: int, offset: int, segment: int) -> tuple[int, int, int, int]:
    """The four values, each from the zip64 extra field where it does not fit into its own (APPNOTE 4.5.3)."""
    values, at = [size, packed, offset, segment], 0
    while at + 4 <= len(extra):
        kind, length = struct.unpack_from("<2H", extra, at)
        at += 4
        if kind == ZIP64_FIELDS:
            place = at
            for number, (saturated, code) in enumerate(WIDE):
                if values[number] == saturated and place + struct.calcsize(code) <= at + length:
                    (values[number],) = struct.unpack_from(code, extra, place)
                    place += struct.calcsize(code)
        at += length
    return values[0], values[1], values[2], values[3]


def extract_all(
    paths: Sequence[Path],
    folder: Path,
    *,
    wanted: Callable[[str], str | None],
    tell: Callable[[int, int | None], None],
) -> None:
    """Unpack into `folder` every member for which `wanted(name)` gives a path there; what is there in its
    size is left, so that a killed run goes on. `tell` hears of members done and members in all."""
    with Segments(paths) as archive:
        chosen: Mapping[str, Member] = {
            path: member for member in archive.members() if (path := wanted(member.name))
        }
        for done, (path, member) in enumerate(chosen.items(), start=1):
            target = folder / path
            if not target.is_file() or target.stat().st_size != member.size:
                archive.extract(member, target)
            tell(done, len(chosen))
