"""The papers' formulas written out with Python loops, one function per loss of the registry.

Each takes (loss, embeddings (B, D), systems (B,)) and reads the learned numbers from `loss`; it shares no
code with makermark.losses.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn


def cosine(a: Tensor, b: Tensor) -> Tensor:
    return (a * b).sum() / ((a * a).sum().sqrt() * (b * b).sum().sqrt())


def minus_log_share(of: Tensor, among: list[Tensor]) -> Tensor:
    """-log(e^of / sum of e^among), written so that large exponents do not overflow."""
    largest = max(value.item() for value in among)
    return -(of - largest) + torch.stack([(value - largest).exp() for value in among]).sum().log()


def softmax(loss: nn.Module, embeddings: Tensor, systems: Tensor) -> Tensor:
    weight, bias = loss.classifier.weight, loss.classifier.bias
    terms = []
    for x, y in zip(embeddings, systems.tolist(), strict=True):
        scores = [(weight[j] * x).sum() + bias[j] for j in range(len(weight))]
        terms.append(minus_log_share(scores[y], scores))
    return torch.stack(terms).mean()


def amsoftmax(loss: nn.Module, embeddings: Tensor, systems: Tensor) -> Tensor:
    s, m = loss.scale, loss.margin
    terms = []
    for x, y in zip(embeddings, systems.tolist(), strict=True):
        scores = [s * cosine(x, direction) for direction in loss.directions]
        scores[y] = s * (cosine(x, loss.directions[y]) - m)
        terms.append(minus_log_share(scores[y], scores))
    return torch.stack(terms).mean()


def aamsoftmax(loss: nn.Module, embeddings: Tensor, systems: Tensor) -> Tensor:
    s, m = loss.scale, loss.margin
    terms = []
    for x, y in zip(embeddings, systems.tolist(), strict=True):
        scores = [s * cosine(x, direction) for direction in loss.directions]
        angle = torch.acos(cosine(x, loss.directions[y]).clamp(-1, 1))
        if angle + m <= math.pi:
            scores[y] = s * torch.cos(angle + m)
        else:
            scores[y] = s * (torch.cos(angle) - m * math.sin(m))
        terms.append(minus_log_share(scores[y], scores))
    return torch.stack(terms).mean()


def rows_by_system(systems: Tensor) -> list[list[int]]:
    labels = systems.tolist()
    return [[row for row, label in enumerate(labels) if label == name] for name in sorted(set(labels))]


def prototypical(queries: list[Tensor], prototypes: list[Tensor], w: Tensor, b: Tensor) -> Tensor:
    """Chung et al. 2020: -1/N sum over j of log(e^S_jj / sum over k of e^S_jk), S = w cos + b."""
    terms = []
    for j, query in enumerate(queries):
        similarities = [w * cosine(query, prototype) + b for prototype in prototypes]
        terms.append(minus_log_share(similarities[j], similarities))
    return torch.stack(terms).mean()


def angularproto(loss: nn.Module, embeddings: Tensor, systems: Tensor) -> Tensor:
    """The paper's loss for one query per system, averaged over rounds: each utterance has its turn."""
    w, b = loss.log_scale.exp(), loss.bias
    ranked = [sorted(rows, key=lambda row: embeddings[row, 0].item()) for rows in rows_by_system(systems)]
    rounds = []
    for r in range(max(len(rows) for rows in ranked)):
        chosen = [rows[r % len(rows)] for rows in ranked]
        supports = [[row for row in rows if row != query] for rows, query in zip(ranked, chosen, strict=True)]
        prototypes = [sum(embeddings[row] for row in rows) / len(rows) for rows in supports]
        rounds.append(prototypical([embeddings[row] for row in chosen], prototypes, w, b))
    return torch.stack(rounds).mean()


def ge2e(loss: nn.Module, embeddings: Tensor, systems: Tensor) -> Tensor:
    """Wan et al. 2018, eq. 5, 6, 8, 9; eq. 10 divided by the number of utterances."""
    w, b = loss.log_scale.exp(), loss.bias
    e = [x / (x * x).sum().sqrt() for x in embeddings]
    groups = rows_by_system(systems)
    terms = []
    for j, rows in enumerate(groups):
        for i in rows:
            similarities = []
            for k, others in enumerate(groups):
                members = [row for row in others if row != i] if k == j else others
                centroid = sum(e[row] for row in members) / len(members)
                similarities.append(w * cosine(e[i], centroid) + b)
            terms.append(minus_log_share(similarities[j], similarities))
    return torch.stack(terms).mean()


NAIVE = {
    "softmax": softmax,
    "amsoftmax": amsoftmax,
    "aamsoftmax": aamsoftmax,
    "angularproto": angularproto,
    "ge2e": ge2e,
}
