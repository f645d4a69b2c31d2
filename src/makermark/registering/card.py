"""The model card: what the tracer was made from, how well it does and where, what it cannot say, under which terms."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from makermark.reporting import results_markdown
from makermark.tracing import Gallery

Figures = Mapping[str, Any]

CLEAR = "What that means for weights trained on it is for you to clear."
LICENCES = {
    "local": (
        "Code: Apache-2.0. The training speech was made by synthesis engines with licences of their own, some GPL, "
        f"some with voices for non-commercial use: docs/local-corpus.md lists them. {CLEAR}"
    ),
    "mlaad-v5": f"Code: Apache-2.0. The training speech is MLAAD version 5, CC BY-NC 4.0. {CLEAR}",
}
OTHER_LICENCE = f"Code: Apache-2.0. The training speech has the licence of its corpus. {CLEAR}"
LIMITS = """\
- It compares makers and takes for granted that a clip is synthetic: it does not tell human speech from synthetic.
- It says nothing of who used a system or who is heard, and of a system outside the gallery only that it is not inside.
- `unknown system` is the answer to many clips of known systems, too; see the tables.
- The figures are of clean files of one corpus: other versions of an engine, channels, codecs or noise are not in them.
- Likelihood ratios hold for systems and clips like those of dev; for a system enrolled from few clips they are worse.
- It is an investigative aid. Nothing should rest on its answer alone."""
COLUMNS = {
    "identification": "identification_percent",
    "named right": "seen_correct_percent",
    "family right": "seen_family_percent",
    "wrong": "seen_wrong_percent",
    "unknown": "seen_unknown_percent",
    "unseen: wrong": "unseen_wrong_percent",
    "unseen: unknown": "unseen_unknown_percent",
    "AUROC": "auroc_percent",
    "FPR95": "fpr95_percent",
    "coverage": "coverage_percent",
}


def card(name: str, *, description: Figures, score: Figures, trace: Figures, gallery: Gallery) -> str:
    """Markdown, from what best.json, score.json and trace.json hold and the systems of the gallery."""
    params = description["params"]
    return (
        "\n\n".join(
            [
                f"# {name}: which TTS system made this voice?",
                _what(description, gallery),
                "## Training data",
                _data(description, gallery),
                "## Scores by stratum",
                results_markdown(score).strip(),
                "## As a tracer, on test, by length of the clip",
                _by_length(trace),
                _enrolment(trace),
                "## Limits",
                LIMITS,
                "## Licence",
                LICENCES.get(params["corpus"], OTHER_LICENCE),
                "## Asking it",
                _asking(name),
            ]
        )
        + "\n"
    )


def _what(description: Figures, gallery: Gallery) -> str:
    return (
        f"A {description['backbone']} trained with loss {description['loss']} ({description['dim']} dimensions), a "
        f"gallery of {len(gallery.systems)} systems, and what dev taught of turning likeness into likelihood ratios."
    )


def _data(description: Figures, gallery: Gallery) -> str:
    table = gallery.table
    languages = ", ".join(name or "(not known)" for name in description["languages"] or ["not written down"])
    systems = "\n".join(
        f"| {system} | {family or '-'} | {origin} | {clips} |"
        for system, family, origin, clips in table[["family", "origin", "clips"]].itertuples(name=None)
    )
    return (
        f"Corpus `{description['params']['corpus']}`, {int(table['clips'].sum())} utterances, languages: {languages}. "
        f"Commit {description['git_commit']}, features {description['feature_fingerprint'][:12] or '-'}, weights "
        f"{gallery.model_sha256}, epoch {description['epoch']} by dev EER {description['dev_eer_percent']:.2f} %.\n\n"
        f"| system | family | known from | clips |\n| --- | --- | --- | ---: |\n{systems}"
    )


def _by_length(trace: Figures) -> str:
    header = ["clip", "seen/unseen clips", *(f"{title}, %" for title in COLUMNS), "Cllr (min)"]
    lines = [header, ["---"] + ["---:"] * (len(header) - 1)]
    for length, told in trace["test"].items():
        costs = ["-" if told[key] is None else f"{told[key]:.2f}" for key in ("cllr", "min_cllr")]
        lines.append(
            [
                length,
                f"{told['seen_clips']}/{told['unseen_clips']}",
                *(_with_interval(told, key) for key in COLUMNS.values()),
                f"{costs[0]} ({costs[1]})",
            ]
        )
    rows = "\n".join("| " + " | ".join(line) + " |" for line in lines)
    return (
        f"{rows}\n\n[95 % intervals, over systems.] Seen: systems of the gallery. identification: the likeliest system "
        "is the maker; named, family, wrong, unknown: the verdicts (the rest had too little speech); AUROC, FPR95: "
        "seen against unseen; coverage: the maker is among the candidates; Cllr: cost of the likelihood ratios in "
        "bits, 1 for saying nothing, least possible in brackets."
    )


def _with_interval(told: Figures, key: str) -> str:
    if told[key] is None:
        return "-"
    interval = told[f"{key}_ci95"]
    ends = "" if interval is None else f" [{interval[0]:.1f}, {interval[1]:.1f}]"
    return f"{told[key]:.1f}{ends}"


def _enrolment(trace: Figures) -> str:
    told = trace["enrolment"]
    if not told["systems"]:
        return "Enrolling further systems was not measured: test has none that the gallery lacks."
    return (
        f"Enrolling each of {told['systems']} unseen systems from {told['clips']} clips: of its other clips "
        f"{_with_interval(told, 'identification_percent')} % have it as the likeliest and "
        f"{_with_interval(told, 'named_percent')} % are named; the other systems lose "
        f"{told['others_identification_loss_percent']:.2f} points of identification."
    )


def _asking(name: str) -> str:
    return f"""\
```bash
makermark trace --model models:/{name}@champion clip.wav      # or any other alias, or models:/{name}/1
mlflow models serve -m models:/{name}@champion --env-manager local --port 5001
```

A request to `/invocations` has a row for each clip: `audio`, a file's bytes in Base64, or `samples` with `rate_hz`. The
prior that the maker is in the gallery may stand beside them:

```json
{{"dataframe_records": [{{"name": "clip.wav", "audio": "UklGR..."}}], "params": {{"prior_known": 0.5}}}}
```"""
