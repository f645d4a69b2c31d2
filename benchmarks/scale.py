"""The pipeline at the size of MLAADv5, on other speech: wall time, peak memory and throughput of each stage.

    python benchmarks/scale.py --protocol mlaad4sourcetracing.zip --work FOLDER --docs docs/scale.md
    python benchmarks/scale.py --protocol ... --work FOLDER --share 0.02         # 2 % of each system's rows
    python benchmarks/scale.py --protocol ... --work FOLDER --stages kill score  # keep the results of the others

Writes speech to every path of the protocol (scale_tree.py; 9 GB, reused from FOLDER/tree by the next run). Then
runs the commands of dvc.yaml in FOLDER/share-S with the params of `makermark preset mlaad-resnet`, each in its own
process. Audio and features are dropped from the page cache before a stage reads them. The embeddings are those of
the preset's network without training. With --embed-share only that share of the rows is embedded, and the score
stage reads Gaussian clouds instead. The kill test ends the features stage twice by SIGKILL, restarts it, and counts
the shards computed twice.

The results are in FOLDER/share-S/scale.json and scale.md; --docs writes scale.md to another file, too.
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
from scale_steps import REPOSITORY, STEPS, Run, run_isolated

PRESET = "mlaad-resnet"


def prepare(arguments: argparse.Namespace) -> Run:
    """Create the folder of the run with params.yaml and the protocol, or a share of it."""
    work = arguments.work.resolve()
    if work.is_relative_to(REPOSITORY):
        sys.exit(f"error: {work} is in the repository; give --work a folder outside, with 15 GB free")
    folder = work / f"share-{arguments.share:g}"
    (folder / "logs").mkdir(parents=True, exist_ok=True)
    protocol = arguments.protocol.resolve()
    if arguments.share < 1:
        protocol = folder / "protocol.zip"
        scale_tree.write_share(arguments.protocol, arguments.share, protocol)
    params = yaml.safe_load(run_isolated(scale_parts.preset_text, PRESET))
    params["mlaad"] |= {"root": str(work / "tree"), "protocol": str(protocol)}
    utterances = params["features"]["shard_utterances"]
    params["features"]["shard_utterances"] = max(
        1, round(utterances * arguments.share)
    )  # as many shards as at full size
    (folder / "params.yaml").write_text(yaml.safe_dump(params, sort_keys=False), encoding="utf-8")
    return Run(folder, work / "tree", arguments.audio, protocol, arguments.embed_share)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--protocol", type=Path, required=True, help="mlaad4sourcetracing.zip")
    parser.add_argument("--work", type=Path, required=True, help="folder outside the repository")
    parser.add_argument(
        "--audio",
        type=Path,
        default=REPOSITORY / "data/corpus",
        help="folder of the speech to cut files from",
    )
    parser.add_argument("--share", type=float, default=1.0, help="share of the protocol's rows")
    parser.add_argument(
        "--embed-share", type=float, default=1.0, help="share of these rows in the embed stage"
    )
    parser.add_argument("--stages", nargs="+", choices=list(STEPS), default=list(STEPS))
    parser.add_argument("--docs", type=Path, help="additional Markdown file to write")
    arguments = parser.parse_args()
    if not (0 < arguments.share <= 1 and 0 < arguments.embed_share <= 1):
        parser.error("shares must be above 0 and at most 1")
    run = prepare(arguments)
    results = run.folder / "scale.json"
    measured = json.loads(results.read_text(encoding="utf-8")) if results.exists() else {"steps": {}}
    for name in arguments.stages:
        print(f"{name} ...", end=" ", file=sys.stderr, flush=True)
        figures = {"machine": machine(REPOSITORY)} | STEPS[name](run)
        print(f"{figures['wall_s']:.1f} s: {figures['work']}", file=sys.stderr)
        measured = {"share": arguments.share, "steps": measured["steps"] | {name: figures}}
        results.write_text(json.dumps(measured, indent=2) + "\n", encoding="utf-8")
    titles = {name: (step.__doc__ or "").rstrip(".") for name, step in STEPS.items()}
    text = page(measured, titles)
    for file in filter(None, (run.folder / "scale.md", arguments.docs)):
        file.write_text(text, encoding="utf-8")
    print(text)


if __name__ == "__main__":
    main()
