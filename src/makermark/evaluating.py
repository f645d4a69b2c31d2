"""Cross-corpus: a checkpoint scored on a corpus that it was not trained on, without its training corpus."""

from __future__ import annotations

import dataclasses
import logging
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import torch

from makermark import features
from makermark.baselines import untrained
from makermark.checkpoint import Checkpoint, Description, load_checkpoint
from makermark.corpora import tables
from makermark.corpora.choices import relabel
from makermark.corpora.making import MANIFEST, make
from makermark.corpora.rows import SPLITS, Manifest, read_manifest
from makermark.device import choose_device, choose_precision
from makermark.embedding import Vectors, embed, log_mel_statistics, standardise
from makermark.errors import CheckpointError, ManifestError, ParamsError
from makermark.features.base import FrontEnd
from makermark.features.cache import FeatureCache, write_cache
from makermark.files import replacing, replacing_folder, write_json
from makermark.inputs import BASELINE
from makermark.judging import Judged, judge_elsewhere
from makermark.params import from_mapping
from makermark.reporting import draw_detectors, draw_pairs, results_markdown
from makermark.reporting.scores import MODEL
from makermark.vectors import read_embeddings, write_embeddings

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Evaluation:
    """What `evaluate` has at hand: the model, the other corpus with what the model has seen of it, the features."""

    checkpoint: Checkpoint
    manifest: Manifest  # the rows to score that have features
    features: Path
    device: torch.device

    @property
    def description(self) -> Description:
        return self.checkpoint.description


def evaluate(
    checkpoint: Path,
    manifest: Manifest,
    out: Path,
    *,
    splits: Sequence[str] = (),
    baselines: Sequence[str] = (),
    device: str = "auto",
    workers: int = 2,
) -> dict[str, Any]:
    """Score `splits` of `manifest` (none named: all it has), each on its own, with the model `checkpoint` (a path
    without suffix); returns what `out`/score.json holds.

    The folder `out` gets features/, embeddings/, plots/, report.md and score.json. Features are computed by the front
    end that the checkpoint records, with its limits on length and its settings of batches, precision and scoring. The
    vectors of an earlier call in `out` are not reused, its features are.

    Raises CheckpointError where the front end would not compute today what it computed in training, ManifestError for
    a split that the manifest lacks, ParamsError for an unknown baseline, AudioError for too many unusable files,
    ScoringError for a split without pairs of both kinds.
    """
    model = load_checkpoint(checkpoint)
    _refuse_unknown(baselines)
    given = rows_to_score(manifest, splits)
    rows = seen_by(model.description, given)
    for front_end in _front_ends(model.description, baselines):
        settings = model.description.params["features"] | {"workers": workers}
        write_cache(
            dataclasses.replace(manifest, rows=rows),
            front_end,
            out / "features",
            **{name: value for name, value in settings.items() if name != "front_ends"},
        )
    cache = _open(model.description, out / "features")
    scored = rows[rows["utterance_id"].isin(cache.utterance_ids)]
    evaluation = Evaluation(
        model, dataclasses.replace(manifest, rows=scored), out / "features", choose_device(device)
    )
    write_vectors(evaluation, cache, out / "embeddings", baselines=baselines)
    judged = {name: _judge(out / "embeddings" / f"{name}.arrow", model) for name in (MODEL, *baselines)}
    told = judged[MODEL].figures | {"baselines": {name: judged[name].figures for name in baselines}}
    told["evaluated"] = told_of(evaluation, quarantined=len(rows) - len(scored))
    write_report(out, judged, told)
    return told


def read_corpus(
    path: Path,
    *,
    root: str = "",
    columns: Mapping[str, str] | None = None,
    label: str = "system",
    folder: Path,
    workers: int = 2,
) -> Manifest:
    """The corpus of a manifest.parquet, or of any table that `corpus: manifest` takes; `label` is what is traced.

    Of a table, whose paths are relative to `root` (empty: its own folder), every file is looked at, and `folder` gets
    manifest.parquet and rejected.csv, however many these are; without splits all is test. `columns` as in tables.py.

    Raises FilesError for a file that is not there, ManifestError or CorpusError for what is no corpus, CorpusError for
    a label that a row lacks.
    """
    if is_manifest(path):
        manifest = read_manifest(path)
        return dataclasses.replace(manifest, rows=relabel(manifest.rows, labels=label))
    make(
        folder,
        tables.listing(path, root=root, columns=columns or {}),
        corpus=path.stem,
        split=lambda rows: rows.assign(split="test"),
        label=label,
        dedupe=True,
        strata_from="train",
        max_bad_fraction=1.0,
        workers=workers,
    )
    return read_manifest(folder / MANIFEST)


