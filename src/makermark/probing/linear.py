"""How well one linear layer reads the labels off frozen vectors.

Legend of axes: N utterances, D dimensions, C classes.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor, nn

from makermark.errors import ScoringError

Vectors = NDArray[np.float32]
Counts = NDArray[np.int64]


@dataclass(frozen=True)
class ProbeResult:
    """What the probe scored on the utterances kept from it.

    confusion (C, C): counts, rows the true class, columns the class it said, both in the order of
    `classes`. balanced_accuracy_percent is the mean of the classes' recalls. chance_percent is what
    guessing gets: 100 / C. per_class is the size that every class was cut to, training and test
    together; `left_out` had fewer than the least, with their sizes.
    """

    accuracy_percent: float
    balanced_accuracy_percent: float
    chance_percent: float
    classes: tuple[str, ...]
    confusion: Counts
    per_class: int
    train_utterances: int
    test_utterances: int
    left_out: dict[str, int]


def linear_probe(
    vectors: Vectors,
    labels: NDArray[np.str_],
    *,
    epochs: int,
    learning_rate: float,
    batch_utterances: int,
    test_fraction: float,
    max_per_class: int,
    min_per_class: int,
    seed: int,
) -> ProbeResult:
    """Probe vectors (N, D) for labels (N,) as Koutsianos et al. 2025 do: one layer, SGD, cross-entropy.

    Every class counts alike: classes with fewer than `min_per_class` utterances are left out, the
    others cut at random to one size, that of the smallest of them but at most `max_per_class`. Of each
    class `test_fraction` is kept for the test. Vectors are scaled to length 1, since their length means
    nothing to a cosine, and then standardised per dimension on the training part, so that one learning
    rate serves any dimension and any network. `seed` decides everything.

    Raises ScoringError for vectors that are not finite and for fewer than two classes.
    """
    check(vectors, labels)
    rng = np.random.default_rng(seed)
    kept, left_out = classes_of(labels, min_per_class=min_per_class)
    per_class = min(max_per_class, *kept.values())
    tests = min(max(1, round(per_class * test_fraction)), per_class - 1)
    chosen = np.stack(
        [rng.permutation(np.flatnonzero(labels == name))[:per_class] for name in kept]
    )  # (C, n)
    test, train = chosen[:, :tests], chosen[:, tests:]
    inputs = F.normalize(torch.from_numpy(np.asarray(vectors, dtype=np.float32)), dim=1)
    deviation, mean = torch.std_mean(inputs[train.ravel()], dim=0)
    inputs = (inputs - mean) / torch.where(deviation > 0, deviation, 1)
    layer = fit(
        inputs[train.ravel()],
        torch.arange(len(kept)).repeat_interleave(train.shape[1]),
        classes=len(kept),
        epochs=epochs,
        learning_rate=learning_rate,
        batch_utterances=batch_utterances,
        rng=rng,
    )
    said = layer(inputs[test.ravel()]).argmax(dim=1).numpy().reshape(test.shape)
    confusion = np.stack([np.bincount(row, minlength=len(kept)) for row in said]).astype(np.int64)
    recalls = confusion.diagonal() / confusion.sum(axis=1)
    return ProbeResult(
        accuracy_percent=100 * float(confusion.trace() / confusion.sum()),
        balanced_accuracy_percent=100 * float(recalls.mean()),
        chance_percent=100 / len(kept),
        classes=tuple(kept),
        confusion=confusion,
        per_class=per_class,
        train_utterances=train.size,
        test_utterances=test.size,
        left_out=left_out,
    )


def check(vectors: Vectors, labels: NDArray[np.str_]) -> None:
    """Raise ScoringError naming the first vector that is not finite, ValueError for shapes that do not fit."""
    if vectors.ndim != 2 or len(vectors) != len(labels):
        raise ValueError(f"vectors {vectors.shape} and labels {labels.shape} are not (N, D) and (N,)")
    broken = np.flatnonzero(~np.isfinite(vectors).all(axis=1))
    if len(broken):
        raise ScoringError(
            f"vector {broken[0]} (label {str(labels[broken[0]])!r}) has values that are not finite, as have "
            f"{len(broken) - 1} others; embed again with a model that did not diverge"
        )


def classes_of(labels: NDArray[np.str_], *, min_per_class: int) -> tuple[dict[str, int], dict[str, int]]:
    """Sizes of the classes that are probed, by name, and of those left out."""
    names, sizes = np.unique(labels, return_counts=True)
    of_class = dict(zip(names.tolist(), sizes.tolist(), strict=True))
    least = max(2, min_per_class)
    kept = {name: size for name, size in of_class.items() if size >= least}
    if len(kept) < 2:
        raise ScoringError(
            f"a probe needs two classes of at least {least} utterances, and there is {len(kept)} among "
            f"{len(of_class)}; lower probe.min_per_class or give it more utterances"
        )
    return kept, {name: size for name, size in of_class.items() if size < least}


def fit(
    inputs: Tensor,
    targets: Tensor,
    *,
    classes: int,
    epochs: int,
    learning_rate: float,
    batch_utterances: int,
    rng: np.random.Generator,
) -> nn.Linear:
    """One linear layer (D -> C), from zero, by plain SGD on the cross-entropy of shuffled batches."""
    layer = nn.Linear(inputs.shape[1], classes)
    nn.init.zeros_(layer.weight)
    nn.init.zeros_(layer.bias)
    optimizer = torch.optim.SGD(layer.parameters(), lr=learning_rate)
    for _ in range(epochs):
        for batch in torch.split(torch.from_numpy(rng.permutation(len(inputs))), batch_utterances):
            optimizer.zero_grad()
            torch.autograd.backward(F.cross_entropy(layer(inputs[batch]), targets[batch]))
            optimizer.step()
    return layer
