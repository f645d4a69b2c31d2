"""Encoders of all families against transformers: padding, layers, normalisation, errors, conversion of Whisper."""

import json
import struct
import subprocess
import sys

import numpy as np
import pytest
import safetensors.torch
import torch
import transformers
from typer.testing import CliRunner

from encoders_support import model_of, save_model
from makermark.cli.main import app
from makermark.features import encoders
from makermark.features.encoders.base import prepare_waveforms
from makermark.foundation.errors import EncoderError, ParamsError
from makermark.models.weight_conversion import whisper_ctranslate2

NAMES = ("layer", "group", "hubert", "wavlm", "whisper")
BLOCKS = 3

every_family = pytest.mark.parametrize("name", NAMES)


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    folder = tmp_path_factory.mktemp("models")
    return {name: save_model(folder, name) for name in NAMES}


def waveforms(rows=4, samples=16000, seed=0):
    generator = torch.Generator().manual_seed(seed)
    level = torch.rand(rows, 1, generator=generator) + 0.1
    return 0.1 * level * torch.randn(rows, samples, generator=generator) + 0.05


@every_family
@pytest.mark.parametrize("layer", ["last", "weighted", 0, 2])
def test_padded_utterance_gives_same_frames_as_alone(name, layer, folders):
    encoder = encoders.load(str(folders[name]), layer=layer).eval()
    lengths = torch.tensor([16000, 9000, 400, 9001])
    padded = waveforms()
    for row, length in enumerate(lengths):
        padded[row, length:] = 1000.0  # arbitrary padding
    with torch.no_grad():
        together, frames = encoder(padded, lengths)
        assert len(together) == encoder.num_states == (BLOCKS + 1 if layer == "weighted" else 1)
        for row, length in enumerate(lengths):
            alone, none = encoder(padded[row : row + 1, :length])
            assert none is None
            for one, many in zip(alone, together, strict=True):
                assert one.shape == (1, frames[row], encoder.width)
                torch.testing.assert_close(many[row, : frames[row]], one[0], rtol=0, atol=1e-4)


@pytest.mark.parametrize("name", ["layer", "group", "hubert", "wavlm"])
def test_layers_equal_those_of_transformers(name, folders):
    samples = waveforms(2)
    with torch.no_grad():
        normal = prepare_waveforms(samples, None, normalise=True)
        expected = model_of(name).eval()(normal, output_hidden_states=True)
        for layer in range(BLOCKS):
            (state,), _ = encoders.load(str(folders[name]), layer=layer).eval()(samples)
            torch.testing.assert_close(state, expected.hidden_states[layer], rtol=0, atol=1e-5)
        everything, _ = encoders.load(str(folders[name]), layer="weighted").eval()(samples)
    for state, other in zip(everything[:-1], expected.hidden_states[:-1], strict=True):
        torch.testing.assert_close(state, other, rtol=0, atol=1e-5)
    for layer in ("last", BLOCKS):
        (state,), _ = encoders.load(str(folders[name]), layer=layer).eval()(samples)
        torch.testing.assert_close(state, expected.last_hidden_state, rtol=0, atol=1e-5)
        torch.testing.assert_close(state, everything[-1], rtol=0, atol=1e-6)


def test_whisper_log_mels_equal_those_of_its_preprocessor(folders):
    samples = waveforms(1, samples=27000)
    features = transformers.WhisperFeatureExtractor(chunk_length=2)(
        samples[0].numpy(), sampling_rate=16000, return_tensors="pt"
    ).input_features
    encoder = encoders.load(str(folders["whisper"]), layer="last").eval()
    with torch.no_grad():
        expected = model_of("whisper").eval().encoder(features).last_hidden_state
        (state,), _ = encoder(samples)
    assert state.shape == (1, 85, 32)  # 27,000 / 320 = 84.4
    torch.testing.assert_close(state, expected[:, :85], rtol=0, atol=1e-4)


def test_whisper_splits_long_utterances_into_windows(folders):
    encoder = encoders.load(str(folders["whisper"]), layer="last").eval()
    samples = waveforms(1, samples=70000)  # windows are 32,000
    with torch.no_grad():
        (whole,), _ = encoder(samples)
        pieces = [encoder(piece)[0][0] for piece in samples.split(32000, dim=1)]
    torch.testing.assert_close(whole, torch.cat(pieces, dim=1), rtol=0, atol=1e-5)


def test_prepare_waveforms_equals_preprocessor_without_padding():
    samples, lengths = waveforms(3), torch.tensor([16000, 7000, 400])
    ours = prepare_waveforms(samples, lengths, normalise=True)
    preprocessor = transformers.Wav2Vec2FeatureExtractor(do_normalize=True)
    for row, length in enumerate(lengths):
        (expected,) = preprocessor(samples[row, :length].numpy(), sampling_rate=16000).input_values
        np.testing.assert_allclose(ours[row, :length].numpy(), expected, atol=1e-4)
        assert not ours[row, length:].any()


def test_constant_waveform_gives_finite_states(folders):
    encoder = encoders.load(str(folders["layer"]), layer="last").eval()
    with torch.no_grad():
        (state,), _ = encoder(torch.full((1, 4000), 0.3))
    assert state.isfinite().all()


