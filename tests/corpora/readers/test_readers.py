"""Readers, each on a small tree of the published layout, and the registry."""

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import soundfile

from makermark.audit.checks import check_families
from makermark.corpora import corpus_registry
from makermark.corpora.corpus_registry import CORPORA
from makermark.corpora.listing import complete_listing
from makermark.corpora.readers import asvspoof2019_la, folders, stopa, wavefake
from makermark.foundation.errors import CorpusError, FilesError, ParamsError
from makermark.foundation.manifest import add_seen_columns, compute_strata
from makermark.foundation.params import read_params

PARAMS = read_params(Path(__file__).parents[3] / "params.yaml")
ASVSPOOF = {
    "train.trn": ["LA_0079 LA_T_1138215 - - bonafide", "LA_0079 LA_T_1004644 - A01 spoof",
                  "LA_0080 LA_T_1056709 - A04 spoof"],
    "dev.trl": ["LA_0069 LA_D_1047731 - - bonafide", "LA_0069 LA_D_4525610 - A04 spoof"],
    "eval.trl": ["LA_0039 LA_E_2834763 - A11 spoof", "LA_0014 LA_E_8877452 - A16 spoof",
                 "LA_0040 LA_E_6828287 - - bonafide"],
}  # fmt: skip


def write_silence(root, *paths):
    for path in paths:
        (root / path).parent.mkdir(parents=True, exist_ok=True)
        soundfile.write(root / path, np.zeros(100), 16000)


def asvspoof_tree(root):
    protocols = root / "LA/ASVspoof2019_LA_cm_protocols"
    protocols.mkdir(parents=True)
    for name, lines in ASVSPOOF.items():
        (protocols / f"ASVspoof2019.LA.cm.{name}.txt").write_text("\n".join(lines) + "\n")
        part = name.split(".")[0]
        write_silence(root, *(f"LA/ASVspoof2019_LA_{part}/flac/{line.split()[1]}.flac" for line in lines))
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
    write_silence(root, *(f"EET/wav/LA_T_{n}.wav" for n in (1, 2)), "TEE/wav/LA_D_1.wav")
    write_silence(root, *(f"Trials/wav/LA_E_{n}.wav" for n in (1, 2)))


def wavefake_tree(root):
    write_silence(
        root,
        "generated_audio/ljspeech_melgan/LJ001-0001_gen.wav",
        "generated_audio/ljspeech_hifiGAN/LJ001-0001_generated.wav",
        "generated_audio/jsut_parallel_wavegan/BASIC5000_0001_gen.wav",
        "generated_audio/common_voices_prompts_from_conformer_fastspeech2_pwg_ljspeech/gen_0.wav",
        "generated_audio/notes/x.wav",
    )


def folders_tree(root):
    write_silence(root, "bark/en/1.wav", "bark/2.flac", "xtts/1.wav", ".cache/y/1.wav")


TREES = {
    "asvspoof2019-la": (asvspoof_tree, asvspoof2019_la.read_listing, 8),
    "stopa": (stopa_tree, stopa.read_listing, 5),
    "wavefake": (wavefake_tree, wavefake.read_listing, 4),
    "folders": (folders_tree, folders.read_listing, 3),
}


def test_every_reader_of_a_folder_is_tested_here():
    assert set(TREES) == set(CORPORA) - {"local", "manifest", "mlaad-v5"}


@pytest.mark.parametrize("name", TREES)
def test_registered_reader_lists_existing_files(name, tmp_path):
    write_tree, _, count = TREES[name]
    write_tree(tmp_path)
    external = PARAMS.external.replace(root=str(tmp_path))
    listing = corpus_registry.read_listing(PARAMS.replace(corpus=name, external=external))
    rows = complete_listing(listing)
    assert len(rows) == count
    assert all((listing.root / path).is_file() for path in rows["path"])


@pytest.mark.parametrize("name", TREES)
def test_folder_without_the_corpus_raises_in_one_line(name, tmp_path):
    for root in (tmp_path, tmp_path / "nowhere"):
        with pytest.raises((CorpusError, FilesError)) as caught:
            TREES[name][1](root)
        assert str(root) in str(caught.value)
        assert "\n" not in str(caught.value)
    with pytest.raises(ParamsError, match=f"corpus {name} is read from a folder: set external.root"):
        corpus_registry.read_listing(PARAMS.replace(corpus=name))


def test_missing_table_and_unknown_corpus_raise():
    with pytest.raises(ParamsError, match=r"set manifest\.file"):
        corpus_registry.read_listing(PARAMS.replace(corpus="manifest"))
    with pytest.raises(ParamsError, match="unknown corpus 'voxceleb'"):
        corpus_registry.read_listing(PARAMS.replace(corpus="voxceleb"))


