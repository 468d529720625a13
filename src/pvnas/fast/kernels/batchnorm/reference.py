"""Batch norms, mixed by weights, in PyTorch."""

from collections.abc import Sequence

import torch
from torch import Tensor

from pvnas.fast.kernels.interface import Normed
from pvnas.fast.kernels.tensors import dense, per_channel, sum_type, unnormed


def batch_statistics(x: Tensor, eps: float) -> tuple[Tensor, Tensor, Tensor]:
    running: tuple[Tensor | None, Tensor | None] = (None, None)
    if x.dtype != sum_type(x):  # statistics come in the type of the running ones
        mean = x.new_zeros(x.shape[1], dtype=sum_type(x))
        running = mean, mean.clone()
    mean, variance = torch.batch_norm_update_stats(x, *running, 0.0)
    return mean, variance, torch.rsqrt(variance + eps)


def normalise(normed: Normed) -> Tensor:
    factor, shift = factor_and_shift(normed)
    return dense(torch.addcmul(per_channel(shift), normed.z, per_channel(factor)).to(normed.z.dtype))


def factor_and_shift(normed: Normed) -> tuple[Tensor, Tensor]:
    """Return what a norm multiplies its input by and what it adds, (C,) each."""
    factor = normed.inverse_std if normed.weight is None else normed.inverse_std * normed.weight
    shift = -normed.mean * factor
    return factor, shift if normed.bias is None else shift + normed.bias


def add_mixed(
    sums: Tensor,
    per_edge: Sequence[Normed],
    shared: Sequence[Normed],
    weights: Tensor,
    *,
    begin: bool,
    scales: Tensor | None = None,
) -> None:
    edges, channels, dtype = len(weights), sums.shape[1] // len(weights), sum_type(sums)
    if scales is not None:
        outputs = [
            _scaled(normalise(normed).to(dtype), row) for normed, row in zip((*per_edge, *shared), scales, strict=True)
        ]
        per_edge, shared = (
            [unnormed(y) for y in part] for part in (outputs[: len(per_edge)], outputs[len(per_edge) :])
        )
    total = sums.to(dtype).unflatten(1, (edges, channels))  # (F, k, C, H, W), a view of sums that have this type
    terms, shift = [], torch.zeros((), dtype=dtype, device=sums.device)
    for weight, normed in zip(weights.t(), (*per_edge, *shared), strict=True):
        of_edge = weight.view(-1, 1, 1, 1)
        factor, added = (of_edge * x.view(-1, channels, 1, 1) for x in factor_and_shift(normed))  # of k edges or 1
        terms.append((normed.z.unflatten(1, (-1, channels)), factor))
        shift = shift + added
    if begin:
        torch.addcmul(shift, *terms.pop(0), out=total)
    else:
        total += shift
    for z, factor in terms:
        total.addcmul_(z, factor)
    if sums.dtype != dtype:
        sums.copy_(total.flatten(1, 2))


def _scaled(x: Tensor, scales: Tensor | None) -> Tensor:
    """Return pictures times the number of their clip, (N,), in the type of sums; None: as they are."""
    if scales is None:
        return x
    return x.to(sum_type(x)) * scales.repeat_interleave(len(x) // len(scales)).view(-1, 1, 1, 1)


def mixed_grad_sums(
    grad: Tensor, per_edge: Sequence[Normed], shared: Sequence[Normed], edges: int, scales: Tensor | None = None
) -> Tensor:
    grad, every = _scaled(grad, scales), [*per_edge, *(_repeated(normed, edges) for normed in shared)]
    sums = [_grad_sums(grad, normed) for normed in every]
    return torch.stack([sums[0][0], *(of_product for _, of_product in sums)]).unflatten(1, (edges, -1))


def _repeated(normed: Normed, edges: int) -> Normed:
    """Return a norm's channels once for each edge."""
    z, mean, inverse_std, *parameters = normed
    of_channels = (None if x is None else x.repeat(edges) for x in parameters)
    return Normed(torch.cat([z] * edges, 1), mean.repeat(edges), inverse_std.repeat(edges), *of_channels)


def _grad_sums(grad: Tensor, normed: Normed) -> tuple[Tensor, Tensor]:
    """Return the sums over all pixels of the gradient, and of it times what a norm normalises, (C,) each.

    Those are the gradients for the bias and the weight of a batch norm.
    """
    z, mean, inverse_std, *_ = normed
    given = grad.to(mean.dtype), z.to(mean.dtype), None, None, None, mean, inverse_std, True, 0.0
    _, of_product, of_grad = torch.ops.aten.native_batch_norm_backward(*given, [False, True, True])
    return of_grad, of_product


def per_edge_grads(
    grad: Tensor,
    per_edge: Sequence[Normed],
    weights: Tensor,
    sums: Tensor,
    *,
    of_batch: bool,
    scales: Tensor | None = None,
) -> list[Tensor]:
    grad, weights = _scaled(grad, scales), weights.repeat_interleave(sums.shape[2], 0).t()  # (operations, kC)
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
    z, mean, inverse_std, weight, _ = normed
    weights = weights if weight is None else weights * weight
    if of_batch:  # through the statistics
        of_grad, of_product = (sums * weights).sum(1) * inverse_std / (z.numel() // z.shape[1])
        slope = -of_product * inverse_std
        z_grad = torch.addcmul(per_channel(-of_grad - slope * mean), z, per_channel(slope))
    else:
        z_grad = torch.zeros_like(z, dtype=mean.dtype)
    for grad, factor in zip(grads, weights * inverse_std, strict=True):
        z_grad.addcmul_(grad, per_channel(factor))
    return dense(z_grad.to(z.dtype))
