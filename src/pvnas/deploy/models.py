"""Networks by name, as timm makes them: ``create_model("pvnas_l", genotype=...)`` and ``"local-dir:RUN"``."""

import difflib
from collections.abc import Sequence
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

from torch import Tensor, nn

from pvnas.config import PV_NAS_L, NetworkConfig
from pvnas.data.clips.network_input import MEAN, STD
from pvnas.deploy.model import load_model
from pvnas.errors import UserError
from pvnas.space.genotype import Genotype
from pvnas.space.network import FeatureInfo, PVNASNetwork

LOCAL = "local-dir:"

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
    genotype: Genotype | str | Path | None = None,
    num_classes: int | None = None,
    in_chans: int = 3,
    features_only: bool = False,
    out_indices: int | Sequence[int] | None = None,
    **options: Any,
) -> nn.Module:
    """Return a network of this name built from a genotype or a genotype file; 400 classes unless ``num_classes`` says.

    ``local-dir:RUN`` is the trained network of a run directory, or of a folder with its model.json and
    model.safetensors; with another ``num_classes`` its classifier is new, with 0 there is none. ``in_chans``: 3 for
    colours or motion, 2 for flow, or both. ``options`` are PVNASNetwork's (drop_rate, drop_path_rate) and
    NetworkConfig's (width, repeat, layout, stem, head), of a trained network PVNASNetwork's alone. With
    ``features_only`` the network returns the outputs of its cells, or of those in ``out_indices``. Raises UserError for
    unknown names and for what does not exist.
    """
    if name.startswith(LOCAL):
        network = _trained(Path(name.removeprefix(LOCAL)), num_classes, **options)
        return FeatureExtractor(network, out_indices) if features_only else network
    if name not in MODELS:
        near = difflib.get_close_matches(name, MODELS, n=1) or [", ".join(list_models())]
        raise UserError(f"no model {name!r}; did you mean {near[0]}?")
    if pretrained:
        raise UserError(f"{name}: no pretrained weights are published; train it with `pvnas train`")
    if in_chans < 1:
        raise UserError(f"in_chans is {in_chans}; must be at least 1")
    if genotype is None:
        raise UserError(f"{name} is built of a genotype: create_model({name!r}, genotype=...)")
    if not isinstance(genotype, Genotype):
        genotype = Genotype.load(genotype)
    names = {field.name for field in fields(NetworkConfig)} - {"in_channels"}  # which timm calls in_chans
    changes = {name: options.pop(name) for name in names & options.keys()}
    config = replace(MODELS[name], in_channels=in_chans, **changes)
    network = PVNASNetwork(genotype, config, num_classes=400 if num_classes is None else num_classes, **options)
    return FeatureExtractor(network, out_indices) if features_only else network


def _trained(
    folder: Path, num_classes: int | None, drop_rate: float = 0.0, drop_path_rate: float = 0.0
) -> PVNASNetwork:
    """Return a trained network, with what timm tells of one."""
    model = load_model(folder)
    network, test, clip = model.network, model.config.test, model.config.clip
    network.pretrained_cfg |= {
        "input_size": (clip.channels, clip.frames, test.crop, test.crop),
        "mean": MEAN,
        "std": STD,
        "label_names": model.classes,
    }
    network.drop_rate = drop_rate
    network.set_drop_path(drop_path_rate)
    if num_classes is not None and num_classes != network.num_classes:
        network.reset_classifier(num_classes)
    return network


class FeatureExtractor(nn.Module):
    """(N, in_channels, T, H, W) to a list of the outputs of cells; ``feature_info`` describes them."""

    def __init__(self, network: PVNASNetwork, out_indices: int | Sequence[int] | None = None) -> None:
        super().__init__()
        network.reset_classifier(0)
        self.network, self.in_channels = network, network.in_channels
        self.out_indices = network.feature_info.rows(out_indices)
        self.feature_info = FeatureInfo(network.feature_info[index] for index in self.out_indices)

    def forward(self, x_NCTHW: Tensor) -> list[Tensor]:
        outputs: list[Tensor] = self.network.forward_intermediates(
            x_NCTHW, self.out_indices, stop_early=True, intermediates_only=True
        )
        return outputs
