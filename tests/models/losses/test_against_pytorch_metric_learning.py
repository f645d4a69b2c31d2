"""Value and gradient of the losses that pytorch-metric-learning implements too, in float64.

Each test states the settings under which both are the same formula. The library has no AngularProto, GE2E and Proto.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable

import pytest
import torch
from naive_losses import rows_by_first_component
from pytorch_metric_learning import distances, losses, miners, reducers, regularizers
from torch import Tensor

from makermark.models.losses import build

DIM = 6
NUM_SYSTEMS = 5
LABELS = [[0, 1, 2, 3, 4] * 2, [0, 0, 2, 2, 2, 2, 4, 4, 4], [3] * 4]

every_batch = pytest.mark.parametrize("labels", LABELS, ids=["K = 2", "unequal counts", "one system"])


def batch_of(labels: list[int], seed: int = 0) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    embeddings = torch.randn(len(labels), DIM, generator=generator, dtype=torch.float64)
    return embeddings.requires_grad_(), torch.tensor(labels)


def assert_same(ours: Tensor, theirs: Tensor, learned: list[Tensor], their_learned: list[Tensor]) -> None:
    torch.testing.assert_close(ours, theirs)
    gradients = torch.autograd.grad(ours, learned)
    torch.testing.assert_close(gradients, torch.autograd.grad(theirs, their_learned), rtol=1e-6, atol=1e-9)


def copied(parameter: Tensor, shape: Callable[[Tensor], Tensor]) -> torch.nn.Parameter:
    return torch.nn.Parameter(shape(parameter.detach()).clone())


@every_batch
def test_npair_equals_library(labels: list[int]) -> None:
    """NPairsLoss of inner products (its default normalises), one call per choice of pairs.

    It takes one pair per system, so it gets the pairs of each round, and the mean over rounds is ours. The
    norm term is LpRegularizer with p = 2 and power 2, which averages over the embeddings.
    """
    loss = build("npair", num_systems=NUM_SYSTEMS, dim=DIM, reg=0.02)
    other = losses.NPairsLoss(
        distance=distances.DotProductSimilarity(normalize_embeddings=False),
        embedding_regularizer=regularizers.LpRegularizer(p=2, power=2),
        embedding_reg_weight=0.02,
    )
    embeddings, systems = batch_of(labels)
    ranked = rows_by_first_component(embeddings, systems)
    largest = max(len(rows) for rows in ranked)
    rounds = []
    for r in range(largest):
        for s in range(largest - 1):
            anchors = torch.tensor([rows[r % len(rows)] for rows in ranked])
            positives = torch.tensor([rows[(r + 1 + s % (len(rows) - 1)) % len(rows)] for rows in ranked])
            none = torch.tensor([], dtype=torch.int64)
            rounds.append(other(embeddings, systems, (anchors, positives, none, none)))
    assert_same(loss(embeddings, systems), torch.stack(rounds).mean(), [embeddings], [embeddings])


SQUARED = distances.LpDistance(normalize_embeddings=True, p=2, power=2)
TRIPLETS = losses.TripletMarginLoss(margin=0.2, distance=SQUARED, reducer=reducers.MeanReducer())


@pytest.mark.parametrize("seed", range(5))
def test_triplet_equals_library_with_mined_semi_hard_negatives(seed: int) -> None:
    """TripletMarginLoss of squared Euclidean distances at length 1, averaged over all mined triplets.

    BatchEasyHardMiner takes the nearest negative beyond the positive, for one positive of each anchor: at
    K = 2 that is every pair. It leaves out anchors without such a negative, so the batch has one for each.
    """
    loss = build("triplet", num_systems=20, dim=DIM, margin=0.2)
    miner = miners.BatchEasyHardMiner(pos_strategy="easy", neg_strategy="semihard", distance=SQUARED)
    embeddings, systems = batch_of([*range(20)] * 2, seed)
    with torch.no_grad():
        embeddings[20:] = embeddings[:20] + 0.5 * embeddings[20:]
    mined = miner(embeddings, systems)
    assert len(mined[0]) == len(systems)
    value = loss(embeddings, systems)
    assert value > 0
    assert_same(value, TRIPLETS(embeddings, systems, mined), [embeddings], [embeddings])


@every_batch
def test_triplet_equals_library_with_given_triplets(labels: list[int]) -> None:
    """The same TripletMarginLoss on the triplets of our rule, including those without a semi-hard negative."""
    loss = build("triplet", num_systems=NUM_SYSTEMS, dim=DIM, margin=0.2)
    embeddings, systems = batch_of(labels)
    table, rows = SQUARED(embeddings.detach()).tolist(), range(len(labels))
    chosen = []
    for a, p in itertools.permutations(rows, 2):
        if labels[p] == labels[a]:
            negatives = sorted((n for n in rows if labels[n] != labels[a]), key=table[a].__getitem__)
            farther = [n for n in negatives if table[a][n] > table[a][p]]
            chosen += [(a, p, n) for n in farther[:1] or negatives[-1:]]
    triplets = tuple(torch.tensor(chosen, dtype=torch.int64).reshape(-1, 3).T)
    assert_same(
        loss(embeddings, systems), TRIPLETS(embeddings, systems, triplets), [embeddings], [embeddings]
    )


@every_batch
def test_proxyanchor_equals_library(labels: list[int]) -> None:
    """ProxyAnchorLoss with alpha = scale and the same margin and proxies."""
    loss = build("proxyanchor", num_systems=NUM_SYSTEMS, dim=DIM, margin=0.1, scale=32.0).double()
    other = losses.ProxyAnchorLoss(num_classes=NUM_SYSTEMS, embedding_size=DIM, margin=0.1, alpha=32.0)
    other.proxies = copied(loss.proxies, lambda proxies: proxies)
    embeddings, systems = batch_of(labels)
    ours, theirs = loss(embeddings, systems), other(embeddings, systems)
    assert_same(ours, theirs, [embeddings, loss.proxies], [embeddings, other.proxies])


def as_columns(directions: Tensor) -> Tensor:
    """(D, C) or (D, C K) from (C, D) or (C, K, D): it keeps directions as columns."""
    return directions.flatten(0, -2).T


@every_batch
@pytest.mark.parametrize(
    ("name", "settings", "kind"),
    [
        ("aamsoftmax", {}, losses.ArcFaceLoss),
        ("subcenter-aamsoftmax", {"sub_centres": 3}, losses.SubCenterArcFaceLoss),
    ],
)
def test_aamsoftmax_and_sub_centres_equal_library(
    name: str, settings: dict[str, int], kind: type[losses.ArcFaceLoss], labels: list[int]
) -> None:
    """ArcFaceLoss with the margin in degrees and the directions as columns, a system's sub-centres side by side."""
    loss = build(name, num_systems=NUM_SYSTEMS, dim=DIM, margin=0.3, scale=20.0, **settings).double()
    theirs = {"sub_centers": settings["sub_centres"]} if settings else {}
    other = kind(num_classes=NUM_SYSTEMS, embedding_size=DIM, margin=math.degrees(0.3), scale=20.0, **theirs)
    other.W = copied(loss.directions, as_columns)
    embeddings, systems = batch_of(labels)
    ours = torch.autograd.grad(loss(embeddings, systems), [embeddings, loss.directions])
    theirs_ = torch.autograd.grad(other(embeddings, systems), [embeddings, other.W])
    torch.testing.assert_close(loss(embeddings, systems), other(embeddings, systems))
    torch.testing.assert_close(ours[0], theirs_[0], rtol=1e-6, atol=1e-9)
    torch.testing.assert_close(as_columns(ours[1]), theirs_[1], rtol=1e-6, atol=1e-9)


@every_batch
def test_amsoftmax_equals_library(labels: list[int]) -> None:
    """CosFaceLoss with the same margin and scale, and the directions as columns."""
    loss = build("amsoftmax", num_systems=NUM_SYSTEMS, dim=DIM, margin=0.2, scale=30.0).double()
    other = losses.CosFaceLoss(num_classes=NUM_SYSTEMS, embedding_size=DIM, margin=0.2, scale=30.0)
    other.W = copied(loss.directions, as_columns)
    embeddings, systems = batch_of(labels)
    assert_same(loss(embeddings, systems), other(embeddings, systems), [embeddings], [embeddings])
