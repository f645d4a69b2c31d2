"""A trained backbone as two files: `NAME.safetensors` (weights) and `NAME.json` (all that made them)."""

from __future__ import annotations

import hashlib
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

import safetensors.torch
from safetensors import SafetensorError
from torch import nn

from makermark import backbones
from makermark.errors import CheckpointError, MakermarkError
from makermark.files import read_json, replacing, write_json


@dataclass(frozen=True, kw_only=True)
class Description:
    """What a checkpoint says of itself."""

    backbone: str
    backbone_settings: dict[str, Any]
    dim: int
    systems: list[str]  # the training classes; their order is the classifier's
    front_end: str
    front_end_parameters: dict[str, Any]
    feature_fingerprint: str
    params: dict[str, Any]  # the whole params.yaml
    epoch: int
    dev_eer_percent: float
    git_commit: str
    versions: dict[str, str]


def save_checkpoint(stem: Path, backbone: nn.Module, description: Description) -> str:
    """Write both files; returns the SHA-256 of the weights file, which names the model everywhere."""
    weights = safetensors.torch.save(
        {name: tensor.detach().cpu().contiguous() for name, tensor in backbone.state_dict().items()}
    )
    digest = hashlib.sha256(weights).hexdigest()
    with replacing(stem.with_suffix(".safetensors")) as draft:
        draft.write_bytes(weights)
    write_json(stem.with_suffix(".json"), {"weights_sha256": digest, **asdict(description)})
    return digest


def load_checkpoint(stem: Path) -> tuple[nn.Module, Description, str]:
    """The backbone in evaluation mode, its description, and the SHA-256 of its weights.

    `stem` is the path without suffix. Nothing is unpickled. Raises CheckpointError if the two files
    are damaged or do not belong together, FilesError if one is missing.
    """
    content = read_json(stem.with_suffix(".json"))
    path = stem.with_suffix(".safetensors")
    known = {field.name for field in fields(Description)} | {"weights_sha256"}
    if not isinstance(content, dict) or set(content) != known:
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
        backbone = backbones.build(description.backbone, dim=description.dim, **description.backbone_settings)
        backbone.load_state_dict(safetensors.torch.load_file(path))
    except (SafetensorError, RuntimeError, MakermarkError) as error:
        reason = " ".join(str(error).split())
        raise CheckpointError(
            f"{path}: does not fit backbone {description.backbone} ({reason}); train again"
        ) from error
    return backbone.eval(), description, digest


def file_sha256(path: Path) -> str:
    """SHA-256 of a file's bytes, in hexadecimal; raises CheckpointError if it cannot be read."""
    try:
        with Path(path).open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:
        raise CheckpointError(f"{path}: {error.strerror}; run the train stage that makes it") from error
