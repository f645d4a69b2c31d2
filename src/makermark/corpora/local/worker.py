"""One TTS engine in a process of its own: it reads requests and writes responses, both as JSON lines.

    python -m makermark.corpora.local.worker espeak-ng

A request is one prompt and the files to make from it: {"text", "language", "voice", "seed", "audio": [{"path",
"resynthesis", "normalisation_seed"}]}. The response is {"failed": [[path, reason], ...]}, or {"fatal": reason} if no
file can be written. Engines may print to stdout: it is redirected to stderr, and the responses use a pipe of their own.
"""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any, TextIO

import numpy as np
import soundfile as sf

from makermark.corpora import normalise_audio
from makermark.corpora.local.engines import ENGINES, Engine
from makermark.corpora.local.vocoders import VOCODERS, Vocoder
from makermark.foundation.errors import FilesError
from makermark.foundation.files import atomic_write


def main() -> None:
    responses = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)
    engine = ENGINES[sys.argv[1]].build()
    vocoders: dict[str, Vocoder] = {}
    _respond(responses, {"ready": sys.argv[1]})
    for line in sys.stdin:
        try:
            _respond(responses, {"failed": process_request(engine, vocoders, json.loads(line))})
        except FilesError as error:  # for instance a full disk: the next request would fail too
            _respond(responses, {"fatal": str(error)})
            return


def process_request(
    engine: Engine, vocoders: dict[str, Vocoder], request: Mapping[str, Any]
) -> list[list[str]]:
    """Synthesise one prompt and write its files; return the path and the reason of every failed file.

    `vocoders` caches the vocoders built so far. An exception of the engine or of a vocoder fails the files that depend
    on it, and no others. Raises FilesError if the operating system refuses to write.
    """
    try:
        speech = engine.synthesise(
            request["text"], language=request["language"], voice=request["voice"], seed=request["seed"]
        )
    except Exception as error:
        return [[output["path"], _describe(error)] for output in request["audio"]]
    failed = []
    for output in request["audio"]:
        try:
            audio = speech
            if name := output["resynthesis"]:
                if name not in vocoders:
                    vocoders[name] = VOCODERS[name].build()
                audio = vocoders[name](*speech)
            rng = np.random.default_rng(output["normalisation_seed"])
            samples = normalise_audio.normalise_utterance(*audio, rng=rng)
            with atomic_write(Path(output["path"])) as draft:
                sf.write(draft, samples, normalise_audio.SAMPLE_RATE_HZ, format="FLAC", subtype="PCM_16")
        except FilesError:
            raise
        except Exception as error:
            failed.append([output["path"], _describe(error)])
    return failed


def _describe(error: Exception) -> str:
    return f"{type(error).__name__}: {error}".replace("\n", " ")


def _respond(responses: TextIO, content: Mapping[str, Any]) -> None:
    responses.write(json.dumps(content) + "\n")
    responses.flush()


if __name__ == "__main__":
    main()
