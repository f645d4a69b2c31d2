"""What the REST answers with, beside `Trace` and `Comparison`, whose fields it gives as they are."""

from __future__ import annotations

from pydantic import BaseModel, Field

from makermark.serving.desk import LEAST_CLIPS
from makermark.tracing import Gallery, Tracer


class Problem(BaseModel):
    """Why there is no other answer."""

    error: str = Field(description="One line.")


class Health(BaseModel):
    """That the server is there, and how much it has to do."""

    status: str = "ok"
    in_line: int = Field(description="Requests that wait for the model, or are being served by it.")


class System(BaseModel):
    """A system that a clip can be traced to."""

    name: str
    family: str = Field(description="Empty where it is not known.")
    origin: str = Field(description="train: learned in training and not removable; enrolled: added later.")
    clips: int


class Systems(BaseModel):
    """The gallery."""

    model_sha256: str
    systems: list[System]

    @classmethod
    def of(cls, gallery: Gallery) -> Systems:
        rows = gallery.table.itertuples()
        systems = [
            System(
                name=str(row.Index), family=str(row.family), origin=str(row.origin), clips=int(str(row.clips))
            )
            for row in rows
        ]
        return cls(model_sha256=gallery.model_sha256, systems=systems)


class Model(BaseModel):
    """What answers, what it assumes, and what it takes."""

    makermark: str = Field(description="Version.")
    model_sha256: str
    backbone: str
    git_commit: str = Field(description="Of the code that trained it.")
    languages: list[str] = Field(description="Of the speech it was trained on.")
    prior_known: float = Field(
        description="Held before hearing, if a request says nothing: the maker is in the gallery."
    )
    prior_same: float = Field(description="The same: one system made both clips.")
    false_accept_rate: float = Field(
        description="Share of clips by unknown systems that may be given a maker."
    )
    coverage: float = Field(
        description="Share of clips whose maker is among the candidates, if the gallery has it."
    )
    min_speech_seconds: float
    max_seconds: float = Field(description="Of a clip.")
    max_bytes: int = Field(description="Of a request.")
    min_clips: int = Field(description="To enrol a system from.")
    max_clips: int
    changeable: bool = Field(description="Whether systems may be enrolled and removed here.")

    @classmethod
    def of(
        cls,
        tracer: Tracer,
        *,
        version: str,
        max_seconds: float,
        max_bytes: int,
        max_clips: int,
        changeable: bool,
    ) -> Model:
        told, settings = tracer.description, tracer.settings
        return cls(
            makermark=version,
            model_sha256=tracer.model_sha256,
            backbone=told.backbone,
            git_commit=told.git_commit,
            languages=told.languages or [],
            prior_known=settings.prior_known,
            prior_same=settings.prior_same,
            false_accept_rate=settings.false_accept_rate,
            coverage=settings.conformal_coverage,
            min_speech_seconds=settings.min_speech_seconds,
            max_seconds=max_seconds,
            max_bytes=max_bytes,
            min_clips=LEAST_CLIPS,
            max_clips=max_clips,
            changeable=changeable,
        )
