"""Adapters, each on a small tree of the published layout; and the registry."""

import dataclasses
import os
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import soundfile

from makermark.auditing.checks import families
from makermark.corpora import asvspoof2019_la, folders, reading, stopa, wavefake
from makermark.corpora.listing import complete
from makermark.corpora.names import CORPORA
from makermark.corpora.rows import derive_seen, strata
from makermark.errors import CorpusError, FilesError, ParamsError
from makermark.params import read_params

PARAMS = read_params(Path(__file__).parents[2] / "params.yaml")
ASVSPOOF = {
    "train.trn": ["LA_0079 LA_T_1138215 - - bonafide", "LA_0079 LA_T_1004644 - A01 spoof",
                  "LA_0080 LA_T_1056709 - A04 spoof"],
    "dev.trl": ["LA_0069 LA_D_1047731 - - bonafide", "LA_0069 LA_D_4525610 - A04 spoof"],
    "eval.trl": ["LA_0039 LA_E_2834763 - A11 spoof", "LA_0014 LA_E_8877452 - A16 spoof",
                 "LA_0040 LA_E_6828287 - - bonafide"],
}  # fmt: skip


def sounds(root, *paths):
    for path in paths:
        (root / path).parent.mkdir(parents=True, exist_ok=True)
        soundfile.write(root / path, np.zeros(100), 16000)


def asvspoof_tree(root):
    protocols = root / "LA/ASVspoof2019_LA_cm_protocols"
    protocols.mkdir(parents=True)
    for name, lines in ASVSPOOF.items():
        (protocols / f"ASVspoof2019.LA.cm.{name}.txt").write_text("\n".join(lines) + "\n")
        part = name.split(".")[0]
        sounds(root, *(f"LA/ASVspoof2019_LA_{part}/flac/{line.split()[1]}.flac" for line in lines))
    return protocols


def stopa_tree(root):
    tables = {
        "EET/protocols/train.txt": (
            "Speaker FileName Text ATK",
            ["p225 LA_T_1 - AA01", "p226 LA_T_2 - AA03"],
        ),
        "TEE/AA01-co-1.txt": ("Speaker FileName Text ATK", ["p227 LA_D_1 - AA01"]),
        "Trials/AA01-co-100_trials.txt": (
            "Speaker FileName Text Duration ATK AcousticModel VocoderModel IsTargetATK",
            ["p228 LA_E_1 - 100 AA01 am1 vm1 True", "p229 LA_E_2.wav - 100 AA02 am2 vm1 False"],
        ),
        "Trials/AA03-co-100_trials.txt": (
            "Speaker FileName Text Duration ATK AcousticModel VocoderModel IsTargetATK",
            ["p228 LA_E_1 - 100 AA01 am1 vm1 False"],
        ),
    }
    for name, (header, lines) in tables.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text("\n".join([header, *lines]) + "\n")
    sounds(root, *(f"EET/wav/LA_T_{n}.wav" for n in (1, 2)), "TEE/wav/LA_D_1.wav")
    sounds(root, *(f"Trials/wav/LA_E_{n}.wav" for n in (1, 2)))


def wavefake_tree(root):
    sounds(
        root,
        "generated_audio/ljspeech_melgan/LJ001-0001_gen.wav",
        "generated_audio/ljspeech_hifiGAN/LJ001-0001_generated.wav",
        "generated_audio/jsut_parallel_wavegan/BASIC5000_0001_gen.wav",
        "generated_audio/common_voices_prompts_from_conformer_fastspeech2_pwg_ljspeech/gen_0.wav",
        "generated_audio/notes/x.wav",
    )


def folders_tree(root):
    sounds(root, "bark/en/1.wav", "bark/2.flac", "xtts/1.wav", ".cache/y/1.wav")


TREES = {
    "asvspoof2019-la": (asvspoof_tree, asvspoof2019_la.listing, 8),
    "stopa": (stopa_tree, stopa.listing, 5),
    "wavefake": (wavefake_tree, wavefake.listing, 4),
    "folders": (folders_tree, folders.listing, 3),
}


def test_every_name_is_registered_and_every_adapter_is_tested_here():
    assert {"local", *reading.READERS} == set(CORPORA)
    assert set(TREES) == set(CORPORA) - {"local", "manifest", "mlaad-v5"}


