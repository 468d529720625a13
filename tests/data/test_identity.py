"""What a run has learnt from is part of it: videos that are added, renamed, changed or moved between two commands."""

import csv
import json
import os
import re
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from pvnas import pipeline, session
from pvnas.cli import main
from pvnas.config import DataConfig, RunConfig
from pvnas.data.dataset import list_videos
from pvnas.data.identity import located, open_learnt, open_to_learn, open_whole, read_learnt
from pvnas.data.pack import pack_videos
from pvnas.errors import UserError
from pvnas.report.record import read_run
from pvnas.runtime.loop import run_epochs
from pvnas.runtime.signals import Interrupted
from pvnas.settings import load_config

SMALL = {
    "search.layout": "S-NC T-RC",
    "search.width": 2,
    "search.epochs": 1,
    "train.layout": "S-NC*K T-RC",
    "train.width": 2,
    "train.epochs": 2,
    "clip.frames": 2,
    "tensorboard": False,
}
CLASSES = ("grow", "move_up", "shrink")


@pytest.fixture(scope="module", autouse=True)
def without_pages() -> Iterator[None]:
    """Their figures would take most of the time."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(session, "write_report", lambda run_dir, *rest: run_dir)
        yield


@pytest.fixture(scope="module")
def project(tiny_shapes: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with videos by class (one of them broken), without splits, and a finished run beside it."""
    project = tmp_path_factory.mktemp("project")
    for name in CLASSES:
        (project / "videos" / name).mkdir(parents=True)
        for path in (tiny_shapes / name).glob("*_*.mp4"):
            shutil.copy2(path, project / "videos" / name / path.name)
    (project / "videos/grow/broken.mp4").write_bytes(b"no video")
    pipeline.run(config_of(project), project / "run")
    return project


@pytest.fixture(params=["videos.json", "before videos.json"])
def copied(request: pytest.FixtureRequest, project: Path, tmp_path: Path) -> Path:
    """A copy of the project at another place, also as versions left it that kept no videos.json."""
    shutil.copytree(project, tmp_path / "project")
    if request.param != "videos.json":
        (tmp_path / "project/run/videos.json").unlink()
    return tmp_path / "project"


def config_of(project: Path) -> RunConfig:
    data = {"data.path": str(project / "videos"), "data.max_bad_share": 0.1}
    return load_config("tiny", overrides=SMALL | data)


def splits(project: Path) -> dict[str, str]:
    opened, _ = open_learnt(config_of(project), project / "run")
    return {video.path: video.split for video in opened.catalog.videos}


def refusal(project: Path) -> str:
    with pytest.raises(UserError) as caught:
        open_learnt(config_of(project), project / "run")
    assert "\n" not in str(caught.value)
    assert "--out FOLDER" in str(caught.value)
    return str(caught.value)


def test_the_run_keeps_its_classes_its_videos_and_what_it_left_out(project: Path) -> None:
    learnt = read_learnt(project / "run")
    assert learnt is not None
    assert learnt.catalog.classes == CLASSES
    paths = [f"{name}/{path.name}" for name in CLASSES for path in sorted((project / "videos" / name).glob("*_*.mp4"))]
    assert list(learnt.catalog.videos.paths) == paths
    assert list(learnt.bytes_V) == [(project / "videos" / path).stat().st_size for path in paths]
    assert [(video.name, video.reason.split(":")[0]) for video in learnt.left_out] == [
        ("grow/broken.mp4", "unreadable")
    ]
    assert learnt.catalog.counts()["test"] == {"grow": 1, "move_up": 1, "shrink": 1}
    tested = [row["path"] for row in csv.DictReader((project / "run/predictions.csv").open())]
    assert tested == [video.path for video in learnt.catalog.videos if video.split == "test"]


def test_videos_that_are_added_are_named_and_move_no_other(copied: Path) -> None:
    before = splits(copied)
    for number in range(20):
        shutil.copy(copied / "videos/grow/grow_0000.mp4", copied / f"videos/grow/new_{number:02d}.mp4")
    shutil.copytree(copied / "videos/grow", copied / "videos/zoom")
    assert splits(copied) == before
    opened, _ = open_learnt(config_of(copied), copied / "run")
    assert opened.catalog.classes == CLASSES
    (remark,) = [remark for remark in opened.catalog.remarks if "added" in remark]
    assert "47 videos (the first is 'grow/new_00.mp4', of new classes 'zoom')" in remark


