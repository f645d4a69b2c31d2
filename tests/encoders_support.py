"""Small encoders of every family, saved as Hugging Face folders by `save_pretrained`."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch
import transformers

SMALL = {
    "hidden_size": 32,
    "num_hidden_layers": 3,
    "num_attention_heads": 2,
    "intermediate_size": 64,
    "conv_dim": (16,) * 7,
    "num_conv_pos_embeddings": 16,
    "num_conv_pos_embedding_groups": 4,
}
LAYER_NORM = {
    "feat_extract_norm": "layer",
    "do_stable_layer_norm": True,
    "conv_bias": True,
}  # as XLS-R has it
SMALL_WHISPER = {
    "d_model": 32,
    "encoder_layers": 3,
    "decoder_layers": 1,
    "encoder_attention_heads": 2,
    "decoder_attention_heads": 2,
    "encoder_ffn_dim": 64,
    "decoder_ffn_dim": 64,
    "vocab_size": 10,
    "pad_token_id": 0,
    "bos_token_id": 1,
    "eos_token_id": 1,
    "decoder_start_token_id": 1,
    "max_source_positions": 100,  # windows of 2 s, so that short utterances have several
}


def model_of(name: str, *, seed: int | None = 0) -> Any:
    """Return a model of transformers with random weights; `layer` and `group` are wav2vec 2.0 with that norm."""
    if seed is not None:
        torch.manual_seed(seed)
    if name == "whisper":
        return transformers.WhisperModel(transformers.WhisperConfig(**SMALL_WHISPER))
    if name == "hubert":
        return transformers.HubertModel(transformers.HubertConfig(**SMALL))
    if name == "wavlm":
        return transformers.WavLMModel(transformers.WavLMConfig(**SMALL, **LAYER_NORM))
    settings = SMALL | (LAYER_NORM if name == "layer" else {})
    return transformers.Wav2Vec2Model(transformers.Wav2Vec2Config(**settings))


def save_model(folder: Path, name: str, *, seed: int = 0, do_normalize: bool | None = None) -> Path:
    """Save a model in FOLDER/NAME-SEED, with `do_normalize` also its preprocessor configuration."""
    model_folder = folder / f"{name}-{seed}"
    model_of(name, seed=seed).save_pretrained(model_folder)
    if do_normalize is not None:
        (model_folder / "preprocessor_config.json").write_text(json.dumps({"do_normalize": do_normalize}))
    return model_folder
