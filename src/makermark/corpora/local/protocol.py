"""The protocol of the local corpus: protocol.yaml and the texts, and the plan of all utterances made from them."""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cache
from importlib import resources
from importlib.metadata import PackageNotFoundError, version
from typing import Any

import yaml

from makermark.corpora import normalise_audio
from makermark.corpora.local.engines import ENGINES
from makermark.corpora.local.vocoders import VOCODERS
from makermark.foundation.errors import CorpusError, install_hint

PACKAGE = resources.files("makermark.corpora.local")
MIN_SYSTEMS = 2  # in train, and unseen in dev and in test: with fewer there is nothing to compare


@dataclass(frozen=True)
class Synthesiser:
    """An engine with its own waveform generator."""

    name: str
    engine: str
    family: str
    vocoder: str
    languages: tuple[str, ...]
    voices: Mapping[str, Sequence[str]]  # by language, or under `any`

    def voices_in(self, language: str) -> Sequence[str]:
        return self.voices["any"] if "any" in self.voices else self.voices[language]


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
    def packages(self) -> tuple[str, ...]:
        """The packages whose versions determine the samples."""
        vocoder_packages = VOCODERS[self.resynthesis].packages if self.resynthesis else ()
        return tuple(sorted({*ENGINES[self.synthesiser.engine].packages, *vocoder_packages}))


@dataclass(frozen=True)
class PlannedUtterance:
    """One utterance of the corpus."""

    split: str
    system: System
    language: str
    number: int  # within split, system and language
    text: str
    voice: str
    seed: int  # of the corpus

    @property
    def utterance_id(self) -> str:
        return f"{self.split}-{self.system.name}-{self.language}-{self.number:03d}"

    @property
    def prompt_key(self) -> tuple[str, str, int]:
        """The utterances of a synthesiser with the same key have the same text and voice: it speaks them once."""
        return self.split, self.language, self.number

    @property
    def fingerprint(self) -> str:
        """A hash of all that determines the samples; it is part of the file name."""
        parts = [self.utterance_id, self.text, self.voice, self.seed, normalise_audio.VERSION]
        parts += [f"{package}=={installed_version(package)}" for package in self.system.packages]
        return hashlib.sha256(json.dumps(parts).encode()).hexdigest()[:10]

    @property
    def path(self) -> str:
        return f"{self.split}/{self.system.name}/{self.language}/{self.number:03d}-{self.fingerprint}.flac"


@dataclass(frozen=True)
class Protocol:
    """The content of protocol.yaml; names of systems are resolved."""

    seen_languages: tuple[str, ...]
    unseen_languages: tuple[str, ...]
    train: tuple[System, ...]
    dev_unseen: tuple[System, ...]
    test_unseen: tuple[System, ...]
    times_in_unseen_languages: Mapping[str, Mapping[str, float]]

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

        def select(systems: tuple[System, ...]) -> tuple[System, ...]:
            return tuple(
                s for s in systems if s.synthesiser.engine in selected and _vocoder_engines(s) & selected
            )

        parts = {
            "train": select(self.train),
            "dev_unseen": select(self.dev_unseen),
            "test_unseen": select(self.test_unseen),
        }
        counts = {name: len(systems) for name, systems in parts.items()}
        if min(counts.values()) < MIN_SYSTEMS:
            raise CorpusError(
                f"corpus local: engines {sorted(selected)} make too few systems ({counts}; each needs "
                f"{MIN_SYSTEMS}): add more of {list(ENGINES)} to local.engines, such as espeak-ng, pico and ru_tts "
                "together"
            )
        return replace(
            self, train=parts["train"], dev_unseen=parts["dev_unseen"], test_unseen=parts["test_unseen"]
        )


def _vocoder_engines(system: System) -> set[str]:
    """Return the engines that can provide the vocoder of `system`; one of them is needed."""
    if system.resynthesis != "mb-melgan":
        return {system.synthesiser.engine}
    return {
        synthesiser.engine
        for synthesiser in read_synthesisers().values()
        if synthesiser.vocoder == system.resynthesis
    }


