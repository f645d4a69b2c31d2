"""Report page: self-contained, consistent with the trace, and safe against markup in names."""

import base64
import dataclasses
import io
import re
from itertools import pairwise

import numpy as np
import pytest
import soundfile

from makermark.examination.report import collect_report_data, page, render_report
from makermark.examination.report import text as report_text
from makermark.tracing import Window
from makermark.tracing.calibration import FalseAccepts
from makermark.tracing.decision import FAMILY, ONE_SYSTEM, TOO_LITTLE_SPEECH, UNKNOWN, format_ratio
from reading_html import Page

NAMES = "<img src=x onerror=alert(1)>\"'&{{7*7}}"


def decode_data_uri(uri):
    head, _, content = uri.partition(",")
    return head, base64.b64decode(content, validate=True)


def test_page_is_self_contained(report_data):
    content = render_report(report_data)
    read = Page(content)
    shown = {tag for tag, _ in read.elements}
    assert not shown & {"script", "link", "iframe", "object", "embed", "base", "form"}
    sources = [
        value
        for _, attributes in read.elements
        for name, value in attributes.items()
        if name in ("src", "href")
    ]
    assert len(sources) > 5
    assert all(value.startswith("data:") for value in sources)
    assert not re.search(r"https?://|url\(|@import|srcset", content)
    (policy,) = [tag["content"] for tag in read.all("meta") if "http-equiv" in tag]
    assert policy.startswith("default-src 'none';")
    assert all(tag["alt"] for tag in read.all("img"))
    assert "prefers-color-scheme: dark" in content
    assert "@media print" in content


def test_page_contains_the_values_of_the_trace(world, report_data):
    trace = world.tracer.trace(world.long)
    assert report_data.trace.as_json() == trace.as_json()
    text = Page(render_report(report_data)).text
    for candidate in trace.candidates:
        ratio = format_ratio(candidate.log10_lr, at_bound=candidate.at_bound)
        support = report_text.describe_support(candidate.log10_lr)
        row = f"{candidate.system} vowel {ratio} {support}"
        if candidate.posterior is not None:
            row += f" {page.format_percent(candidate.posterior)}"
        assert row.replace("\u00a0", " ") in text
    assert f"{trace.conclusion}" in text
    amount = f"{trace.speech_s:.2f} s of {trace.duration_s:.2f} s"
    assert f"speech {amount}, detected by Silero VAD: tones and noise are not speech, babble is" in text
    assert re.search(r"libraries torch .*, silero-vad 6\.", text)
    assert trace.reason in text
    for fact in (trace.model_sha256, report_data.clip.sha256, "c" * 40, "f" * 64):
        assert fact in text


def test_posteriors_are_shown_only_if_something_is_named(report_data):
    trace = report_data.trace
    for unknown, conclusion, name in ((0.25, ONE_SYSTEM, "slow"), (None, UNKNOWN, "")):
        candidates = [
            dataclasses.replace(
                candidate, posterior=None if unknown is None else 0.75 / len(trace.candidates)
            )
            for candidate in trace.candidates
        ]
        changed = dataclasses.replace(
            trace, candidates=candidates, posterior_unknown=unknown, conclusion=conclusion, name=name
        )
        text = Page(render_report(dataclasses.replace(report_data, trace=changed))).text
        assert ("Its posterior probability" in text) == (unknown is not None)
        assert ("unknown system 25.0 %" in text) == (unknown is not None)
        assert ("No posterior probabilities are given" in text) == (unknown is None)


@pytest.mark.parametrize(
    ("found", "expected"),
    [
        (
            FalseAccepts(1.2, 60, 6, 3, (1.84, 13.91), 8.3, 40.0),
            "at most 5 % of the 60 clips by 6 unknown systems exceed it there. It does not promise this rate for other "
            "systems. At 1.9 s of speech, the nearest length on dev, 3 of the 60 clips exceed it, so the rate may be "
            "1.8 to 13.9 %",
        ),
        (None, "Dev has no unknown systems, so nothing is known about them."),
    ],
)
def test_threshold_is_described_as_a_quantile_on_dev(report_data, found, expected):
    sensitivity = dataclasses.replace(
        report_data.sensitivity,
        best="slow",
        best_cosine=0.9,
        threshold=0.95,
        false_accepts=found,
        false_accepts_speech_s=1.9,
    )
    text = report_text.describe_threshold(dataclasses.replace(report_data, sensitivity=sensitivity))
    assert (
        "slow needs a cosine above 0.950, if the other cosines are as they are; the clip has 0.900." in text
    )
    assert expected in text
    assert "ratio" not in text


def test_names_are_escaped(world, tmp_path):
    file = tmp_path / f"{NAMES}.flac"
    file.write_bytes(world.files["fast"][0].read_bytes())
    tracer = world.tracer.enroll(NAMES, world.files["fast"][:3], family="<script>f</script>")
    plain = Page(
        render_report(collect_report_data(world.tracer, world.files["fast"][0], corpus=None, explain=False))
    )
    read = Page(render_report(collect_report_data(tracer, file, corpus=None, explain=False)))
    assert not read.all("script")
    assert len(read.all("img")) == len(plain.all("img"))
    assert not [name for _, attributes in read.elements for name in attributes if name.startswith("on")]
    assert f"which system made “{NAMES}.flac”?" in read.text
    assert read.text.count(NAMES) > 3


