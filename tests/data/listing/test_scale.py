"""Data sets of their real size: time, memory, and worker processes that share the list instead of copying it."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

ENTRIES = 100_000

OPEN = """
import json, os, sys, time
from pvnas.config import DataConfig
from pvnas.data.listing import read_catalog
began = time.process_time()
catalog = read_catalog(DataConfig(path=sys.argv[1]))
seconds = time.process_time() - began
peak = 0.0
if os.path.exists("/proc/self/status"):  # getrusage's figure would begin with that of the process that started this one
    with open("/proc/self/status") as file:
        peak = next(int(line.split()[1]) for line in file if line.startswith("VmHWM")) / 1024

def private():
    with open("/proc/self/smaps_rollup") as file:
        return sum(int(line.split()[1]) for line in file if line.startswith("Private_")) / 1024

def walk(pipe):
    before = private()
    total = sum(len(path) for path in catalog.videos.paths) + sum(video.label for video in catalog.videos)
    for row in range(len(catalog.videos)):
        total += catalog.videos[row].label
    os.write(pipe, f"{private() - before}\\n".encode())

grown = []
if os.path.exists("/proc/self/smaps_rollup"):
    reader, writer = os.pipe()
    for _ in range(10):
        if os.fork() == 0:
            walk(writer)
            os._exit(0)
    for _ in range(10):
        os.wait()
    grown = [float(line) for line in os.read(reader, 4096).split()]
print(json.dumps({"videos": len(catalog.videos), "seconds": seconds, "peak": peak, "grown": grown,
                  "torch": "torch" in sys.modules}))
"""


@pytest.fixture(scope="module")
def opened(tmp_path_factory: pytest.TempPathFactory) -> dict:
    root = tmp_path_factory.mktemp("large")
    rows = (f'"class number {n % 400}",id{n:09d},{n % 900},{n % 900 + 10},train,0\n' for n in range(ENTRIES))
    (root / "train.csv").write_text("label,youtube_id,time_start,time_end,split,is_cc\n" + "".join(rows))
    done = subprocess.run([sys.executable, "-c", OPEN, str(root)], capture_output=True, text=True, check=True)
    return json.loads(done.stdout)


def test_100000_entries_open_in_little_memory_and_without_torch(opened: dict) -> None:
    assert opened["videos"] == ENTRIES
    assert not opened["torch"]
    assert opened["peak"] < 300


def test_forked_workers_do_not_copy_the_list(opened: dict) -> None:
    if not opened["grown"]:
        pytest.skip("no /proc/self/smaps_rollup")
    assert len(opened["grown"]) == 10
    assert max(opened["grown"]) < 4, "MB; measured: 1.4; the columns have 9, and as objects 25 and more"


def test_of_files_with_known_endings_none_is_opened(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from catalogs import read_catalog
    from pvnas.data.listing import content

    asked = []
    monkeypatch.setattr(content, "begins_as_video", lambda path: asked.append(Path(path).name))
    for number in range(40):
        (tmp_path / f"c{number % 2}").mkdir(exist_ok=True)
        for ending in (".mp4", ".MPE", ".jpg", ".xyz"):
            (tmp_path / f"c{number % 2}" / f"{number}{ending}").touch()
    assert len(read_catalog(tmp_path).videos) == 80
    assert len(asked) == 40
    assert all(name.endswith(".xyz") for name in asked)


def test_missing_videos_are_found_by_listing_folders(tmp_path: Path) -> None:
    from pvnas.data.catalog import Catalog, Video

    (tmp_path / "a").mkdir()
    (tmp_path / "a" / "1.mp4").touch()
    (tmp_path / "a" / "folder.mp4").mkdir()
    (tmp_path / "a" / "broken.mp4").symlink_to(tmp_path / "nowhere")
    absolute = str(tmp_path / "a" / "1.mp4")
    paths = ["a/1.mp4", "a/2.mp4", "a/folder.mp4", "a/broken.mp4", "b/1.mp4", absolute, "1.mp4"]
    catalog = Catalog.of(tmp_path, ["x"], [Video(path, 0, "train") for path in paths])
    assert [video.path for video in catalog.missing()] == [
        "a/2.mp4",
        "a/folder.mp4",
        "a/broken.mp4",
        "b/1.mp4",
        "1.mp4",
    ]
