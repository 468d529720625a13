"""A network costs a constant and the sum of its edges: exactly, whatever the genotype, layout, size and stem."""

from __future__ import annotations

import pytest

from pvnas.config import PAPER_LAYOUT, NetworkConfig
from pvnas.space.cost import network_cost
from pvnas.space.cost_table import FREE, CostTable
from pvnas.space.genotype import Edge, random_genotype

CONFIGS = {
    "paper": (NetworkConfig(PAPER_LAYOUT, 4, 1), (2, 64, 64), 5),
    "deeper, odd sizes": (NetworkConfig(PAPER_LAYOUT, 6, 2), (3, 75, 61), 7),
    "small": (NetworkConfig("S-NC*K S-RC S-RC T-NC*2 T-RC T-RC", 4, 1, "stride2"), (2, 24, 24), 2),
    "every other frame, flow": (NetworkConfig(PAPER_LAYOUT, 4, 1, "stride4-time2", in_channels=2), (5, 72, 72), 21),
    "two categories": (NetworkConfig("T-NC T-RC", 4, 1, "stride4-time"), (2, 24, 24), 2),
}


@pytest.mark.parametrize("name", CONFIGS)
def test_the_sum_is_what_is_counted(name: str) -> None:
    config, clip, classes = CONFIGS[name]
    table = CostTable.made_for(config, clip, classes)
    for seed in range(25):
        genotype = random_genotype(100 + seed)
        cost = network_cost(genotype, config, clip=clip, classes=classes)
        assert table.of(genotype) == (cost.params, cost.macs)


def test_there_are_36_numbers_and_those_of_no_cell_are_free() -> None:
    config, clip, classes = CONFIGS["paper"]
    table = CostTable.made_for(config, clip, classes)
    assert len(table.operations) == 5 + 2 * 5 + 7 + 2 * 7
    halved, whole = (table.of_edge("S-RC", Edge(node, "sep_conv_1x3x3")) for node in (1, 2))
    assert halved.macs > 0
    assert halved.params == whole.params
    assert table.of_edge("S-NC", Edge(0, "identity")) == FREE
    assert table.of_edge("S-RC", Edge(0, "identity")).params > 0  # a factorised reduction
    one = CostTable.made_for(*CONFIGS["two categories"])
    assert one.of_edge("S-NC", Edge(0, "sep_conv_1x3x3")) == FREE


def test_a_separable_convolution_by_hand() -> None:
    """Two times a depthwise 1x3x3 and a pointwise convolution with BN, at 8 channels on 2 frames of 8x8 pixels."""
    table = CostTable.made_for(NetworkConfig("S-NC", 8, 1, "stride4"), (2, 32, 32), 3)
    weights = 2 * (8 * 9 + 8 * 8)
    price = table.of_edge("S-NC", Edge(0, "sep_conv_1x3x3"))
    assert price == (weights + 2 * 2 * 8, weights * 2 * 8 * 8)
