"""Published weights of AASIST, renamed for the backbone `aasist`.

    published                     here
    first_bn                      image_norm
    encoder.N.0.conv1             blocks.N.conv1
    encoder.N.0.bn2               blocks.N.norm2
    encoder.N.0.conv2             blocks.N.conv2
    encoder.N.0.conv_downsample   blocks.N.shortcut
    pos_S, master1, master2,      graph.pos_S and so on
    GAT_*, HtrgGAT_*, pool_*
    encoder.N.0.bn1               left out: the published network holds it, and never uses what it gives
    out_layer                     left out: it tells bona fide from spoofed speech

The sinc filters have no weights. `embedding`, the layer to `dim` numbers, is ours and begins at random.
"""

from __future__ import annotations

import pickle
import re
from pathlib import Path

import safetensors.torch
import torch
from torch import Tensor

from makermark import backbones
from makermark.errors import CheckpointError
from makermark.files import explain, replacing, write_json

RENAMED = {
    r"first_bn\.": "image_norm.",
    r"encoder\.(\d)\.0\.(conv1|conv2)\.": r"blocks.\1.\2.",
    r"encoder\.(\d)\.0\.bn2\.": r"blocks.\1.norm2.",
    r"encoder\.(\d)\.0\.conv_downsample\.": r"blocks.\1.shortcut.",
    r"(?=pos_S|master|GAT_|HtrgGAT_|pool_)": "graph.",
}
LEFT_OUT = r"encoder\.\d\.0\.bn1\.|out_layer\."
OURS = "embedding."
SHARED = {"sinc_filters": 70, "sinc_length": 129, "narrow_filters": 32, "narrow_nodes": 32}
CONFIGURATIONS: dict[str, dict[str, int | float]] = {
    "AASIST": SHARED
    | {"wide_filters": 64, "wide_nodes": 64, "kept_bands": 0.5, "kept_times": 0.7, "kept_mixed": 0.5},
    "AASIST-L": SHARED
    | {"wide_filters": 24, "wide_nodes": 24, "kept_bands": 0.4, "kept_times": 0.5, "kept_mixed": 0.7},
}


def convert_aasist(source: Path, out: Path) -> dict[str, int | float]:
    """Write the weights of a published .pth file as safetensors; returns the settings of `backbones.aasist` for them.

    `out`.json beside `out`.safetensors names the same settings. Only tensors are unpickled. Raises CheckpointError
    for a file that holds no weights of AASIST or AASIST-L, FilesError where `out` cannot be written.
    """
    weights = renamed(read_tensors(source), source)
    name = configuration_of(weights, source)
    with replacing(out.with_suffix(".safetensors")) as draft:
        draft.write_bytes(safetensors.torch.save(weights))
    settings = CONFIGURATIONS[name]
    write_json(out.with_suffix(".json"), {"backbone": "aasist", "configuration": name, "settings": settings})
    return settings


def read_tensors(source: Path) -> dict[str, Tensor]:
    """The tensors of a file of torch.save, by name; nothing else is unpickled. Raises CheckpointError."""
    try:
        content = torch.load(source, map_location="cpu", weights_only=True)
    except OSError as error:
        raise CheckpointError(explain(error, source)) from error
    except (pickle.UnpicklingError, RuntimeError, EOFError, ValueError, LookupError) as error:
        raise CheckpointError(
            f"{source}: no file of weights alone that torch.save wrote ({type(error).__name__})"
        ) from error
    tensors = isinstance(content, dict) and all(isinstance(value, Tensor) for value in content.values())
    if not tensors:
        raise CheckpointError(
            f"{source}: holds something other than tensors by name; give a file such as AASIST.pth"
        )
    return dict(content)


def renamed(published: dict[str, Tensor], source: Path) -> dict[str, Tensor]:
    """The weights under the names of the table above, those that are left out dropped; raises CheckpointError."""
    found = {}
    for name, weight in published.items():
        if re.match(LEFT_OUT, name):
            continue
        rule = next((rule for rule in RENAMED if re.match(rule, name)), None)
        if rule is None:
            raise CheckpointError(
                f"{source}: {name!r} is no weight of AASIST; give a file such as AASIST.pth"
            )
        if not weight.isfinite().all():
            raise CheckpointError(f"{source}: {name!r} is not finite; fetch the file again")
        found[re.sub(rule, RENAMED[rule], name, count=1)] = weight.contiguous()
    return found


def configuration_of(weights: dict[str, Tensor], source: Path) -> str:
    """Which configuration has these names and shapes; raises CheckpointError, naming a weight, if none has."""
    found = {name: list(weight.shape) for name, weight in weights.items()}
    differing = {}
    for configuration, settings in CONFIGURATIONS.items():
        with torch.device("meta"):
            network = backbones.build("aasist", dim=1, width=1, encoder=None, initial="", **settings)
        own = {n: list(w.shape) for n, w in network.state_dict().items() if not n.startswith(OURS)}
        differing[configuration] = sorted(n for n in own.keys() | found.keys() if own.get(n) != found.get(n))
        if not differing[configuration]:
            return configuration
    nearest = min(differing, key=lambda configuration: len(differing[configuration]))
    wrong = differing[nearest][0]
    raise CheckpointError(
        f"{source}: not the sizes of {' or '.join(CONFIGURATIONS)}: {wrong} is {found.get(wrong, 'absent')}, "
        f"unlike that of {nearest} ({len(differing[nearest])} such)"
    )
