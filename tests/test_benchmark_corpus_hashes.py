"""benchmarks/corpus_hashes.py: which engines and vocoders gave the same files twice."""

import sys
from pathlib import Path

import pandas as pd

sys.path.insert(0, str(Path(__file__).parents[1] / "benchmarks"))

import corpus_hashes

ROWS = [  # utterance, system, acoustic model, vocoder, hash, hash of the second run
    ("1", "a", "a", "own-a", "1", "1"),
    ("2", "a+world", "a", "world", "2", "2"),
    ("3", "a+world", "a", "world", "3", "x"),  # one utterance of the system differs
    ("4", "a+mlsa", "a", "mlsa", "4", "4"),
    ("5", "b", "b", "own-b", "5", "x"),
    ("6", "b+mlsa", "b", "mlsa", "6", "x"),  # because its input differs: says nothing about mlsa
]


def test_vocoders_count_only_where_their_input_is_the_same():
    columns = ["utterance_id", "system", "acoustic_model", "vocoder", "first", "second"]
    rows = pd.DataFrame(ROWS, columns=columns)
    manifests = [rows[columns[:4]].assign(sha256=rows[run]) for run in ("first", "second")]
    table = corpus_hashes.compare(manifests[0], manifests[1][::-1])
    assert table.to_records(index=False).tolist() == [
        ("engine", "a", 1, 1),
        ("engine", "b", 1, 0),
        ("vocoder", "mlsa", 1, 1),
        ("vocoder", "world", 1, 0),
    ]
