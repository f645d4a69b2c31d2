"""The protocol of the local corpus: systems in train, held-out systems and languages, sentences."""

from collections import Counter, defaultdict
from pathlib import Path

import pytest
import yaml

from makermark.corpora.local.engines import ENGINES
from makermark.corpora.local.protocol import FOLDER, PROTOCOLS, read_protocol, read_synthesisers
from makermark.corpora.local.utterance_plan import plan_utterances, read_texts
from makermark.corpora.local.vocoders import VOCODERS
from makermark.experiments.presets import preset
from makermark.foundation.errors import CorpusError
from makermark.foundation.manifest import STRATA, stratum_name

UTTERANCES = {"train": 50, "dev": 30, "test": 30}
LANGUAGES = [*read_protocol("small").seen_languages, *read_protocol("small").unseen_languages]


@pytest.fixture(scope="module")
def plan():
    return plan_utterances(read_protocol("small"), utterances=UTTERANCES, seed=0)


def count_strata(plan, protocol):
    counts = {split: Counter() for split in ("dev", "test")}
    train = {system.name for system in protocol.train}
    for utterance in plan:
        if utterance.split != "train":
            seen = utterance.language in protocol.seen_languages
            counts[utterance.split][stratum_name(utterance.system.name in train, seen)] += 1
    return counts


def test_corpus_has_at_least_24_systems_8_languages_and_8_engines():
    systems = read_protocol("small").systems
    assert len({system.name for system in systems}) == len(systems) >= 24
    assert len(LANGUAGES) == len(set(LANGUAGES)) >= 8
    assert len({system.synthesiser.engine for system in systems}) >= 8


def test_names_in_the_protocol_exist():
    for synthesiser in read_synthesisers("small").values():
        assert synthesiser.engine in ENGINES
        assert set(synthesiser.languages) <= set(LANGUAGES)
        assert all(synthesiser.voices_in(language) for language in synthesiser.languages)
    for system in read_protocol("small").systems:
        assert system.resynthesis is None or system.resynthesis in VOCODERS


def test_strata_of_dev_and_test_have_a_hundred_utterances_or_more(plan):
    for split, counts in count_strata(plan, read_protocol("small")).items():
        assert set(counts) == set(STRATA), split
        assert min(counts.values()) >= 100, (split, counts)


def test_every_system_has_25_utterances_or_more_in_each_split(plan):
    counts_of = Counter((utterance.split, utterance.system.name) for utterance in plan)
    assert min(counts_of.values()) >= 25


def test_train_has_no_unseen_language_and_no_unseen_system(plan):
    protocol = read_protocol("small")
    train = [utterance for utterance in plan if utterance.split == "train"]
    assert {utterance.language for utterance in train} == set(protocol.seen_languages)
    assert {utterance.system.name for utterance in train} == {system.name for system in protocol.train}
    dev, test = ({system.name for system in part} for part in (protocol.dev_unseen, protocol.test_unseen))
    assert not dev & test
    assert not (dev | test) & {system.name for system in protocol.train}


def test_a_third_of_the_unseen_systems_has_an_unseen_engine_and_vocoder():
    protocol = read_protocol("small")
    engines = {system.synthesiser.engine for system in protocol.train}
    vocoders = {system.vocoder for system in protocol.train}
    unseen = protocol.dev_unseen + protocol.test_unseen
    new = [s for s in unseen if s.synthesiser.engine not in engines and s.vocoder not in vocoders]
    assert len(new) * 3 >= len(unseen)


@pytest.mark.parametrize("language", LANGUAGES)
def test_sentences_are_unique_across_splits(language):
    sentences = [sentence for split in read_texts(language).values() for sentence in split]
    assert len(sentences) == len({sentence.casefold() for sentence in sentences})


def test_systems_of_a_language_have_the_same_sentences_in_the_same_order(plan):
    counts_of = defaultdict(list)
    for utterance in plan:
        counts_of[utterance.split, utterance.language, utterance.system.name].append(utterance.text)
    for (split, language, _), texts in counts_of.items():
        available = read_texts(language)[split]
        assert texts == [available[number % len(available)] for number in range(len(texts))]


def test_no_system_repeats_a_sentence_with_the_same_voice(plan):
    counts_of = Counter((u.split, u.system.name, u.language, u.text, u.voice) for u in plan)
    assert max(counts_of.values()) == 1


def test_plan_is_reproducible_and_the_seed_changes_every_file_name():
    small = {"train": 2, "dev": 2, "test": 2}
    protocol = read_protocol("small").select_engines(["espeak-ng", "pico", "ru_tts"])
    one, same, other = (plan_utterances(protocol, utterances=small, seed=seed) for seed in (0, 0, 1))
    assert one == same
    assert [u.utterance_id for u in one] == [u.utterance_id for u in other]
    assert all(a.path != b.path for a, b in zip(one, other, strict=True))


