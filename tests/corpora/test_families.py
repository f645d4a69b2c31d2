"""The table of families: it lists every system of the MLAADv5 protocol once, under both spellings."""

import zipfile
from pathlib import Path

import pandas as pd
import pytest

from makermark.corpora.families import add_families, find_lineage, parse_families, read_lineages
from makermark.foundation.errors import CorpusError

PROTOCOL = Path(__file__).parents[3] / "shared/data/mlaad4sourcetracing.zip"


def family(system):
    return find_lineage(system).family


def test_table_has_82_systems_with_known_family_sizes():
    assert len(read_lineages()) == 82
    sizes = pd.Series([lineage.family for lineage in read_lineages().values()]).value_counts()
    assert sizes[sizes > 1].to_dict() == {
        "VITS": 30, "Tacotron": 11, "MMS": 10, "Glow-TTS": 6, "Bark": 3, "XTTS": 3, "Parler-TTS": 3, "F5-TTS": 2,
        "Neural HMM": 2,
    }  # fmt: skip


def test_every_family_of_several_systems_has_a_reason():
    whys = {}
    for lineage in read_lineages().values():
        whys.setdefault(lineage.family, []).append(lineage.why)
    assert {family for family, of_family in whys.items() if len(of_family) > 1 and not of_family[0]} == set()


def test_table_has_exactly_the_systems_of_the_real_protocol():
    if not PROTOCOL.exists():
        pytest.skip(f"{PROTOCOL} (the real protocol) does not exist")
    with zipfile.ZipFile(PROTOCOL) as protocol:
        tables = [pd.read_csv(protocol.open(f"{split}.csv")) for split in ("train", "dev", "eval")]
    rows = pd.concat(tables)
    assert set(rows["model_name"]) == set(read_lineages())
    folders = rows["path"].str.split("/").str[-2].unique()
    assert {find_lineage(folder).system for folder in folders} == set(read_lineages())


@pytest.mark.parametrize(
    ("names", "same"),
    [
        (["suno/bark", "suno/bark-small", "tts_models/multilingual/multi-dataset/bark"], True),
        (["vixTTS", "tts_models/multilingual/multi-dataset/xtts_v2"], True),
        (["tts_models/en/jenny/jenny", "tts_models/mt/cv/vits"], True),
        (["facebook/mms-tts-deu", "tts_models/de/thorsten/vits"], False),
    ],
)
def test_aliases_have_one_family(names, same):
    assert (len(set(map(family, names))) == 1) is same


def test_two_families_may_share_an_architecture():
    mms, vits = find_lineage("facebook/mms-tts-deu"), find_lineage("tts_models/de/thorsten/vits")
    assert mms.architecture == vits.architecture == "VITS"


def test_lineage_is_found_by_the_name_of_the_folder():
    assert find_lineage("suno_bark") is find_lineage("suno/bark")
    assert find_lineage("suno/bark-medium") is None


def test_add_families_fills_empty_values_only():
    rows = pd.DataFrame(
        {"system": ["suno_bark", "suno/bark", "mine"], "family": ["", "custom", ""]}, index=[4, 2, 9]
    )
    filled = add_families(rows)
    assert filled["family"].tolist() == ["Bark", "custom", ""]
    assert filled["architecture"].tolist() == ["Bark", "Bark", ""]
    assert filled.index.tolist() == [4, 2, 9]


def test_system_in_two_families_raises():
    table = {name: {"why": "", "systems": {name: ["bark"]}} for name in ("A", "B")}
    with pytest.raises(CorpusError, match="bark is listed in A and in B; remove one"):
        parse_families(table)
