"""Contract tests over all BACKBONES."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from encoders_support import model_of
from makermark.features import encoders
from makermark.features.encoders.loading import DISABLED_OPTIONS
from makermark.foundation.errors import ParamsError
from makermark.foundation.params import read_params
from makermark.models import backbones
from makermark.models.backbones import BACKBONES, Backbone

PRETRAINED = {"freeze": "none", "weighted": False, "learning_rate": 1e-5, "gradient_checkpointing": False}
SMALLER = {
    "aasist": {"sinc_filters": 12, "narrow_filters": 8, "wide_filters": 32}
}  # the full size takes minutes
SETTINGS = {
    name: {**settings, **SMALLER.get(name, {}), **(PRETRAINED if BACKBONES[name].uses_ssl_encoder else {})}
    for name, settings in read_params(Path(__file__).parents[3] / "params.yaml").backbones.items()
}
WIDTHS = {"fbank": 40, "linear-fbank": 80, "linear-fbank-changes": 136, "waveform": 1}
BANDS = {"linear-fbank-changes": 80}  # the other front ends have nothing else
FRAMES = {
    "fbank": 60,
    "linear-fbank": 60,
    "linear-fbank-changes": 60,
    "waveform": 16000,
}  # of the test utterances
SILENCE = {
    "fbank": -13.8,
    "linear-fbank": -13.8,
    "linear-fbank-changes": -13.8,
    "waveform": 0.0,
}  # log(1e-6), and no sound
DIM = 12

every_backbone = pytest.mark.parametrize("name", BACKBONES)


def backbone_of(name: str, *, seed: int = 0) -> Backbone:
    torch.manual_seed(seed)
    front_end = BACKBONES[name].front_end_name(**SETTINGS[name])
    encoder = small_encoder() if BACKBONES[name].uses_ssl_encoder else None
    net = backbones.build(
        name,
        dim=DIM,
        width=WIDTHS[front_end],
        bands=BANDS.get(front_end),
        encoder=encoder,
        **SETTINGS[name],
    )
    net.front_end = front_end  # of params.yaml, for `speech_like`
    return net


def small_encoder() -> encoders.Encoder:
    """Return a small wav2vec 2.0 encoder with weights from torch's global generator.

    SpecAugment, which draws from NumPy's global generator, is off as in every encoder that is loaded.
    """
    config = json.loads(model_of("layer", seed=None).config.to_json_string(use_diff=False))
    config |= DISABLED_OPTIONS
    return encoders.build(
        encoders.Architecture(config=config, width=32, normalise=True, weighted=False, final_norm=True)
    )


def speech_like(net: Backbone, utterances: int, *, frames: int | None = None, seed: int = 0) -> Tensor:
    """Return features (B, T, F) that differ in level and scale between utterances; waveforms differ in pitch."""
    generator = torch.Generator().manual_seed(seed)
    if net.front_end == "waveform":
        time = torch.arange(frames or FRAMES[net.front_end]) / 16000
        pitch_hz = 100 * 8 ** torch.rand(utterances, 1, generator=generator)  # 100 to 800
        tones = sum(torch.sin(2 * torch.pi * k * pitch_hz * time) / k for k in range(1, 6))
        noisy = 0.2 * tones + 0.02 * torch.randn(tones.shape, generator=generator)
        return noisy[..., None]
    shape = (utterances, frames or FRAMES[net.front_end], WIDTHS[net.front_end])
    levels = torch.randn(utterances, 1, shape[2], generator=generator)
    return 2 * torch.randn(shape, generator=generator) + 5 * levels - 8


def with_running_statistics(net: Backbone) -> Backbone:
    """Return the network in evaluation mode after some training-mode passes."""
    net.train()
    with torch.no_grad():
        for seed in range(3):
            net(speech_like(net, 4, seed=seed))
    return net.eval()


@every_backbone
def test_backbone_builds_from_params_yaml(name: str) -> None:
    net = backbone_of(name)
    assert net.front_end in WIDTHS
    assert net.min_frames >= 1
    assert net(speech_like(net, 3)).shape == (3, DIM)


@every_backbone
def test_padded_utterance_gives_same_embedding_as_alone(name: str) -> None:
    net = with_running_statistics(backbone_of(name))
    full = FRAMES[net.front_end]
    lengths = torch.tensor([full, full - 1, full // 2, full // 3 + 1, net.min_frames])
    features = speech_like(net, len(lengths))
    for row, length in enumerate(lengths):
        features[row, length:] = 1000.0  # arbitrary padding
    with torch.no_grad():
        together = net(features, lengths)
        for row, length in enumerate(lengths):
            alone = net(features[row : row + 1, :length])[0]
            torch.testing.assert_close(together[row], alone, rtol=1e-5, atol=1e-5)
            one = net(features[row : row + 1, :length], lengths[row : row + 1])[0]
            torch.testing.assert_close(one, alone, rtol=1e-5, atol=1e-5)


@every_backbone
def test_embeddings_do_not_depend_on_batch_in_evaluation_mode(name: str) -> None:
    net = with_running_statistics(backbone_of(name))
    features = speech_like(net, 4)
    order = torch.tensor([2, 0, 3, 1])
    with torch.no_grad():
        torch.testing.assert_close(net(features)[order], net(features[order]), rtol=1e-5, atol=1e-5)


@every_backbone
@pytest.mark.parametrize("precision", [torch.float32, torch.bfloat16])
def test_every_weight_gets_finite_gradient(name: str, precision: torch.dtype) -> None:
    net = backbone_of(name).train()
    with torch.autocast("cpu", torch.bfloat16, enabled=precision == torch.bfloat16):
        embeddings = net(speech_like(net, 4))
    target = torch.randn(embeddings.shape, generator=torch.Generator().manual_seed(2))
    (embeddings.float() * target).sum().backward()
    assert embeddings.dtype == torch.float32
    for weight, learned in net.named_parameters():
        assert learned.grad is not None, weight
        assert learned.grad.isfinite().all(), weight
    assert sum(learned.grad.abs().sum() > 0 for learned in net.parameters()) > 0.9 * len(
        list(net.parameters())
    )


@every_backbone
def test_bfloat16_embeddings_are_close_to_float32(name: str) -> None:
    net = with_running_statistics(backbone_of(name))
    features = speech_like(net, 6)
    with torch.no_grad():
        exact = net(features)
        with torch.autocast("cpu", torch.bfloat16):
            coarse = net(features)
    assert nn.functional.cosine_similarity(exact, coarse.float()).min() > 0.99


@every_backbone
def test_silence_gives_finite_embedding_and_gradients(name: str) -> None:
    net = backbone_of(name).train()
    features = speech_like(net, 3)
    features[1] = SILENCE[net.front_end]
    for batch in (features, torch.full_like(features, SILENCE[net.front_end])):
        net.zero_grad()
        embeddings = net(batch)
        embeddings.square().sum().backward()
        assert embeddings.isfinite().all()
        assert all(learned.grad.isfinite().all() for learned in net.parameters() if learned.grad is not None)


@every_backbone
def test_silence_in_batch_gives_finite_embeddings_with_and_without_padding(name: str) -> None:
    net = with_running_statistics(backbone_of(name))
    features = speech_like(net, 3)
    features[1] = SILENCE[net.front_end]
    full = FRAMES[net.front_end]
    with torch.no_grad():
        assert net(features).isfinite().all()
        assert net(features, torch.tensor([full, full // 2 + net.min_frames, full])).isfinite().all()


@every_backbone
def test_padding_past_longest_utterance_changes_nothing(name: str) -> None:
    net = with_running_statistics(backbone_of(name))
    full = FRAMES[net.front_end]
    features, lengths = speech_like(net, 2), torch.tensor([full - full // 10, full - full // 5])
    features[:, full - full // 10 :] = 1000.0
    with torch.no_grad():
        cut = net(features[:, : int(lengths.max())], lengths)
        torch.testing.assert_close(net(features, lengths), cut, rtol=1e-5, atol=1e-5)


@every_backbone
def test_backbone_overfits_8_utterances_of_4_systems(name: str) -> None:
    """A network that cannot overfit eight utterances is broken."""
    net = backbone_of(name).train()
    features, systems = speech_like(net, 8), torch.tensor([0, 1, 2, 3] * 2)
    classifier = nn.Linear(DIM, 4)
    optimizer = torch.optim.Adam([*net.parameters(), *classifier.parameters()], lr=1e-3)
    accuracy = 0.0
    for _ in range(200):  # enough with dropout; most need 25
        logits = classifier(net(features))
        accuracy = (logits.argmax(1) == systems).float().mean()
        if accuracy > 0.95:
            break
        optimizer.zero_grad()
        nn.functional.cross_entropy(logits, systems).backward()
        optimizer.step()
    assert accuracy > 0.95


@every_backbone
def test_saved_and_reloaded_weights_give_same_embeddings(name: str, tmp_path: Path) -> None:
    net = with_running_statistics(backbone_of(name))
    save_file(net.state_dict(), tmp_path / "weights.safetensors")
    other = backbone_of(name, seed=1).eval()
    features = speech_like(net, 3)
    with torch.no_grad():
        before = other(features)
        other.load_state_dict(load_file(tmp_path / "weights.safetensors"))
        assert not torch.allclose(before, net(features))
        assert torch.equal(other(features), net(features))


@every_backbone
def test_initial_weights_depend_on_seed_only(name: str) -> None:
    one, same, other = backbone_of(name), backbone_of(name), backbone_of(name, seed=1)
    pairs = zip(one.state_dict().values(), same.state_dict().values(), strict=True)
    assert all(torch.equal(a, b) for a, b in pairs)
    assert any(not torch.equal(a, b) for a, b in zip(one.parameters(), other.parameters(), strict=True))


@every_backbone
def test_backbone_raises_below_min_frames(name: str) -> None:
    net = with_running_statistics(backbone_of(name))
    assert net(speech_like(net, 2, frames=net.min_frames)).isfinite().all()
    if net.min_frames > 1:
        with pytest.raises(ValueError, match=f"{net.min_frames - 1} frames; {name} takes {net.min_frames}"):
            net(speech_like(net, 2, frames=net.min_frames - 1))
    short = torch.tensor([FRAMES[net.front_end], net.min_frames - 1])
    with pytest.raises(ValueError, match=f"{name} takes {net.min_frames}"):
        net(speech_like(net, 2), short)


@every_backbone
def test_backbone_raises_for_length_beyond_features(name: str) -> None:
    net = with_running_statistics(backbone_of(name))
    with pytest.raises(ValueError, match="features have only"):
        net(speech_like(net, 2), torch.tensor([net.min_frames, FRAMES[net.front_end] + 1]))


@every_backbone
def test_small_time_shift_changes_embedding_less_than_another_utterance(name: str) -> None:
    """The shifted input is another cut of the same frames."""
    net = with_running_statistics(backbone_of(name))
    full = FRAMES[net.front_end]
    long = speech_like(net, 2, frames=full + full // 15)
    with torch.no_grad():
        first, second = net(long[:, :full]), net(long[:, -full:])
    similarity = nn.functional.cosine_similarity
    assert similarity(first, second).min() > similarity(first[0], first[1], dim=0)


@every_backbone
def test_backbone_does_not_modify_input(name: str) -> None:
    net = with_running_statistics(backbone_of(name))
    features = speech_like(net, 2)
    copy = features.clone()
    net(features)
    net(features, torch.tensor([FRAMES[net.front_end], net.min_frames]))
    assert torch.equal(features, copy)


@every_backbone
def test_build_raises_for_dim_zero_and_unknown_settings(name: str) -> None:
    with pytest.raises(ParamsError, match=f"backbone {name}: dim is 0"):
        backbones.build(name, dim=0, width=40, **SETTINGS[name])
    with pytest.raises(ParamsError, match=rf"backbone {name}: unknown settings \['depht'\]; it takes"):
        backbones.build(name, dim=4, width=40, **SETTINGS[name], depht=3)


def test_build_raises_for_unknown_backbone() -> None:
    with pytest.raises(ParamsError, match=r"unknown backbone 'resnet'; .*one of .*'resnet34'"):
        backbones.build("resnet", dim=4, width=40)
