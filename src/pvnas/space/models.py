"""Networks by name, as timm names them: ``create_model("pvnas_l", genotype=genotype, num_classes=101)``."""

import difflib
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

from torch import Tensor, nn

from pvnas.config import PV_NAS_L, NetworkConfig
from pvnas.errors import UserError
from pvnas.space.genotype import Genotype
from pvnas.space.layers import to_channels_last
from pvnas.space.network import PVNASNetwork

# The paper's networks (section 4.2) and small ones of ours.
MODELS = {
    "pvnas_m": NetworkConfig(width=100, repeat=2),
    "pvnas_l": PV_NAS_L,
    "pvnas_l_half": NetworkConfig(width=32),
    "pvnas_l_double": NetworkConfig(width=128),
    "pvnas_tiny": NetworkConfig(width=16, stem="stride2"),
}


def list_models() -> list[str]:
    """Return the names that create_model knows."""
    return sorted(MODELS)


def create_model(
    name: str,
    pretrained: bool = False,
    *,
    genotype: Genotype | str | Path,
    num_classes: int = 400,
    in_chans: int = 3,
    features_only: bool = False,
    **options: Any,
) -> nn.Module:
    """Return a network of this name built from a genotype or a genotype file.

    ``in_chans``: 3 for colours or motion, 2 for flow, or both. ``options`` are PVNASNetwork's (drop_rate,
    drop_path_rate) and NetworkConfig's (width, repeat, layout, stem, head). With ``features_only`` the network returns
    the outputs of its stem and cells. Raises UserError for unknown names and for what does not exist.
    """
    if name not in MODELS:
        near = difflib.get_close_matches(name, MODELS, n=1) or [", ".join(list_models())]
        raise UserError(f"no model {name!r}; did you mean {near[0]}?")
    if pretrained:
        raise UserError(f"{name}: no pretrained weights are published; train it with `pvnas train`")
    if in_chans < 1:
        raise UserError(f"in_chans is {in_chans}; must be at least 1")
    if not isinstance(genotype, Genotype):
        genotype = Genotype.load(genotype)
    names = {field.name for field in fields(NetworkConfig)} - {"in_channels"}  # which timm calls in_chans
    changes = {name: options.pop(name) for name in names & options.keys()}
    config = replace(MODELS[name], in_channels=in_chans, **changes)
    network = PVNASNetwork(genotype, config, num_classes=num_classes, **options)
    return FeatureExtractor(network) if features_only else network


class FeatureExtractor(nn.Module):
    """(N, in_channels, T, H, W) to a list of the outputs of stem and cells; ``feature_info`` describes the cells'."""

    def __init__(self, network: PVNASNetwork) -> None:
        super().__init__()
        network.reset_classifier(0)
        self.network, self.feature_info, self.in_channels = network, network.feature_info, network.in_channels

    def forward(self, x_NCTHW: Tensor) -> list[Tensor]:
        return list(self.network.outputs(to_channels_last(x_NCTHW)))
