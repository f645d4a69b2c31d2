"""Documentation: figures, links, commands and paths agree with metrics/, the tree and the command line."""

from __future__ import annotations

import ast
import contextlib
import importlib.util
import json
import math
import re
import shlex
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import typer
import yaml

from makermark.cli.main import app
from makermark.cli.tracing_commands import describe_trace
from makermark.reporting.tables import EXPLANATION, results_markdown
from makermark.tracing.decision import Candidate, Trace, Window

REPOSITORY = Path(__file__).parents[1]
PAGES = ["README.md", ".github/CONTRIBUTING.md", "CHANGELOG.md", "benchmarks/README.md"] + [
    str(path.relative_to(REPOSITORY)) for path in sorted((REPOSITORY / "docs").glob("*.md"))
]
MAX_README_WORDS = 1300
METRICS = ("score", "probe", "trace", "foreign")

LENGTHS = {"1s": "1 s", "2s": "2 s", "4s": "4 s", "8s": "8 s", "whole": "whole"}
CONCLUSIONS = (
    "identification",
    "seen_correct",
    "seen_family",
    "seen_unknown",
    "seen_too_little",
    "seen_wrong",
)
REJECTIONS = ("unknown", "family", "wrong", "too_little")

JUDGED = {
    "model": "model",
    "baselines][untrained": "untrained network",
    "baselines][logmel_stats": "log-mel statistics",
    "baselines][whisper-early": "early Whisper layers",
}


def foreign_row(block: str, name: str) -> str:
    """Return the template of a row of the table in docs/evaluate.md."""
    cells = [name]
    for part in ("pooled", "within][page"):
        for kind in ("micro", "macro"):
            field = f"{{foreign[{block}][{part}][eer_{kind}"
            interval = ", ".join(f"{field}_ci95_percent][{end}]:.1f}}" for end in (0, 1))
            cells.append(f"{field}_percent]:.1f}} [{interval}]")
    return f"| {' | '.join(cells)} |"


# Sentences with figures of metrics/*.json, by page: templates of str.format.
FIGURES = {
    "README.md": [
        "({score[test][eer_micro_percent]:.1f} % against "
        "{score[baselines][untrained][test][eer_micro_percent]:.1f} %)",
        "{score[test][identification][centroid][accuracy_percent]:.1f} % identified if nothing can be rejected "
        "(closed set). The tracer, which can reject, names the right system for "
        "{trace[test][whole][seen_correct_percent]:.0f} % and the right family for "
        "{trace[test][whole][seen_family_percent]:.0f} %, and calls "
        "{trace[test][whole][seen_unknown_percent]:.0f} % unknown. "
        "Of new systems it names {trace[test][whole][unseen_wrong_percent]:.1f} % wrongly.",
        "The shipped model was trained on {trace[test][whole][seen_systems]} systems of the built-in corpus.",
        "AUROC {score[test][out_of_domain][max_logit][auroc_percent]:.0f} % "
        "[{score[test][out_of_domain][max_logit][auroc_ci95_percent][0]:.0f}, "
        "{score[test][out_of_domain][max_logit][auroc_ci95_percent][1]:.0f}]. The log-mel statistics reach "
        "{score[baselines][logmel_stats][test][out_of_domain][mahalanobis][auroc_percent]:.0f} %.",
        "Of {trace[bonafide][whole][clips]} utterances by people, "
        "{trace[bonafide][whole][named_percent]:.0f} % get a system or "
        "family named, and {trace[bonafide][whole][ratio_above_1_percent]:.0f} % a ratio above 1.",
        "its EER is {foreign[model][pooled][eer_micro_percent]:.1f} % pooled and "
        "{foreign[model][within][page][eer_micro_percent]:.1f} % between the systems of one page; the log-mel "
        "statistics have "
        "{foreign[baselines][logmel_stats][pooled][eer_micro_percent]:.1f} and "
        "{foreign[baselines][logmel_stats][within][page][eer_micro_percent]:.1f} %",
        "A linear probe identifies {probe[accuracy_percent]:.1f} % of the utterances of {probe[systems]} systems.",
    ],
    "docs/reading-the-conclusion.md": [
        "of whole utterances by known systems in test, {trace[test][whole][seen_unknown_percent]:.0f} % get",
        "{trace[test][whole][coverage_percent]:.1f} % for whole utterances, "
        "{trace[test][1s][coverage_percent]:.1f} % for clips of 1 s.",
        "The model knows the {trace[test][whole][seen_systems]} systems of the built-in corpus",
        "by {trace[test][whole][posterior_error_percent]:.0f} percentage points on average",
        *(
            " | ".join(
                [
                    f"| {label}",
                    *(f"{{trace[test][{length}][unseen_{name}_percent]:.1f}}" for name in REJECTIONS),
                ]
            )
            for length, label in LENGTHS.items()
        ),
        "Test clips by the {trace[test][whole][seen_systems]} known systems",
        "by the {trace[test][whole][unseen_systems]} *unknown* systems of test, "
        "{trace[test][whole][unseen_unknown_percent]:.1f} % are called unknown, "
        "{trace[test][whole][unseen_family_percent]:.1f} % get the right family, and "
        "{trace[test][whole][unseen_wrong_percent]:.1f} % get a wrong name.",
        "({trace[test][whole][cllr]:.2f} bits, {trace[test][whole][min_cllr]:.2f} after optimal calibration)",
        "identified in {trace[enrolment][identification_percent]:.0f} % of their other clips and named in "
        "{trace[enrolment][named_percent]:.0f} %.",
        *(
            " | ".join(
                [f"| {label}", *(f"{{trace[test][{length}][{name}_percent]:.1f}}" for name in CONCLUSIONS)]
            )
            for length, label in LENGTHS.items()
        ),
    ],
    "docs/evaluate.md": [
        "{foreign[evaluated][utterances]:,} clips of {foreign[model][pooled][systems]} systems",
        "{foreign[model][within][page][utterances]:,} clips of {foreign[model][within][page][systems]} systems",
        "{foreign[model][pooled][target_trials]:,} target and {foreign[model][pooled][nontarget_trials]:,} non-target",
        *(foreign_row(block, name) for block, name in JUDGED.items()),
    ],
}
# Percentages on these pages that are settings, or one measurement that the text dates.
NOT_METRICS = {
    "README.md": set(),
    "docs/reading-the-conclusion.md": {"5 %", "95 %"},
}