@pytest.mark.parametrize("do_normalize", [True, False])
def test_normalisation_follows_preprocessor_config(do_normalize, tmp_path):
    folder = save_model(tmp_path, "layer", do_normalize=do_normalize)
    encoder = encoders.load(str(folder), layer="last").eval()
    assert encoder.architecture.normalise is do_normalize
    with torch.no_grad():
        (quiet,), (loud,) = (encoder(samples)[0] for samples in (waveforms(), 7 * waveforms()))
    assert torch.allclose(quiet, loud, atol=1e-3) is do_normalize


@every_family
def test_encoder_is_rebuilt_from_json_and_weights(name, folders):
    encoder = encoders.load(str(folders[name]), layer="weighted").eval()
    architecture = json.loads(json.dumps(vars(encoder.architecture)))
    other = encoders.build(encoders.Architecture(**architecture)).eval()
    assert encoders.weights_sha256(other) != encoders.weights_sha256(encoder)
    other.load_state_dict(encoder.state_dict())
    assert encoders.weights_sha256(other) == encoders.weights_sha256(encoder)
    with torch.no_grad():
        assert torch.equal(other(waveforms())[0][1], encoder(waveforms())[0][1])


@every_family
def test_encoder_builds_on_meta_device(name, folders):
    with torch.device("meta"):
        encoder = encoders.build(encoders.describe(str(folders[name]), layer="last"))
    assert all(parameter.is_meta for parameter in encoder.parameters())


@every_family
def test_gradient_checkpointing_gives_same_gradients(name, folders):
    values = []
    for checkpointing in (False, True):
        torch.manual_seed(0)
        encoder = encoders.load(str(folders[name]), layer="weighted")
        if checkpointing:
            encoder.enable_gradient_checkpointing()
        torch.manual_seed(1)  # of dropout
        states, _ = encoder(waveforms(2))
        sum(state.square().mean() * (k + 1) for k, state in enumerate(states)).backward()
        values.append({n: p.grad for n, p in encoder.named_parameters() if p.requires_grad})
    assert all(grad is not None for grad in values[0].values())
    for weight, grad in values[0].items():
        torch.testing.assert_close(values[1][weight], grad, msg=weight)


def test_layer_drop_and_span_masks_are_disabled(tmp_path):
    """Without dropout, training mode and evaluation mode are equal."""
    config = model_of("layer").config
    for key in ("hidden_dropout", "attention_dropout", "activation_dropout", "feat_proj_dropout"):
        setattr(config, key, 0.0)
    config.layerdrop = config.mask_time_prob = 0.9
    transformers.Wav2Vec2Model(config).save_pretrained(tmp_path)
    encoder = encoders.load(str(tmp_path), layer="last")
    with torch.no_grad():
        torch.testing.assert_close(encoder(waveforms())[0][0], encoder.eval()(waveforms())[0][0])


@pytest.mark.parametrize("layer", [4, 99, "first"])
def test_describe_raises_for_unknown_layer(layer, folders):
    with pytest.raises(ParamsError, match=r"has the layers 0 to 3, last and weighted"):
        encoders.describe(str(folders["layer"]), layer=layer)


def test_load_raises_with_remedy_for_missing_model(monkeypatch):
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    with pytest.raises(EncoderError) as failure:
        encoders.load("facebook/nowhere-to-be-values", layer="last")
    message = str(failure.value)
    assert "\n" not in message
    assert "ssl.model 'facebook/nowhere-to-be-values' cannot be loaded" in message
    assert "a folder of that name, then the Hugging Face hub" in message
    assert "-S ssl.model=FOLDER" in message


def test_load_raises_for_empty_folder_damaged_file_and_other_family(tmp_path):
    with pytest.raises(EncoderError, match="tried that folder"):
        encoders.load(str(tmp_path), layer="last")
    folder = save_model(tmp_path, "layer")
    whole = (folder / "model.safetensors").read_bytes()
    (folder / "model.safetensors").write_bytes(whole[:-100])
    with pytest.raises(EncoderError, match="tried that folder") as failure:
        encoders.load(str(folder), layer="last")
    assert "\n" not in str(failure.value)
    weights = safetensors.torch.load(whole)
    weights.pop("encoder.layers.1.feed_forward.output_dense.weight")
    safetensors.torch.save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(
        EncoderError, match=r"lacks 1 of the encoder's weights, first encoder\.layers\.1\.feed"
    ):
        encoders.load(str(folder), layer="last")
    (folder / "config.json").write_text('{"model_type": "bert"}')
    with pytest.raises(EncoderError, match=r"is a bert model; it must be one of \['hubert'"):
        encoders.load(str(folder), layer="last")


def test_load_does_not_unpickle(tmp_path):
    """A pytorch_model.bin that would run code when unpickled is refused, and its code does not run."""

    class Trap:
        def __reduce__(self):
            return (open, (str(tmp_path / "sprung"), "w"))

    folder = save_model(tmp_path, "layer")
    (folder / "model.safetensors").unlink()
    torch.save({"trap": Trap()}, folder / "pytorch_model.bin")
    with pytest.raises(EncoderError, match="cannot be loaded"):
        encoders.load(str(folder), layer="last")
    assert not (tmp_path / "sprung").exists()


