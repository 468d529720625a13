"""The control: its network's shape and cost by hand, and a run of it that goes on where it stopped."""

import json
from contextlib import nullcontext

import pytest
import torch

import control
from common import fields_typed
from pvnas import pipeline
from pvnas.config import tiny
from pvnas.errors import UserError
from pvnas.runtime.signals import Interrupted
from pvnas.space.cost import count_macs, count_parameters
from residual_network import ResidualNetwork, width_for


def macs_by_hand(w, depth, frames, side, classes, channels):
    """Of the stem on half the side, then of stages of w, 2w, 4w, 8w, each on half the side of the one before."""
    side = -(-side // 2)
    macs = frames * side * side * (channels * w * 25 + w * w * 3)
    before = w
    for c in (w, 2 * w, 4 * w, 8 * w):
        side = -(-side // 2)
        macs += frames * side * side * (before * c * 9 + c * c * 3 + before * c)  # the shortcut is a 1x1x1 convolution
        macs += (depth - 1) * frames * side * side * (c * c * 9 + c * c * 3)
        before = c
    return macs + before * classes


@pytest.mark.parametrize(("depth", "channels", "side"), [(1, 3, 24), (2, 6, 23)])
def test_macs_and_scores_are_those_of_the_network_as_it_is_written(depth, channels, side):
    network = ResidualNetwork(4, depth, num_classes=5, in_channels=channels)
    assert count_macs(network, (2, side, side))[0] == macs_by_hand(4, depth, 2, side, 5, channels)
    x = torch.randn(3, channels, 2, side, side)
    assert network(x).shape == (3, 5)
    assert network.blocks(network.stem(x)).shape == (3, 32, 2, 1, 1)
    weights = 4 * channels * 25 + 4 * 4 * 3 + 2 * (4 + 4)
    before = 4
    for c in (4, 8, 16, 32):
        weights += before * c * 9 + c * c * 3 + before * c + 3 * 2 * c
        weights += (depth - 1) * (c * c * 12 + 2 * 2 * c)
        before = c
    assert count_parameters(network) == weights + 32 * 5 + 5


def test_a_block_is_the_convolutions_that_pytorch_has():
    torch.manual_seed(0)
    network = ResidualNetwork(3, 2, num_classes=2).eval()
    first, second = network.blocks[:2]
    x = torch.randn(2, 3, 4, 6, 5)

    def factored(x, body, stride):
        (space, norm), relu, (time, last) = body
        y = torch.conv3d(x, space.weight, None, (1, stride, stride), (0, 1, 1))
        return last(torch.conv3d(relu(norm(y)), time.weight, None, 1, (1, 0, 0)))

    shortcut = first.shortcut[1](torch.conv3d(x, first.shortcut[0].weight, None, (1, 2, 2)))
    expected = torch.relu(shortcut + factored(x, first.body, 2))
    torch.testing.assert_close(first(x.contiguous(memory_format=torch.channels_last_3d)), expected)
    torch.testing.assert_close(second(expected), torch.relu(expected + factored(expected, second.body, 1)))


@pytest.mark.parametrize("macs", [1.0, 2.5e6])
def test_the_width_is_the_one_whose_macs_are_nearest(macs):
    found = width_for(macs, 1, (2, 24, 24), num_classes=5, in_channels=3)
    assert found == min(range(1, 60), key=lambda w: abs(macs_by_hand(w, 1, 2, 24, 5, 3) - macs))


RANDOM = "--train.dropout", "0.5", "--train.drop_path=0.2", "--train.epochs", "1"


def run(folder, run_dir, *more):
    control.main([str(folder), "--dir", str(run_dir), "--macs", "2e5", "--preset", "tiny", *more])
    return json.loads((run_dir / "results.json").read_text())


def test_a_stopped_control_ends_in_the_bits_of_an_uninterrupted_one(tiny_shapes, tmp_path, monkeypatch, stop_after):
    monkeypatch.setattr(pipeline, "write_report", lambda *_: None)  # the page has tests of its own
    whole = run(tiny_shapes, tmp_path / "whole", *RANDOM)
    assert len((tmp_path / "whole/predictions.csv").read_text().splitlines()) == 1 + whole["n_videos"]
    assert [json.loads(line)["stage"] for line in (tmp_path / "whole/metrics.jsonl").open()] == ["train"]
    cost = macs_by_hand(whole["width"], 1, 4, 24, 8, 3)
    assert whole["macs_per_view"] == cost == json.loads((tmp_path / "whole/control.json").read_text())["macs_per_view"]

    with monkeypatch.context() as patch:
        patch.setattr(pipeline, "StopRequest", lambda **_: nullcontext(stop_after(5)))
        with pytest.raises(Interrupted):
            run(tiny_shapes, tmp_path / "stopped", *RANDOM)
    resumed = run(tiny_shapes, tmp_path / "stopped", *RANDOM)
    assert resumed["digest"] == whole["digest"] == pipeline.run_digest(tmp_path / "whole")
    assert (tmp_path / "stopped/predictions.csv").read_bytes() == (tmp_path / "whole/predictions.csv").read_bytes()

    with pytest.raises(UserError, match=r"holds another control \(see control.json\); type the old numbers"):
        run(tiny_shapes, tmp_path / "whole", "--depth", "2", *RANDOM)


def test_channels_dropout_and_drop_path_are_the_configs():
    config = tiny()
    config.clip.input, config.train.dropout, config.train.drop_path = "both", 0.3, 0.2
    network = control.build(config, classes=4, macs=2e5, depth=1)
    assert (network.in_channels, network.drop_rate) == (6, 0.3)
    assert {block.drop_path_rate for block in network.blocks} == {0.2}
    again = control.build(config, classes=4, macs=2e5, depth=1)
    assert all(torch.equal(a, b) for a, b in zip(network.parameters(), again.parameters(), strict=True))


def test_macs_of_a_run_without_results_are_refused_in_one_line(tmp_path):
    with pytest.raises(UserError, match="holds no results with macs_per_view; name a tested run, or type --macs N"):
        control.macs_of_run(tmp_path)
    (tmp_path / "results.json").write_text('{"macs_per_view": 290000000}')
    assert control.macs_of_run(tmp_path) == 2.9e8


def test_fields_are_typed_as_for_a_run():
    assert fields_typed(["--a.b", "1", "--c=x=y", "--d", "-2"]) == {"a.b": "1", "c": "x=y", "d": "-2"}
    for words in (["--a.b"], ["word", "1"]):
        with pytest.raises(UserError, match="is no field with a value"):
            fields_typed(words)
