"""Checkpoints: a trained model as two files, `NAME.safetensors` (weights) and `NAME.json` (metadata)."""

from __future__ import annotations

import hashlib
import platform
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field, fields
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import safetensors.torch
import torch
from safetensors import SafetensorError
from torch import Tensor, nn

import makermark
from makermark.features import encoders
from makermark.features.front_end import FrontEnd
from makermark.foundation.errors import CheckpointError, FilesError, MakermarkError, ParamsError
from makermark.foundation.files import atomic_write, read_json, write_json
from makermark.models import backbones, losses
from makermark.models.backbones import Backbone
from makermark.models.feature_spec import build_front_end
from makermark.models.losses import Loss

Weights = dict[str, Tensor]  # by `PART/NAME`, such as `backbone/conv1.weight`

ADDED_LATER = {"languages", "threads", "bands"}  # keys that checkpoints of earlier versions lack
# Settings that earlier versions did not have, with the value that describes what those versions computed.
LOG_MELS = {"front_end": "fbank", "normalise": "mean-variance"}
EARLIER_BACKBONE_SETTINGS = {
    "resnet34": LOG_MELS | {"stem_order": "relu-norm"},
    "ecapa": LOG_MELS,
    "conformer": LOG_MELS,
    "spectral-statistics": {"active_range_db": 0.0},
}
EARLIER_LOSS_SETTINGS = {"ge2e": {"variant": "wan2018"}}


@dataclass(frozen=True, kw_only=True)
class CheckpointMetadata:
    """The configuration, the training classes and the provenance of a model; the keys of `NAME.json`."""

    backbone: str
    backbone_settings: dict[str, Any]
    dim: int
    loss: str
    loss_settings: dict[str, Any]
    systems: list[str]  # the training classes, in the order of the classifier's outputs
    languages: list[str] | None = None  # of the training set, "" for rows without one; None: not recorded
    encoder: dict[str, Any] | None = None  # encoders.Architecture of a backbone that contains an encoder
    front_end: str
    width: int  # numbers per frame
    bands: int | None = None  # the first numbers that are log energies of bands; None: all
    front_end_parameters: dict[str, Any]
    feature_fingerprint: str
    params: dict[str, Any]  # the whole params.yaml
    epoch: int
    dev_eer_percent: float
    git_commit: str
    versions: dict[str, str]
    threads: int | None = None  # of torch in training, which change the rounding of sums; None: not recorded
    emphasis: list[dict[str, float]] = field(default_factory=list)  # history of the bona fide pre-training


@dataclass(frozen=True)
class Checkpoint:
    """A trained backbone in evaluation mode, its metadata, and its loss, which is built when it is first asked for.

    - path: the weights file
    - digest: SHA-256 of the weights file; identifies the model everywhere
    """

    backbone: Backbone
    metadata: CheckpointMetadata
    path: Path
    digest: str
    loss_weights: Weights = field(repr=False)

    @cached_property
    def loss(self) -> Loss:
        """The trained loss in evaluation mode; its classifier, if it has one, is over `metadata.systems`.

        Raises CheckpointError if the weights do not fit.
        """
        with _weights_must_fit(self.path, f"loss {self.metadata.loss}"):
            loss = build_loss(self.metadata)
            loss.load_state_dict(self.loss_weights)
        return loss.eval()


def copy_weights(modules: Mapping[str, nn.Module]) -> Weights:
    """Copy all weights and buffers of the modules to the CPU, named `PART/NAME`."""
    return {
        f"{part}/{name}": tensor.detach().cpu().clone()
        for part, module in modules.items()
        for name, tensor in module.state_dict().items()
    }


def select_part(weights: Weights, part: str) -> Weights:
    """Return the weights of one part, named `NAME`."""
    prefix = f"{part}/"
    return {name.removeprefix(prefix): w for name, w in weights.items() if name.startswith(prefix)}


def save_checkpoint(stem: Path, weights: Mapping[str, Tensor], metadata: CheckpointMetadata) -> str:
    """Write both files from weights named `backbone/NAME` and `loss/NAME`; return the digest."""
    content = safetensors.torch.save({name: tensor.cpu().contiguous() for name, tensor in weights.items()})
    digest = hashlib.sha256(content).hexdigest()
    with atomic_write(stem.with_suffix(".safetensors")) as draft:
        draft.write_bytes(content)
    write_json(stem.with_suffix(".json"), {"weights_sha256": digest, **asdict(metadata)})
    return digest


def check_trained(stem: Path) -> None:
    """Raise FilesError with the remedy if there is no checkpoint; `stem` is its path without suffix."""
    path = stem.with_suffix(".json")
    if not path.exists():
        raise FilesError(
            f"{path}: there is no trained model; run make repro in a clone of the repository, or name a folder "
            "with a trained model"
        )


