"""From a waveform to an image of bands and times: sinc filters and the residual blocks of RawNet2 (Jung et al. 2020).

Legend of axes: B batch, T samples, F bands, C channels. Images are (B, C, F, T').
"""

from __future__ import annotations

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn


def band_passes(count: int, length: int, *, sample_rate_hz: int) -> Tensor:
    """(count, 1, length): band passes side by side from 0 Hz to half the sampling rate, edges evenly spaced in mel.

    The impulse response of an ideal band pass is the difference of two low passes, h(n) = 2 f2 sinc(2 f2 n)
    - 2 f1 sinc(2 f1 n) with edges f1, f2 in cycles per sample and n = 0 in the middle (`length` is odd); it is
    cut by a Hamming window. Mel: 2595 log10(1 + f / 700).
    """
    mels = np.linspace(0, 2595 * np.log10(1 + sample_rate_hz / 2 / 700), count + 1)
    edges = 2 * 700 * (10 ** (mels / 2595) - 1) / sample_rate_hz  # of half the sampling rate
    low_passes = edges[:, None] * np.sinc(edges[:, None] * (np.arange(length) - length // 2))
    filters = np.hamming(length) * np.diff(low_passes, axis=0)
    return torch.from_numpy(filters.astype(np.float32)).unsqueeze(1)


class ResidualBlock(nn.Module):
    """Two 2 x 3 convolutions with normalisation and SELU between them, plus a shortcut; then the largest of `pooled`
    times.

    The number of bands stays. `normalised` blocks have normalisation and SELU before the first convolution too.
    """

    def __init__(self, inputs: int, filters: int, *, normalised: bool, pooled: int) -> None:
        super().__init__()
        self.pooled = pooled
        before = nn.Sequential(nn.BatchNorm2d(inputs), nn.SELU(inplace=True))
        self.norm1 = before if normalised else nn.Identity()
        self.conv1 = nn.Conv2d(inputs, filters, kernel_size=(2, 3), padding=(1, 1))
        self.norm2 = nn.BatchNorm2d(filters)
        self.conv2 = nn.Conv2d(filters, filters, kernel_size=(2, 3), padding=(0, 1))
        same = inputs == filters
        self.shortcut = nn.Identity() if same else nn.Conv2d(inputs, filters, (1, 3), padding=(0, 1))

    def forward(self, images: Tensor) -> Tensor:
        """(B, C', F, T' / pooled), the rest of the division dropped, of images (B, C, F, T')."""
        x = self.conv1(self.norm1(images))
        x = self.conv2(F.selu_(self.norm2(x))).add_(self.shortcut(images))
        return x if self.pooled == 1 else F.max_pool2d(x, (1, self.pooled))
