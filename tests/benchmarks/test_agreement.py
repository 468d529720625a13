"""Agreement of cells by hand, its bounds, chance against its exact value, and the script on made-up runs."""

import json
import sys

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import agreement as script
from agreement import agreement, agreement_by_epoch, chance, compare, main, mean_agreement, read_run, spread
from pvnas.errors import UserError
from pvnas.space.genotype import Genotype, random_genotype

IDENTITY, POOL, CONV = "identity", "max_pool_1x3x3", "sep_conv_1x3x3"


def spatial(last, category="S-NC"):
    nodes = [[(0, CONV), (1, CONV)], [(0, CONV), (1, CONV)], [(0, CONV), (1, CONV)], last]
    return Genotype.from_cells({category: nodes})


def test_agreement_by_hand():
    one = spatial([(0, CONV), (4, IDENTITY)])
    assert agreement(one, spatial([(0, CONV), (3, IDENTITY)]))["S-NC"] == {"edges": 7 / 8, "operations": 7 / 8}
    assert agreement(one, spatial([(0, POOL), (4, IDENTITY)]))["S-NC"] == {"edges": 1.0, "operations": 7 / 8}
    assert agreement(one, spatial([(0, POOL), (3, IDENTITY)]))["total"] == {"edges": 7 / 8, "operations": 6 / 8}
    # the same operations, on other edges of the same node, are not the same pairs
    assert agreement(one, spatial([(0, IDENTITY), (4, CONV)]))["S-NC"] == {"edges": 1.0, "operations": 6 / 8}


def test_the_total_is_over_all_cells_and_a_mean_over_all_pairs():
    same = spatial([(0, CONV), (4, CONV)]).cells["S-NC"]
    other = spatial([(1, POOL), (3, POOL)]).cells["S-NC"]
    runs = [Genotype.from_cells({"S-NC": same, "S-RC": cell}) for cell in (same, same, other)]
    assert agreement(runs[0], runs[2])["total"] == {"edges": 14 / 16, "operations": 14 / 16}
    assert mean_agreement(runs)["S-RC"]["edges"] == pytest.approx((1 + 6 / 8 + 6 / 8) / 3)
    assert mean_agreement(runs)["S-NC"]["operations"] == 1.0


@settings(max_examples=30, deadline=None, derandomize=True)
@given(first=st.integers(0, 2**31), second=st.integers(0, 2**31))
def test_agreement_is_symmetric_bounded_and_1_of_equals(first, second):
    one, other = random_genotype(first), random_genotype(second)
    found = agreement(one, other)
    assert found == agreement(other, one)
    assert all(0 <= share["operations"] <= share["edges"] <= 1 for share in found.values())
    assert all(set(share.values()) == {1.0} for share in agreement(one, one).values())


def test_chance_is_what_can_be_counted():
    """Two random pairs of k predecessors share 4/k of 2 edges in the mean, and each its operation once in 5 or 7."""
    edges = sum(4 / k for k in (2, 3, 4, 5)) / 8
    found = chance(["S-NC", "T-NC"], runs=3, draws=300)
    for name, operations in (("S-NC", 5), ("T-NC", 7)):
        assert found[name]["edges"]["mean"] == pytest.approx(edges, abs=0.02)
        assert found[name]["operations"]["mean"] == pytest.approx(edges / operations, abs=0.02)
        assert found[name]["edges"]["mean"] < found[name]["edges"]["of_95_percent"] < 1


def test_spread_is_of_what_there_is():
    assert spread([20.0, None, 24.0]) == {"runs": 2, "mean": 22.0, "sd": pytest.approx(8**0.5)}
    assert spread([None]) == {"runs": 0, "mean": None, "sd": None}


