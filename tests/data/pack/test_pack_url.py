"""Packs behind URLs: only the needed ranges are asked for, short faults are waited out, others are one line."""

from __future__ import annotations

import multiprocessing
import socket
from pathlib import Path

import fsspec
import numpy as np
import pytest
import torch
from served import Served

from pvnas.data.pack import Pack, is_pack, open_pack, storage, verify_pack
from pvnas.errors import UserError

CLIP = np.array([3, 7, 11, 15, 19, 23, 27, 31])


@pytest.fixture(autouse=True)
def _no_waiting(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(storage, "SECONDS_BEFORE_SECOND", 0.01)


@pytest.fixture
def memory(pack: Path) -> str:
    files = fsspec.filesystem("memory")
    for path in pack.iterdir():
        if path.is_file():
            files.pipe(f"/bucket/pack/{path.name}", path.read_bytes())
    return "memory://bucket/pack/"


def assert_same(url: str, pack: Path) -> None:
    ours, theirs = open_pack(pack), open_pack(url)
    assert theirs.info == ours.info
    assert theirs.catalog.videos == ours.catalog.videos
    for row in (0, 20, 47):
        assert torch.equal(theirs.frames(row, CLIP), ours.frames(row, CLIP))


def test_urls_of_files_and_of_memory(pack: Path, memory: str) -> None:
    for url in (pack.as_uri(), memory):
        assert is_pack(url)
        assert not is_pack(f"{url.rstrip('/')}/nothing")
        assert_same(url, pack)
        assert verify_pack(url) == []


def test_a_server_is_asked_for_the_needed_ranges_alone(pack: Path, served: Served) -> None:
    assert is_pack(served.url)
    assert_same(served.url, pack)
    found = open_pack(served.url)
    served.ranges.clear()
    reader = found
    reader.frames(20, CLIP)
    shard = found.info.shards[found.members.shards.item(20)].name
    starts = reader.member(20).starts
    assert served.ranges == [
        (shard, found.members.json_offsets.item(20), found.members.json_sizes.item(20)),
        (shard, found.members.mjpeg_offsets.item(20) + starts.item(3), int(starts[32] - starts[3])),
    ]
    assert sum(size for _, _, size in served.ranges) == reader.bytes_read
    assert sum(size for _, _, size in served.ranges) < (pack / shard).stat().st_size / 5
    assert verify_pack(served.url) == []


def test_a_forked_process_can_go_on_reading(pack: Path, served: Served) -> None:
    reader = open_pack(served.url)
    expected = reader.frames(1, CLIP).sum().item()
    with multiprocessing.get_context("fork").Pool(1) as pool:
        assert pool.apply_async(_sum, (reader, 1)).get(20) == expected


def _sum(reader: Pack, row: int) -> int:
    return int(reader.frames(row, CLIP).sum())


def test_short_faults_are_waited_out(pack: Path, served: Served) -> None:
    reader = open_pack(served.url)
    served.statuses += [503, 500, 429]
    assert torch.equal(reader.frames(0, CLIP), open_pack(pack).frames(0, CLIP))


@pytest.mark.parametrize(("status", "answers"), [(503, 4), (403, 1), (401, 1)])
def test_lasting_faults_are_one_line(served: Served, status: int, answers: int) -> None:
    reader = open_pack(served.url)
    served.statuses += [status] * 10
    with pytest.raises(UserError, match=rf"{served.url}/train-00000\.tar cannot be read \(.*{status}") as caught:
        reader.frames(0, CLIP)
    assert "\n" not in str(caught.value)
    assert len(served.statuses) == 10 - answers


def test_what_is_not_there_is_one_line(served: Served, memory: str) -> None:
    with pytest.raises(UserError, match=r"is no finished pack: it has no pack\.json"):
        open_pack("memory://bucket/nothing")
    assert not is_pack(f"{served.url}/nothing")
    fsspec.filesystem("memory").rm("/bucket/pack/train-00000.tar")
    with pytest.raises(UserError, match=r"memory://bucket/pack/train-00000\.tar does not exist"):
        open_pack(memory).times(0)
    assert verify_pack(memory) == ["train-00000.tar: is missing"]


def test_a_refused_connection_and_an_unknown_kind_of_url_are_one_line() -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{taken.getsockname()[1]}/pack"
    for place, text in ((url, "cannot be read .*Connect"), ("nonsense://pack", "cannot be opened .*rotocol")):
        for ask in (is_pack, open_pack):
            with pytest.raises(UserError, match=f"{place}/pack.json {text}") as caught:
                ask(place)
            assert "\n" not in str(caught.value)


def test_a_truncated_shard_is_one_line(memory: str) -> None:
    files = fsspec.filesystem("memory")
    files.pipe("/bucket/pack/train-00000.tar", files.cat("/bucket/pack/train-00000.tar")[:3000])
    with pytest.raises(
        UserError, match=r"memory://bucket/pack/train-00000\.tar: video '.*train-00000\.tar ends before byte"
    ):
        open_pack(memory).frames(0, CLIP)
    assert "train-00000.tar: has 3000 bytes, not" in verify_pack(memory)[0]


def test_a_server_without_ranges_is_named(served: Served) -> None:
    reader = open_pack(served.url)
    served.ignores_ranges = True
    with pytest.raises(UserError, match="sends whole files where a part is asked for"):
        reader.frames(0, CLIP)
