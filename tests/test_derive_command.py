"""`pvnas derive`: the cells of a finished search within a budget; and a run that was given one."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest

import pvnas
from pvnas.cli import main
from pvnas.errors import DivergedError, UserError
from pvnas.session import Session
from pvnas.settings import load_config
from pvnas.space.genotype import Genotype
from pvnas.training.log import read_metrics
from pvnas.training.stage import TrainStage

OPTIONS = {
    "tensorboard": False,
    "clip.frames": 2,
    "search.width": 2,
    "search.epochs": 1,
    "train.epochs": 1,
    "search.batch.clips_per_shard": 8,
    "train.batch.clips_per_shard": 8,
}


@pytest.fixture(scope="module")
def run_dir(tiny_shapes: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("derive") / "run"
    pvnas.run(tiny_shapes, folder, preset="tiny", overrides=OPTIONS)
    return folder


def test_cells_within_a_budget_need_no_new_search(
    run_dir: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    cost = json.loads((run_dir / "results.json").read_text())
    assert main(["derive", str(run_dir), "--json"]) == 0
    free = json.loads(capsys.readouterr().out)
    assert free["cost"] == free["cost_without"] == {"params": cost["params"], "macs": cost["macs_per_view"]}
    limit, out = int(0.8 * cost["macs_per_view"]), tmp_path / "small.json"
    assert main(["derive", str(run_dir), "--budget.macs", str(limit), "--out", str(out)]) == 0
    said = capsys.readouterr().out
    assert re.search(r"\d+ of 32 edges are others, at [\d.e-]+ of the sum of log scores:", said)
    assert f"--config {run_dir}/config.yaml --genotype {out} --budget.macs={limit} --dir NEW_RUN" in said
    genotype = Genotype.load(out)
    assert genotype != Genotype.load(run_dir / "genotype.json")
    assert genotype.about["budget"]["cost"]["macs"] <= limit
    assert main(["derive", str(run_dir), "--epoch", "1", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["epoch"] == 1


def test_all_that_a_search_has_to_offer_is_listed_and_drawn(
    run_dir: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["pareto", str(run_dir), "--json", "--out", str(tmp_path / "front.csv")]) == 0
    points = json.loads(capsys.readouterr().out)
    assert len(points) > 20
    assert [point["chosen"] for point in points].count(True) == 1
    lines = (tmp_path / "front.csv").read_text().splitlines()
    assert lines[0] == "MACs of a view,parameters,log score,chosen"
    assert len(lines) == 1 + len(points)
    assert main(["pareto", str(run_dir)]) == 0
    assert f"{len(points)} in all; with --out FILE all of them" in capsys.readouterr().out
    assert "What other budgets would cost" in (run_dir / "report.html").read_text(encoding="utf-8")
    assert (run_dir / "figures" / "front.svg").exists()
    assert main(["pareto", str(tmp_path)]) == 2


def test_a_run_with_a_budget_keeps_it_and_its_page_says_so(tiny_shapes: Path, run_dir: Path, tmp_path: Path) -> None:
    macs = json.loads((run_dir / "results.json").read_text())["macs_per_view"]
    kilo = f"{0.8 * macs / 1000:.1f}k"
    results = pvnas.run(
        tiny_shapes, tmp_path / "run", preset="tiny", overrides={**OPTIONS, "budget.macs": kilo, "seed": 0}
    )
    assert results["macs_per_view"] <= 0.8 * macs + 50
    for path in (tmp_path / "run" / "genotypes").iterdir():
        assert Genotype.load(path).about["budget"]["cost"]["macs"] <= 0.8 * macs + 50
    page = re.sub(r"<[^>]*>", " ", (tmp_path / "run" / "report.html").read_text(encoding="utf-8"))
    assert re.search(r"The cells are the best ones within .* multiply-accumulates of a view: \d+ of 32 edges", page)


@pytest.mark.parametrize("command", ["run", "search", "train", "demo"])
def test_costs_are_typed_as_people_write_them(command: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    where = ["nowhere"] if command != "demo" else ["--dir", str(tmp_path / "no\0where")]
    assert main([command, *where, "--budget.macs", "0.3G", "--budget.params=2M", "--search.width", "0"]) == 2
    assert "search.width must be" in capsys.readouterr().err  # the costs were understood
    assert main([command, *where, "--budget.macs", "5x"]) == 2
    assert (
        "--budget.macs takes a whole number, or one with k, M, G or T, such as 3M, not '5x'" in capsys.readouterr().err
    )


def test_a_budget_of_time_is_kept_by_what_is_measured(
    tiny_shapes: Path, run_dir: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    config = [f"--{name}={value}" for name, value in OPTIONS.items()]
    command = ["run", str(tiny_shapes), "--preset", "tiny", *config, "--budget.latency_ms"]
    assert main([*command, "0.001", "--dir", str(tmp_path / "none")]) == 2
    err = capsys.readouterr().err
    assert re.search(
        r"is known to keep budget\.latency_ms 0\.001, .*takes [\d.]+ ms for a clip on the CPU, .*; allow", err
    )
    assert not (tmp_path / "none" / "alphas.safetensors").exists()  # before the search
    assert main([*command, "60000", "--budget.latency_threads", "1", "--dir", str(tmp_path / "run")]) == 0
    genotype = Genotype.load(tmp_path / "run" / "genotype.json")
    assert genotype == Genotype.load(run_dir / "genotype.json")
    budget = genotype.about["budget"]
    assert 0 < budget["latency"]["median_ms"] < 60000
    assert (budget["latency_of"], budget["edges_changed"]) == ("a clip on the CPU, one thread", 0)
    page = re.sub(r"\s+", " ", re.sub(r"<[^>]*>", " ", (tmp_path / "run" / "report.html").read_text(encoding="utf-8")))
    assert "60,000.00 milliseconds for a clip on the CPU, one thread: 0 of 32 edges" in page
    assert re.search(r"the network took [\d.,]+ milliseconds, in the median of 30 runs in a process of its own", page)
    capsys.readouterr()
    assert main(["derive", str(run_dir), "--budget.latency_ms", "60000", "--threads", "1"]) == 0
    assert re.search(r"ms of a clip on the CPU, one thread +[\d.]+ +[\d.]+", capsys.readouterr().out)


def test_a_width_is_found_by_short_trainings_and_a_run_goes_on_with_it(tiny_shapes: Path, tmp_path: Path) -> None:
    fields = {**OPTIONS, "train.epochs": 16, "budget.macs": "700k", "budget.width": "fit", "train.width": 2}
    found = pvnas.run(tiny_shapes, tmp_path / "run", preset="tiny", overrides=fields)
    config = load_config(file=tmp_path / "run" / "config.yaml")
    about = Genotype.load(tmp_path / "run" / "genotype.json").about
    tried = about["tried"]
    first, last = ([each for each in tried if each["epochs"] == epochs] for epochs in (1, 2))
    assert len(last) == min(3, len(first))
    assert len(first) + len(last) == len(tried) > 3
    best = max(last, key=lambda each: (each["top1"], -each["macs"]))
    size = {"width": best["width"], "repeat": best["repeat"]}
    assert about["fitted"] == size == {name: getattr(config.train, name) for name in size}
    assert size == {name: found[name] for name in size}
    assert best["macs"] == found["macs_per_view"] <= 700_000
    assert found["width"] > 2
    for each in tried:
        name = f"width-{each['width']}-repeat-{each['repeat']}-epochs-{each['epochs']}"
        lines = read_metrics(tmp_path / "run" / "candidates" / name / "metrics.jsonl")
        assert [line["epoch"] for line in lines] == list(range(1, each["epochs"] + 1))
        assert lines[-1]["val_top1"] == each["top1"]
        assert not (tmp_path / "run" / "candidates" / name / "checkpoints").exists()
    # The command that began it goes on with the width that was found, and finds it again where that was all it had.
    for name in ("genotype.json", "model.safetensors", "results.json"):
        (tmp_path / "run" / name).unlink()
    assert pvnas.run(tiny_shapes, tmp_path / "run", preset="tiny", overrides=fields)["digest"] == found["digest"]
    page = re.sub(r"<[^>]*>", " ", (tmp_path / "run" / "report.html").read_text(encoding="utf-8"))
    # Its cells bring their size along, and cells of no size are refused where one was to be found.
    cells, trained = tmp_path / "run" / "genotype.json", {**fields, "train.epochs": 1}
    again = pvnas.train(tiny_shapes, tmp_path / "again", genotype=cells, preset="tiny", overrides=trained)
    assert (again["width"], again["repeat"]) == (found["width"], found["repeat"])
    with pytest.raises(UserError, match=r"name one: --budget\.width given --train\.width N"):
        pvnas.train(tiny_shapes, tmp_path / "no", genotype=pvnas.random_genotype(0), preset="tiny", overrides=trained)
    assert f"Width {best['width']} and repeat {best['repeat']} were chosen by short trainings" in page


def test_a_short_training_that_diverges_is_left_out_and_what_else_fails_ends_the_run(
    tiny_shapes: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fields = {**OPTIONS, "train.epochs": 4, "budget.macs": "700k", "budget.width": "fit"}
    run_stage, failing = Session.run_stage, dict[str, Any]()

    def run(self: Session, stage: Any, *args: Any, **options: Any) -> None:
        if isinstance(stage, TrainStage) and options and failing.get("of") in ("all", stage.config.train.repeat):
            raise failing["error"]
        run_stage(self, stage, *args, **options)

    monkeypatch.setattr(Session, "run_stage", run)
    failing |= {"of": "all", "error": UserError("the disk is full")}
    with pytest.raises(UserError, match="the disk is full"):
        pvnas.run(tiny_shapes, tmp_path / "run", preset="tiny", overrides=fields)
    failing["error"] = DivergedError("train diverged: loss")
    with pytest.raises(UserError, match="none of the widths within the budget could be trained"):
        pvnas.run(tiny_shapes, tmp_path / "run", preset="tiny", overrides=fields)
    assert not (tmp_path / "run" / "genotype.json").exists()
    failing.clear()
    pvnas.run(tiny_shapes, tmp_path / "all", preset="tiny", overrides=fields)
    best = Genotype.load(tmp_path / "all" / "genotype.json").about["fitted"]["repeat"]
    failing |= {"of": best, "error": DivergedError("train diverged: loss")}
    pvnas.run(tiny_shapes, tmp_path / "run", preset="tiny", overrides=fields)
    about = Genotype.load(tmp_path / "run" / "genotype.json").about
    assert about["fitted"]["repeat"] != best
    assert {each["top1"] for each in about["tried"] if each["repeat"] == best} == {-1.0}
    page = re.sub(r"<[^>]*>", " ", (tmp_path / "run" / "report.html").read_text(encoding="utf-8"))
    assert re.search(rf"repeat {best}, [\d,]+ multiply-accumulates: left out after", page)


@pytest.mark.parametrize(
    ("fields", "says"),
    [
        ({"budget.width": "fit"}, "budget.width fit goes by budget.macs and budget.params alone"),
        (
            {"budget.width": "fit", "budget.macs": 1000},
            "no network of this layout, width and clip is within budget.macs",
        ),
    ],
)
def test_a_width_that_cannot_be_found_is_said_before(
    tiny_shapes: Path, tmp_path: Path, fields: dict[str, object], says: str
) -> None:
    with pytest.raises(UserError, match=says):
        pvnas.run(tiny_shapes, tmp_path / "run", preset="tiny", overrides=OPTIONS | fields)
    with pytest.raises(UserError, match=r"hours and budget\.width fit would both choose the width"):
        pvnas.run(tiny_shapes, tmp_path / "run", hours=1, overrides=fields)


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (["--budget.latency_ms", "0.001"], "is known to keep budget.latency_ms 0.001"),
        (["--budget.latency_ms", "-1"], "--budget.latency_ms must be above 0, not -1"),
        (["--budget.macs", "10"], "no network of this layout, width and clip is within budget.macs 10 (the least"),
        (["--budget.macs", "5x"], "a cost is a number of at least 1, such as 0.3G or 3M, not '5x'"),
        (["--budget.params", "0"], "a cost is a number of at least 1, such as 0.3G or 3M, not '0'"),
        (["--epoch", "9"], "has epochs 1 to 1"),
    ],
)
def test_mistakes_are_one_line(
    run_dir: Path, words: list[str], says: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("pvnas.search.latency.SAMPLES", 2)
    assert main(["derive", str(run_dir), *words]) == 2
    err = capsys.readouterr().err
    assert err.count("\n") == 1
    assert says in err