def test_asvspoof_rows_have_splits_speakers_and_attacks(tmp_path):
    asvspoof_tree(tmp_path)
    rows = complete_listing(asvspoof2019_la.read_listing(tmp_path)).set_index("utterance_id")
    a11 = rows.loc["ASVspoof2019_LA_eval/flac/LA_E_2834763.flac"]
    assert a11[["system", "split", "voice", "acoustic_model", "vocoder"]].tolist() == [
        "A11", "test", "LA_0039", "AR RNN + CNN", "Griffin-Lim",
    ]  # fmt: skip
    assert rows["split"].value_counts().to_dict() == {"train": 3, "test": 3, "dev": 2}
    assert (rows["system"] == "bonafide").sum() == 3
    assert set(complete_listing(asvspoof2019_la.read_listing(tmp_path / "LA"))["path"]) == set(rows.index)


def test_asvspoof_protocol_marks_a16_as_seen_and_train_does_not(tmp_path):
    asvspoof_tree(tmp_path)
    rows = complete_listing(asvspoof2019_la.read_listing(tmp_path))
    a16 = rows["system"] == "A16"
    assert compute_strata(add_seen_columns(rows, strata_from="protocol"))[a16].tolist() == [
        "seen_system_seen_language"
    ]
    assert compute_strata(add_seen_columns(rows, strata_from="train"))[a16].tolist() == [
        "unseen_system_seen_language"
    ]


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


def test_asvspoof_attacks_match_the_published_table():
    lines = [[field.strip() for field in line.split("|")] for line in TABLE_1.strip().splitlines()]
    parts = {
        name: [attack.acoustic_model, attack.vocoder] for name, attack in asvspoof2019_la.ATTACKS.items()
    }
    assert parts == {"bonafide": ["human", "human"]} | {
        name: [*parts_of_attack] for name, *parts_of_attack in lines
    }


def test_asvspoof_families_are_the_attacks_except_a16_and_a19():
    of_attack = {name: attack.family for name, attack in asvspoof2019_la.ATTACKS.items()}
    differing = {name: family for name, family in of_attack.items() if name != family}
    assert differing == {"bonafide": "human", "A16": "A04", "A19": "A06"}


def test_audit_reports_the_two_aliases_of_asvspoof():
    rows = pd.DataFrame(
        [
            {"path": f"{split}/{name}", "system": name, "split": split, "family": attack.family}
            for name, attack in asvspoof2019_la.ATTACKS.items()
            for split in (("train", "dev") if name < "A07" else ("test",))
        ]
    )
    result = check_families(rows)
    assert result["aliases"].keys() == {"A04", "A06"}
    assert [(entry["systems"], entry["in_train"]) for entry in result["unseen_but_known"]] == [
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
def test_invalid_line_in_an_asvspoof_protocol_raises_with_its_number(tmp_path, line):
    protocol = asvspoof_tree(tmp_path) / "ASVspoof2019.LA.cm.train.trn.txt"
    protocol.write_text(f"LA_0079 LA_T_1138215 - - bonafide\n\n{line}\n")
    with pytest.raises(CorpusError, match="line 3"):
        asvspoof2019_la.read_listing(tmp_path)


def test_stopa_rows_have_subsets_known_attacks_and_no_repetition(tmp_path):
    stopa_tree(tmp_path)
    rows = complete_listing(stopa.read_listing(tmp_path))
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
    ("text", "message"),
    [
        (
            "Speaker Name ATK\np1 x AA01\n",
            r"line 1: no column for the path .* it has \['Speaker', 'Name', 'ATK'\].* move the file away",
        ),
        ("FileName ATK\nLA_1 AA01\nLA_2\n", "line 3: 1 values, but line 1 names 2 columns"),
        ("", "line 1: no column for the path"),
    ],
)
def test_invalid_stopa_protocol_raises_with_its_line(tmp_path, text, message):
    stopa_tree(tmp_path)
    (tmp_path / "TEE/AA01-co-1.txt").write_text(text)
    with pytest.raises(CorpusError, match=message):
        stopa.read_listing(tmp_path)


def test_wavefake_rows_have_vocoders_languages_and_sentences(tmp_path):
    wavefake_tree(tmp_path)
    rows = complete_listing(wavefake.read_listing(tmp_path)).set_index("system")
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


def test_folders_are_systems_or_splits_with_systems(tmp_path):
    folders_tree(tmp_path / "plain")
    rows = complete_listing(folders.read_listing(tmp_path / "plain"))
    assert dict(zip(rows["path"], rows["system"], strict=True)) == {
        "bark/2.flac": "bark",
        "bark/en/1.wav": "bark",
        "xtts/1.wav": "xtts",
    }
    write_silence(tmp_path / "split", "train/bark/1.wav", "Eval/xtts/1.wav")
    rows = complete_listing(folders.read_listing(tmp_path / "split"))
    assert sorted(zip(rows["split"], rows["system"], strict=True)) == [("test", "xtts"), ("train", "bark")]


@pytest.mark.parametrize("name", ["asvspoof2019-la", "stopa"])
def test_protocol_that_is_not_utf8_raises_with_its_line(name, tmp_path):
    TREES[name][0](tmp_path)
    protocol = sorted(tmp_path.rglob("*.txt"))[0]
    protocol.write_bytes(protocol.read_bytes() + "é\n".encode("latin-1"))
    line = protocol.read_bytes().count(b"\n")
    with pytest.raises(CorpusError) as caught:
        TREES[name][1](tmp_path)
    assert str(caught.value).startswith(f"{protocol}, line {line}: not UTF-8")
    assert "\n" not in str(caught.value)


