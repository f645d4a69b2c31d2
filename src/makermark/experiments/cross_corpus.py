"""Cross-corpus evaluation: a checkpoint scored on a corpus that it was not trained on, without its training corpus."""

from __future__ import annotations

import dataclasses
import shutil
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import Any

import pandas as pd
import torch

from makermark.experiments.external_corpus import (
    choose_label,
    languages_are_known,
    mark_seen,
    read_external_corpus,
)
from makermark.features.cache import FeatureCache
from makermark.features.cache_writer import write_cache
from makermark.features.front_end import FrontEnd
from makermark.foundation.device import choose_device, choose_precision
from makermark.foundation.embeddings import read_embeddings
from makermark.foundation.files import atomic_folder, atomic_write, write_json
from makermark.foundation.manifest import SPLITS, Manifest
from makermark.models.checkpoint import Checkpoint, CheckpointMetadata, load_checkpoint, rebuild_front_end
from makermark.models.embed_corpus import MODEL, EmbeddingTask, check_baselines, write_embedding_files
from makermark.models.feature_spec import BASELINE_FRONT_END, build_front_end
from makermark.reporting.score_plots import plot_detector_rocs, plot_pair_scores
from makermark.reporting.tables import results_markdown
from makermark.scoring.evaluation import EvaluationResult, evaluate_external_embeddings

REPORT, METRICS, PLOTS, EMBEDDINGS, FEATURES = "report.md", "score.json", "plots", "embeddings", "features"


def evaluate(
    checkpoint: Path,
    corpus: Path,
    out: Path,
    *,
    root: str = "",
    columns: Mapping[str, str] | None = None,
    label: str = "",
    keep_duplicates: bool = False,
    splits: Sequence[str] = (),
    within: Sequence[str] = (),
    min_utterances: int = 1,
    baselines: Sequence[str] = (),
    device: str = "auto",
    workers: int = 2,
) -> dict[str, Any]:
    """Score `checkpoint` (a path without suffix) on each of `splits` of `corpus`; return the content of score.json.

    - `corpus`, `root`, `columns` and `keep_duplicates`: see `read_external_corpus`.
    - `label`: the label to trace, as in `read_external_corpus`; empty: the one that the checkpoint was trained on.
    - `splits`: empty for all splits of the corpus.
    - `within`: columns of the corpus in whose values pairs are scored too (see `scoring.within`), without systems that
      have fewer than `min_utterances` in a value.
    - `out`: gets corpus/ (of a table), features/, embeddings/, plots/, report.md and score.json. Results of an
      earlier call are deleted first; its features are reused.

    The checkpoint gives the front end, the limits on length, the batch size, the precision and the settings of
    scoring. Unusable files are left out, however many they are.

    Raises ParamsError for an unknown baseline or device, and CheckpointError if the front end would compute other
    features than in training, both before the corpus is read. Raises what `read_external_corpus` raises, AudioError if
    no file is usable, ScoringError for a split without target or non-target trials.
    """
    check_baselines(baselines)
    torch_device = choose_device(device)
    model = load_checkpoint(checkpoint)
    front_ends = required_front_ends(model.metadata, baselines)
    manifest = read_external_corpus(
        corpus,
        root=root,
        columns=columns,
        label=choose_label(model.metadata, label),
        splits=splits,
        within=within,
        keep_duplicates=keep_duplicates,
        folder=out / "corpus",
        workers=workers,
    )
    delete_results(out)
    write_features(manifest, front_ends, out / FEATURES, metadata=model.metadata, workers=workers)
    cache = FeatureCache.open(out / FEATURES / model.metadata.front_end, model.metadata.front_end_parameters)
    rows = manifest.rows[manifest.rows["utterance_id"].isin(cache.utterance_ids)]
    evaluated = dataclasses.replace(manifest, rows=mark_seen(model.metadata, rows))
    task = embedding_task(model.metadata, evaluated, out / FEATURES, torch_device)
    write_embedding_files(out / EMBEDDINGS, task, model, cache, baselines=baselines, with_logits=True)
    columns_within = evaluated.rows[list(dict.fromkeys(within))].fillna("").astype(str).reset_index(drop=True)
    results = {
        name: score_embeddings(
            out / EMBEDDINGS / f"{name}.arrow", model.metadata, columns_within, min_utterances=min_utterances
        )
        for name in (MODEL, *baselines)
    }
    metrics = results[MODEL].metrics | {"baselines": {name: results[name].metrics for name in baselines}}
    metrics["evaluated"] = describe_evaluation(model, evaluated, quarantined=len(manifest.rows) - len(rows))
    write_report(out, results, metrics)
    return metrics


def required_front_ends(metadata: CheckpointMetadata, baselines: Collection[str]) -> list[FrontEnd]:
    """Return the front end of the checkpoint, and that of the log-mel statistics if they are asked for."""
    front_ends = [rebuild_front_end(metadata)]
    if "logmel_stats" in baselines and metadata.front_end != BASELINE_FRONT_END:
        front_ends.append(build_front_end(metadata.params, BASELINE_FRONT_END))
    return front_ends