@pytest.fixture(scope="module")
def metrics() -> list[dict[str, Any]]:
    """Return metrics/ of the work tree, and of HEAD: an experiment of yours need not agree with the documentation."""
    versions = [{name: json.loads((REPOSITORY / f"metrics/{name}.json").read_text()) for name in METRICS}]
    with contextlib.suppress(OSError, subprocess.CalledProcessError):  # without git: the work tree alone
        versions.append({name: json.loads(git_show(f"HEAD:metrics/{name}.json")) for name in METRICS})
    return versions


def git_show(what: str) -> str:
    command = ["git", "-C", str(REPOSITORY), "show", what]
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout


def read(page: str) -> str:
    return (REPOSITORY / page).read_text(encoding="utf-8")


def one_line(text: str) -> str:
    return " ".join(text.split())


def prose(page: str) -> str:
    """Return a page without its code blocks."""
    return re.sub(r"^```.*?^```$", "", read(page), flags=re.DOTALL | re.MULTILINE)


# Figures


@pytest.mark.parametrize("page", FIGURES)
def test_figures_in_docs_agree_with_metrics(page: str, metrics: list[dict[str, Any]]) -> None:
    text = one_line(read(page))
    stale = [
        [sentence for template in FIGURES[page] if (sentence := template.format(**version)) not in text]
        for version in metrics
    ]
    assert [] in stale, f"{page} lacks these sentences with the figures of metrics/: {stale[0]}"


@pytest.mark.parametrize("page", NOT_METRICS)
def test_percentages_in_prose_are_covered_by_a_template(page: str, metrics: list[dict[str, Any]]) -> None:
    text = one_line("\n".join(line for line in prose(page).splitlines() if not line.startswith("| ")))
    for version in metrics:
        for template in FIGURES[page]:
            text = text.replace(template.format(**version), "")
    for phrase in NOT_METRICS[page]:
        text = text.replace(phrase, "")
    text = text.replace(EXPLANATION, "")  # the legend of the result table
    assert re.findall(r"[^.]*\d %[^.]*", text) == []


def strata_only(score: dict[str, Any]) -> dict[str, Any]:
    """Return metrics/score.json without the EERs inside the values of a column."""
    splits = {split: {k: v for k, v in score[split].items() if k != "within"} for split in ("dev", "test")}
    return score | splits


def test_result_table_in_readme_agrees_with_metrics(metrics: list[dict[str, Any]]) -> None:
    text = one_line(read("README.md"))
    tables = [results_markdown(strata_only(version["score"])) for version in metrics]
    assert any(one_line(table) in text for table in tables), f"put this table into README.md:\n{tables[0]}"


def test_whole_result_table_in_docs_agrees_with_metrics(metrics: list[dict[str, Any]]) -> None:
    text = one_line(read("docs/results.md"))
    tables = [results_markdown(version["score"]) for version in metrics]
    assert any(one_line(table) in text for table in tables), (
        f"put this table into docs/results.md:\n{tables[0]}"
    )


