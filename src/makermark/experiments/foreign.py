"""Evaluation of a model on a foreign corpus: clips of other origin than all training data."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from makermark.experiments.cross_corpus import evaluate
from makermark.experiments.external_corpus import LABEL_SEPARATOR
from makermark.foundation.errors import ParamsError
from makermark.foundation.manifest import file_sha256
from makermark.models.embed_corpus import installed_baselines

SPLIT = "test"
POOLED = (
    "eer_micro_percent",
    "eer_macro_percent",
    "eer_micro_ci95_percent",
    "eer_macro_ci95_percent",
    "utterances",
    "systems",
    "macro_systems",
    "target_trials",
    "nontarget_trials",
)


def evaluate_foreign(
    checkpoint: Path,
    out: Path,
    *,
    manifest: str,
    root: str,
    columns: Mapping[str, str],
    label: Sequence[str],
    within: Sequence[str],
    min_utterances: int,
    baselines: Sequence[str],
    workers: int,
    device: str,
) -> dict[str, Any]:
    """Score `checkpoint` (a path without suffix) on the split test of `manifest`; return metrics/foreign.json.

    - `label`: columns whose values form the label, with `@` between them.
    - `out`: see `cross_corpus.evaluate`, and so for `root`, `columns`, `within` and `min_utterances`.
    - `baselines`: those that are not installed are left out, with a warning.

    Raises ParamsError without a manifest, and what `cross_corpus.evaluate` raises.
    """
    if not manifest:
        raise ParamsError(
            "no foreign corpus to score: set foreign.manifest in params.yaml to a table with the columns path and "
            "system, or to a manifest.parquet",
            setting="foreign.manifest",
            value=manifest,
        )
    installed = installed_baselines(baselines)
    metrics = evaluate(
        checkpoint,
        Path(manifest),
        out,
        root=root,
        columns=columns,
        label=LABEL_SEPARATOR.join(label),
        splits=[SPLIT],
        within=within,
        min_utterances=min_utterances,
        baselines=installed,
        device=device,
        workers=workers,
    )
    evaluated = metrics["evaluated"] | {
        "manifest": portable_path(manifest),
        "manifest_sha256": file_sha256(Path(manifest)),
        "label": list(label),
    }
    return {
        "evaluated": evaluated,
        "model": foreign_metrics(metrics),
        "baselines": {name: foreign_metrics(metrics["baselines"][name]) for name in installed},
    }


def portable_path(path: str) -> str:
    """Return a relative path as it is, and the name alone of an absolute path, which is of one machine."""
    return Path(path).name if Path(path).is_absolute() else Path(path).as_posix()


def foreign_metrics(scores: Mapping[str, Any]) -> dict[str, Any]:
    """Return the figures of a model or a baseline: over all pairs, within the columns, and of every label."""
    split = scores[SPLIT]
    return {
        "pooled": {name: split[name] for name in POOLED},
        "within": split.get("within", {}),
        "per_label": split["per_label"],
    }