@pytest.mark.parametrize("name", TREES)
def test_an_adapter_lists_files_that_are_there_and_is_reached_by_its_name(name, tmp_path):
    plant, _, count = TREES[name]
    plant(tmp_path)
    external = dataclasses.replace(PARAMS.external, root=str(tmp_path))
    listing = reading.read(dataclasses.replace(PARAMS, corpus=name, external=external))
    rows = complete(listing)
    assert len(rows) == count
    assert all((listing.root / path).is_file() for path in rows["path"])


@pytest.mark.parametrize("name", TREES)
def test_a_folder_without_the_corpus_is_refused_in_one_line(name, tmp_path):
    for root in (tmp_path, tmp_path / "nowhere"):
        with pytest.raises((CorpusError, FilesError)) as caught:
            TREES[name][1](root)
        assert str(root) in str(caught.value)
        assert "\n" not in str(caught.value)
    with pytest.raises(ParamsError, match=f"corpus {name} is on your disk: set external.root"):
        reading.read(dataclasses.replace(PARAMS, corpus=name))


def test_a_manifest_without_a_file_and_an_unknown_corpus_are_refused():
    with pytest.raises(ParamsError, match=r"set manifest\.file"):
        reading.read(dataclasses.replace(PARAMS, corpus="manifest"))
    with pytest.raises(ParamsError, match="unknown corpus 'voxceleb'"):
        reading.read(dataclasses.replace(PARAMS, corpus="voxceleb"))


def test_asvspoof_has_splits_speakers_attacks_and_their_parts(tmp_path):
    asvspoof_tree(tmp_path)
    rows = complete(asvspoof2019_la.listing(tmp_path)).set_index("utterance_id")
    a11 = rows.loc["ASVspoof2019_LA_eval/flac/LA_E_2834763.flac"]
    assert a11[["system", "split", "voice", "acoustic_model", "vocoder"]].tolist() == [
        "A11", "test", "LA_0039", "AR RNN + CNN", "Griffin-Lim",
    ]  # fmt: skip
    assert rows["split"].value_counts().to_dict() == {"train": 3, "test": 3, "dev": 2}
    assert (rows["system"] == "bonafide").sum() == 3
    assert set(complete(asvspoof2019_la.listing(tmp_path / "LA"))["path"]) == set(rows.index)


def test_asvspoofs_own_strata_call_a16_known_and_train_does_not(tmp_path):
    asvspoof_tree(tmp_path)
    rows = complete(asvspoof2019_la.listing(tmp_path))
    a16 = rows["system"] == "A16"
    assert strata(derive_seen(rows, strata_from="protocol"))[a16].tolist() == ["seen_system_seen_language"]
    assert strata(derive_seen(rows, strata_from="train"))[a16].tolist() == ["unseen_system_seen_language"]


# Wang et al. 2020, table 1, columns "conversion" and "waveform generator" (with A07's post-process).
TABLE_1 = """
A01 | AR RNN            | WaveNet
A02 | AR RNN            | WORLD
A03 | FF                | WORLD
A04 | CART              | waveform concatenation
A05 | VAE               | WORLD
A06 | GMM-UBM           | spectral filtering + OLA
A07 | RNN               | WORLD + GAN
A08 | AR RNN            | neural source-filter
A09 | RNN               | Vocaine
A10 | AR RNN + CNN      | WaveRNN
A11 | AR RNN + CNN      | Griffin-Lim
A12 | RNN               | WaveNet
A13 | moment matching   | waveform filtering
A14 | RNN               | STRAIGHT
A15 | RNN               | WaveNet
A16 | CART              | waveform concatenation
A17 | VAE               | waveform filtering
A18 | linear            | MFCC vocoder
A19 | GMM-UBM           | spectral filtering + OLA
"""


def test_asvspoof_has_the_published_table_of_attacks():
    lines = [[field.strip() for field in line.split("|")] for line in TABLE_1.strip().splitlines()]
    parts = {
        name: [attack.acoustic_model, attack.vocoder] for name, attack in asvspoof2019_la.ATTACKS.items()
    }
    assert parts == {"bonafide": ["human", "human"]} | {name: [*given] for name, *given in lines}


