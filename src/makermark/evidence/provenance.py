"""Which model, data and software said it."""

from __future__ import annotations

import hashlib
import platform
from importlib import metadata

from makermark import __version__
from makermark.corpora.rows import Manifest
from makermark.tracing import Gallery, Tracer
from makermark.tracing.gallery import TEXTS, TRAINED
from makermark.vectors import utterances_sha256

USED = ("torch", "torchaudio", "numpy", "scipy", "soundfile", "soxr")


def provenance(tracer: Tracer, manifest: Manifest | None) -> dict[str, dict[str, str]]:
    """A heading, and under it each fact by its name."""
    told, gallery = tracer.description, tracer.gallery
    enrolled = gallery.enrolled().systems
    data = {
        "corpus": str(told.params.get("corpus", "not recorded")),
        "training set": f"{len(told.systems)} systems, languages {', '.join(told.languages or ['not recorded'])}",
        "features (hash of parameters and contents)": told.feature_fingerprint,
        "front end": f"{told.front_end}, {tracer.rate_hz} Hz",
    }
    if manifest is not None:
        data["utterances of the corpus at hand (hash)"] = utterances_sha256(manifest.rows)
    return {
        "Model": {
            "checkpoint (SHA-256)": tracer.model_sha256,
            "git commit it was trained at": told.git_commit or "not recorded",
            "backbone": f"{told.backbone}, {told.dim} dimensions",
            "loss": told.loss,
            "epoch": f"{told.epoch}, dev EER {told.dev_eer_percent:.2f} %",
            "trained with": _listed(told.versions),
        },
        "Data": data,
        "Gallery": {
            "systems": f"{len(gallery.systems)}, {len(gallery.clips)} utterances",
            "enrolled here": ", ".join(enrolled) or "none",
            "contents (SHA-256)": gallery_sha256(gallery),
            "likelihood ratios learned on": f"{len(tracer.dev)} lengths of dev's clips, "
            f"{sum(len(part.systems) for part in tracer.dev)} clips",
            "unknown makers on dev": "systems that training did not hold"
            if tracer.calibrated.rejected_by == "unseen"
            else f"each {TRAINED}ed system left out in turn",
        },
        "This report": {
            "makermark": __version__,
            "python": platform.python_version(),
            "libraries": _listed({name: metadata.version(name) for name in USED}),
            "machine": platform.platform(),
        },
    }


def gallery_sha256(gallery: Gallery) -> str:
    """Of every name, family, origin and clip, and of the vectors."""
    told = hashlib.sha256()
    for row in gallery.clips[list(TEXTS)].itertuples(index=False):
        told.update("\t".join(map(str, row)).encode() + b"\n")
    told.update(gallery.vectors.astype("<f4").tobytes())
    return told.hexdigest()


def _listed(versions: dict[str, str]) -> str:
    return ", ".join(f"{name} {version}" for name, version in versions.items()) or "not recorded"
