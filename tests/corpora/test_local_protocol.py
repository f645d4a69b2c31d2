"""The protocol: what stands in train, what is held out, and which sentences are said."""

from collections import Counter, defaultdict
from pathlib import Path

import pytest

from makermark.corpora.local.engines import ENGINES
from makermark.corpora.local.protocol import plan, read_protocol, read_speakers, read_texts
from makermark.corpora.local.vocoders import VOCODERS
from makermark.corpora.rows import STRATA, stratum
from makermark.errors import CorpusError

UTTERANCES = {"train": 50, "dev": 30, "test": 30}
LANGUAGES = [*read_protocol().seen_languages, *read_protocol().unseen_languages]


@pytest.fixture(scope="module")
def planned():
    return plan(read_protocol(), utterances=UTTERANCES, seed=0)


def strata_of(planned):
    counts = {split: Counter() for split in ("dev", "test")}
    protocol = read_protocol()
    train = {system.name for system in protocol.train}
    for utterance in planned:
        if utterance.split != "train":
            seen = utterance.language in protocol.seen_languages
            counts[utterance.split][stratum(utterance.system.name in train, seen)] += 1
    return counts


def test_the_corpus_has_at_least_24_systems_8_languages_and_8_engines():
    systems = read_protocol().systems
    assert len({system.name for system in systems}) == len(systems) >= 24
    assert len(LANGUAGES) == len(set(LANGUAGES)) >= 8
    assert {system.speaker.engine for system in systems} == set(ENGINES)
    assert len(ENGINES) >= 8


def test_every_name_in_the_protocol_is_known():
    for speaker in read_speakers().values():
        assert speaker.engine in ENGINES
        assert set(speaker.languages) <= set(LANGUAGES)
        assert all(speaker.voices_in(language) for language in speaker.languages)
    for system in read_protocol().systems:
        assert system.resynthesis is None or system.resynthesis in VOCODERS


def test_every_stratum_of_dev_and_test_has_a_hundred_utterances_of_two_systems_or_more(planned):
    for split, counts in strata_of(planned).items():
        assert set(counts) == set(STRATA), split
        assert min(counts.values()) >= 100, (split, counts)


def test_every_system_says_at_least_25_things_in_each_of_its_splits(planned):
    said = Counter((utterance.split, utterance.system.name) for utterance in planned)
    assert min(said.values()) >= 25


def test_train_hears_no_unseen_language_and_no_unseen_system(planned):
    protocol = read_protocol()
    train = [utterance for utterance in planned if utterance.split == "train"]
    assert {utterance.language for utterance in train} == set(protocol.seen_languages)
    assert {utterance.system.name for utterance in train} == {system.name for system in protocol.train}
    dev, test = ({system.name for system in part} for part in (protocol.dev_unseen, protocol.test_unseen))
    assert not dev & test
    assert not (dev | test) & {system.name for system in protocol.train}


def test_a_third_of_the_unseen_systems_is_new_in_acoustic_model_and_vocoder():
    protocol = read_protocol()
    engines = {system.speaker.engine for system in protocol.train}
    vocoders = {system.vocoder for system in protocol.train}
    unseen = protocol.dev_unseen + protocol.test_unseen
    new = [s for s in unseen if s.speaker.engine not in engines and s.vocoder not in vocoders]
    assert len(new) * 3 >= len(unseen)


@pytest.mark.parametrize("language", LANGUAGES)
def test_no_sentence_stands_twice_or_in_two_splits(language):
    sentences = [sentence for split in read_texts(language).values() for sentence in split]
    assert len(sentences) == len({sentence.casefold() for sentence in sentences})


def test_all_systems_of_a_language_say_the_same_sentences_in_the_same_order(planned):
    said = defaultdict(list)
    for utterance in planned:
        said[utterance.split, utterance.language, utterance.system.name].append(utterance.text)
    for (split, language, _), texts in said.items():
        available = read_texts(language)[split]
        assert texts == [available[number % len(available)] for number in range(len(texts))]


def test_no_system_says_the_same_sentence_twice_with_the_same_voice(planned):
    said = Counter((u.split, u.system.name, u.language, u.text, u.voice) for u in planned)
    assert max(said.values()) == 1


def test_the_plan_depends_on_its_arguments_alone_and_the_seed_changes_every_recipe():
    small = {"train": 2, "dev": 2, "test": 2}
    protocol = read_protocol().of_engines(["espeak-ng", "pico", "ru_tts"])
    one, same, other = (plan(protocol, utterances=small, seed=seed) for seed in (0, 0, 1))
    assert one == same
    assert [u.utterance_id for u in one] == [u.utterance_id for u in other]
    assert all(a.path != b.path for a, b in zip(one, other, strict=True))


def test_three_cheap_engines_populate_every_stratum_without_a_neural_vocoder():
    protocol = read_protocol().of_engines(["espeak-ng", "pico", "ru_tts"])
    assert {system.resynthesis for system in protocol.systems} <= {None, "griffin-lim", "world"}
    small = plan(protocol, utterances={"train": 6, "dev": 6, "test": 6}, seed=0)
    train = {system.name for system in protocol.train}
    systems = defaultdict(set)
    for utterance in small:
        seen = utterance.language in protocol.seen_languages
        systems[utterance.split, stratum(utterance.system.name in train, seen)].add(utterance.system.name)
    for split in ("dev", "test"):
        assert all(len(systems[split, name]) >= 2 for name in STRATA)


def test_an_unknown_engine_is_refused_with_the_choices():
    with pytest.raises(CorpusError, match=r"unknown engine 'espeak'.*'espeak-ng', 'pico'"):
        read_protocol().of_engines(["espeak"])


def test_too_few_engines_are_refused_with_a_remedy():
    with pytest.raises(CorpusError, match=r"\['ru_tts'\] make too few systems.*name more"):
        read_protocol().of_engines(["ru_tts"])


def test_asking_for_more_than_there_are_sentences_is_refused():
    with pytest.raises(CorpusError, match=r"cannot say .* train .*fewer train_utterances"):
        plan(read_protocol(), utterances={"train": 5000, "dev": 1, "test": 1}, seed=0)


@pytest.mark.engines
def test_no_variant_of_espeak_ng_breathes():
    """The breath of a variant is noise drawn from the clock: two runs would differ."""
    loader = pytest.importorskip("espeakng_loader")
    variants = Path(loader.get_data_path()) / "voices" / "!v"
    named = {
        voice
        for speaker in read_speakers().values()
        if speaker.engine == "espeak-ng"
        for voice in speaker.voices_in("en")
    }
    for voice in named - {"-"}:
        assert "breath" not in (variants / voice).read_text(encoding="utf-8"), voice
