"""Reading clips: the frames of the source, only the bytes they need, whoever shares the reader."""

from __future__ import annotations

import gc
import itertools
import multiprocessing
import os
import pickle
import threading
import tracemalloc
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import simplejpeg
import torch

from pvnas.data.catalog import Catalog, Video
from pvnas.data.pack import Pack, is_pack, open_pack, storage
from pvnas.data.pack.format import (
    BLOCK,
    END,
    CatalogFile,
    MemberIndex,
    PackedList,
    PackInfo,
    PackOptions,
    PackShard,
    index_bytes,
    padded,
    parse_index,
)
from pvnas.data.video.decode import decode_video
from pvnas.errors import UserError

CLIP = np.array([3, 7, 11, 15, 19, 23, 27, 31])


@pytest.fixture(scope="module")
def reader(pack: Path) -> Pack:
    return open_pack(pack)


def test_a_pack_opens_as_a_catalogue(shapes: Catalog, pack: Path) -> None:
    found = open_pack(pack)
    assert is_pack(pack)
    assert not is_pack(shapes.root)
    assert found.catalog.format == "pack"
    assert found.catalog.root == pack
    assert found.catalog.classes == shapes.classes
    assert found.catalog.counts() == shapes.counts()
    assert found.catalog.videos.rows.tolist() == list(range(48))
    assert {v.path: v for v in found.catalog.videos} == {v.path: v for v in shapes.videos}
    assert found.info.options.short_side == 48
    assert "48 videos (train 32, val 8, test 8), 1536 frames, 6 shards" in found.info.summary()


def test_frames_and_times_are_those_of_the_source(shapes: Catalog, pack: Path, reader: Pack) -> None:
    worst = np.inf
    for row, video in enumerate(open_pack(pack).catalog.videos):
        source = decode_video(shapes.root / video.path, short_side=48)
        times_T, duration = reader.times(row)
        assert (times_T == source.times_T).all()
        assert duration == source.duration
        frames_TCHW = reader.frames(row, np.arange(32))
        assert frames_TCHW.shape == source.frames_TCHW.shape == (32, 3, 48, 48)
        assert reader.size(row) == (48, 48)
        error = (frames_TCHW.float() - source.frames_TCHW.float()).square().mean().item()
        worst = min(worst, 10 * np.log10(255**2 / error))
    print(f"PSNR of the worst of 48 videos: {worst:.1f} dB")
    assert worst > 28  # textured 48x48 pictures with 4:2:0 colours are the hardest there are


def test_frames_are_bit_for_bit_those_of_their_jpeg_files(pack: Path, reader: Pack) -> None:
    members = open_pack(pack).members
    names = [shard.name for shard in open_pack(pack).info.shards]
    for row in (0, 17, 47):
        content = (pack / names[members.shards[row]]).read_bytes()
        start = members.mjpeg_offsets[row]
        body = content[start : start + members.mjpeg_sizes[row]]
        starts = reader.member(row).starts
        files = [body[a:b] for a, b in pairwise(starts)]
        expected = np.stack([simplejpeg.decode_jpeg(files[i], fastdct=False, fastupsample=False) for i in CLIP])
        assert (reader.frames(row, CLIP).permute(0, 2, 3, 1).numpy() == expected).all()


def test_frames_come_in_any_order_and_repeatedly(reader: Pack) -> None:
    whole = reader.frames(5, np.arange(32))
    for wanted in ([31, 31, 31, 0], [5], [], list(range(31, -1, -1))):
        assert torch.equal(reader.frames(5, np.array(wanted, dtype=np.int64)), whole[wanted])
    assert whole.permute(0, 2, 3, 1).is_contiguous()
    for wrong in ([32], [-1]):
        with pytest.raises(IndexError):
            reader.frames(5, np.array(wrong))


