"""The end of a residual block, written out by hand, against autograd of the five lines it stands for."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from makermark.backbones.excitation import excited_sum

SHAPES = st.tuples(st.integers(1, 4), st.sampled_from([8, 16, 24]), st.integers(1, 5), st.integers(1, 7))


def plainly(
    images: Tensor, shortcut: Tensor, squeeze: nn.Linear, excite: nn.Linear, places: Tensor
) -> Tensor:
    means = images.sum(dim=(2, 3)) / places
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
@given(shape=SHAPES, seed=st.integers(0, 999), usual=st.booleans())
def test_values_and_gradients_are_those_of_the_five_lines(
    shape: tuple[int, int, int, int], seed: int, usual: bool
) -> None:
    """Also for images in another memory order than the usual one."""
    images, shortcut = case(shape, seed=seed)
    if not usual:
        images, shortcut = (t.detach().contiguous().requires_grad_() for t in (images, shortcut))
    squeeze, excite = layers(shape[1])
    places = torch.randint(1, 9, (shape[0], 1)).double()
    learn = [images, shortcut, *squeeze.parameters(), *excite.parameters()]
    mine = excited_sum(images, shortcut, squeeze, excite, places=places)
    reference = plainly(images, shortcut, squeeze, excite, places)
    torch.testing.assert_close(mine, reference)
    upstream = torch.randn_like(reference)
    for ours, theirs in zip(
        torch.autograd.grad(mine, learn, upstream),
        torch.autograd.grad(reference, learn, upstream),
        strict=True,
    ):
        torch.testing.assert_close(ours, theirs)


def test_gradients_are_those_of_finite_differences() -> None:
    images, shortcut = case((2, 8, 2, 3), seed=1)
    squeeze, excite = layers(8)
    places = torch.tensor([[6.0], [4.0]]).double()
    assert torch.autograd.gradcheck(
        lambda *given: excited_sum(*given, squeeze, excite, places=places), (images, shortcut)
    )


def test_the_shortcut_may_be_what_the_images_were_made_of() -> None:
    """As in a block without projection: both gradients meet in one tensor, and neither may be written over."""
    squeeze, excite = layers(8)
    places = torch.full((1, 1), 12.0).double()
    gradients = []
    for way in (excited_sum, plainly):
        (x,) = case((3, 8, 3, 4), seed=2)[:1]
        out = way(x.tanh(), x, squeeze, excite, places=places)
        (way(out * 2, out, squeeze, excite, places=places) ** 2).sum().backward()
        gradients.append(x.grad)
    torch.testing.assert_close(*gradients)


@pytest.mark.parametrize("autocast", [False, True])
def test_bfloat16_differs_by_its_rounding_alone(autocast: bool) -> None:
    images, shortcut = (t.detach().bfloat16().requires_grad_() for t in case((4, 16, 3, 5), seed=3))
    squeeze, excite = (layer.float() for layer in layers(16))
    places = torch.full((1, 1), 15.0)
    with torch.autocast("cpu", torch.bfloat16, enabled=autocast):
        out = excited_sum(images, shortcut, squeeze, excite, places=places)
    assert out.dtype == torch.bfloat16
    reference = plainly(images.float(), shortcut.float(), squeeze, excite, places)
    torch.testing.assert_close(out.float(), reference, rtol=2e-2, atol=2e-2)
    out.float().square().sum().backward()
    theirs = [images.grad, squeeze.weight.grad]
    images.grad = squeeze.weight.grad = None
    plainly(images.float(), shortcut.float(), squeeze, excite, places).square().sum().backward()
    for ours, reference in zip(theirs, [images.grad, squeeze.weight.grad], strict=True):
        assert ours is not None
        assert ours.dtype == reference.dtype
        torch.testing.assert_close(ours.float(), reference.float(), rtol=3e-2, atol=6e-2)
