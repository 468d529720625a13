"""Networks timed in a process of their own."""

import os

import pytest
import torch

from pvnas.config import ClipConfig, NetworkConfig
from pvnas.deploy.latency import ProcessClock, Use, clock_of
from pvnas.errors import UserError
from pvnas.presets import tiny
from pvnas.space.genotype import CATEGORIES, Edge, Genotype, random_genotype
from pvnas.space.layers import Layers
from pvnas.space.operations import register_operation, unregister_operation

CLIP = ClipConfig(frames=4, input="flow")
NETWORK = NetworkConfig(width=4, stem="stride2-time2", in_channels=CLIP.channels)


def test_each_network_is_timed_as_often_as_asked() -> None:
    clock = ProcessClock(Use(NETWORK, CLIP, (16, 16), 3, "cpu", 1, 2))
    timings = clock([random_genotype(0), random_genotype(1)], 4)
    assert [timing.runs for timing in timings] == [4, 4]
    assert all(0 < timing.median_ms <= timing.p95_ms for timing in timings)
    assert clock.where == "2 clips at once on the CPU, one thread"


def test_a_budget_says_of_what_and_where() -> None:
    config = tiny()
    config.threads, config.budget.latency_batch = 2, 4
    use = clock_of(config, 5).use
    assert use == Use(config.network, config.clip, config.view[1:], 5, use.device, 2, 4)
    config.budget.latency_threads, config.budget.latency_device = 1, "cpu"
    assert clock_of(config, 5).use == Use(config.network, config.clip, config.view[1:], 5, "cpu", 1, 4)


def test_operations_of_ones_own_are_timed_in_this_process() -> None:
    seen = []

    @register_operation("slow_identity", sets=("spatial", "temporal"), has_parameters=False)
    def build(channels: int, stride: int, layers: Layers, *, affine: bool = True) -> torch.nn.Module:
        seen.append(os.getpid())
        return torch.nn.AvgPool3d((1, stride, stride), ceil_mode=True)

    before = torch.get_num_threads()
    try:
        nodes = tuple((Edge(0, "slow_identity"), Edge(1, "slow_identity")) for _ in range(4))
        genotype = Genotype(tuple((category, nodes) for category in CATEGORIES))
        [timing] = ProcessClock(Use(NETWORK, CLIP, (16, 16), 3, "cpu", before + 1, 1))([genotype], 3)
    finally:
        unregister_operation("slow_identity")
    assert timing.median_ms > 0
    assert set(seen) == {os.getpid()}
    assert torch.get_num_threads() == before


def test_what_cannot_be_timed_is_said_in_a_line() -> None:
    clock = ProcessClock(Use(NETWORK, CLIP, (16, 16), 3, "cpu", 1, 1))
    of_a_category = Genotype(tuple(item for item in random_genotype(0).items if item[0] == "S-NC"))
    with pytest.raises(UserError, match=r"cannot be measured: .*no cell S-RC"):
        clock([of_a_category], 1)
