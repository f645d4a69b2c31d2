"""The encoder of a Whisper model that was converted for CTranslate2, back as a Hugging Face folder.

`model.bin`, little-endian: u32 version; text specification (`WhisperSpec`) and u32 its revision; u32 count of
variables, each text name, u8 rank, u32 per dimension, u8 type, u32 bytes, and the values in row order. What
follows (aliases) concerns the decoder. A text is u16 its bytes, the terminating zero counted, and those bytes.
Types: 0 float32, 1 int8, 2 int16, 3 int32, 4 float16, 5 bfloat16.
"""

from __future__ import annotations

import struct
from pathlib import Path
from typing import Any

import safetensors.torch
import torch
from torch import Tensor

from makermark.errors import EncoderError
from makermark.files import explain, replacing_folder, write_json

VERSIONS = range(4, 7)  # of the layout above
TYPES = {
    0: torch.float32,
    1: torch.int8,
    2: torch.int16,
    3: torch.int32,
    4: torch.float16,
    5: torch.bfloat16,
}
SHARED = {  # of the whole encoder: names there -> names in transformers
    "conv1/weight": "conv1.weight",
    "conv1/bias": "conv1.bias",
    "conv2/weight": "conv2.weight",
    "conv2/bias": "conv2.bias",
    "position_encodings/encodings": "embed_positions.weight",
    "layer_norm/gamma": "layer_norm.weight",
    "layer_norm/beta": "layer_norm.bias",
}
OF_A_BLOCK = {  # besides linear_0 of the attention: queries, keys and values on top of one another
    "self_attention/layer_norm/gamma": "self_attn_layer_norm.weight",
    "self_attention/layer_norm/beta": "self_attn_layer_norm.bias",
    "self_attention/linear_1/weight": "self_attn.out_proj.weight",
    "self_attention/linear_1/bias": "self_attn.out_proj.bias",
    "ffn/layer_norm/gamma": "final_layer_norm.weight",
    "ffn/layer_norm/beta": "final_layer_norm.bias",
    "ffn/linear_0/weight": "fc1.weight",
    "ffn/linear_0/bias": "fc1.bias",
    "ffn/linear_1/weight": "fc2.weight",
    "ffn/linear_1/bias": "fc2.bias",
}


def convert(folder: Path, out: Path) -> None:
    """Write config.json, preprocessor_config.json and model.safetensors of the encoder in `folder`/model.bin.

    `out` can be given as ssl.model. Numbers keep their type. Raises EncoderError for a file that is no Whisper
    model, damaged, or quantised; FilesError where `out` cannot be written.
    """
    path = folder / "model.bin"
    try:
        variables = read_variables(path)
        weights, config = _encoder(variables)
    except OSError as error:
        raise EncoderError(explain(error, path)) from error
    except KeyError as error:
        raise EncoderError(f"{path}: no variable {error}; it is not a whole Whisper model") from error
    except (struct.error, UnicodeDecodeError, RuntimeError, ValueError) as error:
        raise EncoderError(
            f"{path}: damaged ({error}); fetch it again, and join its parts in order"
        ) from error
    with replacing_folder(out) as draft:
        safetensors.torch.save_file(weights, draft / "model.safetensors", metadata={"format": "pt"})
        write_json(draft / "config.json", config)
        write_json(
            draft / "preprocessor_config.json",
            {"feature_extractor_type": "WhisperFeatureExtractor", "feature_size": config["num_mel_bins"]},
        )


def read_variables(path: Path) -> dict[str, Tensor]:
    """All variables of a CTranslate2 Whisper model; raises EncoderError for another kind or version of file."""
    content = memoryview(path.read_bytes())
    place = 0

    def take(count: int) -> memoryview:
        nonlocal place
        if place + count > len(content):
            raise ValueError(f"it ends after {len(content)} bytes, in the middle of a variable")
        place += count
        return content[place - count : place]

    def numbers(kind: str) -> tuple[int, ...]:
        return struct.unpack(f"<{kind}", take(struct.calcsize(f"<{kind}")))

    def text() -> str:
        return bytes(take(numbers("H")[0])[:-1]).decode()

    (version,) = numbers("I")
    if version not in VERSIONS:
        raise EncoderError(f"{path}: version {version} of CTranslate2's format; {list(VERSIONS)} can be read")
    specification, _ = text(), numbers("I")
    if specification != "WhisperSpec":
        raise EncoderError(f"{path}: holds a {specification}, not a Whisper model")
    variables = {}
    for _ in range(numbers("I")[0]):
        name = text()
        (rank,) = numbers("B")
        shape = numbers(f"{rank}I")
        kind, size = numbers("BI")
        values = torch.frombuffer(bytearray(take(size)), dtype=TYPES[kind])
        variables[name] = values.reshape(shape)
    return variables


def _encoder(variables: dict[str, Tensor]) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Weights under the names of transformers' WhisperModel, and its configuration."""
    found = {n.removeprefix("encoder/"): t for n, t in variables.items() if n.startswith("encoder/")}
    blocks = sum(name.endswith("/ffn/linear_0/weight") for name in found)
    weights = {theirs: found[ours] for ours, theirs in SHARED.items()}
    for block in range(blocks):
        below = f"layer_{block}/"
        weights |= {f"layers.{block}.{theirs}": found[below + ours] for ours, theirs in OF_A_BLOCK.items()}
        joint, bias = (found[f"{below}self_attention/linear_0/{part}"] for part in ("weight", "bias"))
        for part, weight, offset in zip("qkv", joint.chunk(3), bias.chunk(3), strict=True):
            weights[f"layers.{block}.self_attn.{part}_proj.weight"] = weight.clone()
            if part != "k":  # keys have none: softmax would not see it
                weights[f"layers.{block}.self_attn.{part}_proj.bias"] = offset.clone()
    for name, tensor in weights.items():
        if not tensor.is_floating_point():
            raise EncoderError(
                f"{name} is quantised ({tensor.dtype}); convert a model with float16 or float32 weights"
            )
    width, bands, _ = weights["conv1.weight"].shape
    frames, _ = weights["embed_positions.weight"].shape
    config = {
        "architectures": ["WhisperModel"],
        "model_type": "whisper",
        "d_model": width,
        "encoder_layers": blocks,
        "encoder_attention_heads": int(found["num_heads"]),
        "encoder_ffn_dim": weights["layers.0.fc1.weight"].shape[0],
        "num_mel_bins": bands,
        "max_source_positions": frames,
    }
    return {f"encoder.{name}": tensor for name, tensor in weights.items()}, config
