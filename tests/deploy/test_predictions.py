"""Predictions from Python: the test's scores, one answer after another, whatever becomes of single videos."""

import os
import shutil
from pathlib import Path

import pytest
import torch

import pvnas
from pvnas.config import DataConfig
from pvnas.data.dataset import VideoDataset, list_videos
from pvnas.deploy.inputs import find_videos
from pvnas.deploy.model import load_model
from pvnas.training.evaluate import score_views


@pytest.fixture
def videos(tiny_shapes: Path) -> list[Path]:
    return sorted(tiny_shapes.rglob("*.mp4"))[:3]


def test_the_scores_are_those_of_the_test(model_folder: Path, tiny_shapes: Path) -> None:
    model = load_model(model_folder)
    catalog = list_videos(DataConfig(str(tiny_shapes))).take(range(3))
    dataset = VideoDataset(catalog, DataConfig(cache="none"), model.config.test.short_side)
    scores_VK = score_views(model.network, dataset, model.config, torch.device("cpu"))
    paths = [catalog.root / path for path in catalog.videos.paths]
    for scores_K, answer in zip(scores_VK, pvnas.predict(paths, model_folder, device="cpu"), strict=True):
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
