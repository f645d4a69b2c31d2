"""The state of an unfinished run, written whole after every epoch in one safetensors file."""

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

from makermark.files import replacing

log = logging.getLogger(__name__)

Weights = dict[str, Tensor]


@dataclass(frozen=True)
class State:
    """What a run must know to go on after `epoch` epochs."""

    epoch: int
    history: list[dict[str, float]]
    best_epoch: int
    best_eer_percent: float
    best: Weights  # at the best dev EER, as PART/NAME; empty before the first evaluation


class ResumeFile:
    """Saves and restores one run. `identity` says which run: another identity starts afresh.

    `run_id` is the tracker's name for the run; it is kept with the state, so that a resumed training
    goes on in the same run.
    """

    def __init__(self, path: Path, *, identity: Mapping[str, Any]) -> None:
        self._path = path
        self._identity = json.dumps(identity, sort_keys=True)
        self.run_id: str | None = self._told().get("run_id") or None

    def save(self, state: State, modules: Mapping[str, nn.Module], optimizer: torch.optim.Optimizer) -> None:
        tensors = {f"best/{name}": tensor for name, tensor in state.best.items()}
        for part, module in modules.items():
            tensors |= {f"{part}/{name}": tensor for name, tensor in module.state_dict().items()}
        for index, moments in optimizer.state_dict()["state"].items():
            tensors |= {f"optimizer/{index}/{name}": tensor for name, tensor in moments.items()}
        told = {
            "identity": self._identity,
            "epoch": str(state.epoch),
            "history": json.dumps(state.history),
            "best_epoch": str(state.best_epoch),
            "best_eer_percent": repr(state.best_eer_percent),
            "run_id": self.run_id or "",
        }
        whole = {name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}
        with replacing(self._path) as draft:
            draft.write_bytes(safetensors.torch.save(whole, metadata=told))

    def restore(self, modules: Mapping[str, nn.Module], optimizer: torch.optim.Optimizer) -> State | None:
        """Fill the modules and the optimizer from the file; None if there is no such run to go on with."""
        told = self._told()
        if not told:
            return None
        tensors = safetensors.torch.load_file(self._path)
        for part, module in modules.items():
            module.load_state_dict(_below(part, tensors))
        moments: dict[int, dict[str, Tensor]] = {}
        for name, tensor in _below("optimizer", tensors).items():
            index, moment = name.split("/")
            moments.setdefault(int(index), {})[moment] = tensor
        optimizer.load_state_dict({**optimizer.state_dict(), "state": moments})
        return State(
            epoch=int(told["epoch"]),
            history=json.loads(told["history"]),
            best_epoch=int(told["best_epoch"]),
            best_eer_percent=float(told["best_eer_percent"]),
            best=_below("best", tensors),
        )

    def _told(self) -> dict[str, str]:
        """The file's metadata; empty if there is no file, or it is damaged or of another run."""
        if not self._path.exists():
            return {}
        try:
            with safe_open(self._path, framework="pt") as file:
                told: dict[str, str] = file.metadata() or {}
        except SafetensorError as error:
            log.warning("%s is damaged (%s): training starts from the beginning", self._path, error)
            return {}
        return told if told.get("identity") == self._identity else {}

    def remove(self) -> None:
        """Forget the run; call it once its checkpoints are safe."""
        self._path.unlink(missing_ok=True)


def _below(part: str, tensors: Weights) -> Weights:
    return {n.removeprefix(f"{part}/"): t for n, t in tensors.items() if n.startswith(f"{part}/")}
