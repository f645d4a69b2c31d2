"""The message of an error: the problem, the setting that causes it, and its remedies, with a command's options."""

from __future__ import annotations

import pickle

import pytest

from makermark.foundation.entrypoint import settings_as_options
from makermark.foundation.errors import CorpusError, SettingChange

OPTIONS = {
    "external.dedupe": lambda _: "--keep-duplicates",
    "external.root": lambda root: f"--root {root}",
    "external.max_bad_fraction": None,
}


def error(**structure):
    return CorpusError("files.csv: 2 of 9 files are unusable", **structure)


@pytest.mark.parametrize(
    ("structure", "in_params", "as_options"),
    [
        ({}, "", ""),
        (
            {"setting": "external.root", "value": "data/größe"},
            " (external.root: data/größe)",
            " (--root data/größe)",
        ),
        ({"setting": "external.max_bad_fraction", "value": 0.1}, " (external.max_bad_fraction: 0.1)", ""),
        (
            {"remedies": ["remove a row", SettingChange("external.dedupe", False, "to keep both")]},
            "; remove a row, or set external.dedupe: false to keep both",
            "; remove a row, or give --keep-duplicates to keep both",
        ),
        (
            {"remedies": ["remove a row", SettingChange("external.max_bad_fraction", 1.0)]},
            "; remove a row, or set external.max_bad_fraction: 1.0",
            "; remove a row",
        ),
        (
            {"remedies": [SettingChange("manifest.columns", {"split": ""})]},
            "; set manifest.columns: {split: ''}",
            "; set manifest.columns: {split: ''}",
        ),
    ],
)
def test_error_message_words_settings_in_params_yaml_or_as_options(structure, in_params, as_options):
    problem = "files.csv: 2 of 9 files are unusable"
    assert str(error(**structure)) == problem + in_params
    assert error(**structure).describe(OPTIONS) == problem + as_options


def test_settings_as_options_keeps_type_and_cause_of_the_error():
    with (
        pytest.raises(CorpusError, match=r"unusable; give --keep-duplicates$") as caught,
        settings_as_options(OPTIONS),
    ):
        raise error(remedies=[SettingChange("external.dedupe", False)])
    assert isinstance(caught.value.__cause__, CorpusError)


def test_error_survives_pickling():
    structured = error(
        setting="external.root", value="data", remedies=[SettingChange("external.dedupe", False)]
    )
    assert str(pickle.loads(pickle.dumps(structured))) == str(structured)
