"""params.yaml as frozen dataclasses: every key is known, typed and in range, or refused at once.

Sections that belong to a registry (`losses`, `backbones`, `samplers`) map a registered name to the
keyword arguments of what it builds; the registry itself checks those keys.
"""

from __future__ import annotations

import re
import types
from collections.abc import Mapping
from dataclasses import dataclass, fields, is_dataclass
from pathlib import Path
from typing import Any, Union, get_args, get_origin, get_type_hints

import yaml

from makermark.errors import FilesError, ParamsError
from makermark.files import explain

Scalar = str | int | float | bool
Settings = Mapping[str, Scalar]
LABELS = ("system", "family", "architecture", "acoustic_model", "vocoder")  # what may be traced
ADDRESS = re.compile(r"https?://[^\s/]\S*")
KINDS = {int: "a whole number", float: "a number", str: "a word", bool: "true or false"}


@dataclass(frozen=True, kw_only=True)
class LocalParams:
    """How the built-in corpus is made (corpora.local)."""

    seed: int
    train_utterances: int
    dev_utterances: int
    test_utterances: int
    engines: list[str]
    workers: int
    utterance_timeout_s: float
    max_failed_fraction: float

    def __post_init__(self) -> None:
        _at_least(self, 2, "train_utterances", "dev_utterances", "test_utterances")
        _at_least(self, 1, "workers")
        _positive(self, "utterance_timeout_s")
        _fraction(self, "max_failed_fraction")


@dataclass(frozen=True, kw_only=True)
class ExternalParams:
    """How any corpus but the built-in one becomes a manifest (corpora.making)."""

    root: str
    label: str
    dedupe: bool
    strata_from: str
    max_bad_fraction: float
    workers: int

    def __post_init__(self) -> None:
        _one_of(self, "label", LABELS)
        _one_of(self, "strata_from", ("train", "protocol"))
        _fraction(self, "max_bad_fraction")
        _at_least(self, 1, "workers")


@dataclass(frozen=True, kw_only=True)
class ManifestParams:
    """The table of `corpus: manifest` (corpora.tables)."""

    file: str
    columns: Mapping[str, str]


@dataclass(frozen=True, kw_only=True)
class SplitParams:
    """Train, dev and test of a corpus without splits (corpora.splitting)."""

    everything_in: str
    seed: int
    dev_unseen_systems: int
    test_unseen_systems: int
    dev_unseen_languages: int
    test_unseen_languages: int
    dev_fraction: float
    test_fraction: float
    disjoint: list[str]

    def __post_init__(self) -> None:
        _one_of(self, "everything_in", ("", "train", "dev", "test"))
        _at_least(self, 0, "seed", "dev_unseen_systems", "test_unseen_systems")
        _at_least(self, 0, "dev_unseen_languages", "test_unseen_languages")
        _positive(self, "dev_fraction", "test_fraction")
        if self.dev_fraction + self.test_fraction >= 1:
            raise ParamsError(
                f"params.yaml: split.dev_fraction ({self.dev_fraction}) and split.test_fraction ({self.test_fraction}) "
                "leave nothing for train; their sum is below 1"
            )
        unknown = sorted(set(self.disjoint) - {"voice", "text"})
        if unknown:
            raise ParamsError(f"params.yaml: split.disjoint names {unknown[0]!r}; it takes voice and text")


@dataclass(frozen=True, kw_only=True)
class MlaadParams:
    """Where MLAADv5 lies, or where it is fetched from (corpora.mlaad)."""

    root: str
    protocol: str
    licence: str
    folder: str
    source: str
    protocol_url: str
    protocol_md5: str
    repository: str
    revision: str
    workers: int
    zip_url: str
    zip_parts: list[str]
    zip_md5: str
    attempts: int

    def __post_init__(self) -> None:
        _one_of(self, "source", ("zip", "huggingface"))
        _at_least(self, 1, "workers", "attempts")
        for key in ("protocol_url", "zip_url"):
            if not ADDRESS.fullmatch(getattr(self, key)):
                raise ParamsError(
                    f"params.yaml: mlaad.{key} is {getattr(self, key)!r}; it begins with https:// (or http://) and "
                    "has no blanks"
                )
        if "{name}" not in self.zip_url:
            raise ParamsError(
                f"params.yaml: mlaad.zip_url is {self.zip_url!r}; it has {{name}} where the name of a part goes"
            )
        for name in [self.zip_md5, *self.zip_parts]:
            if not name or "/" in name or name.startswith("."):
                raise ParamsError(
                    f"params.yaml: mlaad.zip_parts and mlaad.zip_md5 are plain file names, not {name!r}"
                )
        if not self.zip_parts or not self.folder:
            raise ParamsError("params.yaml: mlaad.zip_parts and mlaad.folder are not empty")


