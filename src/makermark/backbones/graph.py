"""The graph part of AASIST (Jung et al. 2022, sections 3.2 to 3.4): nodes of bands and of times to one vector.

Parts are named as in the published implementation, so that its weights can be mapped by name.
Legend of axes: B batch, N nodes, S spectral nodes (bands), T temporal nodes, C channels of a node, D outputs.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

TEMPERATURES = (2.0, 100.0)  # of the attention in the homogeneous and in the heterogeneous layers


class SpectroTemporalGraph(nn.Module):
    """Two graphs, over bands and over times, stacked into one twice (two branches) and read out (MGO and readout).

    `wide` and `narrow` are the numbers of a node after the first and after the later layers. Of the nodes of bands
    (`kept_bands`), of times (`kept_times`) and, after the first heterogeneous layer, of either kind (`kept_mixed`) that
    share stays, rounded down, but one node always stays.
    In each branch two heterogeneous layers (the second a residual) update both kinds of nodes and a master
    node that sees all; the larger of the branches' values counts. Read out are maximum (of magnitudes) and mean of
    the temporal nodes, the same of the spectral ones, and the master node: `out_width` = 5 `narrow` numbers.
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
        self.pool_S, self.pool_T = GraphPool(wide, kept=kept_bands), GraphPool(wide, kept=kept_times)
        self.pool_hS1, self.pool_hT1 = (GraphPool(narrow, kept=kept_mixed) for _ in range(2))
        self.pool_hS2, self.pool_hT2 = (GraphPool(narrow, kept=kept_mixed) for _ in range(2))
        self.drop_way = nn.Dropout(0.2)

    def forward(self, spectral: Tensor, temporal: Tensor) -> Tensor:
        """(B, out_width) of nodes (B, S, C) and (B, T, C)."""
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
        more = second(times, bands, master)
        return [self.drop_way(x + y) for x, y in zip((times, bands, master), more, strict=True)]


class GraphAttention(nn.Module):
    """Attention over all pairs of nodes, for nodes of one kind: (B, N, C) -> (B, N, D).

    The score of a pair is w . tanh(W (x_i * x_j)) / temperature, with * element by element.
    """

    def __init__(self, inputs: int, outputs: int, *, temperature: float) -> None:
        super().__init__()
        self.temperature = temperature
        self.att_proj = nn.Linear(inputs, outputs)
        self.att_weight = _direction(outputs)
        self.proj_with_att = nn.Linear(inputs, outputs)
        self.proj_without_att = nn.Linear(inputs, outputs)
        self.bn = nn.BatchNorm1d(outputs)
        self.input_drop = nn.Dropout(0.2)

    def forward(self, nodes: Tensor) -> Tensor:
        nodes = self.input_drop(nodes)
        pairs = torch.tanh(self.att_proj(nodes[:, :, None] * nodes[:, None]))  # (B, N, N, D)
        weights = F.softmax((pairs @ self.att_weight).squeeze(3) / self.temperature, dim=2)  # (B, N, N)
        out = self.proj_with_att(weights @ nodes) + self.proj_without_att(nodes)
        return F.selu(_normalised(self.bn, out))


class HeterogeneousAttention(nn.Module):
    """Attention over all pairs of two kinds of nodes, each combination of kinds with its own w, and a master node.

    (B, N1, C), (B, N2, C) and the master (B, 1, C) become (B, N1, D), (B, N2, D) and (B, 1, D).
    """

    def __init__(self, inputs: int, outputs: int, *, temperature: float) -> None:
        super().__init__()
        self.temperature = temperature
        self.proj_type1 = nn.Linear(inputs, inputs)
        self.proj_type2 = nn.Linear(inputs, inputs)
        self.att_proj = nn.Linear(inputs, outputs)
        self.att_projM = nn.Linear(inputs, outputs)
        self.att_weight11 = _direction(outputs)
        self.att_weight22 = _direction(outputs)
        self.att_weight12 = _direction(outputs)
        self.att_weightM = _direction(outputs)
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
        to_master = torch.tanh(self.att_projM(nodes * master)) @ self.att_weightM  # (B, N, 1)
        shares = F.softmax(to_master / self.temperature, dim=1).transpose(1, 2)
        master = self.proj_with_attM(shares @ nodes) + self.proj_without_attM(master)
        out = self.proj_with_att(weights @ nodes) + self.proj_without_att(nodes)
        out = F.selu(_normalised(self.bn, out))
        return out[:, :count], out[:, count:], master

    def _scores(self, nodes: Tensor, count: int) -> Tensor:
        """(B, N, N): of the pairs, by the kinds of the two."""
        pairs = torch.tanh(self.att_proj(nodes[:, :, None] * nodes[:, None]))  # (B, N, N, D)
        directions = torch.cat([self.att_weight11, self.att_weight12, self.att_weight22], dim=1)  # (D, 3)
        alike1, mixed, alike2 = (pairs @ directions).unbind(dim=3)
        upper = torch.cat([alike1[:, :count, :count], mixed[:, :count, count:]], dim=2)
        lower = torch.cat([mixed[:, count:, :count], alike2[:, count:, count:]], dim=2)
        return torch.cat([upper, lower], dim=1)


class GraphPool(nn.Module):
    """Keep the share `kept` of the nodes with the highest scores, weighted by them: (B, N, C) -> (B, N', C).

    The number is rounded down, but one always stays.
    """

    def __init__(self, width: int, *, kept: float = 0.5) -> None:
        super().__init__()
        self.kept = kept
        self.proj = nn.Linear(width, 1)
        self.drop = nn.Dropout(0.3)

    def forward(self, nodes: Tensor) -> Tensor:
        scores = torch.sigmoid(self.proj(self.drop(nodes)))  # (B, N, 1)
        kept = max(1, int(nodes.shape[1] * self.kept))
        best = scores.topk(kept, dim=1).indices
        return (nodes * scores).gather(1, best.expand(-1, -1, nodes.shape[2]))


def _direction(width: int) -> nn.Parameter:
    direction = nn.Parameter(torch.empty(width, 1))
    nn.init.xavier_normal_(direction)
    return direction


def _normalised(norm: nn.BatchNorm1d, nodes: Tensor) -> Tensor:
    """Batch normalisation of (B, N, D) over batch and nodes."""
    out: Tensor = norm(nodes.flatten(0, 1))
    return out.view_as(nodes)