def test_another_run_with_what_was_added_keeps_the_splits(project: Path, tmp_path: Path) -> None:
    copied = shutil.copytree(project, tmp_path / "project")
    before = splits(copied)
    for number in range(20):
        shutil.copy(copied / "videos/grow/grow_0000.mp4", copied / f"videos/grow/a_{number:02d}.mp4")
    config = config_of(copied)
    anew = {video.path: video.split for video in open_to_learn(config).catalog.videos}
    assert any(anew[path] != split for path, split in before.items())  # of itself the split is another one
    config.data.splits_of = str(copied / "run")
    kept = {video.path: video.split for video in open_to_learn(config).catalog.videos}
    assert {path: kept[path] for path in before} == before
    assert {kept[path] for path in kept.keys() - before.keys() - {"grow/broken.mp4"}} == {"train"}
    config.data.splits_of = str(copied / "videos")
    with pytest.raises(UserError, match=r"holds no videos\.json"):
        open_to_learn(config)


def test_a_class_folder_that_is_renamed_is_named_by_both_names(copied: Path) -> None:
    (copied / "videos/move_up").rename(copied / "videos/ascend")
    assert "its class 'move_up' is called 'ascend' now" in refusal(copied)


def test_another_spelling_of_a_class_is_the_same_class(copied: Path) -> None:
    before = splits(copied)
    lines = [f"{path},{path.partition('/')[0].replace('_', ' ').title()},{split}" for path, split in before.items()]
    (copied / "videos/split.csv").write_text("\n".join(["path,label,split", *lines]))
    assert splits(copied) == before


def test_a_class_and_videos_that_are_gone_are_counted(copied: Path) -> None:
    shutil.rmtree(copied / "videos/move_up")
    (copied / "videos/grow/grow_0003.mp4").unlink()
    text = refusal(copied)
    assert "its class 'move_up' is gone (6 videos)" in text
    assert "gone: 1 video (the first is 'grow/grow_0003.mp4')" in text


def test_what_was_left_out_may_go(copied: Path) -> None:
    before = splits(copied)
    (copied / "videos/grow/broken.mp4").unlink()
    assert splits(copied) == before


def test_another_file_under_the_same_name_is_refused(copied: Path) -> None:
    shutil.copy(copied / "videos/grow/grow_0000.mp4", copied / "videos/shrink/shrink_0000.mp4")
    assert "other files: 1 video (the first is 'shrink/shrink_0000.mp4': " in refusal(copied)


def test_another_label_and_another_split_are_refused(project: Path, tmp_path: Path) -> None:
    copied = shutil.copytree(project, tmp_path / "project")
    listed = splits(copied)
    listed["grow/grow_0000.mp4"] = "test" if listed["grow/grow_0000.mp4"] == "train" else "train"
    rows = [f"{path},{path.partition('/')[0]},{split}" for path, split in listed.items()]
    rows = [row.replace("shrink,", "grow,") if "shrink_0001" in row else row for row in rows]
    (copied / "videos/split.csv").write_text("\n".join(["path,label,split", *rows]))
    text = refusal(copied)
    assert "of another class: 1 video (the first is 'shrink/shrink_0001.mp4': 'shrink', now 'grow')" in text
    assert "in another split: 1 video (the first is 'grow/grow_0000.mp4': " in text


def test_a_test_asks_for_its_own_videos_only(project: Path, tmp_path: Path) -> None:
    copied = shutil.copytree(project, tmp_path / "project")
    for path, split in splits(copied).items():
        if split == "train":
            (copied / "videos" / path).unlink()
    results = pipeline.test(config_of(copied), copied / "run")
    assert results["n_videos"] == 3
    assert "gone: 12 videos" in refusal(copied)


