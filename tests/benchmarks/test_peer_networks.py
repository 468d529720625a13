"""The networks that ours are measured beside have the sizes that were published."""

import pytest
import torch

from peer_networks import PEERS
from pvnas.bench.roofline import count_macs


@pytest.mark.parametrize("name", ["R(2+1)D-18", "SlowOnly-R50", "X3D-M"])
def test_parameters_and_multiply_accumulates_are_the_published_ones(name):
    peer = PEERS[name]
    with torch.device("meta"):
        network = peer.build().eval()
        clips_NCTHW = torch.empty(1, 3, *peer.clip)
        macs = count_macs(lambda: network(clips_NCTHW))
    assert sum(p.numel() for p in network.parameters()) / 1e6 == pytest.approx(peer.params, abs=0.006)
    assert macs / 1e9 == pytest.approx(peer.gmacs, abs=0.006)