def test_three_fast_engines_fill_every_stratum_without_a_neural_vocoder():
    protocol = read_protocol("small").select_engines(["espeak-ng", "pico", "ru_tts"])
    assert {system.resynthesis for system in protocol.systems} <= {None, "griffin-lim", "world"}
    small = plan_utterances(protocol, utterances={"train": 6, "dev": 6, "test": 6}, seed=0)
    train = {system.name for system in protocol.train}
    systems = defaultdict(set)
    for utterance in small:
        seen = utterance.language in protocol.seen_languages
        systems[utterance.split, stratum_name(utterance.system.name in train, seen)].add(
            utterance.system.name
        )
    for split in ("dev", "test"):
        assert all(len(systems[split, name]) >= 2 for name in STRATA)


# The full protocol: most systems need only packages from PyPI.


def without_npm(protocol):
    return protocol._select(lambda system: not any(name.startswith("npm:") for name in system.packages))


@pytest.mark.parametrize("name", ["wide", "full", "full without npm"])
def test_wide_protocols_have_80_systems_of_12_generators_and_8_waveform_makers(name):
    protocol = without_npm(read_protocol("full")) if "without" in name else read_protocol(name)
    names = [system.name for system in protocol.systems]
    assert len(set(names)) == len(names) >= 80
    assert len({system.synthesiser.name for system in protocol.systems}) >= 12
    assert len({system.vocoder for system in protocol.systems}) >= 8
    engines = {system.synthesiser.engine for system in protocol.train}
    vocoders = {system.vocoder for system in protocol.train}
    for unseen, count in ((protocol.dev_unseen, 20), (protocol.test_unseen, 24)):
        assert len(unseen) >= count
        new = [s for s in unseen if s.synthesiser.engine not in engines and s.vocoder not in vocoders]
        assert len(new) >= 8


def test_wide_protocol_needs_no_package_from_npm():
    assert without_npm(read_protocol("wide")) == read_protocol("wide")


@pytest.mark.engines
def test_strata_of_the_wide_corpus_have_a_hundred_utterances(wide_plan):
    for split, counts in count_strata(wide_plan, read_protocol("wide")).items():
        assert set(counts) == set(STRATA), split
        assert min(counts.values()) >= 100, (split, counts)


@pytest.mark.engines
def test_docs_state_the_size_of_the_wide_corpus(wide_plan):
    counts = Counter(utterance.split for utterance in wide_plan)
    page = (Path(__file__).parents[3] / "docs/local-corpus.md").read_text(encoding="utf-8")
    assert f"| utterances | {counts['train']:,} | {counts['dev']:,} | {counts['test']:,} |" in page
    assert f"| utterances | 2,877 | {len(wide_plan):,} | " in page


@pytest.mark.engines
def test_systems_with_slow_vocoders_speak_less_often(wide_plan):
    counts = Counter(
        (u.split, u.system.name) for u in wide_plan if u.language in read_protocol("wide").seen_languages
    )
    assert counts["train", "pico"] == counts["train", "pico+griffin-lim"] == 15
    assert counts["train", "pico+hifigan-universal"] == 4  # 0.26 of them, rounded up
    assert (counts["test", "kokoro"], counts["test", "kokoro+straight"]) == (8, 3)


def test_few_systems_of_the_wide_protocol_end_at_4_khz_in_test_alone():
    """Codec 2 at 700 bit/s, which is new in test: their pairs with other speech are easy."""
    narrow = [s.name for s in read_protocol("wide").test_unseen if s.vocoder == "codec2-700"]
    assert narrow == ["espeak-ng+codec2-700", "kokoro+codec2-700", "vocaltractlab+codec2-700"]


def test_full_protocol_extends_the_wide_one():
    wide, full = read_protocol("wide"), read_protocol("full")
    for part in ("train", "dev_unseen", "test_unseen"):
        of_wide, of_full = ({system.name for system in getattr(p, part)} for p in (wide, full))
        assert of_wide < of_full, part
    added = {system.name for system in full.systems} - {system.name for system in wide.systems}
    assert {name for name in added if not name.startswith("flite")} == {
        "espeak-ng-klatt+straight", "ru_tts+straight", "hibari+straight", "hibari+hifigan-lj", "hibari+hifigan-16k",
    }  # fmt: skip
    assert (full.utterance_share, full.seen_languages) == ({}, wide.seen_languages)


@pytest.mark.parametrize("name", ["wide", "full"])
def test_dev_and_test_hold_out_different_engines_and_vocoders(name):
    protocol = read_protocol(name)
    for attribute in (lambda s: s.synthesiser.engine, lambda s: s.vocoder):
        parts = (protocol.train, protocol.dev_unseen, protocol.test_unseen)
        train, dev, test = (set(map(attribute, part)) for part in parts)
        assert not (dev - train) & (test - train)


@pytest.mark.parametrize("name", PROTOCOLS)
def test_names_in_every_protocol_exist(name):
    protocol = read_protocol(name)
    languages = {*protocol.seen_languages, *protocol.unseen_languages}
    for synthesiser in read_synthesisers(name).values():
        assert synthesiser.engine in ENGINES
        assert set(synthesiser.languages) <= languages
    for system in protocol.systems:
        assert system.resynthesis is None or system.resynthesis in VOCODERS


