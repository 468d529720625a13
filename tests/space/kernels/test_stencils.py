"""Depthwise convolutions against autograd through PyTorch's own."""

import pytest
import torch
import torch.nn.functional as F
from pvnas.space.norms import NormState

# F, C, edges, H, W, stride, dilation
CASES = [
    (2, 5, 2, 7, 6, 1, 1),
    (2, 5, 2, 6, 5, 1, 2),
    (1, 33, 1, 5, 3, 2, 1),
    (1, 5, 3, 4, 5, 2, 2),
    (2, 4, 3, 1, 1, 1, 2),
]


def made(kernels, depthwise, edges):
    """What a product over channels reads as the convolution's output."""
    channels = depthwise.shape[1] // edges
    same = torch.eye(channels, dtype=torch.float64)[..., None, None].repeat(edges, 1, 1, 1)
    if isinstance(depthwise, torch.Tensor):
        same = same.to(depthwise)
    return kernels.mix_channels(depthwise, same, edges)


def convolved(x, kernel, stride, dilation, edges):
    return F.conv2d(torch.cat([x] * edges, 1).relu(), kernel, None, stride, dilation, dilation, len(kernel))


@pytest.mark.parametrize("f, c, edges, h, w, stride, dilation", CASES)
def test_all_edges_of_one_node(kernels, f, c, edges, h, w, stride, dilation, make, assert_close):
    x, kernel = make(f, c, h, w).requires_grad_(), make(edges * c, 1, 3, 3).requires_grad_()
    y = convolved(x, kernel, stride, dilation, edges)
    assert_close(made(kernels, kernels.depthwise(x.detach(), kernel.detach(), stride, dilation), edges), y)
    g = make(*y.shape)
    dx, dk = torch.autograd.grad(y, (x, kernel), g)
    own = kernels.depthwise_input_gradient(g, kernel.detach(), x.detach(), stride, dilation)
    assert_close(own * (x > 0), dx)
    before = make(*x.shape)
    added = kernels.depthwise_input_gradient(g, kernel.detach(), x.detach(), stride, dilation, into=before.clone())
    assert_close(added, own + before)
    assert_close(kernels.depthwise_kernel_gradient(g, x.detach(), stride, dilation), dk)


def test_behind_batch_norm(kernels, make, assert_close):
    z, kernel = make(3, 6, 5, 7, shift=2.0).requires_grad_(), make(6, 1, 3, 3).requires_grad_()
    norm = NormState(make(6, shift=2.0), make(6).abs(), None, 0.0)
    normed = (z - norm.mean.view(-1, 1, 1)) * norm.inverse_std.view(-1, 1, 1)
    normed.retain_grad()
    y = convolved(normed, kernel, 1, 1, 1)
    g = make(*y.shape)
    y.backward(g)
    assert_close(made(kernels, kernels.depthwise(z.detach(), kernel.detach(), norm=norm), 1), y)
    dn, sums = kernels.depthwise_norm_gradient(g, kernel.detach(), z.detach(), norm)
    assert_close(dn, normed.grad)
    assert_close(sums, torch.stack([dn.sum((0, 2, 3)), (dn * normed).sum((0, 2, 3))])[:, None])
    assert_close(kernels.depthwise_kernel_gradient(g, z.detach(), norm=norm), kernel.grad)


def test_channels_of_a_node_among_those_of_its_cell(kernels, make, assert_close):
    cell, kernel = make(2, 12, 5, 4), make(8, 1, 3, 3)
    node = cell[:, 4:8]
    assert_close(made(kernels, kernels.depthwise(node, kernel), 2), convolved(node.contiguous(), kernel, 1, 1, 2))
    g = make(2, 16, 5, 4)[:, 8:]
    expected = kernels.depthwise_kernel_gradient(g.contiguous(memory_format=torch.channels_last), node)
    assert_close(kernels.depthwise_kernel_gradient(g, node), expected)


def test_other_memory_formats_are_refused(kernels, make):
    with pytest.raises(ValueError, match="are no rows"):
        kernels.depthwise(make(2, 4, 5, 4).contiguous(), make(4, 1, 3, 3))


def test_more_than_the_caches_hold(cpu_kernels, make, assert_close):
    x, kernel = make(3, 64, 32, 32).requires_grad_(), make(64, 1, 3, 3)
    assert x.numel() * 8 > 2**20  # what is written past the caches
    y = convolved(x, kernel, 1, 1, 1)
    g = make(*y.shape)
    y.backward(g)
    own = cpu_kernels.depthwise_input_gradient(g, kernel, x.detach())
    assert_close(own * (x > 0), x.grad)
    norm = NormState(torch.zeros(64, dtype=torch.float64), torch.ones(64, dtype=torch.float64), None, 0.0)
    of_norm, sums = cpu_kernels.depthwise_norm_gradient(g, kernel, x.detach(), norm)
    assert_close(of_norm, x.grad)
    assert_close(sums, torch.stack([x.grad.sum((0, 2, 3)), (x.grad * x).sum((0, 2, 3))])[:, None])
