"""The table of families: every system of the MLAADv5 protocol stands in it once, under both spellings."""

import zipfile
from pathlib import Path

import pandas as pd
import pytest

from makermark.corpora.families import add_families, lineage_of, lineages, read
from makermark.errors import CorpusError

PROTOCOL = Path(__file__).parents[3] / "shared/data/mlaad4sourcetracing.zip"


def family(system):
    return lineage_of(system).family


def test_it_holds_the_82_systems_of_the_protocol_with_the_sizes_of_their_families():
    assert len(lineages()) == 82
    sizes = pd.Series([lineage.family for lineage in lineages().values()]).value_counts()
    assert sizes[sizes > 1].to_dict() == {
        "VITS": 30, "Tacotron": 11, "MMS": 10, "Glow-TTS": 6, "Bark": 3, "XTTS": 3, "Parler-TTS": 3, "F5-TTS": 2,
        "Neural HMM": 2,
    }  # fmt: skip


def test_every_family_of_several_systems_says_why():
    whys = {}
    for lineage in lineages().values():
        whys.setdefault(lineage.family, []).append(lineage.why)
    assert {family for family, of_family in whys.items() if len(of_family) > 1 and not of_family[0]} == set()


def test_it_covers_exactly_the_systems_of_the_real_protocol():
    if not PROTOCOL.exists():
        pytest.skip(f"{PROTOCOL} is not here: the real protocol")
    with zipfile.ZipFile(PROTOCOL) as protocol:
        tables = [pd.read_csv(protocol.open(f"{split}.csv")) for split in ("train", "dev", "eval")]
    rows = pd.concat(tables)
    assert set(rows["model_name"]) == set(lineages())
    folders = rows["path"].str.split("/").str[-2].unique()
    assert {lineage_of(folder).system for folder in folders} == set(lineages())


@pytest.mark.parametrize(
    ("names", "same"),
    [
        (["suno/bark", "suno/bark-small", "tts_models/multilingual/multi-dataset/bark"], True),
        (["vixTTS", "tts_models/multilingual/multi-dataset/xtts_v2"], True),
        (["tts_models/en/jenny/jenny", "tts_models/mt/cv/vits"], True),
        (["facebook/mms-tts-deu", "tts_models/de/thorsten/vits"], False),
    ],
)
def test_aliases_are_one_family(names, same):
    assert (len(set(map(family, names))) == 1) is same


def test_a_family_is_no_architecture_other_houses_train_it_too():
    mms, vits = lineage_of("facebook/mms-tts-deu"), lineage_of("tts_models/de/thorsten/vits")
    assert mms.architecture == vits.architecture == "VITS"


def test_the_name_of_its_folder_finds_a_system_too():
    assert lineage_of("suno_bark") is lineage_of("suno/bark")
    assert lineage_of("suno/bark-medium") is None


def test_what_a_row_says_stays_what_it_leaves_empty_is_filled():
    rows = pd.DataFrame(
        {"system": ["suno_bark", "suno/bark", "mine"], "family": ["", "of its own", ""]}, index=[4, 2, 9]
    )
    filled = add_families(rows)
    assert filled["family"].tolist() == ["Bark", "of its own", ""]
    assert filled["architecture"].tolist() == ["Bark", "Bark", ""]
    assert filled.index.tolist() == [4, 2, 9]


def test_a_system_in_two_families_is_refused():
    table = {name: {"why": "", "systems": {name: ["bark"]}} for name in ("A", "B")}
    with pytest.raises(CorpusError, match="bark stands in A and in B; remove one"):
        read(table)
