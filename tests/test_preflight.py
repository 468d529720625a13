"""What would end a run after hours is said before a video is decoded."""

from pathlib import Path

import pytest

from pvnas.bench.search import Shape, bench_search
from pvnas.config import RunConfig
from pvnas.errors import UserError
from pvnas.preflight import check_before_start, check_disk, check_networks, check_outputs, make_run_directory
from pvnas.settings import load_config
from pvnas.space.genotype import Genotype, random_genotype


def tiny(**options: object) -> RunConfig:
    return load_config("tiny", overrides={name.replace("__", "."): value for name, value in options.items()})


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"search__layout": "S-NC X-RC"}, r"^search.layout: 'X-RC' is not a cell; write one of S-NC"),
        ({"train__layout": ""}, r"^train.layout: no cells"),
        ({"train__width": 1}, r"^train.width is 1; must be from 2"),
        ({"search__layout": "S-NC"}, r"^train.layout has S-RC, T-NC, T-RC, which search.layout \(S-NC\) does"),
        ({"train__layout": "S-RC*30"}, r"^train.width is 4, and the layout's reductions double it to "),
        (
            {"train__layout": "S-RC*5", "clip__frames": 1, "train__batch__clips_per_shard": 1},
            r"^train: one clip of one frame behind the stem with a crop of 24 pixels leaves .* --train.augment.crop",
        ),
    ],
)  # fmt: skip
def test_networks_that_cannot_be_built_or_trained(options: dict[str, object], says: str) -> None:
    with pytest.raises(UserError, match=says):
        check_networks(tiny(**options), 3)


def test_networks_are_counted_and_a_given_genotype_needs_no_search(tmp_path: Path) -> None:
    network, supernet = check_networks(tiny(), 8)
    assert 50_000 < network < 300_000
    assert 50_000 < supernet < 300_000
    genotype = random_genotype(0)
    assert check_networks(tiny(search__layout="S-NC"), 8, genotype) == [network]
    part = Genotype.from_cells({"S-NC": genotype.cells["S-NC"]})
    with pytest.raises(UserError, match=r"no cell S-RC, T-NC, T-RC, which the layout"):
        check_networks(tiny(), 8, part)


@pytest.mark.parametrize("name", ["figures", "samples", "checkpoints", "tensorboard", "genotypes"])
def test_a_file_in_the_way_of_a_folder(name: str, tmp_path: Path) -> None:
    (tmp_path / name).write_text("")
    with pytest.raises(UserError, match=rf"{name} is a file, and the run writes a folder of that name; move it away"):
        check_before_start(tiny(), tmp_path, 8)


@pytest.mark.parametrize("name", ["report.html", "metrics.jsonl", "results.json", "model.safetensors"])
def test_a_folder_in_the_way_of_a_file(name: str, tmp_path: Path) -> None:
    (tmp_path / name).mkdir()
    with pytest.raises(UserError, match=rf"{name} is a folder, and the run writes a file of that name"):
        check_before_start(tiny(), tmp_path, 8)


def test_a_folder_that_cannot_be_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "figures").mkdir()

    def refuse(dir: Path) -> None:
        if Path(dir).name == "figures":
            raise PermissionError(13, "Permission denied")
        return open(dir / "x", "wb")

    monkeypatch.setattr("tempfile.TemporaryFile", refuse)
    with pytest.raises(UserError, match=r"figures: cannot be written \(Permission denied\)"):
        check_outputs(tmp_path)


def test_too_little_room_says_how_much_is_wanted(tmp_path: Path) -> None:
    check_disk(tmp_path, 1 << 20)
    with pytest.raises(UserError, match=r"its disk has [\d,]+ MiB left, and .* take about [\d,]+ MiB; free some space"):
        check_disk(tmp_path, 1 << 60)


def test_a_report_that_cannot_be_made(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(__import__("sys").modules, "jinja2", None)
    with pytest.raises(UserError, match=r"^the report cannot be made: loading jinja2 fails \(ModuleNotFoundError"):
        check_before_start(tiny(), tmp_path, 8)


def test_a_run_directory_that_cannot_be_made_names_the_option(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match=r"cannot be made \(File exists\); name a run directory with --dir"):
        make_run_directory(tmp_path / "file")


def test_frames_too_small_for_the_plain_supernet_are_one_line() -> None:
    with pytest.raises(UserError, match=r"^frames of 16x16 leave 1x1 pixels .* give at least 33x33 .*: --no-plain"):
        bench_search(Shape(frames=4, height=16, side=16), steps=1, rounds=1)
