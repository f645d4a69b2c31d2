"""Resumption: the state of an unfinished training, written after every epoch as one safetensors file."""

from __future__ import annotations

import json
import logging
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import safetensors.torch
import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor, nn

from makermark.foundation.files import atomic_write
from makermark.models.checkpoint import Weights, select_part

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class TrainingState:
    """The state after `epoch` epochs, besides the weights and the optimizer."""

    epoch: int
    history: list[dict[str, float]]
    best_epoch: int
    best_eer_percent: float
    best: Weights  # at the best dev EER; empty before the first evaluation


class ResumeFile:
    """The file of one training. `identity` identifies the training: the file of another identity is ignored.

    `run_id` is the tracker's id of the run. It is stored with the state, so that a resumed training continues the
    same run.
    """

    def __init__(self, path: Path, *, identity: Mapping[str, Any]) -> None:
        self._path = path
        self._identity = json.dumps(identity, sort_keys=True)
        metadata = self._read_metadata()
        if metadata and metadata["identity"] != self._identity:
            log.warning(
                "%s is of a training with other %s: training starts from the beginning",
                path,
                _describe_difference(metadata["identity"], self._identity),
            )
        self.run_id: str | None = self._read_own_metadata().get("run_id") or None

    def save(
        self, state: TrainingState, modules: Mapping[str, nn.Module], optimizer: torch.optim.Optimizer
    ) -> None:
        """Replace the file by this state."""
        tensors = {f"best/{name}": tensor for name, tensor in state.best.items()}
        for part, module in modules.items():
            tensors |= {f"{part}/{name}": tensor for name, tensor in module.state_dict().items()}
        for index, moments in optimizer.state_dict()["state"].items():
            tensors |= {f"optimizer/{index}/{name}": tensor for name, tensor in moments.items()}
        metadata = {
            "identity": self._identity,
            "epoch": str(state.epoch),
            "history": json.dumps(state.history),
            "best_epoch": str(state.best_epoch),
            "best_eer_percent": repr(state.best_eer_percent),
            "run_id": self.run_id or "",
        }
        on_cpu = {name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}
        with atomic_write(self._path) as draft:
            draft.write_bytes(safetensors.torch.save(on_cpu, metadata=metadata))

    def restore(
        self, modules: Mapping[str, nn.Module], optimizer: torch.optim.Optimizer
    ) -> TrainingState | None:
        """Load the file into the modules and the optimizer; return None if there is no file of this training."""
        metadata = self._read_own_metadata()
        if not metadata:
            return None
        tensors = safetensors.torch.load_file(self._path)
        for part, module in modules.items():
            module.load_state_dict(select_part(tensors, part))
        moments: dict[int, dict[str, Tensor]] = {}
        for name, tensor in select_part(tensors, "optimizer").items():
            index, moment = name.split("/")
            moments.setdefault(int(index), {})[moment] = tensor
        optimizer.load_state_dict({**optimizer.state_dict(), "state": moments})
        return TrainingState(
            epoch=int(metadata["epoch"]),
            history=json.loads(metadata["history"]),
            best_epoch=int(metadata["best_epoch"]),
            best_eer_percent=float(metadata["best_eer_percent"]),
            best=select_part(tensors, "best"),
        )

    def _read_own_metadata(self) -> dict[str, str]:
        """Return the file's metadata; empty also if the file is of another identity."""
        metadata = self._read_metadata()
        return metadata if metadata.get("identity") == self._identity else {}

    def _read_metadata(self) -> dict[str, str]:
        """Return the file's metadata; empty if there is no file, or if it is damaged."""
        if not self._path.exists():
            return {}
        try:
            with safe_open(self._path, framework="pt") as file:
                metadata: dict[str, str] = file.metadata() or {}
        except SafetensorError as error:
            log.warning("%s is damaged (%s): training starts from the beginning", self._path, error)
            return {}
        return metadata if "identity" in metadata else {}

    def remove(self) -> None:
        """Delete the file; call it after the checkpoints are written."""
        self._path.unlink(missing_ok=True)


def _describe_difference(identity: str, other: str) -> str:
    """Return the keys at which two identities, as JSON objects, differ."""
    then, now = json.loads(identity), json.loads(other)
    return ", ".join(sorted(key for key in then.keys() | now.keys() if then.get(key) != now.get(key)))
