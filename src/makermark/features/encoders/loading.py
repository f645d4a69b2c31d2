"""Loading of encoders by Hugging Face name or from a local folder. transformers is imported on first use.

Nothing is unpickled (weights are safetensors, or read by torch's weights-only reader), and no code of a model is run.
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

from makermark.features.encoders.base import HOP_SAMPLES, Architecture, Encoder
from makermark.features.encoders.wav2vec2 import Wav2Vec2Encoder
from makermark.features.encoders.whisper import WhisperEncoder
from makermark.foundation.errors import EncoderError, ParamsError, install_hint

LAST, WEIGHTED = "last", "weighted"

FAMILIES: dict[str, type[Encoder]] = {  # by `model_type`
    "hubert": Wav2Vec2Encoder,
    "wav2vec2": Wav2Vec2Encoder,
    "wavlm": Wav2Vec2Encoder,
    "whisper": WhisperEncoder,
}
DISABLED_OPTIONS = {  # layer drop and SpecAugment in training, and additional layers
    "layerdrop": 0.0,
    "encoder_layerdrop": 0.0,
    "apply_spec_augment": False,
    "mask_time_prob": 0.0,
    "mask_feature_prob": 0.0,
    "add_adapter": False,  # lowers the frame rate
}
HUB_TIMEOUT_S = 10


def describe(model: str, *, layer: int | str) -> Architecture:
    """Return the architecture of `model` (hub name or local folder) up to `layer`; reads no weights.

    `layer` is the number of a hidden state, `last`, or `weighted` for all of them. Raises EncoderError for a model
    that cannot be loaded or is of an unsupported family, ParamsError for a layer that it does not have.
    """
    transformers = _import_transformers()
    with _encoder_errors(model), _quiet_libraries():
        offline = _use_local_files(model)
        config = transformers.AutoConfig.from_pretrained(
            model, trust_remote_code=False, local_files_only=offline
        )
    if config.model_type not in FAMILIES:
        raise EncoderError(
            f"ssl.model {model!r} is a {config.model_type} model; it must be one of {sorted(FAMILIES)}"
        )
    family = FAMILIES[config.model_type]
    hop_samples = math.prod(getattr(config, "conv_stride", [HOP_SAMPLES]))
    if hop_samples != HOP_SAMPLES:
        raise EncoderError(
            f"ssl.model {model!r} has one frame per {hop_samples} samples; give a model with one per {HOP_SAMPLES}"
        )
    blocks = getattr(config, family.blocks_key)
    if layer not in (LAST, WEIGHTED, *range(blocks + 1)):
        raise ParamsError(
            f"params.yaml: ssl.layer is {layer!r}; {model} has the layers 0 to {blocks}, {LAST} and {WEIGHTED}"
        )
    if isinstance(layer, int):
        setattr(config, family.blocks_key, layer)
    for key, value in DISABLED_OPTIONS.items():
        if hasattr(config, key):
            setattr(config, key, value)
    with _encoder_errors(model), _quiet_libraries():
        normalise = _reads_normalised(model, family.preprocessor, offline=offline)
    return Architecture(
        config=json.loads(config.to_json_string(use_diff=False)),
        width=getattr(config, family.hidden_size_key),
        normalise=normalise,
        weighted=layer == WEIGHTED,
        final_norm=not isinstance(layer, int) or layer == blocks,
    )


def build(architecture: Architecture) -> Encoder:
    """Build the encoder in training mode, with initial weights from torch's global generator; reads no file."""
    config_class, model_class = _classes(architecture.config["model_type"])
    model = model_class(config_class.from_dict(architecture.config))
    return FAMILIES[architecture.config["model_type"]](model.train(), architecture)


def load(model: str, *, layer: int | str) -> Encoder:
    """Load the pretrained encoder `model` up to `layer`, in float32 and training mode.

    Raises as `describe` does, and EncoderError for a file that lacks weights.
    """
    architecture = describe(model, layer=layer)
    config_class, model_class = _classes(architecture.config["model_type"])
    with _encoder_errors(model), _quiet_libraries():
        network, info = model_class.from_pretrained(
            model,
            config=config_class.from_dict(architecture.config),
            dtype=torch.float32,
            local_files_only=_use_local_files(model),
            output_loading_info=True,
            key_mapping=FAMILIES[architecture.config["model_type"]].key_mapping,
        )
    missing = sorted(info["missing_keys"])
    if missing:
        raise EncoderError(
            f"ssl.model {model!r}: its file lacks {len(missing)} of the encoder's weights, first {missing[0]}; "
            "download or convert it again"
        )
    return FAMILIES[architecture.config["model_type"]](network.train(), architecture)


