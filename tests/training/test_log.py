"""The line that a person sees of an epoch."""

import math

import torch

from pvnas.runtime.progress import Progress
from pvnas.training.log import EpochLog, is_said, read_metrics


def test_every_epoch_is_said_unless_there_are_hundreds():
    assert all(is_said(epoch, 100) for epoch in range(1, 101))
    said = [epoch for epoch in range(1, 278) if is_said(epoch, 277)]
    assert said == [1, *range(6, 277, 6), 277]
    assert len([epoch for epoch in range(1, 401) if is_said(epoch, 400)]) == 51


def test_an_epoch_that_is_not_said_is_kept(tmp_path, capsys):
    log = EpochLog(tmp_path, Progress(), tensorboard=False)
    ones = torch.ones(2)
    sums = {"loss": 4.0 * ones[0], "correct": ones[0], "clips": 2 * ones[0], "class_loss": ones, "class_clips": ones}
    for epoch in (5, 6):
        log.write("train", epoch, 277, sums, {"seconds": 0.5, "wait": 0.0}, {"lr": 0.1})
    assert [line["epoch"] for line in read_metrics(tmp_path / "metrics.jsonl")] == [5, 6]
    assert math.isclose(read_metrics(tmp_path / "metrics.jsonl")[0]["loss"], 2.0)
    shown = capsys.readouterr()
    assert "train epoch 6: loss 2.000, top-1 50.0 %, 4.0 clips/s" in shown.out + shown.err
    assert "epoch 5" not in shown.out + shown.err
