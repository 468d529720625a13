"""Predictions from Python: the test's scores, one answer after another, whatever becomes of single videos."""

import math
import os
import shutil
from pathlib import Path

import pytest
import torch
from matplotlib.image import imsave

import pvnas
from pvnas.config import DataConfig
from pvnas.data.dataset import VideoDataset, list_videos
from pvnas.data.video.decode import decode_video
from pvnas.deploy.inputs import find_videos, why_missing
from pvnas.deploy.model import load_model, save_model
from pvnas.training.evaluate import score_views


@pytest.fixture
def videos(tiny_shapes: Path) -> list[Path]:
    return sorted(tiny_shapes.rglob("*.mp4"))[:3]


@pytest.mark.parametrize("folder", ["model_folder", "of_both", "of_flow"])
def test_the_scores_are_those_of_the_test(folder: str, tiny_shapes: Path, request: pytest.FixtureRequest) -> None:
    run_dir: Path = request.getfixturevalue(folder)
    model = load_model(run_dir)
    catalog = list_videos(DataConfig(str(tiny_shapes))).take(range(3))
    dataset = VideoDataset(
        catalog, DataConfig(cache="none"), model.config.test.short_side, colours=model.config.clip.colours
    )
    scores_VK = score_views(model.network, dataset, model.config, torch.device("cpu"))
    paths = [catalog.root / path for path in catalog.videos.paths]
    for scores_K, answer in zip(scores_VK, pvnas.predict(paths, run_dir, device="cpu"), strict=True):
        expected = scores_K.topk(5)
        assert [name for name, _ in answer.classes] == [model.classes[index] for index in expected.indices]
        assert [score for _, score in answer.classes] == pytest.approx(expected.values.tolist(), abs=1e-5)


def test_texts_and_paths_one_and_many_are_the_same(model_folder: Path, videos: list[Path]) -> None:
    (one,) = pvnas.predict(str(videos[0]), str(model_folder))
    assert one.path == videos[0]
    assert len(one.classes) == 5
    assert one.error == ""
    assert pvnas.predict(videos[0], model_folder) == [one]
    many = pvnas.predict([str(videos[0]), videos[1]], model_folder)
    assert [answer.path for answer in many] == videos[:2]
    assert [name for name, _ in many[0].classes] == [name for name, _ in one.classes]
    assert pvnas.predict([], model_folder) == []
    assert len(pvnas.predict(videos[0], model_folder, top=1)[0].classes) == 1


def test_bad_ones_are_named_and_the_rest_goes_on_in_order(
    model_folder: Path, videos: list[Path], tmp_path: Path
) -> None:
    damaged, pipe, empty = tmp_path / "damaged.mp4", tmp_path / "pipe.mp4", tmp_path / "empty.mp4"
    damaged.write_bytes(videos[0].read_bytes()[:700])
    os.mkfifo(pipe)
    empty.touch()
    asked = [tmp_path / "none.mp4", videos[0], damaged, pipe, empty, videos[1], "rtsp://camera/1"]
    answers = list(pvnas.predictions(asked, model_folder))
    assert [answer.path for answer in answers] == list(map(Path, asked))
    assert [answer.error for answer in answers] == [
        "missing: no such file",
        "",
        "unreadable: Invalid data found when processing input",
        "refused: it is no regular file",
        "unreadable: the file has no bytes",
        "",
        "an address is not read, only files are; save a part: ffmpeg -i rtsp://camera/1 -t 60 clip.mp4",
    ]
    assert [len(answer.classes) for answer in answers] == [0, 5, 0, 0, 0, 5, 0]
    with pytest.raises(pvnas.UserError, match=r"none\.mp4: missing: no such file"):
        pvnas.predict(asked, model_folder)


def test_mistakes_are_said_before_any_video_is_read(model_folder: Path, videos: list[Path], tmp_path: Path) -> None:
    with pytest.raises(pvnas.UserError, match="no trained model there"):
        pvnas.predictions(videos, tmp_path)
    with pytest.raises(pvnas.UserError, match="top is 0"):
        pvnas.predictions(videos, model_folder, top=0)
    with pytest.raises(pvnas.UserError, match="no videos in the folder"):
        pvnas.predictions(tmp_path, model_folder)


