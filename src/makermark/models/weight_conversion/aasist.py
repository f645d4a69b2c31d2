"""Conversion of the published AASIST weights for the backbone `aasist`.

    published name                name in the backbone
    first_bn                      image_norm
    encoder.N.0.conv1             blocks.N.conv1
    encoder.N.0.bn2               blocks.N.norm2
    encoder.N.0.conv2             blocks.N.conv2
    encoder.N.0.conv_downsample   blocks.N.shortcut
    pos_S, master1, master2,      graph.pos_S and so on
    GAT_*, HtrgGAT_*, pool_*
    encoder.N.0.bn1               dropped: the published network never uses its output
    out_layer                     dropped: the classifier of bona fide against spoofed speech

The sinc filters have no weights. `embedding`, the layer to `dim`, is not published and keeps its random weights.
"""

from __future__ import annotations

import pickle
import re
from pathlib import Path

import safetensors.torch
import torch
from torch import Tensor

from makermark.foundation.errors import CheckpointError
from makermark.foundation.files import atomic_write, describe_os_error, write_json
from makermark.models import backbones

RENAMES = {
    r"first_bn\.": "image_norm.",
    r"encoder\.(\d)\.0\.(conv1|conv2)\.": r"blocks.\1.\2.",
    r"encoder\.(\d)\.0\.bn2\.": r"blocks.\1.norm2.",
    r"encoder\.(\d)\.0\.conv_downsample\.": r"blocks.\1.shortcut.",
    r"(?=pos_S|master|GAT_|HtrgGAT_|pool_)": "graph.",
}
DROPPED = r"encoder\.\d\.0\.bn1\.|out_layer\."
UNPUBLISHED = "embedding."
SHARED_SETTINGS = {"sinc_filters": 70, "sinc_length": 129, "narrow_filters": 32, "narrow_nodes": 32}
CONFIGURATIONS: dict[str, dict[str, int | float]] = {
    "AASIST": SHARED_SETTINGS
    | {"wide_filters": 64, "wide_nodes": 64, "kept_bands": 0.5, "kept_times": 0.7, "kept_mixed": 0.5},
    "AASIST-L": SHARED_SETTINGS
    | {"wide_filters": 24, "wide_nodes": 24, "kept_bands": 0.4, "kept_times": 0.5, "kept_mixed": 0.7},
}


def convert_aasist(source: Path, out: Path) -> dict[str, int | float]:
    """Write the weights of a published .pth file as `out`.safetensors and return the settings of `backbones.aasist`.

    The settings are also written to `out`.json. Only tensors are unpickled. Raises CheckpointError for a file without
    weights of AASIST or AASIST-L, FilesError if `out` cannot be written.
    """
    weights = rename_weights(read_tensors(source), source)
    name = identify_configuration(weights, source)
    with atomic_write(out.with_suffix(".safetensors")) as draft:
        draft.write_bytes(safetensors.torch.save(weights))
    settings = CONFIGURATIONS[name]
    write_json(out.with_suffix(".json"), {"backbone": "aasist", "configuration": name, "settings": settings})
    return settings


def read_tensors(source: Path) -> dict[str, Tensor]:
    """Return the tensors, by name, of a file written by torch.save. Only tensors are unpickled.

    Raises CheckpointError for a file that cannot be read or holds anything else.
    """
    try:
        content = torch.load(source, map_location="cpu", weights_only=True)
    except OSError as error:
        raise CheckpointError(describe_os_error(error, source)) from error
    except (pickle.UnpicklingError, RuntimeError, EOFError, ValueError, LookupError) as error:
        raise CheckpointError(
            f"{source}: not a torch.save file of weights only ({type(error).__name__}); give a file such as AASIST.pth"
        ) from error
    if not isinstance(content, dict) or not all(isinstance(value, Tensor) for value in content.values()):
        raise CheckpointError(f"{source}: not a dictionary of tensors; give a file such as AASIST.pth")
    return dict(content)


def rename_weights(published: dict[str, Tensor], source: Path) -> dict[str, Tensor]:
    """Return the weights under the backbone's names, as in the table of this module.

    Raises CheckpointError for an unknown name or a weight that is not finite.
    """
    weights = {}
    for name, weight in published.items():
        if re.match(DROPPED, name):
            continue
        pattern = next((pattern for pattern in RENAMES if re.match(pattern, name)), None)
        if pattern is None:
            raise CheckpointError(
                f"{source}: {name!r} is not a weight of AASIST; give a file such as AASIST.pth"
            )
        if not weight.isfinite().all():
            raise CheckpointError(f"{source}: {name!r} is not finite; download the file again")
        weights[re.sub(pattern, RENAMES[pattern], name, count=1)] = weight.contiguous()
    return weights


def identify_configuration(weights: dict[str, Tensor], source: Path) -> str:
    """Return the name of the configuration with these weight names and shapes.

    Raises CheckpointError if there is none; the message names a weight that differs.
    """
    shapes = {name: list(weight.shape) for name, weight in weights.items()}
    mismatches = {}
    for configuration, settings in CONFIGURATIONS.items():
        with torch.device("meta"):
            network = backbones.build(
                "aasist", dim=1, width=1, bands=None, encoder=None, initial="", **settings
            )
        expected = {
            n: list(w.shape) for n, w in network.state_dict().items() if not n.startswith(UNPUBLISHED)
        }
        mismatches[configuration] = sorted(
            n for n in expected.keys() | shapes.keys() if expected.get(n) != shapes.get(n)
        )
        if not mismatches[configuration]:
            return configuration
    nearest = min(mismatches, key=lambda configuration: len(mismatches[configuration]))
    first = mismatches[nearest][0]
    shape = f"has the shape {shapes[first]}" if first in shapes else "is absent"
    raise CheckpointError(
        f"{source}: the weights fit neither {' nor '.join(CONFIGURATIONS)}: {first} {shape}, unlike in {nearest} "
        f"(mismatches: {len(mismatches[nearest])}); give a file such as AASIST.pth"
    )