@cache
def read_synthesisers() -> dict[str, Synthesiser]:
    """Return the synthesisers of protocol.yaml by name."""
    content = yaml.safe_load((PACKAGE / "protocol.yaml").read_text(encoding="utf-8"))
    return {
        name: Synthesiser(name=name, **{**fields, "languages": tuple(fields["languages"])})
        for name, fields in content["synthesisers"].items()
    }


@cache
def read_protocol() -> Protocol:
    """Return the content of protocol.yaml."""
    content: dict[str, Any] = yaml.safe_load((PACKAGE / "protocol.yaml").read_text(encoding="utf-8"))
    return Protocol(
        seen_languages=tuple(content["languages"]["seen"]),
        unseen_languages=tuple(content["languages"]["unseen"]),
        train=tuple(map(_parse_system, content["train"])),
        dev_unseen=tuple(map(_parse_system, content["dev_unseen"])),
        test_unseen=tuple(map(_parse_system, content["test_unseen"])),
        times_in_unseen_languages=content["times_in_unseen_languages"],
    )


def _parse_system(name: str) -> System:
    synthesiser, _, resynthesis = name.partition("+")
    return System(name=name, synthesiser=read_synthesisers()[synthesiser], resynthesis=resynthesis or None)


@cache
def read_texts(language: str) -> dict[str, list[str]]:
    """Return the sentences of a language by split; no sentence is in two splits."""
    texts: dict[str, list[str]] = yaml.safe_load(
        (PACKAGE / "texts" / f"{language}.yaml").read_text(encoding="utf-8")
    )
    return texts


def plan_utterances(
    protocol: Protocol, *, utterances: Mapping[str, int], seed: int
) -> list[PlannedUtterance]:
    """Return the plan of all utterances; `utterances` is the number per system in each split.

    Raises CorpusError if a system has too few sentences and voices for that number.
    """
    plan: list[PlannedUtterance] = []
    for split, unseen in (("train", ()), ("dev", protocol.dev_unseen), ("test", protocol.test_unseen)):
        for system in (*protocol.train, *unseen):
            for language, count in _count_by_language(system, split, protocol, utterances[split]):
                plan += _plan_language(split, system, language, count, seed)
    return plan


def _count_by_language(
    system: System, split: str, protocol: Protocol, utterances: int
) -> Iterator[tuple[str, int]]:
    """Yield the languages of a system in a split with their numbers of utterances."""
    languages = system.synthesiser.languages
    yield from _share_evenly([name for name in protocol.seen_languages if name in languages], utterances)
    if split != "train":
        times = protocol.times_in_unseen_languages[split]
        factor = times["seen_system" if system in protocol.train else "unseen_system"]
        unseen = [name for name in protocol.unseen_languages if name in languages]
        yield from _share_evenly(unseen, math.ceil(utterances * factor))


def _share_evenly(languages: list[str], utterances: int) -> Iterator[tuple[str, int]]:
    for position, language in enumerate(languages):
        share, rest = divmod(utterances, len(languages))
        if count := share + (position < rest):
            yield language, count


def _plan_language(
    split: str, system: System, language: str, count: int, seed: int
) -> Iterator[PlannedUtterance]:
    texts, voices = read_texts(language)[split], system.synthesiser.voices_in(language)
    if count > len(texts) * len(voices):
        raise CorpusError(
            f"corpus local: {system.name} cannot speak {count} different utterances in {split} in {language!r}: there "
            f"are {len(texts)} sentences and {len(voices)} voices; lower local.{split}_utterances"
        )
    for number in range(count):
        passes, position = divmod(number, len(texts))
        voice = voices[(position + passes) % len(voices)]  # a repeated sentence has another voice
        yield PlannedUtterance(split, system, language, number, texts[position], voice, seed)


@cache
def installed_version(package: str) -> str:
    """Return the installed version of an engine's package. Raises CorpusError if it is missing."""
    try:
        return version(package)
    except PackageNotFoundError:
        raise CorpusError(
            f"corpus local: package {package} is missing; {install_hint('local')}, then "
            "pip install --no-deps -r requirements-local.txt (or list the installed engines in local.engines)"
        ) from None
