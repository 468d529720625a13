"""Batch norm in parts against autograd through PyTorch's own."""

import pytest
import torch
import torch.nn.functional as F

from pvnas.fast.kernels.interface import Normed
from pvnas.fast.kernels.tensors import unnormed

EPS = 1e-5


def of_batch(kernels, z):
    mean, _, inverse_std = kernels.batch_statistics(z, EPS)
    return Normed(z, mean, inverse_std)


@pytest.mark.parametrize(
    "shape, among_others", [((3, 5, 7, 6), False), ((2, 130, 3, 3), True), ((5, 17, 9, 11), False)]
)
def test_statistics_far_from_zero(kernels, shape, among_others, chosen, make, assert_close):
    x = make(*shape, shift=100.0 if chosen.dtype == torch.bfloat16 else 1000.0)
    if among_others:
        x = x[:, 1:-1]
    mean, variance, inverse_std = kernels.batch_statistics(x, EPS)
    assert mean.dtype == variance.dtype == inverse_std.dtype == torch.promote_types(chosen.dtype, torch.float32)
    assert_close(mean, x.double().mean((0, 2, 3)))
    expected = x.double().var((0, 2, 3), correction=0)
    torch.testing.assert_close(variance.double(), expected, rtol=1e-4, atol=0)
    torch.testing.assert_close(inverse_std.double(), (expected + EPS).rsqrt(), rtol=1e-4, atol=0)


@pytest.mark.parametrize("c", [5, 17, 66])
def test_normalise(kernels, c, make, assert_close, assert_dense):
    z = make(2, c + 4, 5, 3, shift=3.0)[:, 2:-2]
    y = kernels.normalise(of_batch(kernels, z))
    assert_dense(y)
    assert_close(y, F.batch_norm(z.double(), None, None, training=True, eps=EPS))


def mix(per_edge, shared, weights):
    """Weighted sums, one node for each edge, through PyTorch's BN."""
    normed = [F.batch_norm(z, None, None, training=True, eps=EPS).chunk(len(weights), 1) for z in per_edge]
    pooled = [F.batch_norm(z, None, None, training=True, eps=EPS) for z in shared[:2]] + list(shared[2:])
    nodes = [
        sum(w * y for w, y in zip(row, [y[edge] for y in normed] + pooled, strict=True))
        for edge, row in enumerate(weights)
    ]
    return torch.cat(nodes, 1)


@pytest.mark.parametrize("c, edges, count, identity", [(5, 3, 2, True), (17, 1, 5, False), (66, 1, 3, True)])
def test_weighted_sums_and_their_gradients(
    kernels, c, edges, count, identity, make, make_sums, exact, assert_close, assert_dense, as_tensor
):
    per_edge = [make(2, edges * c, 4, 3) for _ in range(count)]
    shared = [make(2, c, 4, 3) for _ in range(3 if identity else 2)]
    weights = make_sums(edges, count + len(shared))
    asked = [[exact(z) for z in per_edge], [exact(z) for z in shared], exact(weights)]
    y = mix(*asked)
    cell, grad = make(2, edges * c + 7, 4, 3), make(*y.shape)
    expected = torch.autograd.grad(y, [*asked[0], *asked[1], asked[2]], grad.double())
    normed = [of_batch(kernels, z) for z in per_edge]
    pooled = [of_batch(kernels, z) for z in shared[:2]] + [unnormed(x) for x in shared[2:]]

    before, nodes = cell.clone(), cell[:, 3 : 3 + edges * c]
    kernels.add_mixed(nodes, normed, pooled, weights, begin=False)
    assert_close(nodes, before[:, 3 : 3 + edges * c].double() + y)
    kernels.add_mixed(nodes, normed, pooled, weights, begin=True)
    assert_close(nodes, y)
    assert torch.equal(cell[:, :3], before[:, :3])
    assert torch.equal(cell[:, 3 + edges * c :], before[:, 3 + edges * c :])

    sums = kernels.mixed_grad_sums(grad, normed, pooled, edges)
    assert_close(sums[0], grad.double().sum((0, 2, 3)).view(edges, c))
    assert_close(sums[1:].sum(2).t(), expected[-1])
    grads = kernels.per_edge_grads(grad, normed, weights[:, :count], sums, of_batch=True)
    for result, z_grad in zip(grads, expected[:count], strict=True):
        assert_close(as_tensor(result, edges, gradient=True), z_grad)
    rest = torch.cat([sums[:1], sums[1 + count :]])
    grads = kernels.shared_grads(grad, pooled, weights[:, count:], rest, of_batch=True)
    assert_dense(*grads)
    for result, z_grad in zip(grads, expected[count:-1], strict=True):
        assert_close(result, z_grad)


