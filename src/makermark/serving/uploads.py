"""From what a client sent to a file that can be heard: no name of the client's is ever a path.

The bytes lie in an anonymous temporary file (it has no name on the disk and is gone when it is closed), which the one
reader of audio opens through its descriptor.
"""

from __future__ import annotations

import os
import weakref
from dataclasses import dataclass
from pathlib import Path, PurePosixPath, PureWindowsPath

from fastapi import UploadFile

from makermark.errors import AudioError
from makermark.tracing.gallery import plain_name

LONGEST_NAME = 120  # characters of a file's name that are shown and kept in the gallery
MOST_CHANNELS = 8
RATES_HZ = (4_000, 384_000)
SAMPLES_PER_SECOND = (
    2 * 48_000
)  # over all channels: what the longest clip may hold, so that no header asks for more


@dataclass(frozen=True, eq=False)
class Upload:
    """A client's file. `name` is for people only; `descriptor` is open as long as anybody holds this object."""

    name: str
    descriptor: int

    @classmethod
    def of(cls, sent: UploadFile) -> Upload:
        """The file apart from the request, which closes its own when it ends, whoever may still be reading."""
        upload = cls(shown(sent.filename or ""), os.dup(sent.file.fileno()))
        weakref.finalize(upload, os.close, upload.descriptor)
        return upload

    @property
    def path(self) -> Path:
        """Of the open file, for those who want a path."""
        os.lseek(self.descriptor, 0, os.SEEK_SET)  # macOS gives out the position together with the file
        return Path(f"/dev/fd/{self.descriptor}")

    def check(self, *, max_seconds: float) -> None:
        """Raise AudioError for what is no audio, or whose header promises more than is taken, before it is decoded."""
        import soundfile

        try:
            with soundfile.SoundFile(self.path) as sound:
                frames, rate_hz, channels = int(sound.frames), int(sound.samplerate), int(sound.channels)
        except soundfile.LibsndfileError as error:
            raise AudioError(f"{self.name}: not audio, or damaged ({error.error_string.strip()})") from error
        if not RATES_HZ[0] <= rate_hz <= RATES_HZ[1] or channels > MOST_CHANNELS:
            raise AudioError(
                f"{self.name}: {channels} channels at {rate_hz} Hz; at most {MOST_CHANNELS} channels at "
                f"{RATES_HZ[0]} to {RATES_HZ[1]} Hz are taken"
            )
        if frames > max_seconds * rate_hz:
            raise AudioError(f"{self.name}: too long: at most {max_seconds:g} s are taken; send a part of it")
        if frames * channels > max_seconds * SAMPLES_PER_SECOND:
            raise AudioError(f"{self.name}: too many samples; send it with fewer channels or at a lower rate")

    def reason(self, error: AudioError) -> str:
        """The error with the client's name for the file in place of ours."""
        return f"{self.name}: {str(error).removeprefix(f'{self.path}: ').removeprefix(f'{self.name}: ')}"


def shown(name: str) -> str:
    """A client's file name as it is shown: its last part, without control characters, not too long."""
    last = PurePosixPath(PureWindowsPath(name).name).name
    return plain_name(last, longest=LONGEST_NAME).strip(" .") or "clip"
