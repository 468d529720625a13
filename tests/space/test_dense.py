"""Picked pixels, joined channels, averages: what PyTorch gives, with gradients dense in channels-last memory."""

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st

from pvnas.space.dense import average_3x3, even_and_odd_pixels, even_pixels, side_by_side
from pvnas.space.layers import FOLDED


def clips(*shape):
    draw = torch.Generator().manual_seed(sum(shape))
    x = torch.randn(*shape, generator=draw, dtype=torch.float64)
    return x.contiguous(memory_format=torch.channels_last).requires_grad_()


@given(st.integers(1, 3), st.integers(1, 4), st.integers(1, 9), st.integers(1, 9))
def test_pixels_and_their_gradients_are_those_of_slices(frames, channels, height, width):
    x, again = clips(frames, channels, height, width), clips(frames, channels, height, width)
    even, odd = even_and_odd_pixels(x)
    expected = again[:, :, ::2, ::2], F.pad(again[:, :, 1::2, 1::2], (0, width % 2, 0, height % 2))
    weights = [torch.randn(even.shape, dtype=torch.float64) for _ in range(2)]
    for found, right in zip((even, odd), expected, strict=True):
        assert torch.equal(found, right)
    for pair in ((even, odd), expected):
        sum((part * weight).sum() for part, weight in zip(pair, weights, strict=True)).backward()
    assert torch.equal(x.grad, again.grad)
    assert torch.equal(even_pixels(x), even)
    assert not even_pixels(x.detach()).requires_grad


def test_a_gradient_of_pixels_is_dense_in_channels_last_memory():
    x = clips(2, 8, 6, 6)
    (gradient,) = torch.autograd.grad(even_pixels(x).sum(), x)
    assert gradient.is_contiguous(memory_format=torch.channels_last)
    (of_slices,) = torch.autograd.grad(x[:, :, ::2, ::2].sum(), x)
    assert torch.equal(gradient, of_slices)


@pytest.mark.parametrize("frames", [(), (3,)])
def test_joined_channels_have_dense_gradients(frames):
    memory = torch.channels_last_3d if frames else torch.channels_last
    parts = [torch.randn(2, c, *frames, 4, 5).contiguous(memory_format=memory).requires_grad_() for c in (3, 5)]
    joined = side_by_side(parts)
    assert torch.equal(joined, torch.cat(parts, 1))
    weight = torch.randn(joined.shape)
    gradients = torch.autograd.grad((joined * weight).sum(), parts)
    for gradient, right in zip(gradients, weight.split([3, 5], 1), strict=True):
        assert torch.equal(gradient, right)
        assert gradient.is_contiguous(memory_format=memory)


@settings(deadline=None)
@given(st.integers(1, 2), st.integers(2, 9), st.integers(2, 9), st.sampled_from([1, 2]))
def test_averages_and_their_gradients_are_pytorchs(channels, height, width, stride):
    x, again = clips(2, channels, height, width), clips(2, channels, height, width)
    found, right = average_3x3(x, stride), F.avg_pool2d(again, 3, stride, 1, count_include_pad=False)
    assert torch.equal(found, right)
    gradient = torch.randn(right.shape, dtype=torch.float64)
    found.backward(gradient)
    right.backward(gradient)
    torch.testing.assert_close(x.grad, again.grad, rtol=1e-12, atol=1e-14)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
@pytest.mark.parametrize("stride", [1, 2])
def test_averages_on_a_gpu_go_backwards_as_on_a_cpu(stride):
    pool = FOLDED.avg_pool((1, 3, 3), (1, stride, stride), (0, 1, 1), count_include_pad=False)
    x = torch.randn(2, 4, 3, 7, 6).contiguous(memory_format=torch.channels_last_3d)
    gradients = []
    for device in ("cpu", "cuda"):
        there = x.to(device).requires_grad_()
        y = pool(there)
        (gradient,) = torch.autograd.grad((y * y).sum(), there)
        gradients.append(gradient.cpu())
    torch.testing.assert_close(gradients[1], gradients[0])


def test_without_gradients_torch_export_can_follow_them():
    class Pixels(torch.nn.Module):
        def forward(self, x):
            return even_pixels(average_3x3(x, 1))

    x = clips(1, 3, 5, 5).detach()
    with torch.no_grad():
        exported = torch.export.export(Pixels(), (x,), strict=True)
        assert torch.equal(exported.module()(x), Pixels()(x))