def test_listing_has_the_protocols_as_tables(tmp_path):
    asvspoof_tree(tmp_path / "asv")
    assert set(asvspoof2019_la.read_listing(tmp_path / "asv").tables) == set(
        (tmp_path / "asv").rglob("*.txt")
    )
    stopa_tree(tmp_path / "stopa")
    assert set(stopa.read_listing(tmp_path / "stopa").tables) == set((tmp_path / "stopa").rglob("*.txt"))


def test_linked_folder_is_read_and_a_cycle_is_not_followed(tmp_path):
    root, linked = tmp_path / "root", tmp_path / "linked"
    write_silence(root, "bark/1.wav")
    write_silence(linked, "xtts/1.wav", "xtts/deep/2.wav")
    (root / "xtts").symlink_to(linked / "xtts")
    (root / "bark/all").symlink_to(root)
    (linked / "xtts/deep/back").symlink_to(linked / "xtts")
    rows = complete_listing(folders.read_listing(root))
    assert sorted(zip(rows["path"], rows["system"], strict=True)) == [
        ("bark/1.wav", "bark"),
        ("xtts/1.wav", "xtts"),
        ("xtts/deep/2.wav", "xtts"),
    ]


@pytest.mark.skipif(sys.platform != "linux", reason="other operating systems refuse such a name")
def test_file_name_that_is_not_utf8_raises_with_its_bytes(tmp_path):
    folders_tree(tmp_path)
    (tmp_path / "bark/1.wav").touch()
    (tmp_path / "bark" / os.fsdecode(b"b\xfccher.wav")).touch()
    with pytest.raises(CorpusError) as caught:
        folders.read_listing(tmp_path)
    message = str(caught.value)
    assert r"b\xfccher.wav" in message
    assert message.encode()  # the message can be printed
    assert "is not UTF-8" in message


def test_resolve_paths_joins_relative_paths_only(tmp_path):
    params = PARAMS.replace(
        external=PARAMS.external.replace(root="audio"),
        manifest=PARAMS.manifest.replace(file="/data/table.csv"),
    )
    resolved = corpus_registry.resolve_paths(params, tmp_path)
    assert resolved.external.root == str(tmp_path / "audio")
    assert resolved.manifest.file == "/data/table.csv"
    assert resolved.mlaad.folder == str(tmp_path / PARAMS.mlaad.folder)
    assert resolved.mlaad.root == resolved.mlaad.protocol == ""
    assert resolved.replace(external=PARAMS.external, manifest=PARAMS.manifest, mlaad=PARAMS.mlaad
    ) == PARAMS  # fmt: skip


def test_file_outside_the_folders_of_systems_raises(tmp_path):
    folders_tree(tmp_path)
    write_silence(tmp_path, "loose.wav")
    with pytest.raises(CorpusError, match=r"loose\.wav: is not in the folder of a system"):
        folders.read_listing(tmp_path)


def test_registry_imports_no_heavy_package():
    script = (
        "import sys\n"
        "for name in ('torch', 'torchaudio', 'transformers', 'sklearn', 'numba', 'huggingface_hub'):\n"
        "    sys.modules[name] = None\n"
        "import makermark.corpora.corpus_registry\n"
    )
    subprocess.run([sys.executable, "-c", script], check=True)


@pytest.mark.parametrize(
    "suffix", ["sph", "au", "caf", "w64", "m4a", "mp3", "opus", "webm", "amr", "WAV", "aac", "mp4"]
)
def test_system_is_read_whatever_audio_suffix_its_files_have(tmp_path, suffix):
    write_silence(tmp_path, "a/1.wav")
    (tmp_path / "b").mkdir()
    (tmp_path / f"b/1.{suffix}").write_bytes(b"audio")
    assert folders.read_listing(tmp_path).rows["system"].tolist() == ["a", "b"]


def test_skipped_files_are_counted_by_suffix_and_systems_without_audio_are_named(tmp_path, caplog):
    write_silence(tmp_path, "a/1.wav")
    for path in ("a/1.txt", "a/2.TXT", "b/README", "b/3.lab"):
        (tmp_path / path).parent.mkdir(exist_ok=True)
        (tmp_path / path).touch()
    assert folders.read_listing(tmp_path).rows["system"].tolist() == ["a"]
    (message,) = caplog.messages
    assert message.startswith(f"{tmp_path}: 4 files are skipped")
    assert "2 .txt" in message
    assert "1 .lab" in message
    assert "1 without suffix" in message
    assert message.endswith("folders without audio: b")


def test_folder_without_audio_says_what_it_holds(tmp_path):
    (tmp_path / "a").mkdir()
    (tmp_path / "a/1.txt").touch()
    with pytest.raises(CorpusError, match=r"no audio file among 1: 1 \.txt"):
        folders.read_listing(tmp_path)