def test_asvspoofs_families_are_its_attacks_but_for_the_two_that_come_again():
    of_attack = {name: attack.family for name, attack in asvspoof2019_la.ATTACKS.items()}
    again = {name: family for name, family in of_attack.items() if name != family}
    assert again == {"bonafide": "human", "A16": "A04", "A19": "A06"}


def test_the_audit_finds_asvspoofs_real_aliases_only():
    rows = pd.DataFrame(
        [
            {"path": f"{split}/{name}", "system": name, "split": split, "family": attack.family}
            for name, attack in asvspoof2019_la.ATTACKS.items()
            for split in (("train", "dev") if name < "A07" else ("test",))
        ]
    )
    found = families(rows)
    assert found["aliases"].keys() == {"A04", "A06"}
    assert [(told["systems"], told["in_train"]) for told in found["unseen_but_known"]] == [
        (["A16"], ["A04"]),
        (["A19"], ["A06"]),
    ]


@pytest.mark.parametrize(
    "line",
    [
        "LA_0079 LA_T_1 - A01",
        "LA_0079 LA_T_1 - A01 fake",
        "LA_0079 LA_T_1 - - spoof",
        "LA_0079 LA_T_1 - A20 spoof",
    ],
)
def test_a_line_that_is_not_of_asvspoofs_protocol_is_named(tmp_path, line):
    protocol = asvspoof_tree(tmp_path) / "ASVspoof2019.LA.cm.train.trn.txt"
    protocol.write_text(f"LA_0079 LA_T_1138215 - - bonafide\n\n{line}\n")
    with pytest.raises(CorpusError, match="line 3"):
        asvspoof2019_la.listing(tmp_path)


def test_stopa_has_its_subsets_known_attacks_and_each_file_once(tmp_path):
    stopa_tree(tmp_path)
    rows = complete(stopa.listing(tmp_path))
    assert dict(zip(rows["path"], rows["split"], strict=True)) == {
        "EET/wav/LA_T_1.wav": "train",
        "EET/wav/LA_T_2.wav": "train",
        "TEE/wav/LA_D_1.wav": "dev",
        "Trials/wav/LA_E_1.wav": "test",
        "Trials/wav/LA_E_2.wav": "test",
    }
    assert rows["protocol_system_seen"].tolist() == [True, True, True, True, False]
    assert rows["acoustic_model"].tolist() == ["", "", "", "am1", "am2"]
    assert rows["vocoder"].tolist()[-1] == "vm1"
    assert rows["voice"].tolist()[0] == "p225"


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (
            "Speaker Name ATK\np1 x AA01\n",
            r"line 1: no column for the path .* it has \['Speaker', 'Name', 'ATK'\].* move the file away",
        ),
        ("FileName ATK\nLA_1 AA01\nLA_2\n", "line 3: 1 values where line 1 names 2"),
        ("", "line 1: no column for the path"),
    ],
)
def test_a_protocol_of_stopa_that_cannot_be_read_is_named(tmp_path, text, said):
    stopa_tree(tmp_path)
    (tmp_path / "TEE/AA01-co-1.txt").write_text(text)
    with pytest.raises(CorpusError, match=said):
        stopa.listing(tmp_path)


def test_wavefake_has_vocoders_languages_and_sentences(tmp_path):
    wavefake_tree(tmp_path)
    rows = complete(wavefake.listing(tmp_path)).set_index("system")
    assert rows["vocoder"].to_dict() == {
        "common_voices_prompts_from_conformer_fastspeech2_pwg_ljspeech": "parallel-wavegan",
        "jsut_parallel_wavegan": "parallel-wavegan",
        "ljspeech_hifiGAN": "hifigan",
        "ljspeech_melgan": "melgan",
    }
    assert (
        rows.loc["ljspeech_melgan", "text"] == rows.loc["ljspeech_hifiGAN", "text"] == "ljspeech:LJ001-0001"
    )
    assert rows.loc["jsut_parallel_wavegan", "language"] == "ja"
    assert (rows["split"] == "").all()