def test_every_synthesiser_that_a_protocol_lists_has_a_system():
    listed = {
        name
        for file in PROTOCOLS
        for name in yaml.safe_load((FOLDER / f"{file}.yaml").read_text()).get("synthesisers", ())
    }
    assert listed == set(read_synthesisers("full"))


def test_every_engine_and_vocoder_is_in_the_full_protocol():
    systems = read_protocol("full").systems
    assert {system.synthesiser.engine for system in systems} == set(ENGINES)
    assert {system.resynthesis for system in systems} == {None, *VOCODERS}


def test_cell_of_the_plan_is_its_system_and_split():
    protocol = read_protocol("full")
    assert "espeak-ng" in {system.name for system in protocol.train}
    (straight,) = (system for system in protocol.test_unseen if system.name == "kokoro+straight")
    assert (straight.synthesiser.engine, straight.vocoder) == ("kokoro", "straight")
    (coded,) = (system for system in protocol.dev_unseen if system.name == "ru_tts+world-coded")
    assert coded.resynthesis == "world-coded"
    assert not {"kokoro+griffin-lim", "piper+world"} & {system.name for system in protocol.systems}


@pytest.fixture(scope="module")
def wide_plan():
    """The plan of the default."""
    if read_protocol("wide").select_installed() != read_protocol("wide"):
        pytest.skip("not all packages of the extra local are installed")
    params = yaml.safe_load(preset("local"))["local"]
    counts = {split: params[f"{split}_utterances"] for split in ("train", "dev", "test")}
    return plan_utterances(read_protocol("wide"), utterances=counts, seed=params["seed"])


@pytest.fixture(scope="module")
def full_plan():
    """The full protocol, without the packages from npm if one of them is missing, and its plan."""
    protocol = read_protocol("full").select_installed()
    if len(protocol.systems) < len(without_npm(read_protocol("full")).systems):
        pytest.skip("not all packages of the extras local and local-full are installed")
    return protocol, plan_utterances(protocol, utterances={"train": 100, "dev": 30, "test": 30}, seed=0)


@pytest.mark.engines
def test_full_protocol_fills_every_stratum_with_all_systems(full_plan):
    protocol, plan = full_plan
    counts = count_strata(plan, protocol)
    for of_split in counts.values():
        assert set(of_split) == set(STRATA)
        assert min(of_split.values()) >= 150
    assert {utterance.system.name for utterance in plan} == {system.name for system in protocol.systems}
    assert len({utterance.path for utterance in plan}) == len(plan)


@pytest.mark.engines
def test_texts_and_human_voices_of_the_full_protocol_are_in_one_split_only(full_plan):
    _, plan = full_plan
    splits_of_text, splits_of_speaker = defaultdict(set), defaultdict(set)
    for utterance in plan:
        splits_of_text[utterance.language, utterance.text].add(utterance.split)
        if utterance.system.synthesiser.engine == "human":
            splits_of_speaker[utterance.voice].add(utterance.split)
    assert max(map(len, splits_of_text.values())) == 1
    assert len(splits_of_speaker) == 68
    assert max(map(len, splits_of_speaker.values())) == 1


def test_limit_of_a_generator_caps_its_utterances():
    protocol = without_npm(read_protocol("full"))._select(lambda s: s.synthesiser.engine == "vocaltractlab")
    plan = plan_utterances(protocol, utterances={"train": 2, "dev": 2, "test": 30}, seed=0)
    assert Counter(utterance.system.name for utterance in plan)["vocaltractlab+straight"] == 20


def test_unknown_protocol_raises_with_the_choices():
    with pytest.raises(CorpusError, match=r"unknown local\.protocol 'fulll'.*'wide', 'full'"):
        read_protocol("fulll")


def test_unknown_engine_raises_with_the_choices():
    with pytest.raises(CorpusError, match=r"unknown engine 'espeak'.*'espeak-ng', 'pico'"):
        read_protocol("small").select_engines(["espeak"])


def test_too_few_engines_raise_with_a_remedy():
    with pytest.raises(CorpusError, match=r"\['ru_tts'\] make too few systems.*add more"):
        read_protocol("small").select_engines(["ru_tts"])


def test_too_many_utterances_raise():
    with pytest.raises(CorpusError, match=r"cannot speak .* train .*lower local\.train_utterances"):
        plan_utterances(read_protocol("small"), utterances={"train": 5000, "dev": 1, "test": 1}, seed=0)


@pytest.mark.engines
def test_no_espeak_ng_variant_uses_breath_noise():
    """The breath of a variant is noise seeded by the clock: two runs would differ."""
    loader = pytest.importorskip("espeakng_loader")
    variants = Path(loader.get_data_path()) / "voices" / "!v"
    voices = {
        voice
        for name in PROTOCOLS
        for synthesiser in read_synthesisers(name).values()
        if synthesiser.engine == "espeak-ng"
        for voice in synthesiser.voices_in("en")
    }
    for voice in voices - {"-"}:
        assert "breath" not in (variants / voice).read_text(encoding="utf-8"), voice
