"""Segments are read alike out of files, memory and a pack; each clip lies inside of its own."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from numbered import numbers_of
from safetensors.numpy import load, save
from segments import NUMBERS, segments_of_films

from pvnas.config import AugmentConfig, BatchConfig, ClipConfig, DataConfig, RunConfig, TestConfig, TrainConfig
from pvnas.data.catalog import Catalog
from pvnas.data.clips.loader import test_batches as batches_of_test
from pvnas.data.clips.loader import training_batches, validation_batches
from pvnas.data.dataset import VideoDataset, open_videos
from pvnas.data.pack import open_pack, pack_videos, verify_pack
from pvnas.data.pack.format import DamageError, parse_index, parse_info
from pvnas.errors import UserError

AUGMENT = AugmentConfig(short_side_min=48, short_side_max=48, crop=48, flip="false")


@pytest.fixture(scope="module")
def catalog(tmp_path_factory: pytest.TempPathFactory) -> Catalog:
    return segments_of_films(tmp_path_factory.mktemp("films"))


@pytest.fixture(scope="module")
def pack(catalog: Catalog, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("pack") / "films"
    pack_videos(catalog, folder, short_side=48, quality=100, workers=0)
    return folder


def opened(catalog: Catalog, pack: Path, how: str) -> VideoDataset:
    if how == "pack":
        return open_videos(DataConfig(path=str(pack), validation_share=0, test_share=0), 0).dataset(
            "train", short_side=48
        )
    dataset = VideoDataset(catalog, DataConfig(cache="ram" if how == "memory" else "none"), 48)
    assert dataset.prepare_cache() == (how == "memory")
    return dataset


HOW = ("files", "memory", "pack")


@pytest.mark.parametrize("how", HOW)
def test_a_segment_is_a_video_of_its_own(catalog: Catalog, pack: Path, how: str) -> None:
    dataset = opened(catalog, pack, how)
    assert [video.name for video in dataset.catalog.videos] == [video.name for video in catalog.videos]
    wholes = [dataset.whole(index) for index in range(len(dataset))]
    assert [numbers_of(whole.frames_TCHW) for whole in wholes] == [[0, 1, 2, 3, 4], *NUMBERS, *NUMBERS]
    assert [round(whole.duration, 6) for whole in wholes] == [0.5, *[1.0, 0.45, 0.05, 2.0] * 2]
    assert wholes[2].times_T.tolist() == pytest.approx([0, 0.05, 0.15, 0.25, 0.35], abs=1e-6)
    assert all(len(whole.frames_TCHW) < 40 for whole in wholes)


@pytest.mark.parametrize("how", HOW)
@pytest.mark.parametrize("short_videos", ["clamp", "loop", "fit"])
def test_clips_never_leave_their_segment(catalog: Catalog, pack: Path, how: str, short_videos: str) -> None:
    dataset = opened(catalog, pack, how)
    inside = dict(zip((video.name for video in catalog.videos), [[0, 1, 2, 3, 4], *NUMBERS, *NUMBERS], strict=True))
    clip = ClipConfig(frames=4, window=8, window_rate=10.0, short_videos=short_videos)  # type: ignore[arg-type]
    run = RunConfig(seed=1, data=DataConfig(), clip=clip)
    stage = TrainConfig(augment=AUGMENT, batch=BatchConfig(shards=1, clips_per_shard=9))
    seen = set()
    for epoch in range(3):
        for batch in training_batches(dataset, run, stage, epoch=epoch):
            for name, frames_CTHW in zip(batch.paths, batch.clips_NCTHW, strict=True):
                assert set(numbers_of(frames_CTHW.permute(1, 0, 2, 3))) <= set(inside[name])
                seen.add(name)
    assert seen == set(inside)
    (batch,) = validation_batches(dataset, clip, AUGMENT, 9)
    middle = numbers_of(batch.clips_NCTHW[4].permute(1, 0, 2, 3))
    assert middle == [26, 28, 30, 33]  # of the middle 0.8 s of the two from frame 20 on
    test = TestConfig(temporal_views=3, spatial_views=1, short_side=48, crop=48)
    views = torch.cat([batch.clips_NCTHW for batch in batches_of_test(dataset, clip, test, 4, rows=None, workers=0)])
    for name, of_video in zip(inside, views.unflatten(0, (9, 3)), strict=True):
        assert set(numbers_of(of_video.permute(0, 2, 1, 3, 4).flatten(0, 1))) <= set(inside[name])


def test_files_and_pack_have_the_same_segments_in_the_same_parts(tmp_path: Path, catalog: Catalog, pack: Path) -> None:
    members = open_pack(pack)
    assert sorted(members.catalog.videos.names) == sorted(catalog.videos.names)
    assert verify_pack(pack) == []
    about = members.member(list(members.catalog.videos.names).index("films/a.mp4 [2- s]")).about
    assert (about["path"], about["start"], about["end"], about["duration"]) == ("films/a.mp4", 2.0, None, 2.0)
    whole = members.member(list(members.catalog.videos.names).index("c.mp4")).about
    assert "start" not in whole
    splits = open_videos(DataConfig(path=str(pack), validation_share=0.3, test_share=0), 0).catalog.videos
    of_film = {(video.path, video.split) for video in splits}
    assert len(of_film) == 3  # segments of one film that name no group share a part


def test_a_pack_of_segments_is_written_again_alike_and_knows_its_list(
    tmp_path: Path, catalog: Catalog, pack: Path
) -> None:
    again = tmp_path / "again"
    backwards = catalog.take(np.arange(len(catalog.videos))[::-1].copy())
    pack_videos(backwards, again, short_side=48, quality=100, workers=0)
    for name in ("pack.json", "catalog.safetensors", "train-00000.tar"):
        assert (again / name).read_bytes() == (pack / name).read_bytes()
    with pytest.raises(UserError, match="holds a pack that differs in number of videos"):
        pack_videos(catalog.without({"films/a.mp4 [0-1 s]"}), again, short_side=48, quality=100, workers=0)


def test_a_bad_segment_is_left_out_of_a_pack_by_name(tmp_path: Path, catalog: Catalog) -> None:
    longer = Catalog.of(
        catalog.root,
        catalog.classes,
        [*catalog.videos, catalog.videos[2].__class__("films/a.mp4", 0, "train", None, 9, 10)],
    )
    info = pack_videos(longer, tmp_path / "pack", short_side=48, workers=0, max_bad_share=0.2)
    (left_out,) = info.left_out
    assert left_out.path == "films/a.mp4 [9-10 s]"
    assert left_out.reason == "empty: the segment begins at 9 s, but the video ends at 4 s"
    assert json.loads((tmp_path / "pack/pack.json").read_text())["counts"]["train"] == 9


def test_an_unreadable_segment_is_named_with_its_seconds(tmp_path: Path) -> None:
    catalog = segments_of_films(tmp_path)
    (tmp_path / "films/a.mp4").unlink()
    with pytest.raises(UserError, match=r"films/a\.mp4 \[0-1 s\]' cannot be read \(unreadable: there is no such"):
        VideoDataset(catalog, DataConfig(), 48).frames(1, lambda times_T, duration: np.array([0]))


@pytest.mark.parametrize(
    ("columns", "text"),
    [
        ({"starts": [np.nan] * 9}, "a segment does not end after its start"),
        ({"starts": [-1.0] * 9}, "a segment does not end after its start"),
        ({"ends": [0.0] * 9}, "a segment does not end after its start"),
        ({"starts": [np.inf] * 9}, "a segment does not end after its start"),
        ({"starts": [0.0] * 8}, "column starts has 8 rows for 9 videos"),
        ({"starts": None}, "has other columns than a pack's"),
    ],
)
def test_segments_of_a_pack_are_not_trusted(pack: Path, columns: dict[str, list[float] | None], text: str) -> None:
    info, content = parse_info((pack / "pack.json").read_bytes()), load((pack / "catalog.safetensors").read_bytes())
    for name, values in columns.items():
        if values is None:
            del content[name]
        else:
            content[name] = np.array(values)
    with pytest.raises(DamageError, match=text):
        parse_index(save(content), info)
