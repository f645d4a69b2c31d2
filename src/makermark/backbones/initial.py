"""Weights to begin with that others have trained."""

from __future__ import annotations

from pathlib import Path

import safetensors.torch
import torch
from safetensors import SafetensorError
from torch import nn

from makermark.errors import CheckpointError


def take_weights(network: nn.Module, path: Path, *, but: str) -> None:
    """Copy the weights of a safetensors file into `network`, all of them except those whose name begins with `but`.

    On the meta device nothing is copied, only checked. Raises CheckpointError, before anything has changed, for a
    file that is absent or damaged, and where it has other names or shapes than the network.
    """
    try:
        found = safetensors.torch.load_file(path)
    except (OSError, SafetensorError) as error:
        reason = error.strerror if isinstance(error, OSError) and error.strerror else error
        raise CheckpointError(
            f"{path}: cannot be read as weights ({reason}); makermark convert writes them"
        ) from error
    own = {name: weight for name, weight in network.state_dict().items() if not name.startswith(but)}
    wrong = sorted(own.keys() ^ found.keys()) or [n for n in own if own[n].shape != found[n].shape]
    if wrong:
        sides = [
            f"{list(side[wrong[0]].shape)} in the {where}" if wrong[0] in side else f"not in the {where}"
            for where, side in {"file": found, "network": own}.items()
        ]
        raise CheckpointError(
            f"{path}: does not fit the settings of the backbone: {wrong[0]} is {', '.join(sides)}"
            f" ({len(wrong)} such); set the sizes that the file beside it names"
        )
    with torch.no_grad():
        for name, weight in own.items():
            weight.copy_(found[name])