@dataclass(frozen=True, kw_only=True)
class BonafideParams:
    """Where real human speech comes from, and which part of its speakers goes where (corpora.recordings)."""

    source: str
    seed: int
    dev_fraction: float
    test_fraction: float

    def __post_init__(self) -> None:
        _at_least(self, 0, "seed")
        _positive(self, "dev_fraction", "test_fraction")
        if self.dev_fraction + self.test_fraction >= 1:
            raise ParamsError(
                f"bonafide.dev_fraction ({self.dev_fraction}) and bonafide.test_fraction ({self.test_fraction}) leave "
                "no speaker to train on; their sum is below 1"
            )


@dataclass(frozen=True, kw_only=True)
class FeaturesParams:
    """Which feature caches are written, and what counts as a usable file."""

    front_ends: list[str]
    shard_utterances: int
    min_seconds: float
    max_seconds: float
    max_bad_fraction: float
    workers: int
    augmented_copies: int

    def __post_init__(self) -> None:
        _at_least(self, 1, "shard_utterances", "workers", "augmented_copies")
        _positive(self, "min_seconds", "max_seconds")
        _fraction(self, "max_bad_fraction")
        if self.min_seconds > self.max_seconds:
            raise ParamsError(
                f"features.min_seconds ({self.min_seconds}) is above features.max_seconds ({self.max_seconds})"
            )


@dataclass(frozen=True, kw_only=True)
class SslParams:
    """The pretrained speech encoder, for backbones that start with one and for the wav2vec2 features (encoders)."""

    model: str
    layer: int | str
    freeze: str
    learning_rate: float
    gradient_checkpointing: bool

    def __post_init__(self) -> None:
        if isinstance(self.layer, int):
            _at_least(self, 0, "layer")
        else:
            _one_of(self, "layer", ("last", "weighted"))
        _one_of(self, "freeze", ("none", "feature_encoder", "all"))
        _positive(self, "learning_rate")


@dataclass(frozen=True, kw_only=True)
class TrainParams:
    """The training schedule (training.train)."""

    epochs: int
    warmup_epochs: float
    learning_rate: float
    weight_decay: float
    crop_seconds: float
    evaluate_every_epochs: int
    precision: str
    features_on: str
    deterministic: bool
    device: str

    def __post_init__(self) -> None:
        _at_least(self, 1, "epochs", "evaluate_every_epochs")
        _at_least(self, 0, "warmup_epochs", "weight_decay")
        _positive(self, "learning_rate", "crop_seconds")
        _one_of(self, "precision", ("auto", "float32", "bfloat16"))
        _one_of(self, "features_on", ("auto", "host", "device"))
        _one_of(self, "device", ("auto", "cpu", "cuda", "mps"))
        if self.warmup_epochs > self.epochs:
            raise ParamsError(
                f"train.warmup_epochs ({self.warmup_epochs}) is above train.epochs ({self.epochs})"
            )


@dataclass(frozen=True, kw_only=True)
class EmbedParams:
    """Which baselines stand beside the model (baselines), and how whole utterances are batched for embedding."""

    baselines: list[str]
    batch_seconds: float
    precision: str
    device: str

    def __post_init__(self) -> None:
        _positive(self, "batch_seconds")
        _one_of(self, "precision", ("float32", "bfloat16"))
        _one_of(self, "device", ("auto", "cpu", "cuda", "mps"))


@dataclass(frozen=True, kw_only=True)
class ScoreParams:
    """Trials, detection cost and the bootstrap over systems (scoring)."""

    bootstrap_samples: int
    p_target: float
    seed: int

    def __post_init__(self) -> None:
        _at_least(self, 0, "bootstrap_samples")
        if not 0 < self.p_target < 1:
            raise ParamsError(f"score.p_target is {self.p_target}; it lies between 0 and 1, both excluded")


@dataclass(frozen=True, kw_only=True)
class FuseParams:
    """Which systems are fused, and how (fusing)."""

    systems: list[str]
    projection: str
    dim: int
    max_utterances: int
    seed: int

    def __post_init__(self) -> None:
        _one_of(self, "projection", ("none", "lda", "pca"))
        _at_least(self, 1, "dim")
        _at_least(self, 4, "max_utterances")
        if len(self.systems) == 1:
            raise ParamsError(f"params.yaml: fuse.systems is {self.systems}; name two or more, or none")