def test_sizes_of_the_built_in_corpus_in_docs_agree_with_metrics(metrics: list[dict[str, Any]]) -> None:
    text = read("docs/local-corpus.md")
    missing = []
    for version in metrics:
        dev, test = version["score"]["dev"], version["score"]["test"]
        rows = [f" | {dev['utterances']:,} | {test['utterances']:,} |"]
        for stratum in dev["strata"]:
            label = stratum.replace("_system_", " system, ").replace("_language", " language")
            sizes = [split["strata"][stratum]["utterances"] for split in (dev, test)]
            rows.append(f"| {label} | | {sizes[0]} | {sizes[1]} |")
        missing.append([row for row in rows if row not in text])
    assert [] in missing


# Size, links, paths


def test_readme_has_at_most_1300_words() -> None:
    assert len(read("README.md").split()) <= MAX_README_WORDS


def anchors(text: str) -> set[str]:
    """Return the anchors that GitHub makes for the headings of a page."""
    headings = re.findall(r"^#+ (.*)$", text, flags=re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


@pytest.mark.parametrize("page", PAGES)
def test_links_in_docs_lead_to_existing_files_and_headings(page: str) -> None:
    text, folder = prose(page), (REPOSITORY / page).parent
    broken = []
    for link in re.findall(r"\]\(([^)\s]+)\)", text) + re.findall(r'src="([^"]+)"', text):
        if link.startswith(("http://", "https://")):
            continue
        path, _, anchor = link.partition("#")
        file = folder / path if path else REPOSITORY / page
        if not file.exists() or (anchor and anchor not in anchors(file.read_text(encoding="utf-8"))):
            broken.append(link)
    assert broken == []


@pytest.mark.parametrize("page", PAGES)
def test_docs_mention_only_existing_docs_pages_and_source_files(page: str) -> None:
    if page == "CHANGELOG.md":
        pytest.skip("history names files that are gone")
    text = read(page)
    paths = set(re.findall(r"(?<![\w/.-])((?:docs|src|stages|tests|grids|benchmarks)/[\w./-]+\.\w+)", text))
    generated = {"docs/grid.md", "docs/images/grid.png"}
    missing = {path for path in paths - generated if "NAME" not in path and not (REPOSITORY / path).exists()}
    assert missing == set()


def test_contributing_names_existing_folders_and_registries() -> None:
    package = REPOSITORY / "src/makermark"
    for row in read(".github/CONTRIBUTING.md").splitlines():
        for path in re.findall(r"`((?:src/makermark/)?[a-z_]+/[a-zA-Z_/]*(?:\.py)?)`", row):
            if not path.startswith(("stages", "metrics", "benchmarks", "docs", "tests")):
                file = package / path.removeprefix("src/makermark/")
                assert (file.parent if file.name == "NAME.py" else file).exists(), path
        for name, file in re.findall(r"`([A-Z_]{5,})` in `([a-z_/]+\.py)`", row):
            assert re.search(rf"^{name}\b.*=", (package / file).read_text(), flags=re.MULTILINE), (name, file)


# Commands and code


def command_lines(page: str) -> Iterator[str]:
    """Yield the commands of a page: from code blocks, indented blocks and inline code."""
    text = read(page)
    blocks = re.findall(r"^```(?:bash|sh|console)\n(.*?)^```$", text, flags=re.DOTALL | re.MULTILINE)
    lines = [line for block in blocks for line in block.replace("\\\n", " ").splitlines()]
    lines += [line for line in text.splitlines() if line.startswith("    ")]
    lines += re.findall(r"(?<!`)`([^`\n]+)`(?!`)", text)
    for line in lines:
        command = line.strip().removeprefix("$ ").split("  #")[0].split(" # ")[0]
        yield from re.split(r"\s*(?:&&|\|\||\||;)\s*", command)


@pytest.mark.parametrize("page", PAGES)
def test_makermark_commands_in_docs_exist_with_their_options(page: str) -> None:
    wrong = []
    for line in command_lines(page):
        if not line.startswith("makermark ") or line.startswith("makermark --"):
            continue
        command: Any = typer.main.get_command(app)
        words = shlex.split(line.split(" > ")[0].replace("...", ""))[1:]
        while words and hasattr(command, "commands"):
            name = words.pop(0)
            if name not in command.commands:
                wrong.append(line)
                break
            command = command.commands[name]
        options = {
            option for parameter in command.params for option in (*parameter.opts, *parameter.secondary_opts)
        }
        wrong += [
            line for word in words if word.startswith("--") and word.split("=")[0] not in {*options, "--help"}
        ]
    assert wrong == []


@pytest.mark.parametrize("page", PAGES)
def test_settings_in_docs_exist_in_params_yaml(page: str) -> None:
    params = yaml.safe_load(read("params.yaml"))
    missing = []
    for key in re.findall(r"-S '?([\w.-]+)=", read(page)):
        if key == "KEY":
            continue
        section: Any = params
        for part in key.split("."):
            section = section.get(part, None) if isinstance(section, dict) else None
        if section is None:
            missing.append(key)
    assert missing == []


@pytest.mark.parametrize("page", PAGES)
def test_python_in_docs_compiles_and_imports(page: str) -> None:
    for block in re.findall(r"^```python\n(.*?)^```$", read(page), flags=re.DOTALL | re.MULTILINE):
        for node in ast.walk(ast.parse(block)):
            if isinstance(node, ast.ImportFrom) and node.module:
                module = importlib.import_module(node.module)
                assert all(hasattr(module, alias.name) for alias in node.names), ast.unparse(node)
    for module in re.findall(r"python -m (makermark[\w.]*)", read(page)):
        assert importlib.util.find_spec(module) is not None, module


EXAMPLE = re.compile(r"^\S+\.wav  \([\d.]+ s, [\d.]+ s of speech\)\n(?:  .*\n)+", flags=re.MULTILINE)


def parse_trace(example: str) -> Trace:
    """Return the Trace that an example of the output of `makermark trace` shows."""
    example = re.sub(r"(  different systems in different windows: .*)\n    ", r"\1 ", example)
    wrapped = re.search(r"  reason: (?:.|\n    (?!\S+ +LR))*", example)[0]
    first, second, third, *lines = example.replace(wrapped, wrapped.replace("\n    ", " ")).splitlines()
    file, duration, speech = re.fullmatch(r"(\S+)  \((.*) s, (.*) s of speech\)", first).groups()
    conclusion, name = re.fullmatch(r"  ([^:]*)(?:: (\S+))?", second).groups()
    reason = third.removeprefix("  reason: ")
    candidates, windows, makers_along_time, agreement = [], [], [], None
    unknown, prior = None, 0.5
    for line in lines:
        if match := re.fullmatch(
            r"  ([* ]) (\S+) +LR +(over |under )?(\S+) to (\S+)(?: +posterior +(\S+) %)?", line
        ):
            mark, system, bound, one, other, posterior = match.groups()
            log10_lr = math.log10(float(one) / float(other))
            bounded = bound is not None
            candidates.append(
                Candidate(
                    system,
                    "",
                    0.0,
                    log10_lr,
                    bounded,
                    float(posterior) / 100 if posterior else None,
                    mark == "*",
                )
            )
        elif match := re.fullmatch(r"    \(none of the gallery\) +posterior +(\S+) %", line):
            unknown = float(match[1]) / 100
        elif match := re.fullmatch(r"  prior: (\S+) % that the system is in the gallery", line):
            prior = float(match[1]) / 100
        elif match := re.fullmatch(r"  windows: (\d+) % .*", line):
            agreement = int(match[1]) / 100
        elif match := re.fullmatch(r" +(\S+) - +(\S+) s  ([^:,]*)(?:: ([^,]*))?(?:, nearest (\S+))?", line):
            start, end, at_window, window_name, nearest = match.groups()
            best = nearest or window_name
            windows.append(Window(float(start), float(end), at_window, window_name or "", best, 0.0))
        elif match := re.fullmatch(
            r"  different systems in different windows: (.*); the file may be .*", line
        ):
            makers_along_time = match[1].split(", ")
        else:
            pytest.fail(f"this line is not of the output of `makermark trace`: {line}")
    return Trace(
        file, float(duration), float(speech), conclusion, name or "", reason, unknown, prior, 0.95, candidates,
        agreement, makers_along_time, windows,
    )  # fmt: skip


@pytest.mark.parametrize("page", ["README.md", "docs/reading-the-conclusion.md"])
def test_trace_examples_in_docs_have_the_format_of_the_command(page: str) -> None:
    examples = EXAMPLE.findall(read(page))
    assert examples
    for example in examples:
        assert "\n".join(describe_trace(parse_trace(example))) == example.rstrip("\n")


@pytest.mark.parametrize("page", ["README.md", "docs/reading-the-conclusion.md"])
def test_trace_examples_in_docs_give_reasons_in_the_words_of_the_command(page: str) -> None:
    words = (REPOSITORY / "src/makermark/tracing/decision.py").read_text(encoding="utf-8")
    for example in EXAMPLE.findall(read(page)):
        reason = parse_trace(example).reason.split("; the only candidate")[0]
        assert reason in words