def is_manifest(path: Path) -> bool:
    """Whether a file is one of our manifests: Parquet that names its corpus and root."""
    if path.suffix != ".parquet":
        return False
    try:
        metadata = pq.read_schema(path).metadata or {}
    except (pa.ArrowException, OSError):
        return True  # whoever reads it as a manifest says what is wrong
    return {b"corpus", b"root"} <= set(metadata)


def rows_to_score(manifest: Manifest, splits: Sequence[str]) -> pd.DataFrame:
    """The rows of the named splits, or all; raises ManifestError for a split that the manifest lacks."""
    there = set(manifest.rows["split"])
    absent = [split for split in splits if split not in there]
    if absent:
        raise ManifestError(
            f"corpus {manifest.corpus} has no split {absent[0]!r}; it has {sorted(there, key=SPLITS.index)}"
        )
    return manifest.rows[manifest.rows["split"].isin(splits or there)]


def seen_by(description: Description, rows: pd.DataFrame) -> pd.DataFrame:
    """The rows with `system_seen` and `language_seen` as the checkpoint has seen them: in its training set.

    Of a checkpoint that does not say its languages, all count as unseen, and the log says so. What it has seen of
    acoustic models and vocoders is not known.
    """
    if description.languages is None:
        log.warning(
            "the checkpoint was written before languages were: all count as unseen, so read its strata by system only"
        )
    return rows.assign(
        system_seen=rows["system"].isin(description.systems),
        language_seen=rows["language"].isin(description.languages or []),
        acoustic_model_seen=None,
        vocoder_seen=None,
    )


def front_end_of(description: Description) -> FrontEnd:
    """The front end that made the features of the checkpoint's training set.

    Raises CheckpointError if it cannot be built again, or would compute other features.
    """
    front_end = _build(description, description.front_end)
    now, then = dict(front_end.parameters()), description.front_end_parameters
    if now != then:
        name = next(name for name in {**then, **now} if now.get(name) != then.get(name))
        raise CheckpointError(
            f"front end {description.front_end}: {name} was {then.get(name)!r} in training and is {now.get(name)!r} "
            "here; use the version of makermark, and the encoder, that the model was trained with"
        )
    return front_end


def _build(description: Description, name: str) -> FrontEnd:
    try:
        ssl, settings = description.params["ssl"], description.params["front_ends"][name]
    except KeyError as error:
        raise CheckpointError(
            f"the checkpoint records no settings of front end {name} ({error} is missing); train again"
        ) from error
    return features.build(name, model=ssl["model"], layer=ssl["layer"], **settings)


def _front_ends(description: Description, baselines: Collection[str]) -> list[FrontEnd]:
    """The model's, and the one that a baseline reads beside it."""
    found = [front_end_of(description)]
    if "logmel_stats" in baselines and description.front_end != BASELINE:
        found.append(_build(description, BASELINE))
    return found


def _open(description: Description, folder: Path) -> FeatureCache:
    return FeatureCache.open(folder / description.front_end, description.front_end_parameters)


