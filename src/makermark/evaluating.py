"""Cross-corpus: a checkpoint scored on a corpus that it was not trained on, without its training corpus."""

from __future__ import annotations

import dataclasses
import shutil
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from makermark.baselines import untrained
from makermark.checkpoint import (
    Checkpoint,
    Description,
    build_front_end,
    front_end_of,
    load_checkpoint,
)
from makermark.corpora.rows import SPLITS, Manifest
from makermark.device import choose_device, choose_precision
from makermark.elsewhere import in_options, label_for, read_corpus, seen_by, strata_by_language
from makermark.embedding import Vectors, embed, log_mel_statistics, standardise
from makermark.errors import ParamsError
from makermark.features.base import FrontEnd
from makermark.features.cache import FeatureCache, write_cache
from makermark.files import replacing, replacing_folder, write_json
from makermark.inputs import BASELINE
from makermark.judging import Judged, judge_elsewhere
from makermark.params import from_mapping
from makermark.reporting import draw_detectors, draw_pairs, results_markdown
from makermark.reporting.scores import MODEL
from makermark.vectors import read_embeddings, write_embeddings


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


REPORT, FIGURES, PLOTS = "report.md", "score.json", "plots"


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
    baselines: Sequence[str] = (),
    device: str = "auto",
    workers: int = 2,
) -> dict[str, Any]:
    """Score `splits` of `corpus` (none named: all it has), each on its own, with the model `checkpoint` (a path
    without suffix); returns what `out`/score.json holds.

    `corpus`, `root`, `columns` and `keep_duplicates` are as in `elsewhere.read_corpus`; `label` is what is traced, if
    it is not what the checkpoint was trained to tell apart. The folder `out` gets corpus/ (of a table), features/,
    embeddings/, plots/, report.md and score.json. Features are computed by the front end that the checkpoint records,
    with its limits on length and its settings of batches, precision and scoring; what cannot be read is left out,
    however much it is. The results of an earlier call in `out` go before new ones are computed, its features are
    used again.

    Raises ParamsError for an unknown baseline or device and CheckpointError where the front end would not compute
    today what it computed in training, both before the corpus is read; what read_corpus raises; AudioError if no file
    is usable, ScoringError for a split without pairs of both kinds.
    """
    _refuse_unknown(baselines)
    processor = choose_device(device)
    model = load_checkpoint(checkpoint)
    front_ends = _front_ends(model.description, baselines)
    manifest = read_corpus(
        corpus,
        root=root,
        columns=columns,
        label=label_for(model.description, label),
        splits=splits,
        keep_duplicates=keep_duplicates,
        folder=out / "corpus",
        workers=workers,
    )
    _forget(out)
    trained_on = model.description.params["features"]
    settings = {name: trained_on[name] for name in ("shard_utterances", "min_seconds", "max_seconds")}
    for front_end in front_ends:
        with in_options():
            write_cache(
                manifest, front_end, out / "features", **settings, max_bad_fraction=1.0, workers=workers
            )
    cache = _open(model.description, out / "features")
    usable = manifest.rows[manifest.rows["utterance_id"].isin(cache.utterance_ids)]
    scored = dataclasses.replace(manifest, rows=seen_by(model.description, usable))
    evaluation = Evaluation(model, scored, out / "features", processor)
    write_vectors(evaluation, cache, out / "embeddings", baselines=baselines)
    judged = {name: _judge(out / "embeddings" / f"{name}.arrow", model) for name in (MODEL, *baselines)}
    told = judged[MODEL].figures | {"baselines": {name: judged[name].figures for name in baselines}}
    told["evaluated"] = told_of(evaluation, quarantined=len(manifest.rows) - len(usable))
    write_report(out, judged, told)
    return told


def _forget(out: Path) -> None:
    """Delete what an earlier call found: if this one ends early, nothing of that stands beside its vectors."""
    for name in (FIGURES, REPORT):
        (out / name).unlink(missing_ok=True)
    for name in (PLOTS, "embeddings"):
        shutil.rmtree(out / name, ignore_errors=True)


def _front_ends(description: Description, baselines: Collection[str]) -> list[FrontEnd]:
    """The model's, and the one that a baseline reads beside it."""
    found = [front_end_of(description)]
    if "logmel_stats" in baselines and description.front_end != BASELINE:
        found.append(build_front_end(description, BASELINE))
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
    parameters = build_front_end(evaluation.description, BASELINE).parameters()
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
    """What was scored with what, and how much of the corpus the checkpoint has seen; a language that is not known is
    none, and `languages_seen` is None where the checkpoint knows none."""
    description, rows = evaluation.description, evaluation.manifest.rows
    given = rows["language"].fillna("")
    languages, seen = set(given) - {""}, set(description.languages or ()) - {""}
    return {
        "model_sha256": evaluation.checkpoint.digest,
        "git_commit": description.git_commit,
        "trained_on": description.params["corpus"],
        "corpus": evaluation.manifest.corpus,
        "utterances": len(rows),
        "quarantined": quarantined,
        "systems": int(rows["system"].nunique()),
        "systems_seen": sorted(set(rows["system"]) & set(description.systems)),
        "languages": len(languages),
        "languages_seen": sorted(languages & seen) if seen else None,
        "without_language": int((given == "").sum()),
        "strata_by_language": strata_by_language(description, given),
    }


def write_report(out: Path, judged: Mapping[str, Judged], told: Mapping[str, Any]) -> None:
    """Pictures, report.md and score.json; the last comes last, so that where it is all is."""
    with replacing_folder(out / PLOTS) as plots:
        draw_pairs(plots, judged)
        for split, rates in judged[MODEL].rates.items():
            if rates:
                draw_detectors(plots, judged[MODEL], split)
    head = f"{_what_was_scored(told['evaluated'])} {_languages(told['evaluated'])}"
    with replacing(out / REPORT) as draft:
        draft.write_text(f"{head}\n\n{results_markdown(told)}", encoding="utf-8")
    write_json(out / FIGURES, told)


def _what_was_scored(of: Mapping[str, Any]) -> str:
    return (
        f"Model {of['model_sha256'][:12]}, trained on corpus {of['trained_on']}, scored on corpus {of['corpus']}: "
        f"{of['utterances']:,} utterances ({of['quarantined']} unusable), {of['systems']} systems, of which the model "
        f"has seen {len(of['systems_seen'])}. Seen and unseen are by the model's training set."
    )


def _languages(of: Mapping[str, Any]) -> str:
    if not of["strata_by_language"]:
        whose = "the corpus" if not of["languages"] else "the model's training set"
        return (
            f'**The languages of {whose} are not known: strata go by system alone, and "seen" under language says '
            "nothing.**"
        )
    known = f"{of['languages']} languages, of which the model has seen {len(of['languages_seen'])}."
    if not of["without_language"]:
        return known
    return f"{known} {of['without_language']:,} utterances have none, which counts as a language of its own."
