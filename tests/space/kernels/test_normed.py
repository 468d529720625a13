"""Batch norm in parts against autograd through PyTorch's own."""

import pytest
import torch
import torch.nn.functional as F
from pvnas.space.kernels.operands import Normed, unnormed

EPS = 1e-5


def of_batch(kernels, z):
    mean, _, inverse = kernels.statistics(z, EPS)
    return Normed(z, mean, inverse)


def terms(own, shared, weights):
    """Weighted sums, one node for each edge, through PyTorch's BN."""
    normed = [F.batch_norm(z, None, None, training=True, eps=EPS).chunk(len(weights), 1) for z in own]
    pooled = [F.batch_norm(z, None, None, training=True, eps=EPS) for z in shared[:2]] + list(shared[2:])
    nodes = [
        sum(w * y for w, y in zip(row, [y[edge] for y in normed] + pooled, strict=True))
        for edge, row in enumerate(weights)
    ]
    return torch.cat(nodes, 1)


@pytest.mark.parametrize("c, edges, count, identity", [(5, 3, 2, True), (6, 2, 5, False), (70, 1, 4, True)])
def test_weighted_sums_and_their_gradients(kernels, c, edges, count, identity, make, assert_close):
    own = [make(2, edges * c, 5, 4).requires_grad_() for _ in range(count)]
    shared = [make(2, c, 5, 4).requires_grad_() for _ in range(3 if identity else 2)]
    weights = make(edges, count + len(shared)).requires_grad_()
    y = terms(own, shared, weights)
    before, g = make(*y.shape), make(*y.shape)
    expected = torch.autograd.grad(y, [*own, *shared, weights], g)
    with torch.no_grad():
        normed = [of_batch(kernels, z) for z in own]
        pooled = [of_batch(kernels, z) for z in shared[:2]] + [unnormed(x) for x in shared[2:]]
        sums = before.clone()
        kernels.add_normed(sums, normed, pooled, weights, begin=False)
        assert_close(sums, before + y)
        kernels.add_normed(sums, normed, pooled, weights, begin=True)
        assert_close(sums, y)
        found = kernels.products(g, normed, pooled, edges)
        assert_close(found[1:].sum(2).t(), expected[-1])
        gradients = kernels.own_gradients(g, normed, weights, found, of_batch=True)
        own_part, shared_part = weights[:, :count], weights[:, count:]
        assert own_part.shape[1] == count
        assert_all_close(assert_close, gradients, expected[:count])
        rest = torch.cat([found[:1], found[1 + count :]])
        assert_all_close(
            assert_close, kernels.shared_gradients(g, pooled, shared_part, rest, of_batch=True), expected[count:-1]
        )


def assert_all_close(assert_close, found, expected):
    for a, b in zip(found, expected, strict=True):
        assert_close(a if isinstance(a, torch.Tensor) else a.made(), b)


def test_running_statistics_are_constants(kernels, make, assert_close):
    z, weights, g = make(2, 6, 4, 3), make(2, 3), make(2, 6, 4, 3)
    mean, inverse = make(6), make(6).abs()
    normed, pooled = [Normed(z, mean, inverse)], [Normed(z[:, :3].clone(), mean[:3], inverse[:3])] * 2
    found = kernels.products(g, normed, pooled, 2)
    (dz,) = kernels.own_gradients(g, normed, weights, found, of_batch=False)
    scale = weights[:, :1].expand(2, 3).reshape(-1)
    assert_all_close(assert_close, [dz], [g * (scale * inverse).view(-1, 1, 1)])
    rest = torch.cat([found[:1], found[2:]])
    first, _ = kernels.shared_gradients(g, pooled, weights[:, 1:], rest, of_batch=False)
    mixed = g[:, :3] * weights[0, 1] + g[:, 3:] * weights[1, 1]
    assert_close(first, mixed * inverse[:3].view(-1, 1, 1))
