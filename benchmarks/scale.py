"""The pipeline at the size of MLAADv5, without MLAAD: wall time, peak memory and throughput of each stage.

    python benchmarks/scale.py --protocol mlaad4sourcetracing.zip --work FOLDER --docs docs/scale.md
    python benchmarks/scale.py --protocol ... --work FOLDER --share 0.02         # 2 % of each system's rows
    python benchmarks/scale.py --protocol ... --work FOLDER --stages kill score  # the others as measured before

Writes speech at every path of the protocol (scale_tree.py; 9 GB, kept in FOLDER/tree for the next run), then runs the
commands of dvc.yaml in FOLDER/share-S with the params of `makermark preset mlaad-resnet`, each in a process of its own.
Audio and features are dropped from the page cache before a stage reads them. Embeddings are those of the preset's
network, untrained; with --embed-share only that share of the rows is embedded, and what is scored are then Gaussian
clouds. The kill test ends the features stage twice by SIGKILL, starts it again, and counts what is made twice.

What was measured stands in FOLDER/share-S/scale.json and scale.md; --docs writes the latter there, too.
"""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path

import scale_parts
import scale_tree
import yaml
from scale_page import machine, page
from scale_steps import REPOSITORY, STEPS, Run, alone

PRESET = "mlaad-resnet"


def prepare(given: argparse.Namespace) -> Run:
    """The folder of the run: params.yaml, and the protocol or a share of it."""
    work = given.work.resolve()
    if work.is_relative_to(REPOSITORY):
        sys.exit(f"error: {work} lies in the repository; give --work a folder elsewhere, with 15 GB free")
    folder = work / f"share-{given.share:g}"
    (folder / "logs").mkdir(parents=True, exist_ok=True)
    protocol = given.protocol.resolve()
    if given.share < 1:
        protocol = folder / "protocol.zip"
        scale_tree.write_share(given.protocol, given.share, protocol)
    params = yaml.safe_load(alone(scale_parts.preset_text, PRESET))
    params["mlaad"] |= {"root": str(work / "tree"), "protocol": str(protocol)}
    utterances = params["features"]["shard_utterances"]
    params["features"]["shard_utterances"] = max(
        1, round(utterances * given.share)
    )  # as many shards as of all
    (folder / "params.yaml").write_text(yaml.safe_dump(params, sort_keys=False), encoding="utf-8")
    return Run(folder, work / "tree", given.audio, protocol, given.embed_share)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--protocol", type=Path, required=True, help="mlaad4sourcetracing.zip")
    parser.add_argument("--work", type=Path, required=True, help="folder outside the repository")
    parser.add_argument(
        "--audio", type=Path, default=REPOSITORY / "data/corpus", help="speech to cut files from"
    )
    parser.add_argument("--share", type=float, default=1.0, help="of the protocol's rows")
    parser.add_argument("--embed-share", type=float, default=1.0, help="of these rows, for the embed stage")
    parser.add_argument("--stages", nargs="+", choices=list(STEPS), default=list(STEPS))
    parser.add_argument("--docs", type=Path, help="Markdown file to write, too")
    given = parser.parse_args()
    if not (0 < given.share <= 1 and 0 < given.embed_share <= 1):
        parser.error("shares lie above 0 and not above 1")
    run = prepare(given)
    results = run.folder / "scale.json"
    told = json.loads(results.read_text(encoding="utf-8")) if results.exists() else {"steps": {}}
    for name in given.stages:
        print(f"{name} ...", end=" ", file=sys.stderr, flush=True)
        found = {"machine": machine(REPOSITORY)} | STEPS[name](run)
        print(f"{found['wall_s']:.1f} s: {found['work']}", file=sys.stderr)
        told = {"share": given.share, "steps": told["steps"] | {name: found}}
        results.write_text(json.dumps(told, indent=2) + "\n", encoding="utf-8")
    says = {name: (step.__doc__ or "").rstrip(".") for name, step in STEPS.items()}
    text = page(told, says)
    for file in filter(None, (run.folder / "scale.md", given.docs)):
        file.write_text(text, encoding="utf-8")
    print(text)


if __name__ == "__main__":
    main()