def config_sha256(model: str) -> str:
    """Return the SHA-256 of the model's config.json. Raises EncoderError if it cannot be loaded."""
    with _encoder_errors(model), _quiet_libraries():
        path = _import_transformers().utils.cached_file(
            model, "config.json", local_files_only=_use_local_files(model)
        )
        return hashlib.sha256(Path(path).read_bytes()).hexdigest()


def weights_sha256(encoder: nn.Module) -> str:
    """Return the SHA-256 of the names, dtypes, shapes and bytes of all weights, sorted by name."""
    digest = hashlib.sha256()
    for name, tensor in sorted(encoder.state_dict().items()):
        digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}\n".encode())
        digest.update(tensor.cpu().contiguous().flatten().view(torch.uint8).numpy().data)
    return digest.hexdigest()


def _import_transformers() -> Any:
    try:
        import transformers
    except ImportError as error:
        raise EncoderError(
            f"pretrained encoders need transformers ({error}); {install_hint('ssl')}"
        ) from error
    return transformers


def _classes(model_type: str) -> tuple[Any, Any]:
    """Return the configuration class and the model class of transformers."""
    transformers = _import_transformers()
    if model_type == "whisper":
        from transformers.models.whisper.modeling_whisper import WhisperEncoder as WhisperModule

        return transformers.WhisperConfig, WhisperModule
    names = {"hubert": "Hubert", "wav2vec2": "Wav2Vec2", "wavlm": "WavLM"}
    name = names[model_type]
    return getattr(transformers, f"{name}Config"), getattr(transformers, f"{name}Model")


def _reads_normalised(model: str, preprocessor: str, *, offline: bool) -> bool:
    """Return `do_normalize` of the model's preprocessor_config.json, or the default of the preprocessor class."""
    preprocessor_class = getattr(_import_transformers(), preprocessor)
    missing = Path(model).is_dir() and not Path(model, "preprocessor_config.json").exists()
    settings = (
        {} if missing else preprocessor_class.get_feature_extractor_dict(model, local_files_only=offline)[0]
    )
    default = getattr(preprocessor_class(), "do_normalize", False)
    return bool(settings.get("do_normalize", default))


def _use_local_files(model: str) -> bool:
    """Return whether to read local files only: the model is a folder, or the hub does not answer.

    Checked in advance, because a download would retry for half a minute and log every attempt.
    """
    if Path(model).is_dir():
        return True
    from huggingface_hub import constants, get_session

    try:
        get_session().head(constants.ENDPOINT, timeout=HUB_TIMEOUT_S)
    except Exception:  # exception classes of the HTTP library differ between versions; also HF_HUB_OFFLINE
        return True
    return False


@contextmanager
def _encoder_errors(model: str) -> Iterator[None]:
    """Convert errors about the model's files to an EncoderError of one line, with what was tried and the remedy."""
    try:
        yield
    except (OSError, ValueError, RuntimeError, SafetensorError, UnpicklingError) as error:
        reason = str(error).strip().splitlines() or [type(error).__name__]
        tried = "that folder" if Path(model).is_dir() else "a folder of that name, then the Hugging Face hub"
        raise EncoderError(
            f"ssl.model {model!r} cannot be loaded; tried {tried} ({' '.join(reason[0].split())}). Give a local "
            "folder with config.json and model.safetensors (`hf download MODEL --local-dir FOLDER` writes one): "
            "-S ssl.model=FOLDER"
        ) from error


@contextmanager
def _quiet_libraries() -> Iterator[None]:
    """Silence the progress bars and log messages of transformers and huggingface_hub; errors are exceptions."""
    from huggingface_hub.utils import logging as hub_logging

    model_logging = _import_transformers().utils.logging
    loggers = (model_logging, hub_logging)
    levels = [logger.get_verbosity() for logger in loggers]
    progress_bars = model_logging.is_progress_bar_enabled()
    model_logging.disable_progress_bar()
    for logger in loggers:
        logger.set_verbosity(logging.CRITICAL)
    try:
        yield
    finally:
        for logger, level in zip(loggers, levels, strict=True):
            logger.set_verbosity(level)
        if progress_bars:
            model_logging.enable_progress_bar()