def write_vectors(
    evaluation: Evaluation, cache: FeatureCache, folder: Path, *, baselines: Sequence[str]
) -> None:
    """Embed the corpus with the model, its classifier's logits beside, and with each baseline, into `folder`."""
    description, rows = evaluation.description, evaluation.manifest.rows
    told = {
        "corpus": evaluation.manifest.corpus,
        "model_sha256": evaluation.checkpoint.digest,
        "feature_fingerprint": cache.fingerprint,
    }
    settings = description.params["embed"]
    vectors = embed(
        evaluation.checkpoint.backbone,
        cache,
        cache.rows_of(rows["utterance_id"]),
        batch_frames=round(settings["batch_seconds"] * front_end_of(description).frames_per_second),
        device=evaluation.device,
        precision=choose_precision(settings["precision"], evaluation.device),
    )
    with torch.inference_mode():
        said = evaluation.checkpoint.loss.cpu().logits(torch.from_numpy(vectors))
    logits = None if said is None else said.numpy()
    found = {MODEL: vectors} | {name: BASELINES[name](evaluation) for name in baselines}
    with replacing_folder(folder) as draft:
        for name, each in found.items():
            path, metadata = draft / f"{name}.arrow", told | {"vectors": name}
            write_embeddings(path, rows, each, logits=logits if name == MODEL else None, metadata=metadata)


def _logmel_stats(evaluation: Evaluation) -> Vectors:
    """As in baselines.py, but standardised on the utterances that are scored: the training set is not at hand."""
    parameters = _build(evaluation.description, BASELINE).parameters()
    cache = FeatureCache.open(evaluation.features / BASELINE, parameters)
    statistics = log_mel_statistics(cache, cache.rows_of(evaluation.manifest.rows["utterance_id"]))
    return standardise(statistics, reference=statistics)


def _untrained(evaluation: Evaluation) -> Vectors:
    description = evaluation.description
    params = from_mapping(description.params)
    return untrained(params, evaluation.manifest, evaluation.features, description, evaluation.device)


BASELINES: Mapping[str, Callable[[Evaluation], Vectors]] = {
    "logmel_stats": _logmel_stats,
    "untrained": _untrained,
}


def _refuse_unknown(baselines: Sequence[str]) -> None:
    for name in baselines:
        if name not in BASELINES:
            raise ParamsError(
                f"unknown baseline {name!r}; without a training set there are {list(BASELINES)}"
            )


def _judge(path: Path, model: Checkpoint) -> Judged:
    embeddings = read_embeddings(path)
    settings = model.description.params["score"]
    return judge_elsewhere(
        embeddings,
        systems=model.description.systems,
        splits=[split for split in SPLITS if split in set(embeddings.labels["split"])],
        bootstrap_samples=settings["bootstrap_samples"],
        seed=settings["seed"],
        p_target=settings["p_target"],
    )


def told_of(evaluation: Evaluation, *, quarantined: int) -> dict[str, Any]:
    """What was scored with what, and how much of the corpus the checkpoint has seen."""
    description, rows = evaluation.description, evaluation.manifest.rows
    shared = np.intersect1d(rows["system"].to_numpy(dtype=str), description.systems).tolist()
    languages = description.languages
    return {
        "model_sha256": evaluation.checkpoint.digest,
        "git_commit": description.git_commit,
        "trained_on": description.params["corpus"],
        "corpus": evaluation.manifest.corpus,
        "utterances": len(rows),
        "quarantined": quarantined,
        "systems": int(rows["system"].nunique()),
        "systems_seen": shared,
        "languages": int(rows["language"].nunique()),
        "languages_seen": None if languages is None else sorted(set(rows["language"]) & set(languages)),
    }


def write_report(out: Path, judged: Mapping[str, Judged], told: Mapping[str, Any]) -> None:
    """Pictures, report.md and score.json; the last comes last, so that where it is all is."""
    with replacing_folder(out / "plots") as plots:
        draw_pairs(plots, judged)
        for split, rates in judged[MODEL].rates.items():
            if rates:
                draw_detectors(plots, judged[MODEL], split)
    of = told["evaluated"]
    head = (
        f"Model {of['model_sha256'][:12]}, trained on corpus {of['trained_on']}, scored on corpus {of['corpus']}: "
        f"{of['utterances']:,} utterances ({of['quarantined']} unusable), {of['systems']} systems, of which the model "
        f"has seen {len(of['systems_seen'])}. Seen and unseen are by the model's training set."
    )
    with replacing(out / "report.md") as draft:
        draft.write_text(f"{head}\n\n{results_markdown(told)}", encoding="utf-8")
    write_json(out / "score.json", told)
