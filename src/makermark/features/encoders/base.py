"""Contract of the pretrained speech encoders, and the description from which one is built without its weights.

Axes: B batch, T samples, T' frames of 20 ms, H hidden size, L Transformer blocks.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

SAMPLE_RATE_HZ = 16000
HOP_SAMPLES = 320  # 50 frames per second, in all supported families


@dataclass(frozen=True, kw_only=True)
class Architecture:
    """An encoder without its weights. Its `asdict` is JSON, and is stored in checkpoints.

    Hidden state 0 is the input of the first block, hidden state k the output of block k; the last one has passed the
    final normalisation if the family has one. Blocks above a fixed layer are not built.
    """

    config: dict[str, Any]  # the family's config.json, with only the blocks that are used
    width: int  # H
    normalise: bool  # normalise waveforms to mean 0 and variance 1, as the model's preprocessor does
    weighted: bool  # return all hidden states instead of the highest
    final_norm: bool  # apply the final normalisation to the highest state; False below the last layer


class Encoder(nn.Module):
    """Base class of all encoders: `encoder(waveforms (B, T), lengths (B,) or None) -> (states, frame_lengths)`.

    Waveforms are float, full scale 1, at 16 kHz. `states` is a list of one (B, T', H), or of all L + 1 with `weighted`.
    Without `lengths` every utterance fills all T samples and `frame_lengths` is None. With them, padding does not
    change the result, `frame_lengths` is (B,), and frames past it are undefined. Every utterance must have at least
    `min_samples` samples.
    """

    blocks_key: ClassVar[str]  # in the configuration of transformers: number of blocks
    hidden_size_key: ClassVar[str]
    preprocessor: ClassVar[str]  # its class in transformers
    key_mapping: ClassVar[dict[str, str]] = {}  # from weight names in the file
    hop_samples: ClassVar[int] = HOP_SAMPLES
    min_samples: int

    def __init__(self, model: Any, architecture: Architecture) -> None:
        super().__init__()
        self.model, self.architecture = model, architecture
        self.width = architecture.width  # H
        # Number of returned states: 1 or L + 1.
        self.num_states = getattr(model.config, self.blocks_key) + 1 if architecture.weighted else 1

    def select_states(self, output: Any) -> list[Tensor]:
        """Return the states (B, T', H) to return, from the output of the model."""
        last = output.last_hidden_state
        return [*output.hidden_states[:-1], last] if self.architecture.weighted else [last]

    def freeze_convolutions(self) -> None:
        """Stop training the convolutions below the Transformer (`freeze: feature_encoder`)."""
        raise NotImplementedError

    def enable_gradient_checkpointing(self) -> None:
        """Recompute activations in the backward pass instead of storing them."""
        self.model.gradient_checkpointing_enable(gradient_checkpointing_kwargs={"use_reentrant": False})


def prepare_waveforms(waveforms: Tensor, lengths: Tensor | None, *, normalise: bool) -> Tensor:
    """Return float32 waveforms (B, T), zero in padding; with `normalise` at mean 0 and variance 1 up to the length.

    1e-7 is added to the variance, as in the preprocessors of transformers.
    """
    waveforms = waveforms.float()
    if lengths is None:
        if not normalise:
            return waveforms
        variance, mean = torch.var_mean(waveforms, dim=1, correction=0, keepdim=True)
        return (waveforms - mean) * torch.rsqrt(variance + 1e-7)
    padding = ~sample_mask(lengths, waveforms.shape[1])
    waveforms = waveforms.masked_fill(padding, 0)
    if not normalise:
        return waveforms
    mean = waveforms.sum(dim=1, keepdim=True) / lengths[:, None]
    centred = (waveforms - mean).masked_fill(padding, 0)
    variance = centred.square().sum(dim=1, keepdim=True) / lengths[:, None]
    return centred * torch.rsqrt(variance + 1e-7)


def sample_mask(lengths: Tensor, samples: int) -> Tensor:
    """Return a mask (B, samples) bool: True for the samples of each utterance, False for padding."""
    return torch.arange(samples, device=lengths.device) < lengths[:, None]
