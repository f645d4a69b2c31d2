"""The formulas of the papers as Python loops, one function per loss of the registry.

Each takes (loss, embeddings (B, D), systems (B,)) and reads the parameters from `loss`; none shares code with
makermark.models.losses.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn


def cosine(a: Tensor, b: Tensor) -> Tensor:
    return (a * b).sum() / ((a * a).sum().sqrt() * (b * b).sum().sqrt())


def negative_log_softmax(target: Tensor, scores: list[Tensor]) -> Tensor:
    """Return -log(e^target / sum of e^scores), without overflow for large exponents."""
    largest = max(value.item() for value in scores)
    return -(target - largest) + torch.stack([(value - largest).exp() for value in scores]).sum().log()


def softmax(loss: nn.Module, embeddings: Tensor, systems: Tensor) -> Tensor:
    weight, bias = loss.classifier.weight, loss.classifier.bias
    terms = []
    for x, y in zip(embeddings, systems.tolist(), strict=True):
        scores = [(weight[j] * x).sum() + bias[j] for j in range(len(weight))]
        terms.append(negative_log_softmax(scores[y], scores))
    return torch.stack(terms).mean()


def amsoftmax(loss: nn.Module, embeddings: Tensor, systems: Tensor) -> Tensor:
    s, m = loss.scale, loss.margin
    terms = []
    for x, y in zip(embeddings, systems.tolist(), strict=True):
        scores = [s * cosine(x, direction) for direction in loss.directions]
        scores[y] = s * (cosine(x, loss.directions[y]) - m)
        terms.append(negative_log_softmax(scores[y], scores))
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
        terms.append(negative_log_softmax(scores[y], scores))
    return torch.stack(terms).mean()


def rows_by_system(systems: Tensor) -> list[list[int]]:
    labels = systems.tolist()
    return [[row for row, label in enumerate(labels) if label == name] for name in sorted(set(labels))]


def rows_by_first_component(embeddings: Tensor, systems: Tensor) -> list[list[int]]:
    return [sorted(rows, key=lambda row: embeddings[row, 0].item()) for rows in rows_by_system(systems)]


def prototypical(queries: list[Tensor], prototypes: list[Tensor], w: Tensor, b: Tensor) -> Tensor:
    """Chung et al. 2020: -1/N sum over j of log(e^S_jj / sum over k of e^S_jk), S = w cos + b."""
    terms = []
    for j, query in enumerate(queries):
        similarities = [w * cosine(query, prototype) + b for prototype in prototypes]
        terms.append(negative_log_softmax(similarities[j], similarities))
    return torch.stack(terms).mean()


def angularproto(loss: nn.Module, embeddings: Tensor, systems: Tensor) -> Tensor:
    """The loss of the paper for one query per system, averaged over rounds: every utterance is the query once."""
    w, b = loss.log_scale.exp(), loss.bias
    ranked = rows_by_first_component(embeddings, systems)
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
            terms.append(negative_log_softmax(similarities[j], similarities))
    return torch.stack(terms).mean()


def npair(loss: nn.Module, embeddings: Tensor, systems: Tensor) -> Tensor:
    """Sohn 2016, N-pair-mc, averaged over the choices of one pair per system, and the mean squared norm."""
    ranked = rows_by_first_component(embeddings, systems)
    largest = max(len(rows) for rows in ranked)
    choices = []
    for r in range(largest):
        for s in range(largest - 1):
            anchors = [embeddings[rows[r % len(rows)]] for rows in ranked]
            positives = [embeddings[rows[(r + 1 + s % (len(rows) - 1)) % len(rows)]] for rows in ranked]
            terms = []
            for i, anchor in enumerate(anchors):
                own = (anchor * positives[i]).sum()
                others = [(anchor * p).sum() for j, p in enumerate(positives) if j != i]
                # log(1 + sum of e^(other - own)), for any size of the products
                terms.append(negative_log_softmax(own, [own, *others]))
            choices.append(torch.stack(terms).mean())
    norms = torch.stack([(x * x).sum() for x in embeddings])
    return torch.stack(choices).mean() + loss.reg * norms.mean()


def triplet(loss: nn.Module, embeddings: Tensor, systems: Tensor) -> Tensor:
    """Schroff et al. 2015: each anchor and positive with the nearest negative farther than the positive."""
    labels = systems.tolist()
    e = [x / (x * x).sum().sqrt() for x in embeddings]
    terms = []
    for a, anchor in enumerate(e):
        distances = [((anchor - other) ** 2).sum() for other in e]
        negatives = [distances[n] for n in range(len(e)) if labels[n] != labels[a]]
        for p, to_positive in enumerate(distances):
            if p == a or labels[p] != labels[a]:
                continue
            farther = [distance for distance in negatives if distance > to_positive]
            if farther:
                terms.append((to_positive - torch.stack(farther).amin() + loss.margin).clamp(min=0))
            elif negatives:
                terms.append((to_positive - torch.stack(negatives).amax() + loss.margin).clamp(min=0))
            else:
                terms.append(0 * to_positive)
    return torch.stack(terms).mean()


def proto(loss: nn.Module, embeddings: Tensor, systems: Tensor) -> Tensor:
    """Snell et al. 2017, eq. 1 and 2, averaged over rounds: every utterance is the query once."""
    ranked = rows_by_first_component(embeddings, systems)
    terms = []
    for r in range(max(len(rows) for rows in ranked)):
        queries = [rows[r % len(rows)] for rows in ranked]
        supports = [
            [row for row in rows if row != query] for rows, query in zip(ranked, queries, strict=True)
        ]
        prototypes = [sum(embeddings[row] for row in rows) / len(rows) for rows in supports]
        for j, query in enumerate(queries):
            near = [-((embeddings[query] - prototype) ** 2).sum() for prototype in prototypes]
            terms.append(negative_log_softmax(near[j], near))
    return torch.stack(terms).mean()


def proxyanchor(loss: nn.Module, embeddings: Tensor, systems: Tensor) -> Tensor:
    """Kim et al. 2020, eq. 4."""
    alpha, delta, labels = loss.scale, loss.margin, systems.tolist()
    pulls, pushes = [], []
    for p, proxy in enumerate(loss.proxies):
        pull = push = torch.ones((), dtype=proxy.dtype)
        for x, label in zip(embeddings, labels, strict=True):
            if label == p:
                pull = pull + torch.exp(-alpha * (cosine(x, proxy) - delta))
            else:
                push = push + torch.exp(alpha * (cosine(x, proxy) + delta))
        if p in labels:
            pulls.append(pull.log())
        pushes.append(push.log())
    return torch.stack(pulls).mean() + torch.stack(pushes).mean()


def subcenter_aamsoftmax(loss: nn.Module, embeddings: Tensor, systems: Tensor) -> Tensor:
    """Deng et al. 2020: the angle of a system is that of its nearest sub-centre."""
    s, m = loss.scale, loss.margin
    terms = []
    for x, y in zip(embeddings, systems.tolist(), strict=True):
        nearest = [max(cosine(x, centre) for centre in centres) for centres in loss.directions]
        scores = [s * value for value in nearest]
        angle = torch.acos(nearest[y].clamp(-1, 1))
        scores[y] = s * torch.cos(angle + m)
        if angle + m > math.pi:
            scores[y] = s * (torch.cos(angle) - m * math.sin(m))
        terms.append(negative_log_softmax(scores[y], scores))
    return torch.stack(terms).mean()


def refd(loss: nn.Module, embeddings: Tensor, systems: Tensor) -> Tensor:
    """Kulkarni et al. 2025, Fake Dispersion, without its mixed inputs: cross-entropy and N-pair."""
    pairs = npair(loss.npair, embeddings, systems)
    return softmax(loss, embeddings, systems) + loss.npair_weight * pairs


NAIVE = {
    "softmax": softmax,
    "amsoftmax": amsoftmax,
    "aamsoftmax": aamsoftmax,
    "angularproto": angularproto,
    "ge2e": ge2e,
    "npair": npair,
    "triplet": triplet,
    "proto": proto,
    "proxyanchor": proxyanchor,
    "subcenter-aamsoftmax": subcenter_aamsoftmax,
    "refd": refd,
}
