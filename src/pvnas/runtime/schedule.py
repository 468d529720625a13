"""Learning-rate schedules as pure functions of the epoch."""

from __future__ import annotations

import math

from pvnas.config import BatchConfig, ScheduleConfig, WeightOptimizerConfig

WARMUP_START = 0.01


def schedule_factor(schedule: ScheduleConfig, epoch: float, epochs: int) -> float:
    """Return the factor on the learning rate after ``epoch`` of ``epochs`` epochs (a fraction within an epoch).

    step: the paper's section 4.2.1, times step_factor every step_epochs. cosine: from 1 to final_factor over the epochs
    after the warm-up (Loshchilov and Hutter, 2017). constant: 1. The warm-up is linear (Goyal et al., 2017).
    """
    if epoch < schedule.warmup_epochs:
        return WARMUP_START + (1.0 - WARMUP_START) * epoch / schedule.warmup_epochs
    if schedule.kind == "step":
        return schedule.step_factor ** math.floor(epoch / schedule.step_epochs)
    if schedule.kind == "cosine":
        share = min(1.0, (epoch - schedule.warmup_epochs) / max(epochs - schedule.warmup_epochs, 1e-9))
        return schedule.final_factor + (1.0 - schedule.final_factor) * 0.5 * (1.0 + math.cos(math.pi * share))
    return 1.0


def scaled_lr(weights: WeightOptimizerConfig, batch: BatchConfig) -> float:
    """Return the peak learning rate of this global batch: linear in its clips (the paper's `0.1 per GPU`)."""
    return weights.lr * batch.clips / weights.lr_clips
