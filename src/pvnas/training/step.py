"""Forward, loss and backward of a batch, written out once: the search and the training both make their steps of it.

Legend: N clips, C channels, T frames, H and W pixels, K classes.
"""

from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from pvnas.config import ClipConfig
from pvnas.data.clips.loader import NO_EXTRAS, Extras
from pvnas.data.clips.network_input import network_input
from pvnas.fast.flow import optical_flow
from pvnas.runtime.distributed import ALONE, LOSS_OF_PROCESS, World
from pvnas.runtime.random import key, seed_all
from pvnas.runtime.tree_sum import TreeSum


def autocast(precision: str, device: torch.device) -> AbstractContextManager[Any]:
    """Return the context in which forward passes run: bfloat16 where the config asks for it."""
    return torch.autocast(device.type, torch.bfloat16, enabled=precision == "bf16")


def scores_of(
    network: nn.Module, clips_NCTHW: Tensor, precision: str, clip: ClipConfig, keeps_rgb_N: Tensor | None = None
) -> Tensor:
    """Return the network's scores before softmax of uint8 clips: (N, K), in float32 whatever the precision."""
    x_NCTHW = network_input(clips_NCTHW, clip, keeps_rgb_N, optical_flow)
    with autocast(precision, clips_NCTHW.device):
        scores_NK: Tensor = network(x_NCTHW)
    return scores_NK.to(torch.promote_types(scores_NK.dtype, torch.float32))


def class_sums(
    scores_NK: Tensor, losses_N: Tensor, labels_N: Tensor, shares_N: Tensor | None = None
) -> dict[str, Tensor]:
    """Return sums over the clips of a batch: loss, correct, clips, and loss and clips by class (K,).

    ``shares_N``: what each clip counts (None: 1).
    """
    counts_N = torch.ones_like(losses_N, dtype=torch.float64) if shares_N is None else shares_N.double()
    losses_N, classes = losses_N.detach().double() * counts_N, scores_NK.shape[1]
    zeros_K = torch.zeros(classes, dtype=torch.float64, device=labels_N.device)
    return {
        "loss": losses_N.sum(),
        "correct": ((scores_NK.detach().argmax(1) == labels_N) * counts_N).sum(),
        "clips": counts_N.sum(),
        "class_loss": zeros_K.index_add(0, labels_N, losses_N),
        "class_clips": zeros_K.index_add(0, labels_N, counts_N),
    }


def loss_and_sums(
    scores_NK: Tensor, labels_N: Tensor, extras: Extras, label_smoothing: float, class_weights_K: Tensor | None
) -> tuple[Tensor, dict[str, Tensor]]:
    """Return the mean cross-entropy of a batch and its ``class_sums``, of which the class weights are no part.

    A clip that is mixed with another has the loss of both labels, and is right, by the share of each.
    """

    def of(labels_N: Tensor, shares_N: Tensor | None = None) -> tuple[Tensor, dict[str, Tensor]]:
        losses_N = F.cross_entropy(scores_NK, labels_N, reduction="none", label_smoothing=label_smoothing)
        sums = class_sums(scores_NK, losses_N, labels_N, shares_N)
        losses_N = losses_N if class_weights_K is None else losses_N * class_weights_K[labels_N]
        return (losses_N if shares_N is None else losses_N * shares_N).mean(), sums

    if extras.other_labels_N is None or extras.other_shares_N is None:
        return of(labels_N)
    loss, sums = of(labels_N, 1 - extras.other_shares_N)
    other_loss, other_sums = of(extras.other_labels_N, extras.other_shares_N)
    return loss + other_loss, {name: value + other_sums[name] for name, value in sums.items()}


def loss_gradients(
    network: nn.Module,
    parameters: Sequence[nn.Parameter],
    clips_NCTHW: Tensor,
    labels_N: Tensor,
    clip: ClipConfig,
    *,
    extras: Extras = NO_EXTRAS,
    shards: int = 1,
    seed: int | None = None,
    precision: str = "fp32",
    label_smoothing: float = 0.0,
    class_weights_K: Tensor | None = None,
    world: World = ALONE,
) -> tuple[list[Tensor], dict[str, Tensor]]:
    """Return the gradients of the mean cross-entropy for ``parameters``, and measures summed over the clips.

    ``class_weights_K``: what the loss of each class's clips counts in the gradients (None: all 1); no measure has them.
    ``extras``: what else the batch has, see ``loss_and_sums``.

    The batch has ``shards`` equal parts, each with its own batch-norm statistics and its own random stream of ``seed``
    (None: nothing is drawn); the uint8 clips are those of the parts that this process of ``world`` runs. Gradients and
    updates of the running statistics are averaged over all of them, and the measures summed, in the fixed order of a
    binary tree: no bit depends on who computes which shard.
    """
    statistics = [b for b in network.buffers() if b.is_floating_point()] if shards > 1 else []
    before = [b.clone() for b in statistics]
    here, measures = world.part(shards), dict[str, Tensor]()
    tree, n = TreeSum(world, here.start), len(here)
    shard_inputs = zip(here, clips_NCTHW.chunk(n), labels_N.chunk(n), extras.chunk(n), strict=True)
    for shard, clips, labels, extra in shard_inputs:
        _copy(before, statistics)
        with nullcontext() if seed is None else seed_all(key(seed, shard)):
            scores_NK = scores_of(network, clips, precision, clip, extra.keeps_rgb_N)
        loss, measures = loss_and_sums(scores_NK, labels, extra, label_smoothing, class_weights_K)
        if world.size > 1:
            losses = torch.zeros(world.size, dtype=torch.float64, device=loss.device)
            losses[world.rank] = loss.detach()
            measures[LOSS_OF_PROCESS] = losses
        # As their parameters lie: norms and sums of a tensor take its elements in the order of its memory, so that the
        # bits of what follows would hang on the layer that happened to make it.
        gradients = [gradient.contiguous() for gradient in torch.autograd.grad(loss, list(parameters))]
        tree.add([*gradients, *(b.clone() for b in statistics), *measures.values()])
    total, n = tree.total(), len(parameters)
    gradients, moved, measured = total[:n], total[n : n + len(statistics)], total[n + len(statistics) :]
    if shards > 1:
        gradients = [gradient / shards for gradient in gradients]
        _copy([b / shards for b in moved], statistics)
    return gradients, dict(zip(measures, measured, strict=True))


def _copy(values: Sequence[Tensor], tensors: Sequence[Tensor]) -> None:
    for value, tensor in zip(values, tensors, strict=True):
        tensor.copy_(value)
