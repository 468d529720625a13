"""Hours and money follow from speeds as the paper's own figures do."""

import pytest

import estimate as estimate_module
from estimate import EPOCHS, KINETICS_VIDEOS, NETWORK, Plan, Speed, estimate, stage_cost


def test_the_papers_speed_gives_the_papers_twenty_gpu_days():
    found = stage_cost(EPOCHS["search"], Speed(computing=10.5, reading=100.0), Plan(price=2.0))
    assert found["device_days"] == pytest.approx(20.0, abs=0.1)
    assert found["hours"][1] == pytest.approx(80 * KINETICS_VIDEOS / 10.5 / 3600, abs=0.01)
    assert found["hours"][32] == pytest.approx(found["hours"][1] / 32, abs=0.01)
    assert found["money"] == pytest.approx(2.0 * found["hours"][1], abs=0.05)
    assert found["limited_by"] == "computing"


def test_reading_limits_where_it_is_the_slower_one():
    found = stage_cost(1, Speed(computing=100.0, reading=10.0), Plan(workers=4, videos=3600 * 40))
    assert found["limited_by"] == "reading"
    assert found["hours"] == {1: 1.0, 8: 0.12, 32: 0.03}
    assert found["money"] is None


def test_every_stage_is_measured_at_its_own_size(monkeypatch):
    asked = []

    def rate(program, settings, clips):  # both programs are run for real in other tests
        asked.append((program, settings["shape"], clips))
        return 10.0

    monkeypatch.setattr(estimate_module, "_rate", rate)
    found = estimate(Plan(width=32, search_batch=4, train_batch=2, videos=100), repeats=1, reading_clips=8)
    assert [program for program, _, _ in asked] == ["pvnas.bench.search", NETWORK, NETWORK]
    sizes = [(shape["width"], shape["batch"], shape["side"], clips) for _, shape, clips in asked]
    assert sizes == [(32, 4, 112, 4), (32, 2, 224, 2), (50, 2, 224, 2)]
    assert [shape["repeat"] for _, shape, _ in asked[1:]] == [1, 2]
    assert list(found["stages"]) == list(EPOCHS)
    reading = [row["reading_clips_per_s_and_worker"] for row in found["stages"].values()]
    assert reading[0] > 0
    assert reading[1] == reading[2] > 0
