"""Exceptions that the user can act on: the message states the problem, its location and the remedy.

Commands and stages print the message on one line and exit with status 1; a traceback indicates a bug in makermark.
Misuse of the library by a programmer raises ValueError instead.

An error may refer to settings of params.yaml. It carries their names and values, so that a command can print its own
options instead (`MakermarkError.describe`).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

# How a command writes a setting of params.yaml: a function from the value to the option, or None if it has no option.
OptionFormats = Mapping[str, Callable[[Any], str] | None]

END_OF_DOCUMENT = "...\n"  # which YAML writes after a value that is not a mapping or a list


@dataclass(frozen=True)
class SettingChange:
    """A remedy: a setting of params.yaml, the value to give it (a word in capitals is a placeholder), and why."""

    setting: str
    value: object
    purpose: str = ""  # completes the sentence, such as "to ignore this column"


class MakermarkError(Exception):
    """A problem that the user can correct.

    `setting` and `value` name the setting of params.yaml that causes the problem. `remedies` are alternatives: phrases
    or settings to change. `str(error)` is the message with the settings as in params.yaml.
    """

    def __init__(
        self,
        problem: str = "",
        *,
        setting: str | None = None,
        value: object = None,
        remedies: Sequence[str | SettingChange] = (),
    ) -> None:
        super().__init__(problem)
        self.problem = problem
        self.setting = setting
        self.value = value
        self.remedies = tuple(remedies)

    def __str__(self) -> str:
        return self.describe({})

    def describe(self, options: OptionFormats) -> str:
        """Return the message with the settings named in `options` written as command-line options.

        A setting that `options` maps to None is left out, and so is a remedy that changes it.
        """
        cause = _format_setting(self.setting, self.value, options) if self.setting else ""
        remedies = [_format_remedy(remedy, options) for remedy in self.remedies]
        message = f"{self.problem} ({cause})" if cause else self.problem
        return "; ".join([message, ", or ".join(filter(None, remedies))]).removesuffix("; ")


def _format_remedy(remedy: str | SettingChange, options: OptionFormats) -> str:
    if isinstance(remedy, str):
        return remedy
    text = _format_setting(remedy.setting, remedy.value, options)
    verb = "give" if remedy.setting in options else "set"
    return text and f"{verb} {text} {remedy.purpose}".rstrip()


def _format_setting(setting: str, value: object, options: OptionFormats) -> str:
    if setting in options:
        format_option = options[setting]
        return format_option(value) if format_option else ""
    import yaml  # only messages need it

    text = yaml.safe_dump(value, default_flow_style=True, allow_unicode=True, width=10_000)
    return f"{setting}: {text.removesuffix(END_OF_DOCUMENT).strip()}"


class ParamsError(MakermarkError):
    """params.yaml has an unknown or missing key, or a value that is not allowed."""


class FilesError(MakermarkError):
    """A file cannot be read or written: it is missing or damaged, there is no space, or permission is denied."""


class ManifestError(MakermarkError):
    """A manifest has missing columns, repeated rows or paths outside its root."""


class AudioError(MakermarkError):
    """A file is not usable speech audio."""


class CorpusError(MakermarkError):
    """A corpus cannot be read, downloaded or synthesised."""


class FeatureCacheError(MakermarkError):
    """A feature cache is damaged, absent, or was computed with other parameters."""


class EncoderError(MakermarkError):
    """A pretrained encoder is missing, unreadable, or of an unknown kind."""


class CheckpointError(MakermarkError):
    """A checkpoint is damaged, absent, or belongs to another configuration."""


class TrainingError(MakermarkError):
    """Training cannot continue: too few utterances for the sampler, or a loss that is not finite."""


class ScoringError(MakermarkError):
    """Embeddings cannot be scored: they are not finite, or there is no target or no non-target trial."""


class TrackingError(MakermarkError):
    """The tracking server cannot be reached or rejects a request."""


class AttributionError(MakermarkError):
    """An attribution cannot be computed: the model does not read a filterbank, or Captum is not installed."""


class TracerError(MakermarkError):
    """A gallery or a tracer is damaged, absent, or of another model, or it rejects its input."""


class CalibrationError(TracerError):
    """The dev split has too few suitable utterances to calibrate a tracer."""


class ServingError(MakermarkError):
    """The server cannot start: a package is missing, or the address is in use or reachable by others."""


def install_hint(extra: str) -> str:
    """Return the command that installs an optional dependency group; makermark is installed from its clone."""
    return f"pip install -e '.[{extra}]' in the clone of makermark"
