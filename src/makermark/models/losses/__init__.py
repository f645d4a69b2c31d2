"""Registry of losses over a batch of embeddings and their systems; contract: `base.Loss`."""

from __future__ import annotations

from makermark.foundation.errors import ParamsError
from makermark.foundation.settings import build_registered
from makermark.models.losses.aamsoftmax import AAMSoftmax
from makermark.models.losses.amsoftmax import AMSoftmax
from makermark.models.losses.angularproto import AngularProto
from makermark.models.losses.base import Loss
from makermark.models.losses.ge2e import GE2E
from makermark.models.losses.npair import NPair
from makermark.models.losses.proto import Proto
from makermark.models.losses.proxyanchor import ProxyAnchor
from makermark.models.losses.refd import RefD
from makermark.models.losses.softmax import Softmax
from makermark.models.losses.subcenter_aamsoftmax import SubcenterAAMSoftmax
from makermark.models.losses.triplet import Triplet

__all__ = ["LOSSES", "Loss", "build"]

LOSSES: dict[str, type[Loss]] = {
    "softmax": Softmax,
    "amsoftmax": AMSoftmax,
    "aamsoftmax": AAMSoftmax,
    "angularproto": AngularProto,
    "ge2e": GE2E,
    "npair": NPair,
    "triplet": Triplet,
    "proto": Proto,
    "proxyanchor": ProxyAnchor,
    "subcenter-aamsoftmax": SubcenterAAMSoftmax,
    "refd": RefD,
}


def build(name: str, *, num_systems: int, dim: int, **settings: str | int | float | bool) -> Loss:
    """Build the loss `name` for `num_systems` training systems and embeddings of `dim` dimensions.

    `settings` are exactly the other keyword arguments of the loss's constructor. Initial weights come from torch's
    global generator. Raises ParamsError for an unknown name, and for unknown, missing or invalid settings.
    """
    if num_systems < 1 or dim < 1:
        raise ParamsError(f"loss {name}: {num_systems} systems and dim {dim}; both must be at least 1")
    facts = {"num_systems": num_systems, "dim": dim}
    return build_registered(LOSSES, name, kind="loss", facts=facts, settings=settings)
