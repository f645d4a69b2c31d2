"""N-pair: an utterance must be more like another of its system than like one of each other system."""

from __future__ import annotations

import torch
from torch import Tensor

from makermark.losses.base import (
    Groups,
    Loss,
    at_least_zero,
    full_precision,
    groups,
    rows_by_turn,
    with_slope,
)


class NPair(Loss):
    """Sohn 2016 (Improved deep metric learning with multi-class N-pair loss objective), N-pair-mc with its L2 term.

    In the paper a batch is one pair of utterances per system, an anchor f and a positive f+, not normalised,
    and the loss is the mean over systems i of log(1 + sum over j != i of e^(f_i f_j+ - f_i f_i+)). Rows have
    no order here and systems bring more than two utterances, so every ordered pair of a system's utterances
    is anchor and positive once, and the result is the mean over these choices: in turn r the anchor is the
    system's r-th utterance by the first number of its embedding (base.rows_by_turn), and each other one in its
    turn the positive. A smaller system starts over.

    To it comes `reg` times the mean squared norm of the batch's embeddings, without which longer vectors
    alone would lower the loss. A batch of one system costs only that.
    """

    needs_groups = True

    def __init__(self, *, reg: float) -> None:
        super().__init__()
        at_least_zero("npair", reg=reg)
        self.reg = reg

    def forward(self, embeddings: Tensor, systems: Tensor | Groups) -> Tensor:
        batch = groups(systems, loss="npair")
        with full_precision(embeddings) as x:
            return with_slope(x, *cost_and_slope(x.detach(), batch, reg=self.reg))


@torch.no_grad()
def cost_and_slope(x: Tensor, batch: Groups, *, reg: float) -> tuple[Tensor, Tensor]:
    """The cost () of x (B, D) and its gradient (B, D).

    The anchors of every turn are in every other turn the positives, so one table has all products: of anchor with
    positive, each by turn and system (R, C, R, C). Only where systems differ in size do a turn's positives differ.
    """
    table = (*batch.turns.shape, *batch.turns.shape)
    rows = rows_by_turn(x, batch).flatten()  # (R C,)
    chosen = x[rows]
    products = chosen @ chosen.T  # (R C, R C)
    met = positives(batch) if len(x) < len(rows) else None
    if met is not None:
        products = products.gather(1, met)
    share = products.view(table).log_softmax(3)
    own = share.diagonal(dim1=1, dim2=3)  # (R, R, C)
    choices = own.numel() - len(rows)
    cost = (own.diagonal().sum() - own.sum()) / choices
    share.exp_()  # what each product adds to the cost: its share of the anchor's positives, less 1 for the own
    own.sub_(1)
    share.diagonal(dim1=0, dim2=2).zero_()  # no anchor is its own positive
    share = share.view_as(products)
    if met is not None:
        share = torch.zeros_like(share).scatter_add_(1, met, share)
    slope = (x * (2 * reg / len(x))).index_add_(0, rows, (share + share.T) @ chosen, alpha=1 / choices)
    return cost + x.square().sum() * (reg / len(x)), slope


def positives(batch: Groups) -> Tensor:
    """(R C, R C): for each anchor, which of the R C utterances in their turns are the positives, turn by turn."""
    turn = batch.places
    step = (turn - turn[:, None] - 1) % len(turn)  # (R, R): from one past the anchor's turn
    place = (turn[:, None, None] + 1 + step[..., None] % (batch.counts - 1)) % batch.counts  # (R, R, C)
    system = torch.arange(len(batch.counts), device=turn.device)
    return (place * len(system) + system).flatten(1)[:, None].expand(-1, len(system), -1).flatten(0, 1)
