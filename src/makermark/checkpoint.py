"""A trained model as two files: `NAME.safetensors` (weights) and `NAME.json` (all that made them)."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Any

import safetensors.torch
from safetensors import SafetensorError
from torch import Tensor

from makermark import backbones, encoders, features, losses
from makermark.backbones import Backbone
from makermark.errors import CheckpointError, MakermarkError
from makermark.features.base import FrontEnd
from makermark.files import read_json, replacing, write_json
from makermark.losses import Loss

ADDED_LATER = {"languages"}  # what checkpoints written by earlier versions lack


@dataclass(frozen=True, kw_only=True)
class Description:
    """What a checkpoint says of itself."""

    backbone: str
    backbone_settings: dict[str, Any]
    dim: int
    loss: str
    loss_settings: dict[str, Any]
    systems: list[str]  # the training classes; their order is the classifier's
    languages: list[str] | None = None  # of the training set, "" if rows give none; None: not written down
    encoder: dict[str, Any] | None = None  # encoders.Architecture of a backbone that has one inside
    front_end: str
    width: int  # of the features, numbers per frame
    front_end_parameters: dict[str, Any]
    feature_fingerprint: str
    params: dict[str, Any]  # the whole params.yaml
    epoch: int
    dev_eer_percent: float
    git_commit: str
    versions: dict[str, str]
    emphasis: list[dict[str, float]] = field(
        default_factory=list
    )  # history of the first stage, if it had one


@dataclass(frozen=True)
class Checkpoint:
    """What `load_checkpoint` found: the parts in evaluation mode, and what names the model everywhere."""

    backbone: Backbone
    loss: Loss  # with the classifier over `description.systems`, if it is one that classifies
    description: Description
    digest: str  # SHA-256 of the weights file


def save_checkpoint(stem: Path, weights: Mapping[str, Tensor], description: Description) -> str:
    """Write both files from weights named `backbone/NAME` and `loss/NAME`; returns the digest."""
    content = safetensors.torch.save({name: tensor.cpu().contiguous() for name, tensor in weights.items()})
    digest = hashlib.sha256(content).hexdigest()
    with replacing(stem.with_suffix(".safetensors")) as draft:
        draft.write_bytes(content)
    write_json(stem.with_suffix(".json"), {"weights_sha256": digest, **asdict(description)})
    return digest


def load_checkpoint(stem: Path) -> Checkpoint:
    """The model that `save_checkpoint` wrote.

    `stem` is the path without suffix. Nothing is unpickled. Raises CheckpointError if the two files
    are damaged or do not belong together, FilesError if one is missing.
    """
    content = read_json(stem.with_suffix(".json"))
    path = stem.with_suffix(".safetensors")
    known = {field.name for field in fields(Description)} | {"weights_sha256"}
    if not isinstance(content, dict) or not known - ADDED_LATER <= set(content) <= known:
        raise CheckpointError(
            f"{stem.with_suffix('.json')}: not a checkpoint of this version of makermark; train again"
        )
    digest = content.pop("weights_sha256")
    description = Description(**content)
    if file_sha256(path) != digest:
        raise CheckpointError(
            f"{path}: its contents are not those that {stem.with_suffix('.json')} describes; "
            "restore both or train again"
        )
    try:
        backbone, loss = build_parts(description)
        weights = safetensors.torch.load_file(path)
        for part, module in {"backbone": backbone, "loss": loss}.items():
            prefix = f"{part}/"
            module.load_state_dict(
                {n.removeprefix(prefix): tensor for n, tensor in weights.items() if n.startswith(prefix)}
            )
    except (SafetensorError, RuntimeError, MakermarkError) as error:
        reason = " ".join(str(error).split())
        raise CheckpointError(
            f"{path}: does not fit backbone {description.backbone} ({reason}); train again"
        ) from error
    return Checkpoint(backbone.eval(), loss.eval(), description, digest)


def build_parts(description: Description) -> tuple[Backbone, Loss]:
    """Backbone and loss as described, with initial weights (torch's generator decides them)."""
    backbone = backbones.build(
        description.backbone,
        dim=description.dim,
        width=description.width,
        encoder=encoders.build(encoders.Architecture(**description.encoder)) if description.encoder else None,
        **description.backbone_settings,
    )
    loss = losses.build(
        description.loss,
        num_systems=len(description.systems),
        dim=description.dim,
        **description.loss_settings,
    )
    return backbone, loss


def front_end_of(description: Description) -> FrontEnd:
    """The front end that made the features of the checkpoint's training set.

    Raises CheckpointError if it cannot be built again, or would compute other features.
    """
    front_end = build_front_end(description, description.front_end)
    now, then = dict(front_end.parameters()), description.front_end_parameters
    if now != then:
        name = next(name for name in {**then, **now} if now.get(name) != then.get(name))
        raise CheckpointError(
            f"front end {description.front_end}: {name} was {then.get(name)!r} in training and is {now.get(name)!r} "
            "here; use the version of makermark, and the encoder, that the model was trained with"
        )
    return front_end


def build_front_end(description: Description, name: str) -> FrontEnd:
    """The front end called `name` with the settings that the checkpoint records; raises CheckpointError without."""
    try:
        ssl, settings = description.params["ssl"], description.params["front_ends"][name]
    except KeyError as error:
        raise CheckpointError(
            f"the checkpoint records no settings of front end {name} ({error} is missing); train again"
        ) from error
    return features.build(name, model=ssl["model"], layer=ssl["layer"], **settings)


def file_sha256(path: Path) -> str:
    """SHA-256 of a file's bytes, in hexadecimal; raises CheckpointError if it cannot be read."""
    try:
        with Path(path).open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:
        raise CheckpointError(f"{path}: {error.strerror}; run the train stage that makes it") from error