def test_gradients_read_in_part(kernels, make, make_sums, assert_close, as_tensor):
    """As both halves of a reduction read them."""
    c, edges = 7, 2
    z, grad, weights = make(6, edges * c, 4, 3), make(6, edges * c, 4, 3), make_sums(edges, 1)
    normed = [of_batch(kernels, z)]
    sums = kernels.mixed_grad_sums(grad, normed, [], edges)
    (z_grad,) = kernels.per_edge_grads(grad, normed, weights, sums, of_batch=True)
    dense, kernel, x = as_tensor(z_grad, edges, gradient=True), make(edges * 3, 5, 1, 1), make(6, edges * 5, 4, 3)
    result = kernels.channel_conv_input_grad(z_grad, kernel, edges, first=4, step=c)
    assert_close(result, kernels.channel_conv_input_grad(dense, kernel, edges, first=4, step=c))
    result = kernels.channel_conv_kernel_grad(z_grad, x, kernel, edges, first=4, step=c)
    assert_close(result, kernels.channel_conv_kernel_grad(dense, x, kernel, edges, first=4, step=c))


def test_running_statistics_are_constants(kernels, make, make_sums, assert_close, as_tensor):
    z, weights, grad = make(2, 6, 4, 3), make_sums(2, 3), make(2, 6, 4, 3)
    mean, inverse_std = make_sums(6), make_sums(6).abs()
    first = z[:, :3].contiguous(memory_format=torch.channels_last)
    normed, pooled = [Normed(z, mean, inverse_std)], [Normed(first, mean[:3], inverse_std[:3])] * 2
    sums = kernels.mixed_grad_sums(grad, normed, pooled, 2)
    (z_grad,) = kernels.per_edge_grads(grad, normed, weights[:, :1], sums, of_batch=False)
    scale = weights[:, :1].expand(2, 3).reshape(-1) * inverse_std
    assert_close(as_tensor(z_grad, 1, gradient=True), grad.double() * scale.double().view(-1, 1, 1))
    rest = torch.cat([sums[:1], sums[2:]])
    result, _ = kernels.shared_grads(grad, pooled, weights[:, 1:], rest, of_batch=False)
    mixed = grad[:, :3].double() * weights[0, 1].double() + grad[:, 3:].double() * weights[1, 1].double()
    assert_close(result, mixed * inverse_std[:3].double().view(-1, 1, 1))


@pytest.mark.parametrize("c, of_batch_too", [(5, True), (17, True), (5, False)])
@pytest.mark.parametrize("scaled", [False, True])
def test_norms_with_parameters_of_clips_that_are_scaled(
    kernels, c, of_batch_too, scaled, make, make_sums, exact, assert_close, as_tensor
):
    clips, frames = 3, 2
    z, other, grad = make(clips * frames, c, 4, 3), make(clips * frames, c, 4, 3), make(clips * frames, c, 4, 3)
    weight, bias, scales = make_sums(c), make_sums(c), make_sums(2, clips) if scaled else None
    normed = of_batch(kernels, z)._replace(weight=weight, bias=bias)
    assert_close(
        kernels.normalise(normed), F.batch_norm(z.double(), None, None, weight.double(), bias.double(), True, eps=EPS)
    )
    asked = exact(z), exact(weight), exact(bias)
    n = F.batch_norm(*asked[:1], None, None, *asked[1:], True, eps=EPS)
    if not of_batch_too:
        mean, inverse_std = normed.mean.double(), normed.inverse_std.double()
        n = (asked[0] - mean[:, None, None]) * inverse_std[:, None, None] * asked[1][:, None, None]
        n = n + asked[2][:, None, None]
    factors = torch.ones(2, clips).to(z) if scales is None else scales
    first, second = (row.double().repeat_interleave(frames).view(-1, 1, 1, 1) for row in factors)
    cell, ones = make(clips * frames, c + 6, 4, 3), make_sums(1, 2) * 0 + 1
    node = cell[:, 3 : 3 + c]
    kernels.add_mixed(node, [normed, unnormed(other)], [], ones, begin=True, scales=scales)
    assert_close(node, n * first + other.double() * second)
    expected = torch.autograd.grad(n * first, asked, grad.double())
    of_clips = None if scales is None else scales[0]
    sums = kernels.mixed_grad_sums(grad, [normed], [], 1, of_clips)
    assert_close(sums, torch.stack([expected[2], expected[1]])[:, None])
    given = grad, [normed], ones[:, :1], sums
    (z_grad,) = kernels.per_edge_grads(*given, of_batch=of_batch_too, scales=of_clips)
    assert_close(as_tensor(z_grad, 1, gradient=True), expected[0])
