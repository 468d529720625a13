"""Batch norms without parameters, mixed by weights, in PyTorch."""

from collections.abc import Sequence

import torch
from torch import Tensor

from pvnas.fast.kernels.interface import Normed
from pvnas.fast.kernels.tensors import dense, per_channel, sum_type


def batch_statistics(x: Tensor, eps: float) -> tuple[Tensor, Tensor, Tensor]:
    running: tuple[Tensor | None, Tensor | None] = (None, None)
    if x.dtype != sum_type(x):  # statistics come in the type of the running ones
        mean = x.new_zeros(x.shape[1], dtype=sum_type(x))
        running = mean, mean.clone()
    mean, variance = torch.batch_norm_update_stats(x, *running, 0.0)
    return mean, variance, torch.rsqrt(variance + eps)


def normalise(normed: Normed) -> Tensor:
    shift = -normed.mean * normed.inverse_std
    n = torch.addcmul(per_channel(shift), normed.z, per_channel(normed.inverse_std))
    return dense(n.to(normed.z.dtype))


def add_mixed(
    sums: Tensor, per_edge: Sequence[Normed], shared: Sequence[Normed], weights: Tensor, *, begin: bool
) -> None:
    edges, channels, dtype = len(weights), sums.shape[1] // len(weights), sum_type(sums)
    total = sums.to(dtype).unflatten(1, (edges, channels))  # (F, k, C, H, W), a view of sums that have this type
    terms, shift = [], torch.zeros((), dtype=dtype, device=sums.device)
    for weight, normed in zip(weights.t(), (*per_edge, *shared), strict=True):
        mean, inverse_std = (x.view(-1, channels, 1, 1) for x in (normed.mean, normed.inverse_std))  # of k edges or 1
        factor = weight.view(-1, 1, 1, 1) * inverse_std
        terms.append((normed.z.unflatten(1, (-1, channels)), factor))
        shift = shift - mean * factor
    if begin:
        torch.addcmul(shift, *terms.pop(0), out=total)
    else:
        total += shift
    for z, factor in terms:
        total.addcmul_(z, factor)
    if sums.dtype != dtype:
        sums.copy_(total.flatten(1, 2))


def mixed_grad_sums(grad: Tensor, per_edge: Sequence[Normed], shared: Sequence[Normed], edges: int) -> Tensor:
    every = [*per_edge, *(_repeated(normed, edges) for normed in shared)]
    sums = [_grad_sums(grad, normed) for normed in every]
    return torch.stack([sums[0][0], *(of_product for _, of_product in sums)]).unflatten(1, (edges, -1))


def _repeated(normed: Normed, edges: int) -> Normed:
    """Return a norm's channels once for each edge."""
    z, mean, inverse_std = normed
    return Normed(torch.cat([z] * edges, 1), mean.repeat(edges), inverse_std.repeat(edges))


def _grad_sums(grad: Tensor, normed: Normed) -> tuple[Tensor, Tensor]:
    """Return the sums over all pixels of the gradient, and of it times a norm's output, (C,) each.

    Those are the gradients that the shift and the scale of a batch norm would have.
    """
    z, mean, inverse_std = normed
    given = grad.to(mean.dtype), z.to(mean.dtype), None, None, None, mean, inverse_std, True, 0.0
    _, of_product, of_grad = torch.ops.aten.native_batch_norm_backward(*given, [False, True, True])
    return of_grad, of_product


def per_edge_grads(
    grad: Tensor, per_edge: Sequence[Normed], weights: Tensor, sums: Tensor, *, of_batch: bool
) -> list[Tensor]:
    weights = weights.repeat_interleave(sums.shape[2], 0).t()  # (operations, kC)
    return [
        _input_grad([grad], weight[None], normed, torch.stack([sums[0], of_product]).view(2, 1, -1), of_batch)
        for weight, normed, of_product in zip(weights, per_edge, sums[1 : 1 + len(per_edge)], strict=True)
    ]


def shared_grads(
    grad: Tensor, shared: Sequence[Normed], weights: Tensor, sums: Tensor, *, of_batch: bool
) -> list[Tensor]:
    grads = grad.chunk(len(weights), 1)
    return [
        _input_grad(grads, weight[:, None], normed, torch.stack([sums[0], of_product]), of_batch and number < 2)
        for number, (weight, normed, of_product) in enumerate(zip(weights.t(), shared, sums[1:], strict=True))
    ]


def _input_grad(grads: Sequence[Tensor], weights: Tensor, normed: Normed, sums: Tensor, of_batch: bool) -> Tensor:
    """Return the gradient for a norm's input from those of the nodes to which its output is added times ``weights``.

    ``weights``: (nodes, C) or (nodes, 1); ``sums``: (2, nodes, C), over all pixels, of ``grads`` and of them times the
    output.
    """
    z, mean, inverse_std = normed
    if of_batch:  # through the statistics
        of_grad, of_product = (sums * weights).sum(1) * inverse_std / (z.numel() // z.shape[1])
        slope = -of_product * inverse_std
        z_grad = torch.addcmul(per_channel(-of_grad - slope * mean), z, per_channel(slope))
    else:
        z_grad = torch.zeros_like(z, dtype=mean.dtype)
    for grad, weight in zip(grads, weights, strict=True):
        z_grad.addcmul_(grad, per_channel(weight * inverse_std))
    return dense(z_grad.to(z.dtype))