def load_checkpoint(stem: Path) -> Checkpoint:
    """Load a checkpoint; `stem` is its path without suffix. Nothing is unpickled.

    Raises CheckpointError if the files are damaged or do not belong together, FilesError if one is missing.
    """
    check_trained(stem)
    metadata, digest = _read_metadata(stem.with_suffix(".json"))
    path = stem.with_suffix(".safetensors")
    if file_sha256(path) != digest:
        raise CheckpointError(
            f"{path}: its SHA-256 is not the one in {stem.with_suffix('.json')}; restore both files or train again"
        )
    with _weights_must_fit(path, f"backbone {metadata.backbone}"):
        backbone = build_backbone(metadata)
        weights = safetensors.torch.load_file(path)
        backbone.load_state_dict(select_part(weights, "backbone"))
    return Checkpoint(backbone.eval(), metadata, path, digest, select_part(weights, "loss"))


@contextmanager
def _weights_must_fit(path: Path, module: str) -> Iterator[None]:
    """Raise CheckpointError for weights of `path` that the module cannot load."""
    try:
        yield
    except (SafetensorError, RuntimeError, MakermarkError) as error:
        reason = " ".join(str(error).split())
        raise CheckpointError(f"{path}: the weights do not fit {module} ({reason}); train again") from error


def _read_metadata(path: Path) -> tuple[CheckpointMetadata, str]:
    content = read_json(path)
    keys = {field.name for field in fields(CheckpointMetadata)} | {"weights_sha256"}
    if not isinstance(content, dict) or not keys - ADDED_LATER <= set(content) <= keys:
        raise CheckpointError(f"{path}: not a checkpoint of this version of makermark; train again")
    settings = (content["backbone_settings"], content["loss_settings"])
    if not all(isinstance(value, dict) for value in settings) or not all(
        isinstance(content[name], str) for name in ("backbone", "loss", "weights_sha256")
    ):
        raise CheckpointError(f"{path}: damaged: a value has another type; restore it or train again")
    _check_sizes(path, content)
    digest = content.pop("weights_sha256")
    backbone, loss = content["backbone"], content["loss"]
    content["backbone_settings"] = EARLIER_BACKBONE_SETTINGS.get(backbone, {}) | content["backbone_settings"]
    content["loss_settings"] = EARLIER_LOSS_SETTINGS.get(loss, {}) | content["loss_settings"]
    return CheckpointMetadata(**content), digest


def _check_sizes(path: Path, content: Mapping[str, Any]) -> None:
    """Raise CheckpointError unless dim, width and, if they are given, bands are whole numbers that fit together."""
    dim, width, bands = (content.get(name) for name in ("dim", "width", "bands"))
    for name, size in (("dim", dim), ("width", width), ("bands", width if bands is None else bands)):
        if type(size) is not int or size < 1:
            raise CheckpointError(f"{path}: damaged: {name} is {size!r}; restore it or train again")
    if bands is not None and bands > width:
        raise CheckpointError(
            f"{path}: damaged: bands is {bands}, width only {width}; restore it or train again"
        )


def build_backbone(metadata: CheckpointMetadata) -> Backbone:
    """Build the backbone with initial weights, drawn from torch's generator."""
    return backbones.build(
        metadata.backbone,
        dim=metadata.dim,
        width=metadata.width,
        bands=metadata.bands,
        encoder=encoders.build(encoders.Architecture(**metadata.encoder)) if metadata.encoder else None,
        **metadata.backbone_settings,
    )


def build_loss(metadata: CheckpointMetadata) -> Loss:
    """Build the loss with initial weights, drawn from torch's generator."""
    return losses.build(
        metadata.loss, num_systems=len(metadata.systems), dim=metadata.dim, **metadata.loss_settings
    )


def rebuild_front_end(metadata: CheckpointMetadata) -> FrontEnd:
    """Rebuild the front end that computed the features of the checkpoint's training set.

    Raises CheckpointError if the checkpoint lacks its settings, or if it would compute other features now.
    """
    try:
        front_end = build_front_end(metadata.params, metadata.front_end)
    except ParamsError as error:
        raise CheckpointError(
            f"the checkpoint cannot rebuild its front end ({error}); train again"
        ) from error
    now, then = dict(front_end.parameters()), metadata.front_end_parameters
    if now != then:
        name = next(name for name in {**then, **now} if now.get(name) != then.get(name))
        raise CheckpointError(
            f"front end {metadata.front_end}: {name} was {then.get(name)!r} in training and is {now.get(name)!r} "
            "now; use the version of makermark, and the encoder, that the model was trained with"
        )
    return front_end


def file_sha256(path: Path) -> str:
    """Return the SHA-256 of a file in hexadecimal; raises CheckpointError if it cannot be read."""
    try:
        with Path(path).open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:
        raise CheckpointError(f"{path}: {error.strerror}; run the train stage, which writes it") from error


def library_versions() -> dict[str, str]:
    """Return the versions of Python, torch, NumPy and makermark that run now."""
    return {
        "python": platform.python_version(),
        "torch": torch.__version__,
        "numpy": np.__version__,
        "makermark": makermark.__version__,
    }
