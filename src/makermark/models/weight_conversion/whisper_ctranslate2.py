"""Conversion of the encoder of a CTranslate2 Whisper model to a Hugging Face folder.

Layout of `model.bin`, little-endian: u32 version; string specification (`WhisperSpec`); u32 revision; u32 number of
variables; per variable: string name, u8 rank, u32 per dimension, u8 dtype, u32 bytes, values in row-major order. What
follows (aliases) concerns the decoder. A string is a u16 byte count, terminating zero included, and the bytes.
Dtypes: 0 float32, 1 int8, 2 int16, 3 int32, 4 float16, 5 bfloat16.
"""

from __future__ import annotations

import struct
from pathlib import Path
from typing import Any

import safetensors.torch
import torch
from torch import Tensor

from makermark.foundation.errors import EncoderError
from makermark.foundation.files import atomic_folder, describe_os_error, write_json

VERSIONS = range(4, 7)  # supported versions of the layout
DTYPES = {
    0: torch.float32,
    1: torch.int8,
    2: torch.int16,
    3: torch.int32,
    4: torch.float16,
    5: torch.bfloat16,
}
ENCODER_NAMES = {  # CTranslate2 name -> transformers name
    "conv1/weight": "conv1.weight",
    "conv1/bias": "conv1.bias",
    "conv2/weight": "conv2.weight",
    "conv2/bias": "conv2.bias",
    "position_encodings/encodings": "embed_positions.weight",
    "layer_norm/gamma": "layer_norm.weight",
    "layer_norm/beta": "layer_norm.bias",
}
BLOCK_NAMES = {  # of each block, besides self_attention/linear_0, which stacks queries, keys and values
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
    """Write the encoder of `folder`/model.bin as a Hugging Face folder `out`, which `ssl.model` accepts.

    The folder holds config.json, preprocessor_config.json and model.safetensors; weights keep their dtype. Raises
    EncoderError for a file that is not a Whisper model, is damaged, or is quantised, and FilesError if `out` cannot be
    written.
    """
    path = folder / "model.bin"
    try:
        weights, config = _convert_encoder(read_variables(path))
    except OSError as error:
        raise EncoderError(describe_os_error(error, path)) from error
    except KeyError as error:
        raise EncoderError(f"{path}: variable {error} is missing; give a complete Whisper model") from error
    except (struct.error, UnicodeDecodeError, RuntimeError, ValueError) as error:
        raise EncoderError(
            f"{path}: damaged ({error}); download it again, and join its parts in order"
        ) from error
    with atomic_folder(out) as draft:
        safetensors.torch.save_file(weights, draft / "model.safetensors", metadata={"format": "pt"})
        write_json(draft / "config.json", config)
        write_json(
            draft / "preprocessor_config.json",
            {"feature_extractor_type": "WhisperFeatureExtractor", "feature_size": config["num_mel_bins"]},
        )


def read_variables(path: Path) -> dict[str, Tensor]:
    """Return all variables of a CTranslate2 Whisper model, by name.

    Raises EncoderError for another kind or version of file, ValueError for a truncated one.
    """
    content = memoryview(path.read_bytes())
    offset = 0

    def take(count: int) -> memoryview:
        nonlocal offset
        if offset + count > len(content):
            raise ValueError(f"it ends after {len(content)} bytes, in the middle of a variable")
        offset += count
        return content[offset - count : offset]

    def take_integers(formats: str) -> tuple[int, ...]:
        return struct.unpack(f"<{formats}", take(struct.calcsize(f"<{formats}")))

    def take_string() -> str:
        return bytes(take(take_integers("H")[0])[:-1]).decode()

    (version,) = take_integers("I")
    if version not in VERSIONS:
        raise EncoderError(
            f"{path}: version {version} of CTranslate2's format; supported versions are {list(VERSIONS)}"
        )
    specification, _ = take_string(), take_integers("I")
    if specification != "WhisperSpec":
        raise EncoderError(f"{path}: holds a {specification}, not a Whisper model")
    variables = {}
    for _ in range(take_integers("I")[0]):
        name = take_string()
        (rank,) = take_integers("B")
        shape = take_integers(f"{rank}I")
        dtype, size = take_integers("BI")
        values = torch.frombuffer(bytearray(take(size)), dtype=DTYPES[dtype])
        variables[name] = values.reshape(shape)
    return variables


def _convert_encoder(variables: dict[str, Tensor]) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Return the encoder's weights under the names of transformers' WhisperModel, and its configuration."""
    source = {n.removeprefix("encoder/"): t for n, t in variables.items() if n.startswith("encoder/")}
    blocks = sum(name.endswith("/ffn/linear_0/weight") for name in source)
    weights = {target: source[name] for name, target in ENCODER_NAMES.items()}
    for block in range(blocks):
        prefix = f"layer_{block}/"
        weights |= {f"layers.{block}.{target}": source[prefix + name] for name, target in BLOCK_NAMES.items()}
        stacked, bias = (source[f"{prefix}self_attention/linear_0/{part}"] for part in ("weight", "bias"))
        for part, weight, offset in zip("qkv", stacked.chunk(3), bias.chunk(3), strict=True):
            weights[f"layers.{block}.self_attn.{part}_proj.weight"] = weight.clone()
            if part != "k":  # keys have no bias: the softmax would not depend on it
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
        "encoder_attention_heads": int(source["num_heads"]),
        "encoder_ffn_dim": weights["layers.0.fc1.weight"].shape[0],
        "num_mel_bins": bands,
        "max_source_positions": frames,
    }
    return {f"encoder.{name}": tensor for name, tensor in weights.items()}, config