def test_a_run_that_is_moved_with_its_videos_finds_them(copied: Path, capsys: pytest.CaptureFixture[str]) -> None:
    before = json.loads((copied / "run/results.json").read_bytes())
    moved = copied.rename(copied.with_name("elsewhere"))
    lost = DataConfig(path=str(copied.with_name("project") / "videos"))
    assert located(lost, moved / "run").path == str(moved / "videos")
    config = moved / "run/config.yaml"
    config.write_text(config.read_text().replace("/project", "/nowhere/at/all"))
    assert main(["test", str(moved / "run")]) == 0
    after = json.loads((moved / "run/results.json").read_bytes())
    assert {k: v for k, v in after.items() if k != "seconds"} == {k: v for k, v in before.items() if k != "seconds"}
    assert load_config(file=config).data.path == str(moved / "videos")
    (moved / "videos").rename(moved / "clips")
    capsys.readouterr()
    assert main(["test", str(moved / "run")]) == 2
    assert f"say where it lies now: type pvnas test DATA --dir {moved}/run" in capsys.readouterr().err
    assert main(["test", str(moved / "clips"), "--dir", str(moved / "run")]) == 0


def test_an_interrupted_run_ends_in_the_same_bits_whatever_was_added(
    project: Path, tmp_path: Path, monkeypatch, stop_after
) -> None:
    def stopped(stage, folder, checkpoint, stop, progress, **options):
        run_epochs(stage, folder, checkpoint, stop_after(2), progress, **options)

    copied = shutil.copytree(project, tmp_path / "project", ignore=shutil.ignore_patterns("run"))
    config = config_of(copied)
    monkeypatch.setattr(session, "run_epochs", stopped)
    with pytest.raises(Interrupted):
        pipeline.run(config, copied / "run")
    monkeypatch.undo()
    shutil.copytree(copied / "videos/grow", copied / "videos/grown")
    shutil.copy(copied / "videos/grow/grow_0000.mp4", copied / "videos/grow/a.mp4")
    results = pipeline.run(config, copied / "run")
    assert results["digest"] == json.loads((project / "run/results.json").read_bytes())["digest"]
    assert "'grown'" in json.loads((copied / "run/catalog.json").read_bytes())["remarks"][-1]


def test_a_refused_run_is_mended_by_the_option_that_it_names(project: Path, tmp_path: Path) -> None:
    config = config_of(project)
    config.data.max_bad_share = 0.0
    with pytest.raises(UserError, match=r"--data\.max_bad_share"):
        pipeline.search(config, tmp_path / "run")
    config.data.max_bad_share, config.threads = 0.1, 2
    pipeline.search(config, tmp_path / "run")


def test_a_pack_is_the_same_wherever_it_lies_and_no_other(tiny_shapes: Path, tmp_path: Path) -> None:
    videos = list_videos(DataConfig(path=str(tiny_shapes)))
    pack_videos(videos, tmp_path / "pack", short_side=28, max_bad_share=0.1)
    config = load_config("tiny", overrides=SMALL | {"data.path": str(tmp_path / "pack")})
    pipeline.search(config, tmp_path / "run")
    (tmp_path / "pack").rename(tmp_path / "moved")
    config.data.path = str(tmp_path / "moved")
    opened, _ = open_learnt(config, tmp_path / "run")
    assert len(opened.catalog.videos) == 48
    pack_videos(videos, tmp_path / "other", short_side=24, max_bad_share=0.1)
    for path in (tmp_path / "other", tiny_shapes):
        config.data.path = str(path)
        with pytest.raises(UserError, match=r"the pack holds other videos|has learnt from a pack"):
            open_learnt(config, tmp_path / "run")
    (tmp_path / "run/videos.json").unlink()  # as earlier versions left it
    config.data.path = str(tmp_path / "moved")
    open_learnt(config, tmp_path / "run")


# ---- another set


@pytest.fixture
def other(project: Path, tmp_path: Path) -> Path:
    """Four videos of two known classes in other spellings, and one of a class that no run has learnt."""
    folder = tmp_path / "other"
    for name in ("Move Up", "GROW", "zoom"):
        (folder / "train" / name).mkdir(parents=True)
    for number in range(2):
        shutil.copy(project / f"videos/move_up/move_up_000{number}.mp4", folder / f"train/Move Up/u{number}.mp4")
        shutil.copy(project / f"videos/grow/grow_000{number}.mp4", folder / f"train/GROW/grow_000{number}.mp4")
    shutil.copy(project / "videos/shrink/shrink_0001.mp4", folder / "train/zoom/z.mp4")
    return folder