def test_folders_are_systems_or_splits_of_systems(tmp_path):
    folders_tree(tmp_path / "plain")
    rows = complete(folders.listing(tmp_path / "plain"))
    assert dict(zip(rows["path"], rows["system"], strict=True)) == {
        "bark/2.flac": "bark",
        "bark/en/1.wav": "bark",
        "xtts/1.wav": "xtts",
    }
    sounds(tmp_path / "split", "train/bark/1.wav", "Eval/xtts/1.wav")
    rows = complete(folders.listing(tmp_path / "split"))
    assert sorted(zip(rows["split"], rows["system"], strict=True)) == [("test", "xtts"), ("train", "bark")]


@pytest.mark.parametrize("name", ["asvspoof2019-la", "stopa"])
def test_a_protocol_that_is_not_utf8_is_named_with_its_line(name, tmp_path):
    TREES[name][0](tmp_path)
    protocol = sorted(tmp_path.rglob("*.txt"))[0]
    protocol.write_bytes(protocol.read_bytes() + "é\n".encode("latin-1"))
    line = protocol.read_bytes().count(b"\n")
    with pytest.raises(CorpusError) as caught:
        TREES[name][1](tmp_path)
    assert str(caught.value).startswith(f"{protocol}, line {line}: not UTF-8")
    assert "\n" not in str(caught.value)


def test_what_an_adapter_read_stands_in_its_listing(tmp_path):
    asvspoof_tree(tmp_path / "asv")
    assert set(asvspoof2019_la.listing(tmp_path / "asv").tables) == set((tmp_path / "asv").rglob("*.txt"))
    stopa_tree(tmp_path / "stopa")
    assert set(stopa.listing(tmp_path / "stopa").tables) == set((tmp_path / "stopa").rglob("*.txt"))


def test_linked_folders_are_systems_and_a_link_upwards_is_not_followed(tmp_path):
    root, elsewhere = tmp_path / "root", tmp_path / "elsewhere"
    sounds(root, "bark/1.wav")
    sounds(elsewhere, "xtts/1.wav", "xtts/deep/2.wav")
    (root / "xtts").symlink_to(elsewhere / "xtts")
    (root / "bark/all").symlink_to(root)
    (elsewhere / "xtts/deep/back").symlink_to(elsewhere / "xtts")
    rows = complete(folders.listing(root))
    assert sorted(zip(rows["path"], rows["system"], strict=True)) == [
        ("bark/1.wav", "bark"),
        ("xtts/1.wav", "xtts"),
        ("xtts/deep/2.wav", "xtts"),
    ]


@pytest.mark.skipif(sys.platform != "linux", reason="other systems refuse such a name themselves")
def test_a_file_name_that_is_not_utf8_is_refused_with_its_bytes(tmp_path):
    folders_tree(tmp_path)
    (tmp_path / "bark/1.wav").touch()
    (tmp_path / "bark" / os.fsdecode(b"b\xfccher.wav")).touch()
    with pytest.raises(CorpusError) as caught:
        folders.listing(tmp_path)
    said = str(caught.value)
    assert r"b\xfccher.wav" in said
    assert said.encode()  # can be printed
    assert "is not UTF-8" in said


def test_relative_places_start_from_home_and_the_rest_stays(tmp_path):
    params = dataclasses.replace(
        PARAMS,
        external=dataclasses.replace(PARAMS.external, root="audio"),
        manifest=dataclasses.replace(PARAMS.manifest, file="/data/table.csv"),
    )
    placed = reading.from_home(params, tmp_path)
    assert placed.external.root == str(tmp_path / "audio")
    assert placed.manifest.file == "/data/table.csv"
    assert placed.mlaad.folder == str(tmp_path / PARAMS.mlaad.folder)
    assert placed.mlaad.root == placed.mlaad.protocol == ""
    assert dataclasses.replace(
        placed, external=PARAMS.external, manifest=PARAMS.manifest, mlaad=PARAMS.mlaad
    ) == PARAMS  # fmt: skip


def test_a_file_outside_the_folders_of_systems_is_refused(tmp_path):
    folders_tree(tmp_path)
    sounds(tmp_path, "loose.wav")
    with pytest.raises(CorpusError, match=r"loose\.wav: lies in no folder of a system"):
        folders.listing(tmp_path)
