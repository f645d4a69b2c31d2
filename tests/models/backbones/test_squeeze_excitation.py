"""`squeeze_excite_add` against autograd of the same formula."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from makermark.models.backbones.resnet import squeeze_excite_add

SHAPES = st.tuples(st.integers(1, 4), st.sampled_from([8, 16, 24]), st.integers(1, 5), st.integers(1, 7))


def reference_output(
    images: Tensor, shortcut: Tensor, squeeze: nn.Linear, excite: nn.Linear, positions: Tensor
) -> Tensor:
    means = images.sum(dim=(2, 3)) / positions
    gates = torch.sigmoid(excite(F.relu(squeeze(means))))
    return F.relu(images * gates[..., None, None] + shortcut)


def case(shape: tuple[int, int, int, int], *, seed: int, dtype: torch.dtype = torch.float64) -> list[Tensor]:
    generator = torch.Generator().manual_seed(seed)
    images, shortcut = (torch.randn(shape, generator=generator, dtype=dtype) for _ in range(2))
    return [tensor.to(memory_format=torch.channels_last).requires_grad_() for tensor in (images, shortcut)]


def layers(channels: int) -> tuple[nn.Linear, nn.Linear]:
    torch.manual_seed(channels)
    squeezed = channels // 8
    return nn.Linear(channels, squeezed).double(), nn.Linear(squeezed, channels).double()


@settings(deadline=None, max_examples=40)
@given(shape=SHAPES, seed=st.integers(0, 999), channels_last=st.booleans())
def test_squeeze_excite_add_equals_autograd(
    shape: tuple[int, int, int, int], seed: int, channels_last: bool
) -> None:
    """For images in channels-last and in contiguous memory format."""
    images, shortcut = case(shape, seed=seed)
    if not channels_last:
        images, shortcut = (t.detach().contiguous().requires_grad_() for t in (images, shortcut))
    squeeze, excite = layers(shape[1])
    positions = torch.randint(1, 9, (shape[0], 1)).double()
    learn = [images, shortcut, *squeeze.parameters(), *excite.parameters()]
    output = squeeze_excite_add(images, shortcut, squeeze, excite, positions=positions)
    reference = reference_output(images, shortcut, squeeze, excite, positions)
    torch.testing.assert_close(output, reference)
    upstream = torch.randn_like(reference)
    for ours, theirs in zip(
        torch.autograd.grad(output, learn, upstream),
        torch.autograd.grad(reference, learn, upstream),
        strict=True,
    ):
        torch.testing.assert_close(ours, theirs)


def test_squeeze_excite_add_passes_gradcheck() -> None:
    images, shortcut = case((2, 8, 2, 3), seed=1)
    squeeze, excite = layers(8)
    positions = torch.tensor([[6.0], [4.0]]).double()
    assert torch.autograd.gradcheck(
        lambda *inputs: squeeze_excite_add(*inputs, squeeze, excite, positions=positions), (images, shortcut)
    )


def test_gradients_add_up_when_images_depend_on_shortcut() -> None:
    """As in a block without projection: both gradients are added, and neither may be overwritten."""
    squeeze, excite = layers(8)
    positions = torch.full((1, 1), 12.0).double()
    gradients = []
    for function in (squeeze_excite_add, reference_output):
        (x,) = case((3, 8, 3, 4), seed=2)[:1]
        out = function(x.tanh(), x, squeeze, excite, positions=positions)
        (function(out * 2, out, squeeze, excite, positions=positions) ** 2).sum().backward()
        gradients.append(x.grad)
    torch.testing.assert_close(*gradients)


@pytest.mark.parametrize("autocast", [False, True])
def test_squeeze_excite_add_in_bfloat16_differs_by_rounding_only(autocast: bool) -> None:
    images, shortcut = (t.detach().bfloat16().requires_grad_() for t in case((4, 16, 3, 5), seed=3))
    squeeze, excite = (layer.float() for layer in layers(16))
    positions = torch.full((1, 1), 15.0)
    with torch.autocast("cpu", torch.bfloat16, enabled=autocast):
        out = squeeze_excite_add(images, shortcut, squeeze, excite, positions=positions)
    assert out.dtype == torch.bfloat16
    reference = reference_output(images.float(), shortcut.float(), squeeze, excite, positions)
    torch.testing.assert_close(out.float(), reference, rtol=2e-2, atol=2e-2)
    out.float().square().sum().backward()
    theirs = [images.grad, squeeze.weight.grad]
    images.grad = squeeze.weight.grad = None
    reference_output(images.float(), shortcut.float(), squeeze, excite, positions).square().sum().backward()
    for ours, reference in zip(theirs, [images.grad, squeeze.weight.grad], strict=True):
        assert ours is not None
        assert ours.dtype == reference.dtype
        torch.testing.assert_close(ours.float(), reference.float(), rtol=3e-2, atol=6e-2)