def test_folders_of_any_layout_are_looked_through(videos: list[Path], tmp_path: Path) -> None:
    for name in ("b/deep/er/x.MP4", "a.avi", ".hidden/h.mp4", "b/._v.mp4", "notes.txt"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(videos[0], tmp_path / name)
    found = [os.path.relpath(video.path, tmp_path) for video in find_videos(tmp_path)]
    assert found == ["a.avi", "b/deep/er/x.MP4"]


LISTS = {
    "kaggle.csv": ("id,fold\n1,0\n2,1\n", ["videos/1.mp4", "videos/2.mp4"]),
    "one_column.csv": ("video_name\n1.mp4\n2.mp4\n", ["videos/1.mp4", "videos/2.mp4"]),
    "found.txt": ("./videos/2.mp4\nvideos/a b.mp4\n", ["./videos/2.mp4", "videos/a b.mp4"]),
    "labelled.txt": ("videos/1.mp4 3\nvideos/a b.mp4 0\n", ["videos/1.mp4", "videos/a b.mp4"]),
    "labelled.csv": ("label;path\nup;videos/1.mp4\n", ["videos/1.mp4"]),
    "missing.txt": ("videos/none.mp4\nrtsp://camera/1\n", ["videos/none.mp4", "rtsp://camera/1"]),
    "answers.csv": ("path,prediction,score,error,up\nvideos/1.mp4,up,0.9,,0.9\n", ["videos/1.mp4"]),
}


@pytest.mark.parametrize("name", LISTS)
def test_lists_with_and_without_labels_are_read(name: str, videos: list[Path], tmp_path: Path) -> None:
    (tmp_path / "videos").mkdir()
    for file in ("1.mp4", "2.mp4", "a b.mp4"):
        shutil.copy(videos[0], tmp_path / "videos" / file)
    text, expected = LISTS[name]
    (tmp_path / name).write_text(text, encoding="utf-8")
    paths = [path if "://" in path else str(tmp_path / path) for path in expected]
    assert [os.path.normpath(video.path) for video in find_videos(tmp_path / name)] == list(
        map(os.path.normpath, paths)
    )


def test_paths_of_a_list_count_from_it_or_from_here_or_are_absolute(
    videos: list[Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "lists").mkdir()
    shutil.copy(videos[0], tmp_path / "lists" / "beside.mp4")
    shutil.copy(videos[0], tmp_path / "here.mp4")
    monkeypatch.chdir(tmp_path)
    Path("lists/list.txt").write_text(f"beside.mp4\nhere.mp4\n{videos[1]}\n", encoding="utf-8")
    assert [video.path for video in find_videos("lists/list.txt")] == ["lists/beside.mp4", "here.mp4", str(videos[1])]


def test_segments_of_a_list_are_videos_of_their_own(videos: list[Path], tmp_path: Path) -> None:
    shutil.copy(videos[0], tmp_path / "film.mp4")
    (tmp_path / "test.csv").write_text("path,start,end\nfilm.mp4,0.1,0.5\nfilm.mp4,1:02,\n", encoding="utf-8")
    found = find_videos(tmp_path / "test.csv")
    assert [(video.start, video.end) for video in found] == [(0.1, 0.5), (62.0, math.inf)]
    assert found[0].name == f"{tmp_path}/film.mp4 [0.1-0.5 s]"


def test_an_empty_list_is_one_line(tmp_path: Path) -> None:
    (tmp_path / "list.txt").write_text("\n\n", encoding="utf-8")
    with pytest.raises(pvnas.UserError, match="names no videos; give one path a line"):
        find_videos(tmp_path / "list.txt")


def test_pictures_are_shown_at_the_rate_of_the_run(model_folder: Path, videos: list[Path], tmp_path: Path) -> None:
    clip = tmp_path / "clip"
    clip.mkdir()
    for number, picture_HWC in enumerate(decode_video(videos[0]).frames_TCHW.permute(0, 2, 3, 1).numpy()):
        imsave(clip / f"img_{number}.png", picture_HWC)
    scores = []
    for frame_rate in (25.0, 2.0):
        model = load_model(model_folder)
        model.config.data.frame_rate = frame_rate
        folder = tmp_path / f"{frame_rate:g}"
        save_model(folder, model.network, model.genotype, model.classes, model.config)
        assert load_model(folder).config.data.frame_rate == frame_rate
        scores.append(pvnas.predict(clip, folder)[0].classes)
    assert scores[0] != scores[1]


def test_scores_that_are_no_numbers_are_said_of_each_video(
    model_folder: Path, videos: list[Path], tmp_path: Path
) -> None:
    model = load_model(model_folder)
    with torch.no_grad():
        for parameter in model.network.parameters():
            parameter.fill_(math.nan)
    save_model(tmp_path, model.network, model.genotype, model.classes, model.config)
    answers = list(pvnas.predictions(videos[:2], tmp_path))
    assert [answer.error for answer in answers] == ["refused: the network's scores are not numbers; train it again"] * 2


def test_a_camera_is_named_by_its_whole_number() -> None:
    assert "ffmpeg -i /dev/video12 " in why_missing("12")
    assert "ffmpeg -i /dev/video12 " in why_missing("/dev/video12")
