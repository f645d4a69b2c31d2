"""Wav2Vec2Aasist: variants, frozen weights, learning rates, and size and memory of the published configuration."""

import subprocess
import sys

import pytest
import torch

from encoders_support import save_model
from makermark.features import encoders
from makermark.foundation.errors import ParamsError
from makermark.models import backbones

FRONT = "encoder.model.feature_extractor."


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    folder = tmp_path_factory.mktemp("models")
    return {name: str(save_model(folder, name)) for name in ("layer", "group", "whisper")}


def build(folders, name="layer", *, freeze="none", layer="last", checkpointing=False, dim=8):
    torch.manual_seed(0)
    weighted = layer == "weighted"
    inside = freeze != "all" or weighted
    return backbones.build(
        "wav2vec2-aasist",
        dim=dim,
        width=1 if inside else 32,
        encoder=encoders.load(folders[name], layer=layer) if inside else None,
        freeze=freeze,
        weighted=weighted,
        learning_rate=1e-5,
        gradient_checkpointing=checkpointing,
        frame_width=24,
    )


VARIANTS = [
    {"freeze": "none"},
    {"freeze": "none", "layer": 1, "checkpointing": True},
    {"freeze": "feature_encoder"},
    {"freeze": "feature_encoder", "layer": "weighted"},
    {"freeze": "all", "layer": "weighted"},
    {"freeze": "all"},
    {"freeze": "none", "name": "group"},
    {"freeze": "none", "name": "whisper"},
]
every_variant = pytest.mark.parametrize("variant", VARIANTS, ids=str)


def random_features(net, rows=4, seed=0):
    generator = torch.Generator().manual_seed(seed)
    shape = (rows, 16000, 1) if net.encoder is not None else (rows, 49, 32)
    return 0.1 * torch.randn(shape, generator=generator)