def make_run(folder, genotype, top1=None):
    folder.mkdir(parents=True)
    collapse = {"alpha_entropy": {**dict.fromkeys(genotype.cells, 1.5), "mean": 1.5}}
    (folder / "genotype.json").write_text(genotype.with_about(collapse=collapse).to_json())
    if top1 is not None:
        lines = [{"stage": "search", "epoch": 1, "val_top1": 99}, {"stage": "train", "epoch": 1, "val_top1": top1 + 1}]
        (folder / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
        (folder / "results.json").write_text(json.dumps({"top1": top1}))


def test_the_script_compares_runs(tmp_path, monkeypatch, capsys):
    make_run(tmp_path / "a", spatial([(0, CONV), (4, IDENTITY)]), 20.0)
    make_run(tmp_path / "b", spatial([(0, CONV), (3, POOL)]), 24.0)
    make_run(tmp_path / "c", spatial([(0, CONV), (4, POOL)]))  # searched alone
    monkeypatch.setattr(script, "DRAWS", 20)
    monkeypatch.setattr(sys, "argv", ["agreement.py", str(tmp_path / "out"), *(str(tmp_path / n) for n in "abc")])
    main()
    found = json.loads((tmp_path / "out" / "agreement.json").read_text())
    assert found["agreement"]["S-NC"]["edges"] == pytest.approx((7 + 8 + 7) / 24)
    assert found["parameter_free"]["S-NC"]["mean"] == 1.0
    assert found["alpha_entropy"]["total"]["mean"] == 1.5
    assert found["validation_top1"] == {"runs": 2, "mean": 23.0, "sd": pytest.approx(8**0.5)}
    shown = capsys.readouterr().out
    assert "91.7 %" in shown
    assert "test_top1: mean 22.00 %, sd 2.83, 2 runs" in shown
    assert "by epoch" not in shown


def test_the_agreement_after_each_epoch_that_all_runs_kept(tmp_path):
    one, other = spatial([(0, CONV), (4, IDENTITY)]), spatial([(0, POOL), (3, IDENTITY)])
    for name, genotypes in {"a": [one, one, one], "b": [other, one]}.items():
        (tmp_path / name / "genotypes").mkdir(parents=True)
        for epoch, genotype in enumerate(genotypes, start=1):
            (tmp_path / name / "genotypes" / f"epoch_{epoch:03d}.json").write_text(genotype.to_json())
    found = agreement_by_epoch([tmp_path / "a", tmp_path / "b"])
    assert found == {1: {"edges": 7 / 8, "operations": 6 / 8}, 2: {"edges": 1.0, "operations": 1.0}}
    assert agreement_by_epoch([tmp_path / "a", tmp_path]) == {}


def test_runs_are_made_with_each_seed_and_a_failure_ends_it(tmp_path, monkeypatch):
    commands, codes = [], [0, 0, 3]

    def pvnas(command):
        commands.append(command)
        make_run(tmp_path / "out" / f"seed-{command[5]}", random_genotype(int(command[5])))
        return codes.pop(0)

    monkeypatch.setattr(script, "pvnas", pvnas)
    words = ["agreement.py", str(tmp_path / "out"), "--seeds", "3", "--search-only", "DATA", "--", "--preset", "tiny"]
    monkeypatch.setattr(sys, "argv", words)
    with pytest.raises(SystemExit) as ended:
        main()
    assert ended.value.code == 3
    folder = str(tmp_path / "out" / "seed-1")
    assert commands[1] == ["search", "DATA", "--dir", folder, "--seed", "1", "--preset", "tiny"]
    assert len(commands) == 3


def test_what_cannot_be_compared_is_one_line(tmp_path):
    make_run(tmp_path / "a", spatial([(0, CONV), (4, IDENTITY)]))
    make_run(tmp_path / "b", spatial([(0, CONV), (4, IDENTITY)], "S-RC"))
    with pytest.raises(UserError, match="two runs or more"):
        compare([read_run(tmp_path / "a")])
    with pytest.raises(UserError, match=r"one search\.layout"):
        compare([read_run(tmp_path / name) for name in "ab"])
    with pytest.raises(UserError, match=r"holds no genotype; finish it: pvnas search"):
        read_run(tmp_path)