def delete_results(out: Path) -> None:
    """Delete the results of an earlier call, so that a failed call leaves none beside new embeddings."""
    for name in (METRICS, REPORT):
        (out / name).unlink(missing_ok=True)
    for name in (PLOTS, EMBEDDINGS):
        shutil.rmtree(out / name, ignore_errors=True)


def write_features(
    manifest: Manifest,
    front_ends: Sequence[FrontEnd],
    folder: Path,
    *,
    metadata: CheckpointMetadata,
    workers: int,
) -> None:
    """Write the feature caches into `folder`, with the limits on length of the checkpoint's training."""
    trained_with = metadata.params["features"]
    settings = {name: trained_with[name] for name in ("shard_utterances", "min_seconds", "max_seconds")}
    for front_end in front_ends:
        write_cache(manifest, front_end, folder, **settings, max_bad_fraction=1.0, workers=workers)


def embedding_task(
    metadata: CheckpointMetadata, manifest: Manifest, features: Path, device: torch.device
) -> EmbeddingTask:
    """Return the task of embedding the corpus with the settings of the checkpoint.

    The training set is absent, so the log-mel statistics are standardised on the utterances that are scored.
    """
    settings = metadata.params["embed"]
    return EmbeddingTask(
        manifest=manifest,
        features=features,
        model=metadata,
        params=metadata.params,
        batch_seconds=settings["batch_seconds"],
        device=device,
        precision=choose_precision(settings["precision"], device),
        reference_split=None,
    )


def score_embeddings(
    path: Path, metadata: CheckpointMetadata, within: pd.DataFrame, *, min_utterances: int
) -> EvaluationResult:
    """Score the embeddings (N, D) of a file, split by split and in every column of `within` (N rows), with the settings
    of the checkpoint."""
    embeddings = read_embeddings(path)
    embeddings = dataclasses.replace(
        embeddings, labels=embeddings.labels.assign(**{str(name): within[name] for name in within})
    )
    settings = metadata.params["score"]
    return evaluate_external_embeddings(
        embeddings,
        systems=metadata.systems,
        splits=[split for split in SPLITS if split in set(embeddings.labels["split"])],
        within=[str(name) for name in within],
        min_utterances=min_utterances,
        bootstrap_samples=settings["bootstrap_samples"],
        seed=settings["seed"],
        p_target=settings["p_target"],
    )


def describe_evaluation(model: Checkpoint, manifest: Manifest, *, quarantined: int) -> dict[str, Any]:
    """Return the model, the corpus, and how many of its systems and languages the checkpoint was trained on.

    Utterances without a language are not counted as a language. `languages_seen` is None if the checkpoint records no
    languages.
    """
    metadata, rows = model.metadata, manifest.rows
    languages = rows["language"].fillna("")
    known, seen = set(languages) - {""}, set(metadata.languages or ()) - {""}
    return {
        "model_sha256": model.digest,
        "git_commit": metadata.git_commit,
        "trained_on": metadata.params["corpus"],
        "corpus": manifest.corpus,
        "utterances": len(rows),
        "quarantined": quarantined,
        "systems": int(rows["system"].nunique()),
        "systems_seen": sorted(set(rows["system"]) & set(metadata.systems)),
        "languages": len(known),
        "languages_seen": sorted(known & seen) if seen else None,
        "without_language": int((languages == "").sum()),
        "strata_by_language": languages_are_known(metadata, languages),
    }


def write_report(out: Path, results: Mapping[str, EvaluationResult], metrics: Mapping[str, Any]) -> None:
    """Write the plots, report.md, and last score.json: its presence shows that the results are complete."""
    with atomic_folder(out / PLOTS) as plots:
        plot_pair_scores(plots, results)
        for split, rates in results[MODEL].rates.items():
            if rates:
                plot_detector_rocs(plots, results[MODEL], split)
    summary = f"{_models_and_utterances(metrics['evaluated'])} {_languages(metrics['evaluated'])}"
    with atomic_write(out / REPORT) as draft:
        draft.write_text(f"{summary}\n\n{results_markdown(metrics)}", encoding="utf-8")
    write_json(out / METRICS, metrics)


def _models_and_utterances(evaluated: Mapping[str, Any]) -> str:
    return (
        f"Model {evaluated['model_sha256'][:12]}, trained on corpus {evaluated['trained_on']}, scored on corpus "
        f"{evaluated['corpus']}: {evaluated['utterances']:,} utterances ({evaluated['quarantined']} unusable), "
        f"{evaluated['systems']} systems, of which the model was trained on {len(evaluated['systems_seen'])}. Seen and "
        "unseen refer to the model's training set."
    )


def _languages(evaluated: Mapping[str, Any]) -> str:
    if not evaluated["strata_by_language"]:
        unknown = "the corpus" if not evaluated["languages"] else "the model's training set"
        return (
            f'**The languages of {unknown} are not known: strata go by system alone, and "seen" under language means '
            "nothing.**"
        )
    known = (
        f"{evaluated['languages']} languages, of which the model was trained on "
        f"{len(evaluated['languages_seen'])}."
    )
    if not evaluated["without_language"]:
        return known
    without = f"{evaluated['without_language']:,} utterances have no language"
    return f"{known} {without}, which counts as a language of its own."
