"""The plan of all utterances of the local corpus: a protocol, with sentences, voices and human recordings."""

from __future__ import annotations

import hashlib
import json
import math
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cache
from importlib import resources

import yaml

from makermark.corpora import normalise_audio
from makermark.corpora.local import human_speech
from makermark.corpora.local.packages import installed_version
from makermark.corpora.local.protocol import Protocol, System
from makermark.foundation.errors import CorpusError

TEXTS = resources.files("makermark.corpora.local") / "texts"
HUMAN = "human"  # the engine that speaks recordings


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
        parts += [
            f"{package}=={installed_version(package)}" for package in self.system.packages_of(self.voice)
        ]
        return hashlib.sha256(json.dumps(parts).encode()).hexdigest()[:10]

    @property
    def path(self) -> str:
        return f"{self.split}/{self.system.name}/{self.language}/{self.number:03d}-{self.fingerprint}.flac"


@cache
def read_texts(language: str) -> dict[str, list[str]]:
    """Return the sentences of a language by split; no sentence is in two splits."""
    texts: dict[str, list[str]] = yaml.safe_load((TEXTS / f"{language}.yaml").read_text(encoding="utf-8"))
    return texts


def plan_utterances(
    protocol: Protocol, *, utterances: Mapping[str, int], seed: int
) -> list[PlannedUtterance]:
    """Return the plan of all utterances; `utterances` is the number per system in each split.

    Systems with a slow vocoder speak the protocol's share of them, and copies of human speech are fewer where there are
    fewer recordings. Raises CorpusError if another system has too few
    sentences and voices for that number.
    """
    plan: list[PlannedUtterance] = []
    for split, unseen in (("train", ()), ("dev", protocol.dev_unseen), ("test", protocol.test_unseen)):
        for system in (*protocol.train, *unseen):
            count = math.ceil(utterances[split] * protocol.utterance_share.get(system.vocoder, 1.0))
            count = min(count, system.synthesiser.max_utterances.get(split, count))
            if system.synthesiser.engine == HUMAN:
                plan += _plan_recordings(split, system, count, seed)
                continue
            for language, share in _count_by_language(system, split, protocol, count):
                plan += _plan_sentences(split, system, language, share, seed)
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


def _plan_sentences(
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


def _plan_recordings(split: str, system: System, count: int, seed: int) -> Iterator[PlannedUtterance]:
    numbers: Counter[str] = Counter()  # by language
    for piece in human_speech.list_pieces()[split][:count]:
        number = numbers[piece.language]
        numbers[piece.language] += 1
        yield PlannedUtterance(split, system, piece.language, number, piece.text, piece.speaker, seed)
