"""protocol.yaml and the texts, made into a plan: every utterance of the corpus before one is spoken."""

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

from makermark.corpora import finishing
from makermark.corpora.local.engines import ENGINES
from makermark.corpora.local.vocoders import VOCODERS
from makermark.errors import CorpusError, how_to_add

HERE = resources.files("makermark.corpora.local")
FEWEST_SYSTEMS = 2  # in train, and new in dev and in test: fewer leave nothing to tell apart


@dataclass(frozen=True)
class Speaker:
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
    """A speaker, re-synthesised or not: the class to trace."""

    name: str
    speaker: Speaker
    resynthesis: str | None  # a name of VOCODERS

    @property
    def vocoder(self) -> str:
        return self.resynthesis or self.speaker.vocoder

    @property
    def packages(self) -> tuple[str, ...]:
        more = VOCODERS[self.resynthesis].packages if self.resynthesis else ()
        return tuple(sorted({*ENGINES[self.speaker.engine].packages, *more}))


@dataclass(frozen=True)
class Planned:
    """One utterance of the corpus. Utterances of a speaker with the same `said` share what the engine says."""

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
    def said(self) -> tuple[str, str, int]:
        return self.split, self.language, self.number

    @property
    def recipe(self) -> str:
        """Hash of all that decides the samples; it stands in the file's name."""
        parts = [self.utterance_id, self.text, self.voice, self.seed, finishing.VERSION]
        parts += [f"{package}=={installed(package)}" for package in self.system.packages]
        return hashlib.sha256(json.dumps(parts).encode()).hexdigest()[:10]

    @property
    def path(self) -> str:
        return f"{self.split}/{self.system.name}/{self.language}/{self.number:03d}-{self.recipe}.flac"


@dataclass(frozen=True)
class Protocol:
    """protocol.yaml, its system names resolved."""

    seen_languages: tuple[str, ...]
    unseen_languages: tuple[str, ...]
    train: tuple[System, ...]
    dev_unseen: tuple[System, ...]
    test_unseen: tuple[System, ...]
    times_in_unseen_languages: Mapping[str, Mapping[str, float]]

    @property
    def systems(self) -> tuple[System, ...]:
        return self.train + self.dev_unseen + self.test_unseen

    def of_engines(self, engines: Sequence[str]) -> Protocol:
        """Only the systems made by these engines alone (none named: all). Raises CorpusError."""
        unknown = sorted(set(engines) - set(ENGINES))
        if unknown:
            raise CorpusError(f"corpus local: unknown engine {unknown[0]!r}; it is one of {list(ENGINES)}")
        chosen = set(engines) or set(ENGINES)

        def chosen_of(systems: tuple[System, ...]) -> tuple[System, ...]:
            return tuple(s for s in systems if s.speaker.engine in chosen and _makers(s) & chosen)

        protocol = replace(
            self,
            train=chosen_of(self.train),
            dev_unseen=chosen_of(self.dev_unseen),
            test_unseen=chosen_of(self.test_unseen),
        )
        parts = (protocol.train, protocol.dev_unseen, protocol.test_unseen)
        if min(map(len, parts)) < FEWEST_SYSTEMS:
            counts = dict(zip(("train", "dev_unseen", "test_unseen"), map(len, parts), strict=True))
            raise CorpusError(
                f"corpus local: engines {sorted(chosen)} make too few systems ({counts}; each needs "
                f"{FEWEST_SYSTEMS}): name more of {list(ENGINES)}, such as espeak-ng, pico and ru_tts together"
            )
        return protocol


def _makers(system: System) -> set[str]:
    """The engines of which one is needed: the speaker's, or those whose own vocoder re-synthesises."""
    if system.resynthesis != "mb-melgan":
        return {system.speaker.engine}
    return {speaker.engine for speaker in read_speakers().values() if speaker.vocoder == system.resynthesis}


@cache
def read_speakers() -> dict[str, Speaker]:
    speakers = yaml.safe_load((HERE / "protocol.yaml").read_text(encoding="utf-8"))["speakers"]
    return {
        name: Speaker(name=name, **{**given, "languages": tuple(given["languages"])})
        for name, given in speakers.items()
    }


@cache
def read_protocol() -> Protocol:
    content: dict[str, Any] = yaml.safe_load((HERE / "protocol.yaml").read_text(encoding="utf-8"))
    return Protocol(
        seen_languages=tuple(content["languages"]["seen"]),
        unseen_languages=tuple(content["languages"]["unseen"]),
        train=tuple(map(_system, content["train"])),
        dev_unseen=tuple(map(_system, content["dev_unseen"])),
        test_unseen=tuple(map(_system, content["test_unseen"])),
        times_in_unseen_languages=content["times_in_unseen_languages"],
    )


def _system(name: str) -> System:
    speaker, _, resynthesis = name.partition("+")
    return System(name=name, speaker=read_speakers()[speaker], resynthesis=resynthesis or None)


@cache
def read_texts(language: str) -> dict[str, list[str]]:
    """The sentences of a language by split; no sentence stands in two splits."""
    texts: dict[str, list[str]] = yaml.safe_load(
        (HERE / "texts" / f"{language}.yaml").read_text(encoding="utf-8")
    )
    return texts


def plan(protocol: Protocol, *, utterances: Mapping[str, int], seed: int) -> list[Planned]:
    """Every utterance; `utterances` is the number per system in each split. Raises CorpusError."""
    planned: list[Planned] = []
    for split, unseen in (("train", ()), ("dev", protocol.dev_unseen), ("test", protocol.test_unseen)):
        for system in (*protocol.train, *unseen):
            for language, count in _languages_of(system, split, protocol, utterances[split]):
                planned += _in_language(split, system, language, count, seed)
    return planned


def _languages_of(
    system: System, split: str, protocol: Protocol, utterances: int
) -> Iterator[tuple[str, int]]:
    """The languages of a system in a split, with the number of utterances in each."""
    yield from _shares(
        [name for name in protocol.seen_languages if name in system.speaker.languages], utterances
    )
    if split != "train":
        times = protocol.times_in_unseen_languages[split]
        factor = times["seen_system" if system in protocol.train else "unseen_system"]
        unseen = [name for name in protocol.unseen_languages if name in system.speaker.languages]
        yield from _shares(unseen, math.ceil(utterances * factor))


def _shares(languages: list[str], utterances: int) -> Iterator[tuple[str, int]]:
    for position, language in enumerate(languages):
        share, rest = divmod(utterances, len(languages))
        if count := share + (position < rest):
            yield language, count


def _in_language(split: str, system: System, language: str, count: int, seed: int) -> Iterator[Planned]:
    texts, voices = read_texts(language)[split], system.speaker.voices_in(language)
    if count > len(texts) * len(voices):
        raise CorpusError(
            f"corpus local: {system.name} cannot say {count} different things in {split} in {language!r}: there are "
            f"{len(texts)} sentences and {len(voices)} voices; ask for fewer {split}_utterances"
        )
    for number in range(count):
        passes, position = divmod(number, len(texts))
        voice = voices[(position + passes) % len(voices)]  # a sentence said again is said by another voice
        yield Planned(split, system, language, number, texts[position], voice, seed)


@cache
def installed(package: str) -> str:
    """The version of an engine's package. Raises CorpusError where it is missing."""
    try:
        return version(package)
    except PackageNotFoundError:
        raise CorpusError(
            f"corpus local: package {package} is missing; {how_to_add('local')}, then "
            "pip install --no-deps -r requirements-local.txt (or name in local.engines those that are installed)"
        ) from None