@dataclass(frozen=True, kw_only=True)
class ProbeParams:
    """The linear probe and the map of embeddings (probing)."""

    split: str
    epochs: int
    learning_rate: float
    batch_utterances: int
    test_fraction: float
    max_per_class: int
    min_per_class: int
    umap_neighbours: int
    umap_min_dist: float
    frechet_halvings: int
    seed: int

    def __post_init__(self) -> None:
        _one_of(self, "split", ("train", "dev", "test"))
        _at_least(self, 1, "epochs", "batch_utterances", "max_per_class", "frechet_halvings")
        _at_least(self, 2, "min_per_class", "umap_neighbours")
        _positive(self, "learning_rate")
        if not 0 < self.test_fraction < 1:
            raise ParamsError(f"probe.test_fraction is {self.test_fraction}; it lies between 0 and 1")
        _fraction(self, "umap_min_dist")


@dataclass(frozen=True, kw_only=True)
class TraceParams:
    """How a tracer is calibrated and when it commits itself (tracing)."""

    clip_seconds: list[float]
    clips_per_system: int
    prior_known: float
    prior_same: float
    calibration_prior: float
    false_accept_rate: float
    conformal_coverage: float
    min_speech_seconds: float
    window_seconds: float
    hop_seconds: float
    enrol_clips: int
    enrol_draws: int
    bootstrap_samples: int
    seed: int

    def __post_init__(self) -> None:
        _at_least(self, 1, "enrol_clips", "enrol_draws")
        _at_least(self, 2, "clips_per_system")
        _at_least(self, 0, "bootstrap_samples", "seed")
        _positive(self, "min_speech_seconds", "window_seconds", "hop_seconds")
        for key in ("prior_known", "prior_same", "calibration_prior", "conformal_coverage"):
            if not 0 < getattr(self, key) < 1:
                raise ParamsError(
                    f"params.yaml: trace.{key} is {getattr(self, key)}; it lies between 0 and 1, both excluded"
                )
        if not 0 <= self.false_accept_rate < 1:
            raise ParamsError(
                f"params.yaml: trace.false_accept_rate is {self.false_accept_rate}; it is 0 or more, below 1"
            )
        lengths = self.clip_seconds
        if not lengths or lengths[0] <= 0 or sorted(set(lengths)) != lengths:
            raise ParamsError(
                f"params.yaml: trace.clip_seconds is {lengths}; it lists one or more lengths above 0, rising"
            )


@dataclass(frozen=True, kw_only=True)
class ExplainParams:
    """Which clips of test are explained, and how often chance is drawn (tracing.explained)."""

    clips_per_system: int
    longest_seconds: float
    draws: int
    bootstrap_samples: int
    seed: int

    def __post_init__(self) -> None:
        _at_least(self, 1, "clips_per_system", "draws")
        _at_least(self, 0, "bootstrap_samples", "seed")
        _positive(self, "longest_seconds")


@dataclass(frozen=True, kw_only=True)
class RobustnessParams:
    """Test under other circumstances (robustness)."""

    conditions: list[str]
    utterances_per_system: int
    gallery_utterances: int
    workers: int
    bootstrap_samples: int
    seed: int

    def __post_init__(self) -> None:
        _at_least(self, 2, "utterances_per_system")
        _at_least(self, 1, "gallery_utterances", "workers")
        _at_least(self, 0, "bootstrap_samples", "seed")


@dataclass(frozen=True, kw_only=True)
class Params:
    """All of params.yaml; the flat keys name an experiment."""

    corpus: str
    backbone: str
    loss: str
    sampler: str
    dim: int
    seed: int
    augment: str
    local: LocalParams
    external: ExternalParams
    manifest: ManifestParams
    split: SplitParams
    mlaad: MlaadParams
    bonafide: BonafideParams
    features: FeaturesParams
    front_ends: Mapping[str, Settings]
    backbones: Mapping[str, Settings]
    losses: Mapping[str, Settings]
    samplers: Mapping[str, Settings]
    ssl: SslParams
    train: TrainParams
    embed: EmbedParams
    score: ScoreParams
    probe: ProbeParams
    fuse: FuseParams
    trace: TraceParams
    explain: ExplainParams
    robustness: RobustnessParams

    def __post_init__(self) -> None:
        _at_least(self, 1, "dim")
        _at_least(self, 0, "seed")

    @property
    def experiment(self) -> str:
        """A name that reads well in a list of runs, such as `resnet34-ge2e-balanced-50-s0`; with `-noise` where speech
        is augmented."""
        augmented = "" if self.augment == "none" else f"-{self.augment}"
        return f"{self.backbone}-{self.loss}-{self.sampler}-{self.dim}-s{self.seed}{augmented}"

    def settings(self, section: str, name: str) -> Settings:
        """The keyword arguments that params.yaml gives to `name` of a registry.

        Raises ParamsError if the section has no entry of that name.
        """
        known: Mapping[str, Settings] = getattr(self, section)
        if name not in known:
            raise ParamsError(
                f"params.yaml has no settings for {name!r} under `{section}:`; it has {sorted(known)}. "
                f"Correct the name, or add `{name}: {{}}` there if it takes none"
            )
        return known[name]


