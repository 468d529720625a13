"""A pack that several processes write in parts is, byte for byte, the one that a single process writes."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from pvnas.data.pack import is_pack, verify_pack
from pvnas.errors import UserError
from pvnas.runtime.files import LOCK, hold, opened


def pack(videos: Path, folder: Path, *more: str) -> subprocess.Popen[str]:
    command = [sys.executable, "-m", "pvnas", "data", "pack", str(videos), str(folder)]
    options = ["--short-side", "32", "--videos-per-shard", "5", "--workers", "1", *more]
    return subprocess.Popen([*command, *options], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def files(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir() if path.is_file() and path.name != LOCK}


@pytest.fixture(scope="module")
def alone(tiny_shapes: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("alone") / "pack"
    assert pack(tiny_shapes, folder).wait(120) == 0
    return folder


def test_parts_that_are_written_at_the_same_time_join_to_the_same_bytes(
    alone: Path, tiny_shapes: Path, tmp_path: Path
) -> None:
    folder = tmp_path / "pack"
    parts = [pack(tiny_shapes, folder, "--part", f"{number}/3") for number in (1, 2, 3)]
    for number, part in enumerate(parts, start=1):
        out, err = part.communicate(timeout=120)
        assert part.returncode == 0, err
        assert f"part {number} of 3 is there" in out
    assert not is_pack(str(folder))
    tars = {name: content for name, content in files(alone).items() if name.endswith(".tar")}
    assert files(folder) == tars
    changed = {name: (folder / name).stat().st_mtime_ns for name in tars}
    assert pack(tiny_shapes, folder).wait(120) == 0
    assert files(folder) == files(alone)
    assert {name: (folder / name).stat().st_mtime_ns for name in tars} == changed  # none was written again
    assert verify_pack(str(folder)) == []
    assert not (folder / "unfinished").exists()


def test_what_no_part_has_written_is_written_by_the_whole(alone: Path, tiny_shapes: Path, tmp_path: Path) -> None:
    folder = tmp_path / "pack"
    assert pack(tiny_shapes, folder, "--part", "2/2").wait(120) == 0
    assert pack(tiny_shapes, folder).wait(120) == 0
    assert files(folder) == files(alone)


def test_the_whole_waits_for_its_parts_and_a_part_for_its_like(tiny_shapes: Path, tmp_path: Path) -> None:
    folder = tmp_path / "pack"
    assert pack(tiny_shapes, folder, "--part", "1/2").wait(120) == 0
    with opened(folder / "unfinished" / "part-1-of-2" / LOCK) as lock:
        hold(lock)
        for more, says in (((), "part-1-of-2 is still being written"), (("--part", "1/2"), "is running")):
            ended = pack(tiny_shapes, folder, *more)
            _, err = ended.communicate(timeout=60)
            assert (ended.returncode, err.count("\n")) == (2, 1), err
            assert says in err


@pytest.mark.parametrize("text", ["0/2", "3/2", "1", "1/0", "a/b", "1/2/3", "-1/2"])
def test_a_part_that_there_is_not(text: str) -> None:
    from pvnas.cli.commands.data import part_of

    with pytest.raises(UserError, match="such as 3/16"):
        part_of(text)
