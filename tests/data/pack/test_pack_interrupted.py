"""Packing by several processes, killed, stopped and out of space: the same bytes in the end."""

from __future__ import annotations

import errno
import hashlib
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from pvnas.data.catalog import Catalog
from pvnas.data.pack import open_pack, pack_videos, shard, write
from pvnas.errors import UserError

OPTIONS: dict[str, Any] = {"short_side": 48, "videos_per_shard": 10}
PROGRAM = """
import csv, sys, time
from pathlib import Path
from pvnas.data.catalog import Catalog
from pvnas.data.pack import pack_videos
from pvnas.data.catalog import Video

if __name__ == "__main__":
    root, out, workers = Path(sys.argv[1]), Path(sys.argv[2]), int(sys.argv[3])
    rows = list(csv.DictReader(open(root / "split.csv", newline="")))
    classes = sorted({row["label"] for row in rows})
    videos = [Video(row["path"], classes.index(row["label"]), row["split"], row["group"]) for row in rows]
    catalog = Catalog.of(root, classes, videos, "split.csv")
    print("packing", flush=True)
    pack_videos(catalog, out, short_side=48, videos_per_shard=10, workers=workers)
"""


def digests(folder: Path) -> dict[str, str]:
    """Return the SHA-256 of each file of a pack, the lock apart."""
    files = (path for path in folder.rglob("*") if path.is_file() and path.name != ".lock")
    return {str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest() for path in files}


def start(program: Path, shapes: Catalog, out: Path, workers: int) -> subprocess.Popen[str]:
    command = [sys.executable, str(program), str(shapes.root), str(out), str(workers)]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, start_new_session=True)


@pytest.fixture
def program(tmp_path: Path) -> Path:
    path = tmp_path / "program.py"
    path.write_text(PROGRAM)
    return path


def test_any_number_of_processes_writes_the_same_bytes(shapes: Catalog, pack: Path, tmp_path: Path) -> None:
    info = pack_videos(shapes, tmp_path / "two", **OPTIONS, workers=2)
    assert digests(tmp_path / "two") == digests(pack)
    assert info == open_pack(pack).info


def test_killed_anywhere_it_goes_on_and_ends_in_the_same_bytes(
    shapes: Catalog, pack: Path, tmp_path: Path, program: Path
) -> None:
    out = tmp_path / "killed"
    kept: list[int] = []
    for delay in (0.05, 0.2, 0.1):
        process = start(program, shapes, out, 0)
        assert process.stdout is not None
        process.stdout.readline()
        time.sleep(delay)
        process.kill()
        process.communicate()
        kept.append(len(list(out.glob("[!.]*.tar"))))
        assert all(digests(pack)[p.name] == digests(out)[p.name] for p in out.glob("[!.]*.tar"))
        if not (out / "pack.json").exists():
            with pytest.raises(UserError, match=r"no finished pack"):
                open_pack(out)
    assert kept == sorted(kept)
    pack_videos(shapes, out, **OPTIONS, workers=0)
    assert digests(out) == digests(pack)


def test_ctrl_c_leaves_at_once_and_nothing_half_written(
    shapes: Catalog, pack: Path, tmp_path: Path, program: Path
) -> None:
    process = start(program, shapes, tmp_path / "out", 1)
    deadline = time.monotonic() + 20
    while not list((tmp_path / "out").glob("[!.]*.tar")) and time.monotonic() < deadline:
        time.sleep(0.01)
    os.killpg(process.pid, signal.SIGINT)  # as a terminal does: to the workers as well
    _, errors = process.communicate(timeout=5)
    assert errors.count("Traceback") <= 1  # that of the command itself; its workers say nothing
    assert not list((tmp_path / "out").glob(".tmp-*"))
    assert all(digests(pack)[p.name] == digests(tmp_path / "out")[p.name] for p in (tmp_path / "out").glob("[!.]*.tar"))


def test_finished_shards_are_not_packed_again(
    shapes: Catalog, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, pack: Path
) -> None:
    out, done = tmp_path / "out", []
    real = write.pack_shard

    def fail_at_the_third(job: shard.PackShardJob, *rest: Any, **options: Any) -> shard.PackShardRecord:
        if len(done) == 2:
            raise KeyboardInterrupt
        done.append(job.name)
        return real(job, *rest, **options)

    monkeypatch.setattr(write, "pack_shard", fail_at_the_third)
    with pytest.raises(KeyboardInterrupt):
        pack_videos(shapes, out, **OPTIONS, workers=0)
    monkeypatch.setattr(write, "pack_shard", lambda job, *a, **b: (done.append(job.name), real(job, *a, **b))[1])
    pack_videos(shapes, out, **OPTIONS, workers=0)
    assert len(done) == len(set(done)) == 6
    assert digests(out) == digests(pack)
    assert pack_videos(shapes, out, **OPTIONS, workers=0) == open_pack(pack).info  # nothing left to do
    assert len(done) == 6


def test_a_worker_that_is_killed_is_named_in_one_line(shapes: Catalog, tmp_path: Path, pack: Path) -> None:
    killed = []

    class Killer:
        """Shows nothing; at the third video it kills the process that decodes."""

        def task(self, title: str, total: int) -> Killer:
            return self

        def __enter__(self) -> Killer:
            return self

        def __exit__(self, *error: object) -> None:
            pass

        def advance(self, steps: int = 1) -> None:
            import multiprocessing

            if not killed:
                (worker,) = multiprocessing.active_children()
                killed.append(worker.pid)
                os.kill(worker.pid or 0, signal.SIGKILL)

    with pytest.raises(
        UserError, match=r"the process that packed train-0000\d\.tar was ended by signal 9 at"
    ) as caught:
        pack_videos(shapes, tmp_path / "out", **OPTIONS, workers=1, progress=Killer())
    assert "\n" not in str(caught.value)
    pack_videos(shapes, tmp_path / "out", **OPTIONS, workers=0)
    assert digests(tmp_path / "out") == digests(pack)


def test_a_full_disk_is_one_line_and_finished_shards_stay(
    shapes: Catalog, tmp_path: Path, pack: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real, written = shard.write_all, [0]

    def write_some(descriptor: int, content: bytes) -> None:
        written[0] += len(content)
        if written[0] > 1_000_000:
            raise OSError(errno.ENOSPC, "No space left on device")
        real(descriptor, content)

    monkeypatch.setattr(shard, "write_all", write_some)
    with pytest.raises(UserError, match=r"No space left on device.*free some space, then type the same command"):
        pack_videos(shapes, tmp_path / "out", **OPTIONS, workers=0)
    there = sorted(path.name for path in (tmp_path / "out").glob("[!.]*.tar"))
    assert 1 <= len(there) < 6
    assert not list((tmp_path / "out").glob(".tmp-*"))
    monkeypatch.undo()
    pack_videos(shapes, tmp_path / "out", **OPTIONS, workers=0)
    assert digests(tmp_path / "out") == digests(pack)