def read_params(path: Path) -> Params:
    """Read and check a params.yaml; raises ParamsError naming the key, FilesError if unreadable."""
    return from_mapping(read_yaml(path))


def from_mapping(content: Any) -> Params:
    """What a params.yaml holds, as Params; raises ParamsError naming the key."""
    params: Params = _build(Params, content, where="")
    return params


def read_yaml(path: Path) -> Any:
    """Plain YAML; raises ParamsError with the line where it is not YAML."""
    try:
        return yaml.safe_load(Path(path).read_text(encoding="utf-8"))
    except OSError as error:
        raise FilesError(explain(error, path)) from error
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise ParamsError(f"{path}: not YAML ({' '.join(str(error).split())}); mend that line") from error


def _build(kind: Any, content: Any, *, where: str) -> Any:
    if not isinstance(content, Mapping):
        raise ParamsError(f"params.yaml: {where or 'the file'} holds {content!r}; it takes keys and values")
    known = {field.name for field in fields(kind)}
    unknown, missing = set(content) - known, known - set(content)
    if unknown or missing:
        problems = [f"unknown {sorted(map(str, unknown))}"] * bool(unknown)
        problems += [f"missing {sorted(missing)}"] * bool(missing)
        raise ParamsError(
            f"params.yaml: {where or 'top level'}: {', '.join(problems)}; this section takes {sorted(known)}"
        )
    hints = get_type_hints(kind)
    values = {
        name: _convert(hints[name], content[name], where=f"{where}.{name}" if where else name)
        for name in content
    }
    return kind(**values)


def _convert(hint: Any, value: Any, *, where: str) -> Any:
    """`value` as the type `hint`, or ParamsError: whole numbers pass for floats, nothing else bends."""
    if is_dataclass(hint):
        return _build(hint, value, where=where)
    if hint is Any:
        return value
    origin = get_origin(hint)
    if origin in (Union, types.UnionType):
        if any(type(value) is choice for choice in get_args(hint)):
            return value
        raise _wrong_type(where, value, " or ".join(KINDS[choice] for choice in get_args(hint)))
    if origin is list:
        if not isinstance(value, list):
            raise _wrong_type(where, value, "a list")
        (item,) = get_args(hint)
        return [_convert(item, v, where=f"{where}[{i}]") for i, v in enumerate(value)]
    if origin is not None and issubclass(origin, Mapping):
        if not isinstance(value, Mapping):
            raise _wrong_type(where, value, "keys and values")
        return {k: _convert(get_args(hint)[1], v, where=f"{where}.{k}") for k, v in value.items()}
    if hint is float and type(value) is int:
        return float(value)
    if type(value) is not hint:
        raise _wrong_type(where, value, KINDS[hint])
    if hint is float and not abs(value) < float("inf"):
        raise _wrong_type(where, value, "a finite number")
    return value


def _wrong_type(where: str, value: Any, wanted: str) -> ParamsError:
    hint = ""
    if wanted == "a number" and isinstance(value, str):
        hint = " (YAML reads 1e-4 as a word: write 1.0e-4 or 0.0001)"
    return ParamsError(f"params.yaml: {where} is {value!r}; it takes {wanted}{hint}")


def _name(section: Any, key: str) -> str:
    prefix = type(section).__name__.removesuffix("Params").lower()
    return f"{prefix}.{key}" if prefix else key


def _at_least(section: Any, least: float, *keys: str) -> None:
    for key in keys:
        if getattr(section, key) < least:
            raise ParamsError(
                f"params.yaml: {_name(section, key)} is {getattr(section, key)}; it is at least {least}"
            )


def _positive(section: Any, *keys: str) -> None:
    for key in keys:
        if not getattr(section, key) > 0:
            raise ParamsError(f"params.yaml: {_name(section, key)} is {getattr(section, key)}; it is above 0")


def _fraction(section: Any, *keys: str) -> None:
    for key in keys:
        if not 0 <= getattr(section, key) <= 1:
            raise ParamsError(
                f"params.yaml: {_name(section, key)} is {getattr(section, key)}; it lies between 0 and 1"
            )


def _one_of(section: Any, key: str, choices: tuple[str, ...]) -> None:
    if getattr(section, key) not in choices:
        raise ParamsError(
            f"params.yaml: {_name(section, key)} is {getattr(section, key)!r}; it is one of {list(choices)}"
        )