@every_variant
def test_padded_utterance_gives_same_embedding_as_alone(variant, folders):
    net = build(folders, **variant).eval()
    full = 16000 if net.encoder is not None else 49
    lengths = torch.tensor([full, full // 2 + 3, net.min_frames, full])
    features = random_features(net)
    for row, length in enumerate(lengths):
        features[row, length:] = 50.0
    with torch.no_grad():
        together = net(features, lengths)
        for row, length in enumerate(lengths):
            torch.testing.assert_close(
                together[row], net(features[row : row + 1, :length])[0], rtol=0, atol=1e-4
            )


@every_variant
def test_training_step_updates_trainable_weights_only(variant, folders):
    net = build(folders, **variant).train()
    before = {name: weight.detach().clone() for name, weight in net.named_parameters()}
    groups = [
        {"params": group.parameters, "lr": group.peak_learning_rate} for group in net.param_groups(1e-3)
    ]
    optimizer = torch.optim.AdamW([group for group in groups if group["params"]])
    (net(random_features(net)) * torch.randn(4, 8)).sum().backward()
    optimizer.step()
    updated = {name for name, weight in net.named_parameters() if not torch.equal(weight, before[name])}
    fixed = {name for name in before if name.startswith("encoder.")} if variant["freeze"] == "all" else set()
    if variant["freeze"] == "feature_encoder":
        fixed = {name for name in before if name.startswith(FRONT)}
    if variant.get("name") == "whisper":
        fixed = {"encoder.model.embed_positions.weight"}  # fixed sinusoids
    assert fixed or variant["freeze"] in ("none", "all")
    assert not updated & fixed
    # a bias that a softmax is invariant to has no gradient
    assert {name for name in before if name not in updated | fixed} <= {
        "attention.3.bias",
        *(name for name in before if name.endswith("k_proj.bias")),
    }


def test_param_groups_give_encoder_its_own_learning_rate(folders):
    net = build(folders)
    encoder, rest = net.param_groups(1e-3)
    assert (encoder.peak_learning_rate, rest.peak_learning_rate) == (1e-5, 1e-3)
    assert sum(map(torch.numel, encoder.parameters)) == sum(map(torch.numel, net.encoder.parameters()))
    everything = [*encoder.parameters, *rest.parameters]
    assert len({id(p) for p in everything}) == len(everything) == len(list(net.parameters()))
    frozen, rest = build(folders, freeze="all", layer="weighted").param_groups(1e-3)
    assert frozen.parameters == []
    assert any(parameter.shape == (4,) for parameter in rest.parameters)  # layer weights


def test_frozen_encoder_stays_in_evaluation_mode_without_autograd(folders):
    net = build(folders, freeze="all", layer="weighted").train()
    assert net.training
    assert not any(module.training for module in net.encoder.modules())
    states, _ = net.encoder(random_features(net).squeeze(2))
    assert not any(state.requires_grad for state in states)
    assert net.layer_weights.grad is None
    net(random_features(net)).sum().backward()
    assert net.layer_weights.grad.abs().sum() > 0


def test_equal_layer_weights_give_mean_of_layers(folders):
    net = build(folders, freeze="all", layer="weighted").eval()
    with torch.no_grad():
        states, _ = net.encoder(random_features(net).squeeze(2))
        frames, _ = net._encode(net.encoder, random_features(net).squeeze(2), None)
    torch.testing.assert_close(frames, torch.stack(states).mean(dim=0))


def test_cached_states_give_same_embeddings_as_encoder(folders):
    cached = build(folders, freeze="all").eval()
    inside = build(folders, freeze="none").eval()
    weights = {n: w for n, w in inside.state_dict().items() if not n.startswith("encoder.")}
    cached.load_state_dict(weights)
    samples = random_features(inside)
    with torch.no_grad():
        (frames,), _ = inside.encoder(samples.squeeze(2))
        halves = frames.half()
        torch.testing.assert_close(cached(halves), inside(samples), rtol=0, atol=2e-3)


def test_front_end_name_follows_from_freeze_and_layer():
    front_end_name = backbones.BACKBONES["wav2vec2-aasist"].front_end_name
    assert front_end_name(freeze="all", weighted=False) == "wav2vec2"
    assert front_end_name(freeze="all", weighted=True) == "waveform"
    assert front_end_name(freeze="feature_encoder", weighted=False) == "waveform"


def test_build_raises_for_narrow_frames_and_missing_encoder(folders):
    settings = {"weighted": False, "learning_rate": 1e-5, "gradient_checkpointing": False}
    with pytest.raises(ParamsError, match="frame_width is 2; it must be at least 3"):
        backbones.build(
            "wav2vec2-aasist", dim=4, width=32, encoder=None, freeze="all", frame_width=2, **settings
        )
    with pytest.raises(ValueError, match="no encoder, but freeze: none, weighted: False reads waveform"):
        backbones.build(
            "wav2vec2-aasist", dim=4, width=1, encoder=None, freeze="none", frame_width=24, **settings
        )


LARGE = """
import resource, torch
from transformers import Wav2Vec2Config
import json
from makermark.features import encoders
from makermark.models import backbones

config = Wav2Vec2Config(
    hidden_size=1024, num_hidden_layers=24, num_attention_heads=16, intermediate_size=4096, conv_bias=True,
    feat_extract_norm="layer", do_stable_layer_norm=True, layerdrop=0.0, mask_time_prob=0.0,
    attention_dropout=0.1, hidden_dropout=0.1,
)
architecture = encoders.Architecture(
    config=json.loads(config.to_json_string(use_diff=False)),
    width=1024, normalise=True, weighted=False, final_norm=True,
)
encoder = encoders.build(architecture)
net = backbones.build(
    "wav2vec2-aasist", dim=50, width=1, encoder=encoder, freeze="none", weighted=False, learning_rate=1e-5,
    gradient_checkpointing=True, frame_width=128,
)
groups = [{"params": g.parameters, "lr": g.peak_learning_rate} for g in net.param_groups(1e-3)]
optimizer = torch.optim.AdamW(groups, fused=True)
classifier = torch.nn.Linear(50, 2)
value = torch.nn.functional.cross_entropy(classifier(net.train()(torch.randn(2, 32000, 1))), torch.tensor([0, 1]))
value.backward()
optimizer.step()
print(sum(map(torch.numel, net.parameters())), resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20)
"""


@pytest.mark.large
def test_xls_r_300m_aasist_has_315_million_weights_and_trains_in_8_gib():
    """The published configuration with random weights on two crops of 2 s. Weights, gradients and AdamW's two
    moments take 16 bytes per weight: 4.7 GiB."""
    done = subprocess.run([sys.executable, "-c", LARGE], capture_output=True, text=True, check=True)
    weights, gib = map(float, done.stdout.split())
    assert abs(weights - 315e6) < 0.01 * 315e6
    assert 4.7 < gib < 8
