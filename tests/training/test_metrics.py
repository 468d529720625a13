"""Measures against hand-computed cases and slow, plain definitions."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from pvnas.errors import UserError
from pvnas.training.evaluate import ViewAverage, confusion_matrix, mean_class_accuracy, topk_correct

SCORES = torch.tensor([[0.1, 0.7, 0.2], [0.5, 0.3, 0.2], [0.2, 0.2, 0.6], [0.4, 0.4, 0.2]])
LABELS = torch.tensor([1, 2, 0, 1])


@pytest.mark.parametrize("k, correct", [(1, 1), (2, 3), (3, 4), (5, 4)])
def test_topk_by_hand(k: int, correct: int) -> None:
    """Row 2 ties classes 0 and 1, row 3 too: the lower class comes first."""
    found = topk_correct(SCORES, LABELS, k)
    assert found.shape == ()
    assert found.dtype == torch.int64
    assert int(found) == correct


def test_topk_refuses_less_than_one_and_never_counts_nan() -> None:
    with pytest.raises(ValueError):
        topk_correct(SCORES, LABELS, 0)
    broken = SCORES.clone()
    broken[0, 1] = float("nan")
    assert int(topk_correct(broken, LABELS, 1)) == 0
    broken[:] = float("nan")
    assert int(topk_correct(broken, LABELS, 3)) == 0
    assert int(topk_correct(torch.zeros(0, 3), torch.zeros(0, dtype=torch.long), 1)) == 0


@given(st.data())
def test_topk_is_the_rank_in_a_stable_sort(data: st.DataObject) -> None:
    n, classes = data.draw(st.integers(1, 6)), data.draw(st.integers(1, 5))
    k = data.draw(st.integers(1, 7))
    rows = st.lists(st.sampled_from([-1.0, 0.0, 0.5, 2.0]), min_size=classes, max_size=classes)
    scores = data.draw(st.lists(rows, min_size=n, max_size=n))
    labels = data.draw(st.lists(st.integers(0, classes - 1), min_size=n, max_size=n))
    expected = sum(
        label in sorted(range(classes), key=lambda c: -row[c])[:k] for row, label in zip(scores, labels, strict=True)
    )
    assert int(topk_correct(torch.tensor(scores), torch.tensor(labels), k)) == expected


def test_confusion_has_the_truth_in_rows() -> None:
    predictions, labels = torch.tensor([0, 1, 1, 2, 1]), torch.tensor([0, 0, 1, 1, 1])
    found = confusion_matrix(predictions, labels, 4)
    assert found.tolist() == [[1, 1, 0, 0], [0, 2, 1, 0], [0, 0, 0, 0], [0, 0, 0, 0]]
    assert found.dtype == torch.int64
    assert confusion_matrix(predictions[:0], labels[:0], 2).tolist() == [[0, 0], [0, 0]]


@pytest.mark.parametrize("predictions, labels", [([2], [0]), ([-1], [0]), ([0], [2]), ([0], [-1])])
def test_confusion_refuses_other_classes(predictions: list[int], labels: list[int]) -> None:
    with pytest.raises(ValueError, match="outside"):
        confusion_matrix(torch.tensor(predictions), torch.tensor(labels), 2)


def test_mean_class_accuracy_is_over_classes_present() -> None:
    confusion = torch.tensor([[1, 1, 0, 0], [0, 2, 1, 0], [0, 0, 0, 0], [0, 0, 0, 4]])
    assert mean_class_accuracy(confusion) == pytest.approx((1 / 2 + 2 / 3 + 1) / 3, abs=1e-15)
    assert mean_class_accuracy(torch.zeros(3, 3, dtype=torch.int64)) == 0.0


@pytest.mark.parametrize("average", ["softmax", "logits"])
def test_views_are_averaged_in_any_order_and_batching(average: str) -> None:
    logits = torch.randn(3, 4, 5, generator=torch.Generator().manual_seed(0))  # videos, views, classes
    expected = logits.double() if average == "logits" else logits.double().softmax(2)
    order = torch.randperm(12, generator=torch.Generator().manual_seed(1))
    views = ViewAverage(3, 5, 4, average)
    for part in order.split(5):
        views.add(logits.reshape(12, 5)[part], part // 4, part % 4)
    assert torch.allclose(views.scores(), expected.mean(1), rtol=0, atol=1e-15)


def test_the_two_averages_can_disagree() -> None:
    """One view that is sure outvotes two that are not in logits, but not in probabilities."""
    logits = torch.tensor([[20.0, 0.0], [0.0, 3.0], [0.0, 3.0]])
    winners = {}
    for average in ("softmax", "logits"):
        views = ViewAverage(1, 2, 3, average)
        views.add(logits, torch.zeros(3), torch.arange(3))
        winners[average] = int(views.scores().argmax())
    assert winners == {"softmax": 1, "logits": 0}


def test_in_mirrored_views_classes_that_tell_left_from_right_change_places() -> None:
    """Two views and the same mirrored; classes left, wave, right."""
    logits = torch.tensor([[6.0, 0, 0], [5, 0, 1], [0, 0, 6], [1, 2, 3]])
    views = ViewAverage(1, 3, 4, "logits", (2, 1, 0))
    for part in (torch.tensor([3, 0]), torch.tensor([1, 2])):
        views.add(logits[part], torch.zeros(2), part)
    assert views.scores().tolist() == [[(6 + 5 + 6 + 3) / 4, 2 / 4, (0 + 1 + 0 + 1) / 4]]


def test_missing_repeated_and_broken_views_are_named() -> None:
    views = ViewAverage(4, 2, 2)
    scores = torch.zeros(8, 2)
    views.add(scores, torch.tensor([0, 0, 1, 2, 2, 2, 3, 3]), torch.tensor([0, 1, 0, 0, 1, 1, 0, 1]))
    with pytest.raises(ValueError) as error:
        views.scores(names=["a.mp4", "b.mp4", "c.mp4", "d.mp4"])
    text = str(error.value)
    assert "1 of 4 videos lack views: b.mp4" in text
    assert "1 of 4 videos have a view twice: c.mp4" in text
    assert "a.mp4" not in text


def test_scores_that_are_no_numbers_are_one_line_that_says_what_to_lower() -> None:
    views = ViewAverage(2, 2, 1)
    views.add(torch.tensor([[0.0, 1.0], [float("nan"), 1.0]]), torch.arange(2), torch.zeros(2))
    with pytest.raises(UserError, match=r"^1 of 2 videos have scores that .* numbers: d.mp4; .*--train.weights.lr$"):
        views.scores(names=["a.mp4", "d.mp4"])


def test_many_missing_videos_are_cut_short_and_a_wrong_view_is_an_error() -> None:
    views = ViewAverage(9, 2, 1)
    with pytest.raises(ValueError, match=r"9 of 9 videos lack views: 0, 1, 2, 3, 4, \.\.\."):
        views.scores()
    with pytest.raises(IndexError):
        views.add(torch.zeros(1, 2), torch.tensor([0]), torch.tensor([1]))
    with pytest.raises(ValueError, match="median"):
        ViewAverage(1, 2, 1, "median")
