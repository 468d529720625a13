"""The calibration error, by numbers that were added up by hand."""

import pytest
import torch

from pvnas.training.calibration import as_probabilities, calibration


def test_the_error_is_the_mean_distance_of_said_and_right_over_bins() -> None:
    # Said: 0.95 (right), 0.85 (right), 0.85 (wrong), 0.55 (wrong). Bins: (0.5, 0.6], (0.8, 0.9], (0.9, 1].
    best = torch.tensor([0.95, 0.85, 0.85, 0.55])
    scores_VK = torch.stack([best, 1 - best], 1)
    found = calibration(scores_VK, torch.tensor([0, 0, 1, 1]))
    assert found["bins"] == [
        {"low": 50.0, "high": 60.0, "n": 1, "said": 55.0, "right": 0.0},
        {"low": 80.0, "high": 90.0, "n": 2, "said": 85.0, "right": 50.0},
        {"low": 90.0, "high": 100.0, "n": 1, "said": 95.0, "right": 100.0},
    ]
    assert found["ece"] == pytest.approx((1 * 55 + 2 * 35 + 1 * 5) / 4)


def test_whoever_is_sure_and_right_has_none_and_without_videos_nobody_knows() -> None:
    assert calibration(torch.eye(3), torch.arange(3)) == {
        "ece": 0.0,
        "bins": [{"low": 90.0, "high": 100.0, "n": 3, "said": 100.0, "right": 100.0}],
    }
    assert calibration(torch.zeros(0, 3), torch.zeros(0, dtype=torch.int64)) == {"ece": None, "bins": []}


def test_logits_are_made_probabilities_and_those_stay() -> None:
    scores_VK = torch.tensor([[2.0, 0.0]])
    assert torch.equal(as_probabilities(scores_VK, "softmax"), scores_VK)
    torch.testing.assert_close(
        as_probabilities(scores_VK, "logits"), torch.tensor([[0.8808, 0.1192]]), atol=1e-4, rtol=0
    )
