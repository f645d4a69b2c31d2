"""The page: whole in itself, with the figures of the trace, and nobody's name becomes markup."""

import base64
import dataclasses
import io
import re
from itertools import pairwise

import pytest
import soundfile

from makermark.evidence import gather, html_report, page, words
from makermark.tracing import Window
from makermark.tracing.verdict import FAMILY, ONE, TOO_LITTLE, UNKNOWN, ratio
from reading_html import Page

NAMES = "<img src=x onerror=alert(1)>\"'&{{7*7}}"


def of_uri(uri):
    head, _, content = uri.partition(",")
    return head, base64.b64decode(content, validate=True)


def test_a_page_holds_all_it_shows(evidence):
    content = html_report(evidence)
    read = Page(content)
    shown = {tag for tag, _ in read.elements}
    assert not shown & {"script", "link", "iframe", "object", "embed", "base", "form"}
    sources = [value for _, each in read.elements for name, value in each.items() if name in ("src", "href")]
    assert len(sources) > 5
    assert all(value.startswith("data:") for value in sources)
    assert not re.search(r"https?://|url\(|@import|srcset", content)
    (policy,) = [each["content"] for each in read.all("meta") if "http-equiv" in each]
    assert policy.startswith("default-src 'none';")
    assert all(each["alt"] for each in read.all("img"))
    assert "prefers-color-scheme: dark" in content
    assert "@media print" in content


def test_the_figures_are_those_of_the_trace(world, evidence):
    told = world.tracer.trace(world.long)
    assert evidence.trace.as_json() == told.as_json()
    text = Page(html_report(evidence)).text
    for each in told.candidates:
        said = f"{ratio(each.log10_lr, at_bound=each.at_bound)} {words.strength(each.log10_lr)}"
        assert f"{each.system} tone {said} {page.percent(each.posterior)}".replace("\u00a0", " ") in text
    assert f"none of those known {page.percent(told.posterior_unknown)}".replace("\u00a0", " ") in text
    assert f"{told.verdict}" in text
    assert told.reason in text
    for fact in (told.model_sha256, evidence.clip.sha256, "c" * 40, "f" * 64):
        assert fact in text


def test_names_are_text_and_never_markup(world, tmp_path):
    file = tmp_path / f"{NAMES}.flac"
    file.write_bytes(world.files["fast"][0].read_bytes())
    tracer = world.tracer.enroll(NAMES, world.files["fast"][:3], family="<script>f</script>")
    plain = Page(html_report(gather(world.tracer, world.files["fast"][0], corpus=None, explain=False)))
    read = Page(html_report(gather(tracer, file, corpus=None, explain=False)))
    assert not read.all("script")
    assert len(read.all("img")) == len(plain.all("img"))
    assert not [name for _, each in read.elements for name in each if name.startswith("on")]
    assert f"which system made “{NAMES}.flac”?" in read.text
    assert read.text.count(NAMES) > 3


def test_the_clip_can_be_heard(world, evidence):
    (clip, *near) = [of_uri(each["src"]) for each in Page(html_report(evidence)).all("audio")]
    assert len(near) == len(evidence.neighbours)
    assert clip[0] == "data:audio/mpeg;base64"
    samples, rate = soundfile.read(io.BytesIO(clip[1]))
    assert len(samples) / rate == pytest.approx(evidence.trace.duration_s, abs=0.1)


@pytest.mark.parametrize("verdict", [ONE, FAMILY, UNKNOWN, TOO_LITTLE])
def test_every_verdict_has_its_words(evidence, verdict):
    name = {ONE: "slow", FAMILY: "tone"}.get(verdict, "")
    told = dataclasses.replace(evidence.trace, verdict=verdict, name=name)
    text = Page(html_report(dataclasses.replace(evidence, trace=told))).text
    assert words.headline(told) in text
    assert words.meaning(told) in text
    others = {
        words.headline(dataclasses.replace(told, verdict=v)) for v in (ONE, FAMILY, UNKNOWN, TOO_LITTLE)
    }
    assert sum(each in text for each in others) == 1


def test_a_file_of_two_makers_is_pointed_out(evidence):
    told = dataclasses.replace(evidence.trace, makers_along_time=["middle", "slow"])
    text = Page(html_report(dataclasses.replace(evidence, trace=told))).text
    assert "Stretches of the file are by different makers: middle, slow." in text


def test_the_stretches_fill_the_file(evidence):
    told = evidence.trace
    assert len(told.windows) > 2
    found = list(page.strips(told.windows, told.duration_s))
    for (left, width, _), (later, _, _) in pairwise(found):
        assert left + width == pytest.approx(later)
    assert found[0][0] == 0
    assert found[-1][0] + found[-1][1] == pytest.approx(100)
    assert page.strips([], 1.0) == []


def test_stretches_that_say_the_same_are_one_row(evidence):
    def window(start, best, log10_lr):
        return Window(start, start + 3, UNKNOWN, "", best, log10_lr)

    windows = [window(0, "a", 1.0), window(1.5, "a", 2.0), window(3, "b", -1.0), window(4.5, "a", 99.0)]
    told = dataclasses.replace(evidence.trace, windows=windows)
    rows = page.runs(dataclasses.replace(evidence, trace=told, bounds_log10=(-2.0, 2.5)))
    assert [(row.start_s, row.end_s, row.best) for row in rows] == [
        (0, 4.5, "a"),
        (3, 6, "b"),
        (4.5, 7.5, "a"),
    ]
    assert (rows[0].low, rows[0].high, rows[1].low) == ("10 to 1", "100 to 1", "1 to 10")
    assert rows[2].high.startswith("over ")


def test_where_attribution_is_not_to_be_had_one_line_says_so(evidence):
    without = dataclasses.replace(evidence, explanation=None, explanation_note="Captum is missing")
    read = Page(html_report(without))
    assert "is not shown: Captum is missing." in read.text
    assert len(read.all("img")) == len(Page(html_report(evidence)).all("img")) - 1


@pytest.mark.parametrize(
    ("share", "said"),
    [(0.0, "0.0 %"), (1e-9, "under 0.1 %"), (0.5, "50.0 %"), (1 - 1e-9, "over 99.9 %"), (1.0, "100.0 %")],
)
def test_no_probability_is_rounded_to_certainty(share, said):
    assert page.percent(share).replace("\u00a0", " ") == said


@pytest.mark.parametrize(
    ("log10_lr", "said"),
    [(0.1, "none either way"), (-0.5, "weak, against it"), (1.5, "moderate, for it"),
     (2.3, "moderately strong, for it"), (3.5, "strong, for it"), (-4.1, "very strong, against it")],
)  # fmt: skip
def test_ratios_in_the_words_of_the_enfsi(log10_lr, said):
    assert words.strength(log10_lr) == said


def test_ticks_are_few_and_round():
    assert page.seconds_ticks(4.0) == [(0, "0"), (25, "1"), (50, "2"), (75, "3"), (100, "4")]
    assert all(2 <= len(page.seconds_ticks(seconds)) <= 7 for seconds in (0.3, 1, 7.7, 59, 60, 3600))
    assert [label for _, label in page.hertz_ticks(8000)] == ["0", "0.5", "1", "2", "4", "8"]