def test_other_backbones_build_without_transformers():
    script = (
        "import sys; sys.modules['transformers'] = None\n"
        "from makermark import features\n"
        "from makermark.features import encoders\n"
        "from makermark.models import backbones\n"
        "from makermark.training import run\n"
        "backbones.build('resnet34', dim=4, width=40, front_end='fbank', "
        "normalise='mean-variance', pooling='sap', stem_order='norm-relu')\n"
        "try: encoders.load('x', layer='last')\n"
        "except encoders.loading.EncoderError as error: print(error)\n"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert done.stdout.startswith("pretrained encoders need transformers")
    assert "pip install -e '.[ssl]'" in done.stdout


def model_bin(variables, *, version=6, specification="WhisperSpec"):
    """Return the bytes of a file in CTranslate2's layout."""

    def text(value):
        return struct.pack("<H", len(value) + 1) + value.encode() + b"\0"

    kinds = {"float32": 0, "int8": 1, "int16": 2, "float16": 4}
    parts = [struct.pack("<I", version), text(specification), struct.pack("<II", 3, len(variables))]
    for name, values in variables.items():
        values = np.asarray(values)
        parts += [text(name), struct.pack(f"<B{values.ndim}I", values.ndim, *values.shape)]
        parts += [struct.pack("<BI", kinds[values.dtype.name], values.nbytes), values.tobytes()]
    return b"".join([*parts, struct.pack("<I", 0)])


def variables_of(model):
    """Return the encoder of a WhisperModel under CTranslate2's names."""
    state = {n: t.numpy() for n, t in model.encoder.state_dict().items()}
    values = {"encoder/num_heads": np.int16(model.config.encoder_attention_heads)}
    for ours, theirs in whisper_ctranslate2.ENCODER_NAMES.items():
        values[f"encoder/{ours}"] = state[theirs]
    for block in range(model.config.encoder_layers):
        prefix = f"encoder/layer_{block}/"
        for ours, theirs in whisper_ctranslate2.BLOCK_NAMES.items():
            values[prefix + ours] = state[f"layers.{block}.{theirs}"]
        attention = f"layers.{block}.self_attn."
        values[f"{prefix}self_attention/linear_0/weight"] = np.concatenate(
            [state[f"{attention}{part}_proj.weight"] for part in "qkv"]
        )
        bias = state[f"{attention}q_proj.bias"]
        values[f"{prefix}self_attention/linear_0/bias"] = np.concatenate(
            [bias, np.zeros_like(bias), state[f"{attention}v_proj.bias"]]
        )
    return values


def test_converted_whisper_gives_same_frames(folders, tmp_path):
    (tmp_path / "model.bin").write_bytes(model_bin(variables_of(model_of("whisper"))))
    whisper_ctranslate2.convert(tmp_path, tmp_path / "out")
    for layer in ("last", 1):
        ours = encoders.load(str(tmp_path / "out"), layer=layer).eval()
        theirs = encoders.load(str(folders["whisper"]), layer=layer).eval()
        assert ours.architecture.width == theirs.architecture.width
        with torch.no_grad():
            torch.testing.assert_close(ours(waveforms())[0][0], theirs(waveforms())[0][0])


def test_convert_command_prints_setting(tmp_path):
    (tmp_path / "model.bin").write_bytes(model_bin(variables_of(model_of("whisper"))))
    done = CliRunner().invoke(app, ["convert", "whisper", str(tmp_path), str(tmp_path / "out")])
    assert done.exit_code == 0
    assert f"-S ssl.model={tmp_path / 'out'}" in done.output
    assert encoders.describe(str(tmp_path / "out"), layer="last").width == 32


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda content: content[:2000], "damaged"),
        (lambda content: b"\x07" + content[1:], "version 7"),
        (lambda content: content.replace(b"WhisperSpec", b"AnotherSpec"), "AnotherSpec, not a Whisper"),
        (lambda content: content.replace(b"encoder/num_heads", b"encoder/num_leads"), "num_heads"),
    ],
)
def test_convert_raises_for_other_or_damaged_file(change, message, tmp_path):
    (tmp_path / "model.bin").write_bytes(change(model_bin(variables_of(model_of("whisper")))))
    with pytest.raises(EncoderError, match=message):
        whisper_ctranslate2.convert(tmp_path, tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_convert_raises_for_quantised_weights_and_missing_file(tmp_path):
    with pytest.raises(EncoderError, match=r"model\.bin"):
        whisper_ctranslate2.convert(tmp_path, tmp_path / "out")
    variables = variables_of(model_of("whisper"))
    variables["encoder/layer_0/ffn/linear_0/weight"] = np.ones((64, 32), np.int8)
    (tmp_path / "model.bin").write_bytes(model_bin(variables))
    with pytest.raises(EncoderError, match="quantised"):
        whisper_ctranslate2.convert(tmp_path, tmp_path / "out")
