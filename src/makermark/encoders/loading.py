"""Encoders from a Hugging Face name or a local folder. transformers is imported where it is used, no earlier.

Nothing is unpickled (safetensors, or torch's weights-only reader) and no code that a model brings is run.
"""

from __future__ import annotations

import hashlib
import json
import logging
import math
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from pickle import UnpicklingError
from typing import Any

import torch
from safetensors import SafetensorError
from torch import nn

from makermark.encoders.base import HOP_SAMPLES, Architecture, Encoder
from makermark.encoders.wav2vec2 import Wav2Vec2Encoder
from makermark.encoders.whisper import WhisperEncoder
from makermark.errors import EncoderError, ParamsError, how_to_add

LAST, WEIGHTED = "last", "weighted"

FAMILIES: dict[str, type[Wav2Vec2Encoder] | type[WhisperEncoder]] = {  # by `model_type`
    "hubert": Wav2Vec2Encoder,
    "wav2vec2": Wav2Vec2Encoder,
    "wavlm": Wav2Vec2Encoder,
    "whisper": WhisperEncoder,
}
# Unwanted here: blocks dropped and spans masked out at random in training, layers added on top.
WITHOUT = {
    "layerdrop": 0.0,
    "encoder_layerdrop": 0.0,
    "apply_spec_augment": False,
    "mask_time_prob": 0.0,
    "mask_feature_prob": 0.0,
    "add_adapter": False,  # fewer frames per second
}


def describe(model: str, *, layer: int | str) -> Architecture:
    """The architecture of `model` (hub name or local folder) up to `layer`; reads no weights.

    `layer` is the number of a hidden state, `last`, or `weighted` for all of them. Raises EncoderError where
    the model is not to be had or of no family known here, ParamsError for a layer that it does not have.
    """
    transformers = _transformers()
    with _one_line(model), _quiet():
        offline = _only_local(model)
        config = transformers.AutoConfig.from_pretrained(
            model, trust_remote_code=False, local_files_only=offline
        )
    if config.model_type not in FAMILIES:
        raise EncoderError(
            f"ssl.model {model!r} is a {config.model_type} model; what can be used is one of {sorted(FAMILIES)}"
        )
    family = FAMILIES[config.model_type]
    if math.prod(getattr(config, "conv_stride", [HOP_SAMPLES])) != HOP_SAMPLES:
        raise EncoderError(
            f"ssl.model {model!r}: one frame for {math.prod(config.conv_stride)} samples; only models with "
            f"one for {HOP_SAMPLES} can be used"
        )
    blocks = getattr(config, family.blocks)
    if layer not in (LAST, WEIGHTED, *range(blocks + 1)):
        raise ParamsError(
            f"params.yaml: ssl.layer is {layer!r}; {model} has the layers 0 to {blocks}, {LAST} and {WEIGHTED}"
        )
    if isinstance(layer, int):
        setattr(config, family.blocks, layer)
    for key, value in WITHOUT.items():
        if hasattr(config, key):
            setattr(config, key, value)
    with _one_line(model), _quiet():
        normalise = _normalises(model, family.preprocessor, offline=offline)
    return Architecture(
        config=json.loads(config.to_json_string(use_diff=False)),
        width=getattr(config, family.hidden),
        normalise=normalise,
        weighted=layer == WEIGHTED,
        final_norm=not isinstance(layer, int) or layer == blocks,
    )


def build(architecture: Architecture) -> Encoder:
    """The encoder with initial weights (torch's generator decides them), in training mode; no file is read."""
    config_class, model_class = _classes(architecture.config["model_type"])
    model = model_class(config_class.from_dict(architecture.config))
    return FAMILIES[architecture.config["model_type"]](model.train(), architecture)


def load(model: str, *, layer: int | str) -> Encoder:
    """The pretrained encoder `model` up to `layer`, in float32 and training mode; raises as `describe` does."""
    architecture = describe(model, layer=layer)
    config_class, model_class = _classes(architecture.config["model_type"])
    with _one_line(model), _quiet():
        network, told = model_class.from_pretrained(
            model,
            config=config_class.from_dict(architecture.config),
            dtype=torch.float32,
            local_files_only=_only_local(model),
            output_loading_info=True,
            key_mapping=FAMILIES[architecture.config["model_type"]].key_mapping,
        )
    if told["missing_keys"]:
        first = sorted(told["missing_keys"])[0]
        raise EncoderError(
            f"ssl.model {model!r}: its file lacks {len(told['missing_keys'])} of the encoder's weights, first "
            f"{first}; fetch or convert it again"
        )
    return FAMILIES[architecture.config["model_type"]](network.train(), architecture)


