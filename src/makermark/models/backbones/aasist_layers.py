"""Layers of AASIST: its graph module (Jung et al. 2022, sections 3.2 to 3.4) and residual blocks.

The graph module maps nodes of bands and of times to one vector. Its parameters have the names of the published
implementation, so that its weights can be mapped by name.
Axes: B batch, N nodes, S spectral nodes (bands), T temporal nodes, C input channels of a node, D output channels.
Images are (B, C, F, T') with F bands and T' times.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

TEMPERATURES = (2.0, 100.0)  # of the attention in the homogeneous and in the heterogeneous layers


class SpectroTemporalGraph(nn.Module):
    """Spectral and temporal graph attention, two heterogeneous branches, max graph operation (MGO), and readout.

    `wide` and `narrow` are the channels of a node after the first and after the later layers. Graph pooling keeps the
    ratio `kept_bands` of the spectral nodes, `kept_times` of the temporal nodes and, after the first heterogeneous
    layer, `kept_mixed` of both, rounded down, but at least one node.

    Each branch has two heterogeneous layers (the second is residual), which update both kinds of nodes and a master
    node that attends to all. The element-wise maximum of both branches is read out: maximum magnitude and mean of the
    temporal nodes, the same of the spectral nodes, and the master node, `out_width` = 5 `narrow` values in all.
    """

    def __init__(
        self,
        *,
        spectral_nodes: int,
        channels: int,
        wide: int = 64,
        narrow: int = 32,
        kept_bands: float = 0.5,
        kept_times: float = 0.5,
        kept_mixed: float = 0.5,
    ) -> None:
        super().__init__()
        self.out_width = 5 * narrow
        homogeneous, heterogeneous = TEMPERATURES
        self.pos_S = nn.Parameter(torch.randn(1, spectral_nodes, channels))
        self.master1 = nn.Parameter(torch.randn(1, 1, wide))
        self.master2 = nn.Parameter(torch.randn(1, 1, wide))
        self.GAT_layer_S = GraphAttention(channels, wide, temperature=homogeneous)
        self.GAT_layer_T = GraphAttention(channels, wide, temperature=homogeneous)
        self.HtrgGAT_layer_ST11 = HeterogeneousAttention(wide, narrow, temperature=heterogeneous)
        self.HtrgGAT_layer_ST12 = HeterogeneousAttention(narrow, narrow, temperature=heterogeneous)
        self.HtrgGAT_layer_ST21 = HeterogeneousAttention(wide, narrow, temperature=heterogeneous)
        self.HtrgGAT_layer_ST22 = HeterogeneousAttention(narrow, narrow, temperature=heterogeneous)
        self.pool_S, self.pool_T = GraphPool(wide, ratio=kept_bands), GraphPool(wide, ratio=kept_times)
        self.pool_hS1, self.pool_hT1 = (GraphPool(narrow, ratio=kept_mixed) for _ in range(2))
        self.pool_hS2, self.pool_hT2 = (GraphPool(narrow, ratio=kept_mixed) for _ in range(2))
        self.drop_way = nn.Dropout(0.2)

    def forward(self, spectral: Tensor, temporal: Tensor) -> Tensor:
        """Map nodes (B, S, C) and (B, T, C) to (B, out_width)."""
        bands = self.pool_S(self.GAT_layer_S(spectral + self.pos_S))
        times = self.pool_T(self.GAT_layer_T(temporal))
        first = self._branch(
            times, bands, self.master1, self.HtrgGAT_layer_ST11, self.HtrgGAT_layer_ST12,
            self.pool_hT1, self.pool_hS1,
        )  # fmt: skip
        second = self._branch(
            times, bands, self.master2, self.HtrgGAT_layer_ST21, self.HtrgGAT_layer_ST22,
            self.pool_hT2, self.pool_hS2,
        )  # fmt: skip
        times, bands, master = (torch.maximum(a, b) for a, b in zip(first, second, strict=True))
        parts = [times.abs().amax(dim=1), times.mean(dim=1), bands.abs().amax(dim=1), bands.mean(dim=1)]
        return torch.cat([*parts, master.squeeze(1)], dim=1)

    def _branch(
        self,
        times: Tensor,
        bands: Tensor,
        master: Tensor,
        first: nn.Module,
        second: nn.Module,
        pool_times: nn.Module,
        pool_bands: nn.Module,
    ) -> list[Tensor]:
        times, bands, master = first(times, bands, master.expand(len(times), -1, -1))
        times, bands = pool_times(times), pool_bands(bands)
        residuals = second(times, bands, master)
        return [self.drop_way(x + r) for x, r in zip((times, bands, master), residuals, strict=True)]


class GraphAttention(nn.Module):
    """Attention over all pairs of nodes of one kind: (B, N, C) -> (B, N, D).

    The score of a pair is w . tanh(W (x_i * x_j)) / temperature, where * is the element-wise product.
    """

    def __init__(self, inputs: int, outputs: int, *, temperature: float) -> None:
        super().__init__()
        self.temperature = temperature
        self.att_proj = nn.Linear(inputs, outputs)
        self.att_weight = _attention_vector(outputs)
        self.proj_with_att = nn.Linear(inputs, outputs)
        self.proj_without_att = nn.Linear(inputs, outputs)
        self.bn = nn.BatchNorm1d(outputs)
        self.input_drop = nn.Dropout(0.2)

    def forward(self, nodes: Tensor) -> Tensor:
        nodes = self.input_drop(nodes)
        pairs = torch.tanh(self.att_proj(nodes[:, :, None] * nodes[:, None]))  # (B, N, N, D)
        weights = F.softmax((pairs @ self.att_weight).squeeze(3) / self.temperature, dim=2)  # (B, N, N)
        out = self.proj_with_att(weights @ nodes) + self.proj_without_att(nodes)
        return F.selu(_batch_norm_nodes(self.bn, out))


class HeterogeneousAttention(nn.Module):
    """Attention over all pairs of two kinds of nodes, with one w per combination of kinds, and a master node.

    (B, N1, C), (B, N2, C) and the master node (B, 1, C) -> (B, N1, D), (B, N2, D) and (B, 1, D).
    """

    def __init__(self, inputs: int, outputs: int, *, temperature: float) -> None:
        super().__init__()
        self.temperature = temperature
        self.proj_type1 = nn.Linear(inputs, inputs)
        self.proj_type2 = nn.Linear(inputs, inputs)
        self.att_proj = nn.Linear(inputs, outputs)
        self.att_projM = nn.Linear(inputs, outputs)
        self.att_weight11 = _attention_vector(outputs)
        self.att_weight22 = _attention_vector(outputs)
        self.att_weight12 = _attention_vector(outputs)
        self.att_weightM = _attention_vector(outputs)
        self.proj_with_att = nn.Linear(inputs, outputs)
        self.proj_without_att = nn.Linear(inputs, outputs)
        self.proj_with_attM = nn.Linear(inputs, outputs)
        self.proj_without_attM = nn.Linear(inputs, outputs)
        self.bn = nn.BatchNorm1d(outputs)
        self.input_drop = nn.Dropout(0.2)

    def forward(self, first: Tensor, second: Tensor, master: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        count = first.shape[1]
        nodes = self.input_drop(torch.cat([self.proj_type1(first), self.proj_type2(second)], dim=1))
        weights = F.softmax(self._scores(nodes, count) / self.temperature, dim=2)  # (B, N, N)
        master_scores = torch.tanh(self.att_projM(nodes * master)) @ self.att_weightM  # (B, N, 1)
        master_weights = F.softmax(master_scores / self.temperature, dim=1).transpose(1, 2)
        master = self.proj_with_attM(master_weights @ nodes) + self.proj_without_attM(master)
        out = self.proj_with_att(weights @ nodes) + self.proj_without_att(nodes)
        out = F.selu(_batch_norm_nodes(self.bn, out))
        return out[:, :count], out[:, count:], master

    def _scores(self, nodes: Tensor, count: int) -> Tensor:
        """Return the scores (B, N, N) of all pairs; the first `count` nodes are of the first kind."""
        pairs = torch.tanh(self.att_proj(nodes[:, :, None] * nodes[:, None]))  # (B, N, N, D)
        vectors = torch.cat([self.att_weight11, self.att_weight12, self.att_weight22], dim=1)  # (D, 3)
        within_first, between, within_second = (pairs @ vectors).unbind(dim=3)
        upper = torch.cat([within_first[:, :count, :count], between[:, :count, count:]], dim=2)
        lower = torch.cat([between[:, count:, :count], within_second[:, count:, count:]], dim=2)
        return torch.cat([upper, lower], dim=1)


class GraphPool(nn.Module):
    """Graph pooling: keep the nodes with the highest scores, multiplied by their scores, (B, N, C) -> (B, N', C).

    N' is `ratio` N, rounded down, but at least 1.
    """

    def __init__(self, width: int, *, ratio: float = 0.5) -> None:
        super().__init__()
        self.ratio = ratio
        self.proj = nn.Linear(width, 1)
        self.drop = nn.Dropout(0.3)

    def forward(self, nodes: Tensor) -> Tensor:
        scores = torch.sigmoid(self.proj(self.drop(nodes)))  # (B, N, 1)
        count = max(1, int(nodes.shape[1] * self.ratio))
        best = scores.topk(count, dim=1).indices
        return (nodes * scores).gather(1, best.expand(-1, -1, nodes.shape[2]))


def _attention_vector(width: int) -> nn.Parameter:
    vector = nn.Parameter(torch.empty(width, 1))
    nn.init.xavier_normal_(vector)
    return vector


def _batch_norm_nodes(norm: nn.BatchNorm1d, nodes: Tensor) -> Tensor:
    """Apply batch normalisation to (B, N, D) over batch and nodes."""
    out: Tensor = norm(nodes.flatten(0, 1))
    return out.view_as(nodes)


class ResidualBlock(nn.Module):
    """Two 2 x 3 convolutions with batch normalisation and SELU between them, a shortcut, and max pooling over time.

    The residual block of RawNet2 (Jung et al. 2020).
    The number of bands does not change. `normalised` blocks also have batch normalisation and SELU before the first
    convolution. `pooled` is the size of the max pooling over time; 1 means none.
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
        """Map images (B, C, F, T') to (B, C', F, T' // pooled)."""
        x = self.conv1(self.norm1(images))
        x = self.conv2(F.selu_(self.norm2(x))).add_(self.shortcut(images))
        return x if self.pooled == 1 else F.max_pool2d(x, (1, self.pooled))
