"""Embed every utterance, with the trained model and with the baselines."""

from pathlib import Path

from makermark.foundation import entrypoint


def main(
    manifest: Path, features: Path, model: Path, folder: Path, params: Path = Path("params.yaml")
) -> None:
    """Write model.arrow, and a file for each of embed.baselines, into FOLDER; MODEL is a path without suffix."""
    from makermark.foundation.manifest import read_manifest
    from makermark.foundation.params import read_params
    from makermark.models.embed_corpus import embed_corpus

    embed_corpus(read_params(params), read_manifest(manifest), features, model=model, folder=folder)


if __name__ == "__main__":
    entrypoint.run_stage(main)
