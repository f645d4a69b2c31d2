"""What holds for every backbone of the registry; a new backbone is tested here by being listed."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from encoders_support import model_of
from makermark import backbones, encoders
from makermark.backbones import BACKBONES, Backbone
from makermark.errors import ParamsError
from makermark.params import read_params

PRETRAINED = {"freeze": "none", "weighted": False, "learning_rate": 1e-5, "gradient_checkpointing": False}
SMALLER = {"aasist": {"sinc_filters": 12, "narrow_filters": 8, "wide_filters": 32}}  # else minutes
SETTINGS = {
    name: {**settings, **SMALLER.get(name, {}), **(PRETRAINED if BACKBONES[name].starts_pretrained else {})}
    for name, settings in read_params(Path(__file__).parents[2] / "params.yaml").backbones.items()
}
WIDTHS = {"fbank": 40, "waveform": 1}
FRAMES = {"fbank": 60, "waveform": 16000}  # of the utterances tried here
SILENCE = {"fbank": -13.8, "waveform": 0.0}  # log(1e-6), and no sound
DIM = 12

every_backbone = pytest.mark.parametrize("name", BACKBONES)


def backbone_of(name: str, *, seed: int = 0) -> Backbone:
    torch.manual_seed(seed)
    width = WIDTHS[BACKBONES[name].reads(**SETTINGS[name])]
    encoder = small_encoder() if BACKBONES[name].starts_pretrained else None
    return backbones.build(name, dim=DIM, width=width, encoder=encoder, **SETTINGS[name])


def small_encoder() -> encoders.Encoder:
    """Of wav2vec 2.0's kind, with weights that torch's generator decides."""
    config = json.loads(model_of("layer", seed=None).config.to_json_string(use_diff=False))
    return encoders.build(
        encoders.Architecture(config=config, width=32, normalise=True, weighted=False, final_norm=True)
    )


def speech_like(net: Backbone, utterances: int, *, frames: int | None = None, seed: int = 0) -> Tensor:
    """Features (B, T, F) whose level and spread differ between utterances; waveforms differ in pitch."""
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


def used(net: Backbone) -> Backbone:
    """In evaluation mode with running statistics that are not those of a new network."""
    net.train()
    with torch.no_grad():
        for seed in range(3):
            net(speech_like(net, 4, seed=seed))
    return net.eval()


@every_backbone
def test_params_yaml_has_its_settings_and_they_build_it(name: str) -> None:
    net = backbone_of(name)
    assert net.front_end in WIDTHS
    assert net.min_frames >= 1
    assert net(speech_like(net, 3)).shape == (3, DIM)


@every_backbone
def test_a_padded_utterance_gives_the_same_vector_as_alone(name: str) -> None:
    net = used(backbone_of(name))
    full = FRAMES[net.front_end]
    lengths = torch.tensor([full, full - 1, full // 2, full // 3 + 1, net.min_frames])
    features = speech_like(net, len(lengths))
    for row, length in enumerate(lengths):
        features[row, length:] = 1000.0  # whatever stands there
    with torch.no_grad():
        together = net(features, lengths)
        for row, length in enumerate(lengths):
            alone = net(features[row : row + 1, :length])[0]
            torch.testing.assert_close(together[row], alone, rtol=1e-5, atol=1e-5)
            one = net(features[row : row + 1, :length], lengths[row : row + 1])[0]
            torch.testing.assert_close(one, alone, rtol=1e-5, atol=1e-5)


@every_backbone
def test_utterances_of_a_batch_do_not_touch_each_other_in_evaluation(name: str) -> None:
    net = used(backbone_of(name))
    features = speech_like(net, 4)
    order = torch.tensor([2, 0, 3, 1])
    with torch.no_grad():
        torch.testing.assert_close(net(features)[order], net(features[order]), rtol=1e-5, atol=1e-5)


@every_backbone
@pytest.mark.parametrize("precision", [torch.float32, torch.bfloat16])
def test_gradients_are_finite_and_reach_every_weight(name: str, precision: torch.dtype) -> None:
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
def test_bfloat16_gives_nearly_the_same_vectors(name: str) -> None:
    net = used(backbone_of(name))
    features = speech_like(net, 6)
    with torch.no_grad():
        exact = net(features)
        with torch.autocast("cpu", torch.bfloat16):
            coarse = net(features)
    assert nn.functional.cosine_similarity(exact, coarse.float()).min() > 0.99


@every_backbone
def test_silence_gives_a_finite_vector_and_finite_gradients(name: str) -> None:
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
def test_silence_among_speech_gives_a_finite_vector_with_and_without_padding(name: str) -> None:
    net = used(backbone_of(name))
    features = speech_like(net, 3)
    features[1] = SILENCE[net.front_end]
    full = FRAMES[net.front_end]
    with torch.no_grad():
        assert net(features).isfinite().all()
        assert net(features, torch.tensor([full, full // 2 + net.min_frames, full])).isfinite().all()


@every_backbone
def test_padding_past_the_longest_utterance_changes_nothing(name: str) -> None:
    net = used(backbone_of(name))
    full = FRAMES[net.front_end]
    features, lengths = speech_like(net, 2), torch.tensor([full - full // 10, full - full // 5])
    features[:, full - full // 10 :] = 1000.0
    with torch.no_grad():
        cut = net(features[:, : int(lengths.max())], lengths)
        torch.testing.assert_close(net(features, lengths), cut, rtol=1e-5, atol=1e-5)


@every_backbone
def test_overfits_8_utterances_of_4_systems(name: str) -> None:
    """A network that cannot learn eight utterances by heart is broken."""
    net = backbone_of(name).train()
    features, systems = speech_like(net, 8), torch.tensor([0, 1, 2, 3] * 2)
    classifier = nn.Linear(DIM, 4)
    optimizer = torch.optim.Adam([*net.parameters(), *classifier.parameters()], lr=1e-3)
    accuracy = 0.0
    for _ in range(200):  # enough for those with dropout; most need 25
        logits = classifier(net(features))
        accuracy = (logits.argmax(1) == systems).float().mean()
        if accuracy > 0.95:
            break
        optimizer.zero_grad()
        nn.functional.cross_entropy(logits, systems).backward()
        optimizer.step()
    assert accuracy > 0.95


@every_backbone
def test_export_and_reload_give_the_same_vectors(name: str, tmp_path: Path) -> None:
    net = used(backbone_of(name))
    save_file(net.state_dict(), tmp_path / "weights.safetensors")
    other = backbone_of(name, seed=1).eval()
    features = speech_like(net, 3)
    with torch.no_grad():
        before = other(features)
        other.load_state_dict(load_file(tmp_path / "weights.safetensors"))
        assert not torch.allclose(before, net(features))
        assert torch.equal(other(features), net(features))


@every_backbone
def test_the_generators_seed_decides_the_initial_weights(name: str) -> None:
    one, same, other = backbone_of(name), backbone_of(name), backbone_of(name, seed=1)
    pairs = zip(one.state_dict().values(), same.state_dict().values(), strict=True)
    assert all(torch.equal(a, b) for a, b in pairs)
    assert any(not torch.equal(a, b) for a, b in zip(one.parameters(), other.parameters(), strict=True))


@every_backbone
def test_the_shortest_input_works_and_a_shorter_one_is_refused(name: str) -> None:
    net = used(backbone_of(name))
    assert net(speech_like(net, 2, frames=net.min_frames)).isfinite().all()
    if net.min_frames > 1:
        with pytest.raises(ValueError, match=f"{net.min_frames - 1} frames; {name} takes {net.min_frames}"):
            net(speech_like(net, 2, frames=net.min_frames - 1))
    short = torch.tensor([FRAMES[net.front_end], net.min_frames - 1])
    with pytest.raises(ValueError, match=f"{name} takes {net.min_frames}"):
        net(speech_like(net, 2), short)


@every_backbone
def test_a_length_past_the_features_is_refused(name: str) -> None:
    net = used(backbone_of(name))
    with pytest.raises(ValueError, match="features hold only"):
        net(speech_like(net, 2), torch.tensor([net.min_frames, FRAMES[net.front_end] + 1]))


@every_backbone
def test_a_small_shift_in_time_moves_the_vector_little(name: str) -> None:
    """Against another utterance of the same length; frames are drawn once and cut at two places."""
    net = used(backbone_of(name))
    full = FRAMES[net.front_end]
    long = speech_like(net, 2, frames=full + full // 15)
    with torch.no_grad():
        first, second = net(long[:, :full]), net(long[:, -full:])
    similarity = nn.functional.cosine_similarity
    assert similarity(first, second).min() > similarity(first[0], first[1], dim=0)


@every_backbone
def test_the_input_is_left_as_it_was(name: str) -> None:
    net = used(backbone_of(name))
    features = speech_like(net, 2)
    copy = features.clone()
    net(features)
    net(features, torch.tensor([FRAMES[net.front_end], net.min_frames]))
    assert torch.equal(features, copy)


@every_backbone
def test_dim_zero_and_unknown_settings_are_refused(name: str) -> None:
    with pytest.raises(ParamsError, match=f"backbone {name}: dim is 0"):
        backbones.build(name, dim=0, width=40, **SETTINGS[name])
    with pytest.raises(ParamsError, match=rf"backbone {name}: unknown settings \['depht'\]; it takes"):
        backbones.build(name, dim=4, width=40, **SETTINGS[name], depht=3)


def test_an_unknown_backbone_is_refused_with_the_choices() -> None:
    with pytest.raises(ParamsError, match=r"unknown backbone 'resnet'; it is one of .*'resnet34'"):
        backbones.build("resnet", dim=4, width=40)
