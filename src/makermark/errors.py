"""The exceptions raised on purpose: each message says what is wrong, where, and what to do now.

Commands and stages print such a message as one line and exit with status 1; a traceback means a
bug in makermark. Misuse of the library by a programmer raises ValueError instead.
"""


class MakermarkError(Exception):
    """Something the user can mend."""


class ParamsError(MakermarkError):
    """params.yaml asks for what does not exist or does not go together."""


class FilesError(MakermarkError):
    """A file cannot be read or written: missing, damaged, no space, no permission."""


class ManifestError(MakermarkError):
    """A manifest has missing columns, repeated rows or paths outside its root."""


class AudioError(MakermarkError):
    """A file is not usable speech audio."""


class CorpusError(MakermarkError):
    """A corpus cannot be made or found."""


class FeatureCacheError(MakermarkError):
    """A feature cache is damaged, absent, or was made with other parameters."""


class EncoderError(MakermarkError):
    """A pretrained encoder cannot be found, read, or is of a kind that is not known."""


class CheckpointError(MakermarkError):
    """A checkpoint is damaged, absent, or belongs to another configuration."""


class TrainingError(MakermarkError):
    """Training cannot go on: too few utterances for the sampler, a loss that is not finite."""


class ScoringError(MakermarkError):
    """Embeddings that cannot be scored: not finite, no target or no non-target trial."""


class TrackingError(MakermarkError):
    """The tracking server cannot be reached or refuses what is sent."""


class AttributionError(MakermarkError):
    """What a network looked at cannot be shown: it reads no filterbank, or Captum is missing."""


class TracerError(MakermarkError):
    """A gallery or a tracer is damaged, absent, of another model, or cannot take what it is given."""


class CalibrationError(TracerError):
    """Dev holds too little of the right kind to say how sure a tracer may be."""


class ServingError(MakermarkError):
    """The page cannot be served as asked: a package is missing, the address is taken or open to others."""


def how_to_add(extra: str) -> str:
    """The command that adds an extra's packages: makermark is installed from its clone, not from a registry."""
    return f"pip install -e '.[{extra}]' in the clone of makermark"
