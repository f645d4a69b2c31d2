"""Losses over a batch of embeddings and the systems that made them, one file each; contract: base.Loss."""

from __future__ import annotations

from makermark.errors import ParamsError
from makermark.losses.aamsoftmax import AAMSoftmax
from makermark.losses.amsoftmax import AMSoftmax
from makermark.losses.angularproto import AngularProto
from makermark.losses.base import Loss
from makermark.losses.ge2e import GE2E
from makermark.losses.npair import NPair
from makermark.losses.proto import Proto
from makermark.losses.proxyanchor import ProxyAnchor
from makermark.losses.refd import RefD
from makermark.losses.softmax import Softmax
from makermark.losses.subcenter_aamsoftmax import SubcenterAAMSoftmax
from makermark.losses.triplet import Triplet
from makermark.registry import build_from

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
    """The loss called `name` for `num_systems` training systems and embeddings of `dim` numbers.

    It takes exactly the settings of its constructor. Raises ParamsError listing the choices.
    """
    if num_systems < 1 or dim < 1:
        raise ParamsError(f"loss {name}: {num_systems} systems and dim {dim}; both are at least 1")
    facts = {"num_systems": num_systems, "dim": dim}
    return build_from(LOSSES, name, what="loss", facts=facts, settings=settings)