def config_sha256(model: str) -> str:
    """SHA-256 of the model's config.json; raises EncoderError where it is not to be had."""
    with _one_line(model), _quiet():
        path = _transformers().utils.cached_file(model, "config.json", local_files_only=_only_local(model))
        return hashlib.sha256(Path(path).read_bytes()).hexdigest()


def weights_sha256(encoder: nn.Module) -> str:
    """SHA-256 over the names, types, shapes and bytes of all weights, in the order of their names."""
    digest = hashlib.sha256()
    for name, tensor in sorted(encoder.state_dict().items()):
        digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}\n".encode())
        digest.update(tensor.cpu().contiguous().flatten().view(torch.uint8).numpy().data)
    return digest.hexdigest()


def _transformers() -> Any:
    try:
        import transformers
    except ImportError as error:
        raise EncoderError(f"pretrained encoders need transformers ({error}); {how_to_add('ssl')}") from error
    return transformers


def _classes(model_type: str) -> tuple[Any, Any]:
    """The classes of transformers for the configuration and for the network."""
    transformers = _transformers()
    if model_type == "whisper":
        from transformers.models.whisper.modeling_whisper import WhisperEncoder as Network

        return transformers.WhisperConfig, Network
    names = {"hubert": "Hubert", "wav2vec2": "Wav2Vec2", "wavlm": "WavLM"}
    name = names[model_type]
    return getattr(transformers, f"{name}Config"), getattr(transformers, f"{name}Model")


def _normalises(model: str, preprocessor: str, *, offline: bool) -> bool:
    """What the model's preprocessor_config.json says of `do_normalize`, or its class where it says nothing."""
    kind = getattr(_transformers(), preprocessor)
    absent = Path(model).is_dir() and not Path(model, "preprocessor_config.json").exists()
    told = {} if absent else kind.get_feature_extractor_dict(model, local_files_only=offline)[0]
    default = kind().do_normalize if hasattr(kind(), "do_normalize") else False
    return bool(told.get("do_normalize", default))


def _only_local(model: str) -> bool:
    """Whether to look on this machine only: the model is a folder, or the hub does not answer.

    Asked beforehand, since the download itself tries for half a minute and writes a line at each attempt.
    """
    if Path(model).is_dir():
        return True
    from huggingface_hub import constants, get_session

    try:
        get_session().head(constants.ENDPOINT, timeout=10)
    except Exception:  # the HTTP library's own kinds, which differ between versions; and HF_HUB_OFFLINE's
        return True
    return False


@contextmanager
def _one_line(model: str) -> Iterator[None]:
    """Whatever goes wrong with the model's files, as an EncoderError that says what was tried and what to do."""
    try:
        yield
    except (OSError, ValueError, RuntimeError, SafetensorError, UnpicklingError) as error:
        reason = str(error).strip().splitlines() or [type(error).__name__]
        tried = "that folder" if Path(model).is_dir() else "a folder of that name, then the Hugging Face hub"
        raise EncoderError(
            f"ssl.model {model!r} cannot be loaded; tried {tried} ({' '.join(reason[0].split())}). Give a local "
            "folder with config.json and model.safetensors, such as `hf download MODEL --local-dir FOLDER` makes "
            "where there is a network: -S ssl.model=FOLDER"
        ) from error


@contextmanager
def _quiet() -> Iterator[None]:
    """Without the progress bars and tables of transformers and huggingface_hub: what matters is an exception."""
    from huggingface_hub.utils import logging as hub

    models = _transformers().utils.logging
    levels = [told.get_verbosity() for told in (models, hub)]
    bars = models.is_progress_bar_enabled()
    models.disable_progress_bar()
    for told in (models, hub):
        told.set_verbosity(logging.CRITICAL)
    try:
        yield
    finally:
        for told, level in zip((models, hub), levels, strict=True):
            told.set_verbosity(level)
        if bars:
            models.enable_progress_bar()
