"""Networks that ours are compared with: published ones, and a plain hand-made one, by the same code and recipe.

``pvnas train DATA --peer x3d-s`` trains one from scratch; ``--macs 0.3e9`` makes it as wide as has about so many
multiply-accumulates a view. A new one is a builder and its line in ``PEERS``.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch

from pvnas.errors import UserError
from pvnas.peers import networks
from pvnas.peers.networks import PeerNetwork
from pvnas.peers.residual import ResidualNetwork
from pvnas.space.cost import count_macs

WIDEST = 4096


@dataclass(frozen=True)
class Peer:
    """A network, the clip that it was published for, and what was published of it."""

    build: Callable[..., PeerNetwork | ResidualNetwork]
    """Of a width, num_classes, in_channels, drop_rate and drop_path_rate."""
    width: int
    """The published one."""
    clip: tuple[int, int, int]
    """Frames, height and width."""
    params: float
    """In millions, of 400 classes; NaN where nothing is published."""
    gmacs: float
    """Of one view of that clip, in billions."""
    accuracy: str
    """Top-1 / top-5 on Kinetics-400, percent."""
    source: str
    strides_time: bool = False
    """Whether it leaves every other frame where our stem does (a ``time_stride`` to build with)."""


def residual(width: int, **options: Any) -> ResidualNetwork:
    """Return the plain (2+1)D network with one block a stage."""
    return ResidualNetwork(width, 1, **options)


NOTHING = float("nan")
PEERS = {
    "residual": Peer(residual, 24, (8, 112, 112), NOTHING, NOTHING, "", "written here", strides_time=True),
    "r2plus1d-18": Peer(
        networks.r2plus1d_18, 64, (16, 112, 112), 31.51, 40.52, "57.5 / 78.8, one clip", "torchvision 0.13"
    ),
    "slowonly-r50": Peer(
        networks.slowonly_r50, 64, (8, 224, 224), 32.45, 41.74, "74.8 / 91.6, 30 views", "PySlowFast's model zoo"
    ),
    "x3d-s": Peer(
        networks.x3d, 24, (13, 160, 160), 3.79, 1.96, "72.9 / 90.5, 10 views", "X3D, table 3; parameters: PySlowFast"
    ),
    "x3d-m": Peer(networks.x3d, 24, (16, 224, 224), 3.79, 4.73, "76.2 / -, 30 views", "PySlowFast's model zoo"),
    "tsm-r50": Peer(networks.tsm_r50, 64, (8, 224, 224), 24.3, 33.0, "74.1 / -, 10 clips", "TSM, tables 1 and 2"),
}
"""By the name that is typed. SlowOnly's multiply-accumulates are its published 54.52 G at 256 pixels, at 224."""


def peer(name: str) -> Peer:
    """Return a peer by its name. Raises UserError for an unknown one."""
    if name not in PEERS:
        raise UserError(f"no network {name[:40]!r} to compare with; there are {', '.join(PEERS)}")
    return PEERS[name]


def width_of(found: Peer, macs: float, clip: tuple[int, int, int], **options: Any) -> int:
    """Return the width whose multiply-accumulates of one (T, H, W) view are nearest to ``macs``, at least 1.

    ``options``: num_classes, in_channels (and time_stride) of the network. They grow with the width, so that bisection
    finds it. Raises UserError where they are more than the widest network has.
    """

    def at(width: int) -> int:
        with torch.device("meta"):
            return count_macs(found.build(width, **options), clip)[0]

    low, high = 1, 2
    while at(high) < macs:
        low, high = high, 2 * high
        if high > WIDEST:
            raise UserError(f"no width up to {WIDEST} has {macs:g} multiply-accumulates a view; type smaller --macs")
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (middle, high) if at(middle) < macs else (low, middle)
    return min((low, high), key=lambda width: abs(at(width) - macs))
