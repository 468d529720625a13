"""What a network costs: parameters, multiply-accumulates, activations.

As everywhere in this field, "GFLOPs" are multiply-accumulates (MACs) of convolutions and the classifier for ONE view at
batch 1; BN, pooling and sums are not counted. PyTorch's own flop counter counts 2 per MAC.
"""

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

import torch
from torch import Tensor, nn

from pvnas.config import PV_NAS_L, NetworkConfig
from pvnas.errors import UserError
from pvnas.space.genotype import Genotype
from pvnas.space.network import PVNASNetwork

LARGE_CLIP = 1 << 20  # values of one channel: 8x320x320 is below it


@dataclass(frozen=True)
class Cost:
    """Cost of one network on one view of a video."""

    params: int
    """Trainable parameters."""
    macs: int
    """Multiply-accumulates of one view."""
    activations: int
    """Elements that convolutions and the classifier put out for one view."""
    clip: tuple[int, int, int]
    """Frames, height and width of the view."""

    def over_views(self, views: int) -> dict[str, Any]:
        """Return the cost as plain data, with the MACs of a video of so many views."""
        return {
            **asdict(self),
            "clip": list(self.clip),
            "macs_per_view": self.macs,
            "views": views,
            "macs_per_video": self.macs * views,
        }


def count_parameters(network: nn.Module) -> int:
    """Return the number of trainable parameters."""
    return sum(p.numel() for p in network.parameters() if p.requires_grad)


def count_macs(network: nn.Module, clip: tuple[int, int, int]) -> tuple[int, int]:
    """Return (MACs, activations) of one (channels, T, H, W) view, from the shapes of convolutions and classifier.

    Give a network on the meta device to count without computing.
    """
    x_NCTHW = torch.empty(1, _in_channels(network), *clip, device=next(network.parameters()).device)
    return _sums(counted_layers(network), positions(network, x_NCTHW))


def network_cost(
    genotype: Genotype,
    config: NetworkConfig = PV_NAS_L,
    *,
    clip: tuple[int, int, int] = (8, 224, 224),
    classes: int = 400,
    **changes: Any,
) -> Cost:
    """Return the cost of the network of a genotype without allocating it.

    ``changes``: fields of the network's config by name, such as width=32.
    """
    if min(clip) < 1 or clip[0] > 4096 or max(clip[1:]) > 16384:
        raise UserError(f"clip is {'x'.join(map(str, clip))}; write frames x height x width, for example 8x224x224")
    if not 1 <= classes <= 10_000_000:
        raise UserError(f"classes is {classes}; must be at least 1")
    config = replace(config, **changes)
    with torch.device("meta"):
        network = PVNASNetwork(genotype, config, num_classes=classes)
    # Frames, height and width of what a layer puts out do not hang on the channels: they are those of the thinnest
    # network, which runs in a tenth of a second. On meta the first pass takes two: for large clips.
    with torch.random.fork_rng(devices=[]), torch.device("cpu" if math.prod(clip) <= LARGE_CLIP else "meta"):
        thin = PVNASNetwork(genotype, replace(config, width=2), num_classes=1)
    x_NCTHW = torch.zeros(1, _in_channels(thin), *clip, device=next(thin.parameters()).device)
    return Cost(count_parameters(network), *_sums(counted_layers(network), positions(thin, x_NCTHW)), clip)


def _sums(layers: Sequence[nn.Conv3d | nn.Linear], positions: Sequence[int]) -> tuple[int, int]:
    """Return (MACs, activations) of layers that put out so many positions."""
    pairs = list(zip(layers, positions, strict=True))
    return sum(n * layer.weight.numel() for layer, n in pairs), sum(n * len(layer.weight) for layer, n in pairs)


def _in_channels(network: nn.Module) -> int:
    """Return the channels of what a network sees: 3 where it does not say."""
    return int(getattr(network, "in_channels", 3))


def counted_layers(network: nn.Module) -> list[nn.Conv3d | nn.Linear]:
    """Return the layers whose multiply-accumulates count, in a fixed order."""
    return [module for module in network.modules() if isinstance(module, nn.Conv3d | nn.Linear)]


def positions(network: nn.Module, x_NCTHW: Tensor) -> list[int]:
    """Return how many positions (frames x height x width; 1 of a linear layer) each counted layer puts out for x."""
    found: dict[nn.Module, int] = {}

    def note(layer: nn.Module, _: Any, output: Tensor) -> None:
        found[layer] = output[0, 0].numel()

    layers, training = counted_layers(network), network.training
    hooks = [layer.register_forward_hook(note) for layer in layers]
    try:
        with torch.no_grad():
            network.eval()(x_NCTHW)
    finally:
        network.train(training)
        for hook in hooks:
            hook.remove()
    return [found.get(layer, 0) for layer in layers]  # 0: not asked by this pass
