"""params.yaml as frozen pydantic models: unknown keys, other types and values out of range raise ParamsError.

params.yaml itself explains each setting. The sections of a registry (`front_ends`, `backbones`, `losses`, `samplers`)
map a registered name to the keyword arguments of its constructor, which foundation/settings.py checks. Not imported
here: pandas, so that a command starts quickly.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal, Self, get_args

import yaml
from pydantic import AfterValidator, Field, PlainValidator, model_validator

from makermark.foundation.errors import FilesError, ParamsError
from makermark.foundation.files import describe_os_error
from makermark.foundation.settings import (
    Fraction,
    IntFromTwo,
    NonNegativeFloat,
    NonNegativeInt,
    PositiveFloat,
    PositiveInt,
    Probability,
    Scalar,
    Section,
    reject,
    reject_combination,
    validate,
)

Split = Literal["train", "dev", "test"]
Label = Literal["system", "family", "architecture", "acoustic_model", "vocoder"]
StrataSource = Literal["train", "protocol"]

SPLITS: tuple[str, ...] = get_args(Split)
LABELS: tuple[str, ...] = get_args(Label)  # what can be traced
STRATA_SOURCES: tuple[str, ...] = get_args(StrataSource)
ADDRESS = re.compile(r"https?://[^\s/]\S*")
ENCODER_LAYERS = ("last", "weighted")
DEFAULT_EPOCHS = 48  # of train in params.yaml; a run with another number has it in its name

Device = Literal["auto", "cpu", "cuda", "mps"]


def _check_address(value: str) -> str:
    is_address = ADDRESS.fullmatch(value)
    return value if is_address else reject("it begins with https:// (or http://) and has no blanks")


def _check_file_name(value: str) -> str:
    is_plain = value and "/" not in value and not value.startswith(".")
    return value if is_plain else reject("it takes a plain file name")


def _check_layer(value: Any) -> Any:
    if type(value) is int:
        return value if value >= 0 else reject("it is at least 0")
    if isinstance(value, str):
        return value if value in ENCODER_LAYERS else reject(f"it is one of {list(ENCODER_LAYERS)}")
    return reject("it takes a whole number or a word")


def _check_clip_seconds(value: list[float]) -> list[float]:
    is_rising = bool(value) and value[0] > 0 and sorted(set(value)) == value
    return value if is_rising else reject("it lists one or more lengths above 0 in rising order")


def _check_disjoint(value: list[str]) -> list[str]:
    unknown = sorted(set(value) - {"voice", "text"})
    return reject(f"{unknown[0]!r} is unknown; it takes voice and text") if unknown else value


def _check_fused_systems(value: list[str]) -> list[str]:
    return reject("name two or more systems, or none") if len(value) == 1 else value


Address = Annotated[str, AfterValidator(_check_address)]
FileName = Annotated[str, AfterValidator(_check_file_name)]


class LocalParams(Section):
    """The built-in corpus (makermark.corpora.local)."""

    protocol: Literal["small", "wide", "full"]
    seed: int
    train_utterances: IntFromTwo
    dev_utterances: IntFromTwo
    test_utterances: IntFromTwo
    engines: list[str]
    workers: PositiveInt
    utterance_timeout_s: PositiveFloat
    max_failed_fraction: Fraction


class ExternalParams(Section):
    """The manifest of every corpus but the built-in one (makermark.corpora.build_manifest)."""

    root: str
    label: Label
    dedupe: bool
    strata_from: StrataSource
    max_bad_fraction: Fraction
    workers: PositiveInt


class ManifestParams(Section):
    """The table of `corpus: manifest` (makermark.corpora.readers.table)."""

    file: str
    columns: dict[str, str]


class SplitParams(Section):
    """Train, dev and test of a corpus without splits (makermark.corpora.splits)."""

    everything_in: Literal["", "train", "dev", "test"]
    seed: NonNegativeInt
    dev_unseen_systems: NonNegativeInt
    test_unseen_systems: NonNegativeInt
    dev_unseen_languages: NonNegativeInt
    test_unseen_languages: NonNegativeInt
    dev_fraction: PositiveFloat
    test_fraction: PositiveFloat
    disjoint: Annotated[list[str], AfterValidator(_check_disjoint)]

    @model_validator(mode="after")
    def _check_sum(self) -> Self:
        if self.dev_fraction + self.test_fraction >= 1:
            reject_combination(
                f"split.dev_fraction ({self.dev_fraction}) and split.test_fraction ({self.test_fraction}) leave "
                "nothing for train; their sum is below 1"
            )
        return self


class MlaadParams(Section):
    """The location of MLAADv5 (makermark.corpora.mlaad)."""

    root: str
    protocol: str
    licence: str
    folder: Annotated[str, Field(min_length=1)]
    source: Literal["zip", "huggingface"]
    protocol_url: Address
    protocol_md5: str
    repository: str
    revision: str
    workers: PositiveInt
    zip_url: Address
    zip_parts: Annotated[list[FileName], Field(min_length=1)]
    zip_md5: FileName
    attempts: PositiveInt

    @model_validator(mode="after")
    def _check_zip_url(self) -> Self:
        if "{name}" not in self.zip_url:
            reject_combination(
                f"mlaad.zip_url is {self.zip_url!r}; it has {{name}} where the name of a part is inserted"
            )
        return self


class BonafideParams(Section):
    """Human speech and the splits of its speakers (makermark.corpora.bonafide_recordings)."""

    source: str
    seed: NonNegativeInt
    dev_fraction: PositiveFloat
    test_fraction: PositiveFloat

    @model_validator(mode="after")
    def _check_sum(self) -> Self:
        if self.dev_fraction + self.test_fraction >= 1:
            reject_combination(
                f"bonafide.dev_fraction ({self.dev_fraction}) and bonafide.test_fraction ({self.test_fraction}) leave "
                "no speaker to train on; their sum is below 1"
            )
        return self


class FeaturesParams(Section):
    """Feature caches, and which audio files are usable (makermark.features)."""

    front_ends: list[str]
    shard_utterances: PositiveInt
    min_seconds: PositiveFloat
    max_seconds: PositiveFloat
    max_bad_fraction: Fraction
    workers: PositiveInt
    augmented_copies: PositiveInt

    @model_validator(mode="after")
    def _check_durations(self) -> Self:
        if self.min_seconds > self.max_seconds:
            reject_combination(
                f"features.min_seconds ({self.min_seconds}) is above features.max_seconds ({self.max_seconds})"
            )
        return self


class SslParams(Section):
    """The pretrained speech encoder (makermark.features.encoders)."""

    model: str
    layer: Annotated[int | str, PlainValidator(_check_layer)]
    freeze: Literal["none", "feature_encoder", "all"]
    learning_rate: PositiveFloat
    gradient_checkpointing: bool


class TrainParams(Section):
    """The training schedule (makermark.training)."""

    epochs: PositiveInt
    warmup_epochs: NonNegativeFloat
    learning_rate: PositiveFloat
    weight_decay: NonNegativeFloat
    clean_fraction: Fraction
    crop_seconds: PositiveFloat
    evaluate_every_epochs: PositiveInt
    precision: Literal["auto", "float32", "bfloat16"]
    features_on: Literal["auto", "host", "device"]
    deterministic: bool
    device: Device

    @model_validator(mode="after")
    def _check_warmup(self) -> Self:
        if self.warmup_epochs > self.epochs:
            reject_combination(
                f"train.warmup_epochs ({self.warmup_epochs}) is above train.epochs ({self.epochs})"
            )
        return self


class EmbedParams(Section):
    """Baselines beside the model, and the batches of whole utterances (makermark.models)."""

    baselines: list[str]
    batch_seconds: PositiveFloat
    precision: Literal["float32", "bfloat16"]
    device: Device


class ScoreParams(Section):
    """Bootstrap over systems and detection cost (makermark.scoring)."""

    bootstrap_samples: NonNegativeInt
    p_target: Probability
    seed: int


class ProbeParams(Section):
    """The linear probe and the map of the embeddings (makermark.scoring.probes)."""

    split: Split
    epochs: PositiveInt
    learning_rate: PositiveFloat
    batch_utterances: PositiveInt
    test_fraction: Probability
    max_per_class: PositiveInt
    min_per_class: IntFromTwo
    umap_neighbours: IntFromTwo
    umap_min_dist: Fraction
    frechet_halvings: PositiveInt
    seed: int


class FuseParams(Section):
    """Systems to fuse, and how (makermark.experiments.fusion)."""

    systems: Annotated[list[str], AfterValidator(_check_fused_systems)]
    projection: Literal["none", "lda", "pca"]
    dim: PositiveInt
    max_utterances: Annotated[int, Field(ge=4)]
    seed: int


class TraceParams(Section):
    """Calibration and decisions of the tracer (makermark.tracing)."""

    clip_seconds: Annotated[list[float], AfterValidator(_check_clip_seconds)]
    clips_per_system: IntFromTwo
    prior_known: Probability
    prior_same: Probability
    calibration_prior: Probability
    false_accept_rate: Annotated[float, Field(ge=0, lt=1)]
    conformal_coverage: Probability
    min_speech_seconds: PositiveFloat
    window_seconds: PositiveFloat
    hop_seconds: PositiveFloat
    enrol_clips: PositiveInt
    enrol_draws: PositiveInt
    bootstrap_samples: NonNegativeInt
    seed: NonNegativeInt


class ExplainParams(Section):
    """Test clips to explain (makermark.examination.attribution)."""

    clips_per_system: PositiveInt
    longest_seconds: PositiveFloat
    draws: PositiveInt
    bootstrap_samples: NonNegativeInt
    seed: NonNegativeInt


class RobustnessParams(Section):
    """Evaluation of the tracer under other recording conditions (makermark.tracing.robustness)."""

    stage: Annotated[list[Literal["run"]], Field(default_factory=list)]  # version 0.1 does not have it
    conditions: list[str]
    utterances_per_system: IntFromTwo
    gallery_utterances: PositiveInt
    workers: PositiveInt
    bootstrap_samples: NonNegativeInt
    seed: NonNegativeInt


class ForeignParams(Section):
    """Evaluation on a corpus that is never trained on (makermark.experiments.foreign)."""

    stage: Annotated[list[Literal["run"]], Field(default_factory=list)]
    manifest: str
    root: str
    columns: dict[str, str]
    label: Annotated[list[str], Field(min_length=1)]
    within: list[str]
    min_utterances: PositiveInt
    baselines: list[str]
    workers: PositiveInt


Settings = dict[str, Scalar]
FrontEndSettings = dict[str, Scalar | list[PositiveInt]]


class Params(Section):
    """All of params.yaml; the keys at its top name an experiment."""

    corpus: str
    backbone: str
    loss: str
    sampler: str
    dim: PositiveInt
    seed: NonNegativeInt
    augment: str
    local: LocalParams
    external: ExternalParams
    manifest: ManifestParams
    split: SplitParams
    mlaad: MlaadParams
    bonafide: BonafideParams
    features: FeaturesParams
    front_ends: dict[str, FrontEndSettings]
    backbones: dict[str, Settings]
    losses: dict[str, Settings]
    samplers: dict[str, Settings]
    ssl: SslParams
    train: TrainParams
    embed: EmbedParams
    score: ScoreParams
    probe: ProbeParams
    fuse: FuseParams
    trace: TraceParams
    explain: ExplainParams
    robustness: RobustnessParams
    foreign: ForeignParams

    @property
    def experiment(self) -> str:
        """The name of the experiment, such as `resnet34-ge2e-balanced-50-s0`.

        `-noise` follows if it is augmented with noise, `-e3` if it is trained for 3 instead of DEFAULT_EPOCHS epochs.
        """
        suffix = "" if self.augment == "none" else f"-{self.augment}"
        if self.train.epochs != DEFAULT_EPOCHS:
            suffix += f"-e{self.train.epochs}"
        return f"{self.backbone}-{self.loss}-{self.sampler}-{self.dim}-s{self.seed}{suffix}"

    def settings(self, section: str, name: str) -> Settings:
        """Return the keyword arguments that params.yaml gives to `name` of a registry.

        Raises ParamsError if the section has no entry of that name.
        """
        entries: Mapping[str, Settings] = getattr(self, section)
        if name not in entries:
            raise ParamsError(
                f"params.yaml has no settings for {name!r} under `{section}:`; it has {sorted(entries)}. "
                f"Correct the name, or add `{name}: {{}}` there if it takes none"
            )
        return entries[name]


def read_params(path: Path) -> Params:
    """Read and validate a params.yaml. Raises ParamsError that names the setting, FilesError for an unreadable file."""
    return parse_params(read_yaml(path))


def parse_params(content: Any) -> Params:
    """Return the content of a params.yaml as Params. Raises ParamsError that names the setting."""
    return validate(Params, content, source="params.yaml")


def read_yaml(path: Path) -> Any:
    """Return the content of a YAML file. Raises ParamsError with the line that is not YAML, FilesError otherwise."""
    try:
        return yaml.safe_load(Path(path).read_text(encoding="utf-8"))
    except OSError as error:
        raise FilesError(describe_os_error(error, path)) from error
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise ParamsError(f"{path}: not YAML ({' '.join(str(error).split())}); correct that line") from error
