"""Learning rates against the numbers of the paper."""

import pytest
import torch

from pvnas.config import BatchConfig, ScheduleConfig, WeightOptimizerConfig
from pvnas.presets import pvnas_l
from pvnas.runtime.optimizers import schedule_factor, weight_optimizer


def test_the_papers_step_schedule():
    schedule = ScheduleConfig()
    rates = [0.1 * schedule_factor(schedule, epoch, 80) for epoch in (0, 19.99, 20, 39.9, 40, 60, 79.9)]
    assert rates == pytest.approx([0.1, 0.1, 0.01, 0.01, 0.001, 0.0001, 0.0001])


def test_the_cosine_that_collapses_goes_from_01_to_1e4():
    schedule = ScheduleConfig(kind="cosine", final_factor=1e-3)
    assert 0.1 * schedule_factor(schedule, 0, 80) == pytest.approx(0.1)
    assert 0.1 * schedule_factor(schedule, 40, 80) == pytest.approx((0.1 + 1e-4) / 2)
    assert 0.1 * schedule_factor(schedule, 80, 80) == pytest.approx(1e-4)


def test_warm_up_rises_to_one_and_cosine_starts_there():
    schedule = pvnas_l().train.weights.schedule
    assert schedule_factor(schedule, 0, 196) == pytest.approx(0.01)
    assert schedule_factor(schedule, 18, 196) == pytest.approx(0.505)
    assert schedule_factor(schedule, 36, 196) == pytest.approx(1.0)
    assert schedule_factor(schedule, 116, 196) == pytest.approx(0.5)
    assert schedule_factor(schedule, 196, 196) == pytest.approx(0.0)


def test_constant():
    assert schedule_factor(ScheduleConfig(kind="constant"), 33.3, 80) == 1.0


def test_rates_are_linear_in_the_global_batch():
    """0.1 per GPU of 32 clips is 3.2 on the paper's 32 GPUs; 0.01 per GPU of 8 clips is 0.32."""
    config = pvnas_l()
    weights = {"w": torch.nn.Parameter(torch.zeros(1))}
    assert weight_optimizer(weights, config.search.weights, config.search.batch).lr == pytest.approx(3.2)
    assert weight_optimizer(weights, config.train.weights, config.train.batch).lr == pytest.approx(0.32)
    few = BatchConfig(shards=1, clips_per_shard=8)
    assert weight_optimizer(weights, WeightOptimizerConfig(), few).lr == pytest.approx(0.025)