def test_page_contains_playable_sound(world, report_data):
    (clip, *near) = [decode_data_uri(tag["src"]) for tag in Page(render_report(report_data)).all("audio")]
    assert len(near) == len(report_data.neighbours)
    assert clip[0] == "data:audio/mpeg;base64"
    samples, rate = soundfile.read(io.BytesIO(clip[1]))
    assert len(samples) / rate == pytest.approx(report_data.trace.duration_s, abs=0.1)


@pytest.mark.parametrize("conclusion", [ONE_SYSTEM, FAMILY, UNKNOWN, TOO_LITTLE_SPEECH])
def test_every_conclusion_has_its_text(report_data, conclusion):
    name = {ONE_SYSTEM: "slow", FAMILY: "vowel"}.get(conclusion, "")
    trace = dataclasses.replace(report_data.trace, conclusion=conclusion, name=name)
    text = Page(render_report(dataclasses.replace(report_data, trace=trace))).text
    assert report_text.describe_conclusion(trace) in text
    assert report_text.explain_conclusion(trace) in text
    others = {
        report_text.describe_conclusion(dataclasses.replace(trace, conclusion=v))
        for v in (ONE_SYSTEM, FAMILY, UNKNOWN, TOO_LITTLE_SPEECH)
    }
    assert sum(sentence in text for sentence in others) == 1


def test_windows_of_two_systems_are_a_caution(report_data):
    trace = dataclasses.replace(report_data.trace, makers_along_time=["middle", "slow"])
    text = Page(render_report(dataclasses.replace(report_data, trace=trace))).text
    assert "Windows of the file are attributed to different systems: middle, slow." in text


def test_window_spans_fill_the_file(report_data):
    trace = report_data.trace
    assert len(trace.windows) > 2
    spans = list(page.window_spans(trace.windows, trace.duration_s))
    for (left, width, _), (later, _, _) in pairwise(spans):
        assert left + width == pytest.approx(later)
    assert spans[0][0] == 0
    assert spans[-1][0] + spans[-1][1] == pytest.approx(100)
    assert page.window_spans([], 1.0) == []


def test_consecutive_windows_with_equal_results_are_merged(report_data):
    def window(start, best, log10_lr):
        return Window(start, start + 3, UNKNOWN, "", best, log10_lr)

    windows = [window(0, "a", 1.0), window(1.5, "a", 2.0), window(3, "b", -1.0), window(4.5, "a", 99.0)]
    trace = dataclasses.replace(report_data.trace, windows=windows)
    rows = page.merge_windows(dataclasses.replace(report_data, trace=trace, log10_lr_range=(-2.0, 2.5)))
    assert [(row.start_s, row.end_s, row.best) for row in rows] == [
        (0, 4.5, "a"),
        (3, 6, "b"),
        (4.5, 7.5, "a"),
    ]
    assert (rows[0].lowest, rows[0].highest, rows[1].lowest) == ("10 to 1", "100 to 1", "1 to 10")
    assert rows[2].highest.startswith("over ")


def test_missing_attribution_is_stated(report_data):
    without = dataclasses.replace(report_data, explanation=None, explanation_note="Captum is missing")
    read = Page(render_report(without))
    assert "is not shown: Captum is missing." in read.text
    assert len(read.all("img")) == len(Page(render_report(report_data)).all("img")) - 1


@pytest.mark.parametrize(
    ("share", "expected"),
    [(0.0, "0.0 %"), (1e-9, "under 0.1 %"), (0.5, "50.0 %"), (1 - 1e-9, "over 99.9 %"), (1.0, "100.0 %")],
)
def test_probability_is_not_rounded_to_certainty(share, expected):
    assert page.format_percent(share).replace("\u00a0", " ") == expected


@pytest.mark.parametrize(
    ("log10_lr", "expected"),
    [(0.1, "no support for or against it"), (-0.5, "weak support against it"), (1.5, "moderate support for it"),
     (2.3, "moderately strong support for it"), (3.5, "strong support for it"),
     (-4.1, "very strong support against it")],
)  # fmt: skip
def test_support_follows_the_enfsi_verbal_scale(log10_lr, expected):
    assert report_text.describe_support(log10_lr) == expected


def test_ticks_are_few_and_round():
    assert page.time_ticks(4.0) == [(0, "0"), (25, "1"), (50, "2"), (75, "3"), (100, "4")]
    assert all(2 <= len(page.time_ticks(seconds)) <= 7 for seconds in (0.3, 1, 7.7, 59, 60, 3600))
    assert [label for _, label in page.frequency_ticks(8000)] == ["0", "0.5", "1", "2", "4", "8"]


def test_ticks_of_bands_are_at_the_rows_of_the_bands():
    """Of seven bands 1 kHz apart, that of 4 kHz is the middle one; the lowest is centred at 1 / 14 of the height."""
    ticks = {label: position for position, label in page.band_ticks(np.arange(1000, 8000, 1000), 8000)}
    assert ticks["4"] == pytest.approx(50)
    assert ticks["1"] == pytest.approx(100 / 14)
    assert (ticks["0"], ticks["8"]) == (0, 100)
