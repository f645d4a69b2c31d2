"""Linear probe: how well one linear layer reads labels from fixed embeddings.

Axes: N utterances, D dimensions, C classes.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from makermark.foundation.arrays import Float32Array, IntArray, StrArray
from makermark.foundation.errors import ScoringError


@dataclass(frozen=True)
class ProbeResult:
    """Metrics of a probe on its test utterances.

    confusion (C, C): counts, rows the true class, columns the predicted class, both in the order of `classes`.
    balanced_accuracy_percent: mean recall over the classes. chance_percent: 100 / C. per_class: utterances of every
    class, training and test together. left_out: sizes of the classes that are too small.
    """

    accuracy_percent: float
    balanced_accuracy_percent: float
    chance_percent: float
    classes: tuple[str, ...]
    confusion: IntArray
    per_class: int
    train_utterances: int
    test_utterances: int
    left_out: dict[str, int]


def linear_probe(
    embeddings: Float32Array,
    labels: StrArray,
    *,
    epochs: int,
    learning_rate: float,
    batch_utterances: int,
    test_fraction: float,
    max_per_class: int,
    min_per_class: int,
    seed: int,
) -> ProbeResult:
    """Probe embeddings (N, D) for labels (N,): one linear layer, SGD, cross-entropy (Koutsianos et al. 2025).

    All classes have the same size. Classes with fewer than `min_per_class` utterances are left out. The others are
    undersampled at random to the size of the smallest of them, but at most `max_per_class`. The share `test_fraction`
    of every class is the test set. Embeddings are L2-normalised, because a cosine ignores their norm, and then
    standardised per dimension on the training part, so that one learning rate suits any dimension and any network.
    `seed` determines every random choice.

    Raises ScoringError for embeddings that are not finite and for fewer than two classes.
    """
    check_embeddings(embeddings, labels)
    rng = np.random.default_rng(seed)
    sizes, left_out = select_classes(labels, min_per_class=min_per_class)
    per_class = min(max_per_class, *sizes.values())
    tests = min(max(1, round(per_class * test_fraction)), per_class - 1)
    chosen = np.stack(
        [rng.permutation(np.flatnonzero(labels == name))[:per_class] for name in sizes]
    )  # (C, n)
    test, train = chosen[:, :tests], chosen[:, tests:]
    inputs = F.normalize(torch.from_numpy(np.asarray(embeddings, dtype=np.float32)), dim=1)
    deviation, mean = torch.std_mean(inputs[train.ravel()], dim=0)
    inputs = (inputs - mean) / torch.where(deviation > 0, deviation, 1)
    layer = fit_linear_layer(
        inputs[train.ravel()],
        torch.arange(len(sizes)).repeat_interleave(train.shape[1]),
        classes=len(sizes),
        epochs=epochs,
        learning_rate=learning_rate,
        batch_utterances=batch_utterances,
        rng=rng,
    )
    predicted = layer(inputs[test.ravel()]).argmax(dim=1).numpy().reshape(test.shape)
    confusion = np.stack([np.bincount(row, minlength=len(sizes)) for row in predicted]).astype(np.int64)
    recalls = confusion.diagonal() / confusion.sum(axis=1)
    return ProbeResult(
        accuracy_percent=100 * float(confusion.trace() / confusion.sum()),
        balanced_accuracy_percent=100 * float(recalls.mean()),
        chance_percent=100 / len(sizes),
        classes=tuple(sizes),
        confusion=confusion,
        per_class=per_class,
        train_utterances=train.size,
        test_utterances=test.size,
        left_out=left_out,
    )


def check_embeddings(embeddings: Float32Array, labels: StrArray) -> None:
    """Raise ScoringError for embeddings that are not finite, and ValueError for shapes that do not match."""
    if embeddings.ndim != 2 or len(embeddings) != len(labels):
        raise ValueError(
            f"embeddings have shape {embeddings.shape} and labels {labels.shape}; they must be (N, D) and (N,)"
        )
    invalid = np.flatnonzero(~np.isfinite(embeddings).all(axis=1))
    if len(invalid):
        raise ScoringError(
            f"embedding {invalid[0]} (label {str(labels[invalid[0]])!r}) and {len(invalid) - 1} others have values "
            "that are not finite; embed again with a model whose training did not diverge"
        )


def select_classes(labels: StrArray, *, min_per_class: int) -> tuple[dict[str, int], dict[str, int]]:
    """Return the sizes of the probed classes and of the classes left out, by name.

    Raises ScoringError if fewer than two classes are large enough.
    """
    names, counts = np.unique(labels, return_counts=True)
    sizes = dict(zip(names.tolist(), counts.tolist(), strict=True))
    smallest = max(2, min_per_class)
    selected = {name: size for name, size in sizes.items() if size >= smallest}
    if len(selected) < 2:
        raise ScoringError(
            f"a probe needs two classes of at least {smallest} utterances, but only {len(selected)} of {len(sizes)} "
            "classes are large enough; lower probe.min_per_class or use more utterances"
        )
    return selected, {name: size for name, size in sizes.items() if size < smallest}


def fit_linear_layer(
    inputs: Tensor,
    targets: Tensor,
    *,
    classes: int,
    epochs: int,
    learning_rate: float,
    batch_utterances: int,
    rng: np.random.Generator,
) -> nn.Linear:
    """Train one linear layer (D -> C), initialised to zero, by plain SGD on the cross-entropy of shuffled batches."""
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
