"""One engine in a process of its own: requests come in as JSON lines, answers go out as JSON lines.

    python -m makermark.corpora.local.worker espeak-ng

A request is one thing to say and the files to make of it: {"text", "language", "voice", "seed", "audio": [{"path",
"resynthesis", "draw"}]}. The answer is {"failed": [[path, reason], ...]}, or
{"fatal": reason} when nothing can be written. Engines may print what they like:
the answers have a pipe of their own.
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

from makermark.corpora import finishing
from makermark.corpora.local.engines import ENGINES, Engine
from makermark.corpora.local.vocoders import VOCODERS, Vocoder
from makermark.errors import FilesError
from makermark.files import replacing


def main() -> None:
    answers = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)
    engine = ENGINES[sys.argv[1]].build()
    vocoders: dict[str, Vocoder] = {}
    _answer(answers, {"ready": sys.argv[1]})
    for line in sys.stdin:
        try:
            _answer(answers, {"failed": say(engine, vocoders, json.loads(line))})
        except (
            FilesError
        ) as error:  # such as a full disk: not the engine's fault, and the next would fail too
            _answer(answers, {"fatal": str(error)})
            return


def say(engine: Engine, vocoders: dict[str, Vocoder], request: Mapping[str, Any]) -> list[list[str]]:
    """Speak one request and write its files; the paths that came to nothing, each with the reason.

    `vocoders` keeps those already built. Any exception of an engine costs its utterance and nothing else.
    Raises FilesError where the operating system refuses to write.
    """
    try:
        spoken = engine.speak(
            request["text"], language=request["language"], voice=request["voice"], seed=request["seed"]
        )
    except Exception as error:
        return [[wanted["path"], _reason(error)] for wanted in request["audio"]]
    failed = []
    for wanted in request["audio"]:
        try:
            heard = spoken
            if name := wanted["resynthesis"]:
                if name not in vocoders:
                    vocoders[name] = VOCODERS[name].build()
                heard = vocoders[name](*spoken)
            samples = finishing.finish(*heard, rng=np.random.default_rng(wanted["draw"]))
            with replacing(Path(wanted["path"])) as draft:
                sf.write(draft, samples, finishing.RATE_HZ, format="FLAC", subtype="PCM_16")
        except FilesError:
            raise
        except Exception as error:
            failed.append([wanted["path"], _reason(error)])
    return failed


def _reason(error: Exception) -> str:
    return f"{type(error).__name__}: {error}".replace("\n", " ")


def _answer(answers: TextIO, content: Mapping[str, Any]) -> None:
    answers.write(json.dumps(content) + "\n")
    answers.flush()


if __name__ == "__main__":
    main()
