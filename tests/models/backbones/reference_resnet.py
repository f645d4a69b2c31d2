"""The thin ResNet-34 of voxceleb_trainer, written out from its description with PyTorch's own layers.

Chung et al. 2020, In defence of metric learning for speaker recognition, and its code: `ResNetSE34L` has convolution,
batch normalisation and ReLU in the stem, `ResNetSE34V2` convolution, ReLU and batch normalisation. Nothing of makermark
is used, and images are in PyTorch's default memory format.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn


class ReferenceBlock(nn.Module):
    """A basic block with squeeze-and-excitation (reduction 8)."""

    def __init__(self, inputs: int, filters: int, stride: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(inputs, filters, 3, stride, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(filters)
        self.conv2 = nn.Conv2d(filters, filters, 3, 1, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(filters)
        self.fc1 = nn.Linear(filters, filters // 8)
        self.fc2 = nn.Linear(filters // 8, filters)
        self.downsample: nn.Module | None = None
        if stride != 1 or inputs != filters:
            self.downsample = nn.Sequential(
                nn.Conv2d(inputs, filters, 1, stride, bias=False), nn.BatchNorm2d(filters)
            )

    def forward(self, x: Tensor) -> Tensor:
        out = self.bn1(torch.relu(self.conv1(x)))
        out = self.bn2(self.conv2(out))
        gates = torch.sigmoid(self.fc2(torch.relu(self.fc1(out.mean(dim=(2, 3))))))
        shortcut = x if self.downsample is None else self.downsample(x)
        return torch.relu(out * gates[:, :, None, None] + shortcut)


class ReferenceResNet(nn.Module):
    """Log-mels (B, T, 40) to embeddings (B, dim); `pooling` is `sap` or `asp`."""

    def __init__(self, dim: int, *, pooling: str, norm_first: bool) -> None:
        super().__init__()
        self.instance_norm = nn.InstanceNorm1d(40)
        self.conv1 = nn.Conv2d(1, 16, 7, (2, 1), 3, bias=False)
        self.bn1 = nn.BatchNorm2d(16)
        blocks, inputs = [], 16
        for filters, count, stride in ((16, 3, 1), (32, 4, 2), (64, 6, 2), (128, 3, 1)):
            for number in range(count):
                blocks.append(ReferenceBlock(inputs, filters, stride if number == 0 else 1))
                inputs = filters
        self.layers = nn.Sequential(*blocks)
        self.sap_linear = nn.Linear(128, 128)
        self.attention = nn.Parameter(torch.empty(128, 1))
        self.fc = nn.Linear(256 if pooling == "asp" else 128, dim)
        self.pooling, self.norm_first = pooling, norm_first

    def forward(self, mels: Tensor) -> Tensor:
        x = self.conv1(self.instance_norm(mels.transpose(1, 2)).unsqueeze(1))
        x = torch.relu(self.bn1(x)) if self.norm_first else self.bn1(torch.relu(x))
        x = self.layers(x).mean(dim=2).transpose(1, 2)  # (B, T / 4, 128)
        scores = torch.tanh(self.sap_linear(x)) @ self.attention
        weights = scores.softmax(dim=1)
        mean = (weights * x).sum(dim=1)
        if self.pooling == "asp":
            variance = (weights * x * x).sum(dim=1) - mean * mean
            mean = torch.cat([mean, variance.clamp(min=1e-5).sqrt()], dim=1)
        return self.fc(mean)
