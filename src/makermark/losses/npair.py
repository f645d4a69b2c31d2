"""N-pair: an utterance must be more like another of its system than like one of each other system."""

from __future__ import annotations

from torch import Tensor

from makermark.losses.base import Groups, Loss, at_least_zero, full_precision, groups, rows_at


class NPair(Loss):
    """Sohn 2016 (Improved deep metric learning with multi-class N-pair loss objective), N-pair-mc with its L2 term.

    In the paper a batch is one pair of utterances per system, an anchor f and a positive f+, not normalised,
    and the loss is the mean over systems i of log(1 + sum over j != i of e^(f_i f_j+ - f_i f_i+)). Rows have
    no order here and systems bring more than two utterances, so every ordered pair of a system's utterances
    is anchor and positive once, and the result is the mean over these choices: in turn r the anchor is the
    system's r-th utterance by the first number of its embedding (base.rows_at), and each other one in its
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
        turn = batch.places
        with full_precision(embeddings) as x:
            anchor_places = turn[:, None, None]  # (R, 1, 1)
            positive_places = anchor_places + 1 + turn[:-1, None] % (batch.counts - 1)  # (R, R - 1, C)
            anchors = rows_at(anchor_places[:, 0], x.detach(), batch)  # (R, C)
            positives = rows_at(positive_places, x.detach(), batch)  # (R, R - 1, C)
            wanted = positives.flatten(1)[:, None].expand(-1, anchors.shape[1], -1)  # (R, C, (R - 1) C)
            products = (x @ x.T)[anchors].gather(2, wanted)
            shares = products.view(*anchors.shape, *positives.shape[1:]).log_softmax(
                dim=3
            )  # (R, C, R - 1, C)
            own = shares.diagonal(dim1=1, dim2=3)  # (R, R - 1, C)
            norms: Tensor = x.square().sum(dim=1)
            return self.reg * norms.mean() - own.mean()