def test_all_of_another_set_is_tested_by_class_names(project: Path, other: Path, tmp_path: Path, capsys) -> None:
    before = {path: path.read_bytes() for path in (project / "run").rglob("*") if path.is_file()}
    command = ["test", str(other), "--dir", str(project / "run"), "--out", str(tmp_path / "tested")]
    assert main(command) == 0
    told = capsys.readouterr().err
    assert "1 of 5 videos are of classes that" in told
    assert "'zoom' (1)" in told
    rows = list(csv.DictReader((tmp_path / "tested/predictions.csv").open()))
    assert {(row["path"], row["label"]) for row in rows} == {
        *((f"train/Move Up/u{n}.mp4", "move_up") for n in range(2)),
        *((f"train/GROW/grow_000{n}.mp4", "grow") for n in range(2)),
    }
    results = json.loads((tmp_path / "tested/results.json").read_bytes())
    assert (results["n_videos"], results["classes"]) == (4, list(CLASSES))
    assert json.loads((tmp_path / "tested/tested.json").read_bytes())["run"] == os.path.abspath(project / "run")
    record = read_run(tmp_path / "tested")
    assert (record.tested["data"], record.missing, record.unreadable) == (str(other), {}, [])
    assert {path: path.read_bytes() for path in before} == before  # the run is as it was
    assert main(command) == 0  # again, over its own results


def test_videos_that_the_network_was_trained_on_are_named(project: Path, other: Path) -> None:
    opened = open_whole(DataConfig(path=str(other)), CLASSES, project / "run")
    trained = [remark for remark in opened.catalog.remarks if "was trained on" in remark]
    assert trained
    assert "'train/GROW/grow_000" in trained[0]


def test_so_are_those_of_a_pack(project: Path, tmp_path: Path) -> None:
    videos = list_videos(DataConfig(path=str(project / "videos")))
    pack_videos(videos, tmp_path / "pack", short_side=28, max_bad_share=0.1)
    opened = open_whole(DataConfig(path=str(tmp_path / "pack")), CLASSES, project / "run")
    assert "was trained on 15 videos of these" in opened.catalog.remarks[-1]


def test_a_model_alone_is_enough_to_test_another_set(project: Path, other: Path, tmp_path: Path) -> None:
    (tmp_path / "model").mkdir()
    for name in ("model.json", "model.safetensors"):
        shutil.copy(project / "run" / name, tmp_path / "model" / name)
    out = tmp_path / "tested"
    assert (
        main(["test", str(other), "--dir", str(tmp_path / "model"), "--out", str(out), "--test.temporal_views=1"]) == 0
    )
    results = json.loads((out / "results.json").read_bytes())
    assert (results["n_videos"], results["views"], results["digest"]) == (4, 1, None)
    again = tmp_path / "again"
    assert (
        main(["test", str(other), "--dir", str(project / "run"), "--out", str(again), "--test.temporal_views=1"]) == 0
    )
    assert (again / "predictions.csv").read_bytes() == (out / "predictions.csv").read_bytes()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda command, other: command[:4], "is not what .* has learnt from: .*--out FOLDER"),
        (lambda command, other: [*command[:2], *command[4:]], "--out goes with another set"),
        (lambda command, other: [*command[:5], str(other)], "is not empty, and no test of another set"),
        (lambda command, other: ["test", str(other / "train/zoom"), *command[2:]], "has no class that .* has learnt"),
    ],
)
def test_what_cannot_be_meant_is_one_line(change, message, project: Path, other: Path, tmp_path: Path, capsys) -> None:
    command = ["test", str(other), "--dir", str(project / "run"), "--out", str(tmp_path / "tested")]
    (other / "train/zoom/deep").mkdir()
    shutil.copy(other / "train/zoom/z.mp4", other / "train/zoom/deep/z.mp4")
    assert main(change(command, other)) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert re.search(message, line)