def test_only_the_bytes_of_the_clip_are_read(pack: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(storage.FolderStorage, "gap", -1)
    found = open_pack(pack)
    reader = found
    starts = reader.member(9).starts
    json_size = found.members.json_sizes.item(9)
    assert reader.bytes_read == json_size
    reader.frames(9, CLIP)
    assert reader.bytes_read == json_size + int((starts[CLIP + 1] - starts[CLIP]).sum())
    reader.times(9)  # kept
    assert reader.bytes_read == json_size + int((starts[CLIP + 1] - starts[CLIP]).sum())
    reader.size(3), reader.length(3)
    assert reader.member.cache_info().currsize == 1


def test_a_reader_can_be_pickled_forked_and_shared_by_threads(pack: Path) -> None:
    reader = open_pack(pack)
    expected = [reader.frames(row, CLIP) for row in range(48)]
    copy = pickle.loads(pickle.dumps(reader))
    assert copy.bytes_read == 0
    assert torch.equal(copy.frames(3, CLIP), expected[3])
    with multiprocessing.get_context("fork").Pool(2) as pool:
        found = pool.map(_sums, [(reader, row) for row in range(48)])
    assert found == [int(frames.sum()) for frames in expected]
    with ThreadPoolExecutor(4) as threads:
        for row, frames in enumerate(threads.map(lambda row: reader.frames(row % 48, CLIP), range(192))):
            assert torch.equal(frames, expected[row % 48])


def _sums(work: tuple[Pack, int]) -> int:
    return int(work[0].frames(work[1], CLIP).sum())


def test_a_forked_reader_does_not_wait_for_its_parents_threads(pack: Path) -> None:
    reader = open_pack(pack)
    done = threading.Event()

    def read() -> None:
        for row in itertools.cycle(range(48)):
            reader.frames(row, CLIP)
            if done.is_set():
                return

    with ThreadPoolExecutor(2) as threads:
        reading = [threads.submit(read) for _ in range(2)]
        for row in range(8):
            child = multiprocessing.get_context("fork").Process(target=reader.frames, args=(row, CLIP))
            child.start()
            child.join(20)
            assert child.exitcode == 0
        done.set()
        for each in reading:
            each.result()


def test_few_shards_stay_open(pack: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(storage, "OPEN_FILES", 2)
    shards = {(stat.st_dev, stat.st_ino) for stat in (path.stat() for path in pack.glob("*.tar"))}
    assert len(shards) > 2

    def open_shards() -> int:
        found = 0
        for number in os.listdir("/dev/fd"):
            with suppress(OSError):  # the listing's own is closed by now
                stat = os.fstat(int(number))
                found += (stat.st_dev, stat.st_ino) in shards
        return found

    gc.collect()
    before = open_shards()  # of other tests' readers
    reader = open_pack(pack)
    for row in range(48):
        reader.times(row)
    assert before + 1 <= open_shards() <= before + 2
    del reader
    gc.collect()
    assert open_shards() == before


def test_near_ranges_are_read_at_once() -> None:
    from pvnas.data.pack.read import near_groups

    bounds = [(0, 0, 10), (1, 10, 20), (5, 30, 40), (9, 80, 90)]
    assert [len(run) for run in near_groups(bounds, 0)] == [2, 1, 1]
    assert [len(run) for run in near_groups(bounds, 10)] == [3, 1]
    assert [len(run) for run in near_groups(bounds, 1000)] == [4]


# A pack of the size of Kinetics


def large_index(videos: int, per_shard: int) -> tuple[PackInfo, bytes]:
    """Return `pack.json` and catalogue of a pack that has no shards."""
    rows, sizes, counts = [], [], []
    offset = 0
    for row in range(videos):
        if row % per_shard == 0:
            offset = 0
            counts.append(0)
            sizes.append(0)
        json_size, mjpeg_size = 6000 + row % 700, 1_500_000 + row % 100_000
        body = offset + BLOCK + padded(json_size) + BLOCK
        rows.append((row // per_shard, offset + BLOCK, json_size, body, mjpeg_size, 128, 170, 300))
        offset = body + padded(mjpeg_size)
        counts[-1] += 1
        sizes[-1] = offset + len(END)
    listed = [Video(f"class_{r % 400}/video_{r:011d}_000010.mp4", r % 400, "train") for r in range(videos)]
    content = index_bytes(listed, MemberIndex.of(rows))
    shards = [
        PackShard(f"train-{i:05d}.tar", size, "0" * 64, n)
        for i, (size, n) in enumerate(zip(sizes, counts, strict=True))
    ]
    info = PackInfo(
        made_by="",
        options=PackOptions(128, 90, per_shard, 0),
        source=PackedList("list", videos, "0" * 64),
        classes=tuple(f"class {i}" for i in range(400)),
        counts={"train": videos, "val": 0, "test": 0},
        frames=300 * videos,
        shards=tuple(shards),
        left_out=(),
        catalog=CatalogFile(len(content), "0" * 64),
    )
    return info, content


def test_a_hundred_thousand_videos_open_in_bounded_memory() -> None:
    import time

    info, content = large_index(100_000, 256)
    started = time.perf_counter()
    parse_index(content, info)
    print(f"100,000 videos opened in {time.perf_counter() - started:.2f} s, {len(content) / 1e6:.1f} MB")
    tracemalloc.start()
    table, members = parse_index(content, info)
    held, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert len(table) == 100_000
    assert held < 2.5 * len(content)  # the starts of the texts are wider in memory than their lengths in the file
    assert peak < 6 * len(content)
    assert members.frames.sum() == info.frames


def test_damage_is_named_with_video_and_shard(pack: Path, tmp_path: Path) -> None:
    import shutil

    shutil.copytree(pack, tmp_path / "copy")
    found = open_pack(tmp_path / "copy")
    path = tmp_path / "copy" / "train-00000.tar"
    content = bytearray(path.read_bytes())
    start = found.members.mjpeg_offsets.item(0)

    def problem(change: bytes | None, offset: int, read: Any) -> str:
        damaged = bytearray(content)
        damaged[offset : offset + len(change or b"")] = change or b""
        path.write_bytes(damaged if change else content[:offset])
        with pytest.raises(UserError) as caught:
            read(open_pack(tmp_path / "copy"))
        assert "\n" not in str(caught.value)
        assert "train-00000.tar" in str(caught.value)
        assert ascii(found.catalog.videos[0].path) in str(caught.value)
        return str(caught.value)

    def clip(reader: Pack) -> None:
        reader.frames(0, CLIP - 3)

    assert "frame 0 is no JPEG" in problem(b"\0\0", start, clip)
    assert "frame 0 is no whole JPEG" in problem(b"\xff\xd9" * 100, start + 640, clip)
    assert "train-00000.tar ends before byte" in problem(None, start + 10, clip)
    assert "its json is no JSON" in problem(b"[", found.members.json_offsets.item(0), clip)
    assert "its json has a duration" in problem(
        content[BLOCK : start - BLOCK].replace(b'"duration":', b'"xuration":'), BLOCK, lambda reader: reader.times(0)
    )
    path.unlink()
    with pytest.raises(UserError, match=r"train-00000\.tar cannot be opened \(No such file"):
        clip(open_pack(tmp_path / "copy"))
    os.mkfifo(path)
    with pytest.raises(UserError, match="is no regular file"):
        clip(open_pack(tmp_path / "copy"))
