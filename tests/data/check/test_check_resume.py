"""A check that is stopped, killed or repeated: it goes on where it was and ends in the same lists, byte for byte."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import pytest
from test_check import film, good
from test_faults import catalog_of

from pvnas.data import check as check_module
from pvnas.data.catalog import Catalog
from pvnas.data.check import Limits, check_videos, open_journal
from pvnas.data.check.examine import Job
from pvnas.data.check.results import CheckResult
from pvnas.errors import UserError
from pvnas.runtime.signals import Interrupted

LISTS = ("verdicts.csv", "verdicts.json")
COMMAND = """
import sys
from pathlib import Path
from pvnas.data.catalog import Catalog
from pvnas.data.check import check_videos
from pvnas.data.check import Limits
from pvnas.data.catalog import Video
from pvnas.runtime.signals import Interrupted, StopRequest

root, out, *names = sys.argv[1:]
catalog = Catalog.of(Path(root), ("a", "b"), [Video(name, n % 2, "train") for n, name in enumerate(names)])
try:
    with StopRequest() as stop:
        check_videos(catalog, Limits(workers=2), out=Path(out), stop=stop)
except Interrupted as stopped:
    print(stopped)
    sys.exit(stopped.exit_code)
"""


@pytest.fixture(scope="module")
def catalog(tmp_path_factory: pytest.TempPathFactory) -> Catalog:
    """Return twelve good videos with a bad one, a missing one, and a film in the middle that takes a second."""
    root = tmp_path_factory.mktemp("videos")
    names = [f"{number:02d}.mp4" for number in range(15)]
    source = good(root / names[0])
    for name in names[1:13]:
        shutil.copy(source, root / name)
    film(root / names[6], repeats=9_000)
    (root / names[13]).write_bytes(b"no video")
    return catalog_of(root, names)


@pytest.fixture(scope="module")
def whole(catalog: Catalog, tmp_path_factory: pytest.TempPathFactory) -> dict[str, bytes]:
    """Return the lists of a check that nothing interrupts."""
    out = tmp_path_factory.mktemp("whole")
    check_videos(catalog, out=out)
    return lists(out)


def lists(out: Path) -> dict[str, bytes]:
    """Return the content of everything in the folder."""
    return {path.name: path.read_bytes() for path in sorted(out.iterdir())}


@pytest.fixture
def read(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Return a list that fills with the videos that are decoded."""
    seen: list[str] = []
    run_jobs = check_module.run_jobs

    def spied(work: Any, jobs: Iterable[Job], *rest: Any, **options: Any) -> Any:
        def each() -> Iterator[Job]:
            for job in jobs:
                seen.append(job.path)
                yield job

        return run_jobs(work, each(), *rest, **options)

    monkeypatch.setattr(check_module, "run_jobs", spied)
    return seen


def start(catalog: Catalog, out: Path) -> subprocess.Popen[str]:
    command = [sys.executable, "-c", COMMAND, str(catalog.root), str(out), *catalog.videos.paths]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, start_new_session=True)


def wait_for_verdicts(out: Path, number: int) -> None:
    journal = out / "verdicts.journal"
    for _ in range(2000):
        if journal.exists() and journal.read_bytes().count(b"\n") > number:  # one line is about the limits
            return
        time.sleep(0.005)
    pytest.fail("no verdicts came")


def children(pid: int) -> set[int]:
    """Return all processes below one."""
    try:
        found = set(map(int, Path(f"/proc/{pid}/task/{pid}/children").read_text().split()))
    except OSError:
        return set()
    return found.union(*map(children, found))


def ends(pids: set[int]) -> bool:
    """Return whether all processes end within some seconds."""
    for _ in range(100):
        if not any(alive(pid) for pid in pids):
            return True
        time.sleep(0.05)
    return False


def alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
@pytest.mark.parametrize("verdicts", [1, 5, 9])
def test_a_check_that_is_killed_goes_on_where_it_was(
    catalog: Catalog, whole: dict[str, bytes], read: list[str], tmp_path: Path, verdicts: int
) -> None:
    process = start(catalog, tmp_path)
    wait_for_verdicts(tmp_path, verdicts)
    below = children(process.pid)
    process.kill()
    process.communicate(timeout=20)
    assert len(below) >= 3  # two workers, and what forks them
    assert ends(below)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["verdicts.journal"]
    kept = {json.loads(line)["path"] for line in (tmp_path / "verdicts.journal").read_text().splitlines()[1:]}
    assert len(kept) >= verdicts
    check_videos(catalog, out=tmp_path)
    assert lists(tmp_path) == whole
    assert set(read) == set(catalog.videos.paths) - kept - {"14.mp4"}


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
@pytest.mark.parametrize("everywhere", [False, True])
def test_a_signal_stops_it_and_loses_nothing(
    catalog: Catalog, whole: dict[str, bytes], tmp_path: Path, number: int, everywhere: bool
) -> None:
    process = start(catalog, tmp_path)
    wait_for_verdicts(tmp_path, 5)
    # As a terminal and a batch system do it: every process gets the signal.
    os.killpg(process.pid, number) if everywhere else os.kill(process.pid, number)
    out, err = process.communicate(timeout=20)
    assert process.returncode == 75, err
    assert "of 15 videos are checked" in out
    assert "Traceback" not in err
    rows = [json.loads(line) for line in (tmp_path / "verdicts.journal").read_text().splitlines()[1:]]
    assert {row["verdict"] for row in rows} <= {"ok", "unreadable"}
    assert not [row for row in rows if "crashed" in row["detail"]]
    check_videos(catalog, out=tmp_path)
    assert lists(tmp_path) == whole


class StopAtOnce:
    requested = True


def test_a_finished_check_reads_only_what_has_changed(
    catalog: Catalog, whole: dict[str, bytes], read: list[str], tmp_path: Path
) -> None:
    root, out = tmp_path / "videos", tmp_path / "out"
    shutil.copytree(catalog.root, root)  # with its times
    catalog = Catalog(root, catalog.classes, catalog.videos)
    check_videos(catalog, out=out)
    assert lists(out) == whole
    read.clear()
    check_videos(catalog, out=out)
    assert read == []
    assert lists(out) == whole
    os.utime(root / "01.mp4", ns=(0, 0))
    with (root / "02.mp4").open("ab") as file:
        file.write(b"more")
    good(root / "14.mp4")
    verdicts = {each.path: each for each in check_videos(catalog, out=out)}
    assert sorted(read) == ["01.mp4", "02.mp4", "14.mp4"]
    assert verdicts["14.mp4"].verdict == "ok"
    assert check_videos(catalog, out=tmp_path / "again") == list(verdicts.values())
    assert lists(tmp_path / "again") == lists(out)


def test_another_length_needs_no_reading(catalog: Catalog, read: list[str], tmp_path: Path) -> None:
    few = catalog.take([0, 6, 13])
    for seconds, expected in ((1.0, "short"), (0.0, "ok"), (1.0, "short")):
        verdicts = check_videos(few, out=tmp_path, shortest_seconds=seconds)
        assert [each.verdict for each in verdicts] == [expected, "ok", "unreadable"]
    assert len(read) == 3


def test_what_limits_decided_is_read_again_under_other_limits(
    catalog: Catalog, read: list[str], tmp_path: Path
) -> None:
    check_videos(catalog.take([0, 1]), out=tmp_path)
    few = catalog.take([0, 6, 1])
    read.clear()
    assert [each.verdict for each in check_videos(few, Limits(deadline=0.001), out=tmp_path)] == ["ok", "timeout", "ok"]
    assert read == ["06.mp4"]  # what is good stays good, however little time there is
    read.clear()
    assert [each.verdict for each in check_videos(few, out=tmp_path)] == ["ok"] * 3
    assert read == ["06.mp4"]


def test_torn_and_foreign_lines_are_ignored(catalog: Catalog, read: list[str], tmp_path: Path) -> None:
    few = catalog.take([0, 1, 2])
    check_videos(few, out=tmp_path)
    done = {path.name: path.read_bytes() for path in tmp_path.iterdir()}
    rows = [json.dumps(row) for row in json.loads(done["verdicts.json"])]
    (tmp_path / "verdicts.json").unlink()
    foreign = ["[1]", "{}", "null", '{"path": 1', '{"path": "00.mp4", "verdict": "fine"}', '{"limits": [60.0, 1024]}']
    (tmp_path / "verdicts.journal").write_text("\n".join([rows[0], *foreign, rows[1], rows[2][:40]]))
    (tmp_path / ".tmp-0123abcd-verdicts.json").write_text("[")  # of a check that was killed at its end
    read.clear()
    with pytest.raises(Interrupted):
        check_videos(few, out=tmp_path, stop=StopAtOnce())
    check_videos(few, out=tmp_path)
    assert read == ["02.mp4"]
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == done


def test_limits_that_are_equal_keep_a_timeout_of_an_interrupted_check(catalog: Catalog, tmp_path: Path) -> None:
    late: Any = CheckResult("06.mp4", "timeout", "late", bytes=7, modified_ns=8)
    with open_journal(tmp_path, Limits(deadline=1.0, memory_mib=5)) as journal:
        journal.add(late)
    with open_journal(tmp_path, Limits(deadline=1.0, memory_mib=5)) as journal:
        assert journal.known("06.mp4", (7, 8)) == late
        assert journal.known("06.mp4", (7, 9)) is None
    with open_journal(tmp_path, Limits(deadline=2.0, memory_mib=5)) as journal:
        assert journal.known("06.mp4", (7, 8)) is None


def test_two_checks_in_one_folder_are_refused(catalog: Catalog, tmp_path: Path) -> None:
    with open_journal(tmp_path, Limits()), pytest.raises(UserError, match="another check writes there"):
        check_videos(catalog, out=tmp_path)


def test_a_list_of_somebody_else_is_not_overwritten(catalog: Catalog, tmp_path: Path) -> None:
    (tmp_path / "verdicts.json").write_text('{"mine": 1}')
    with pytest.raises(UserError, match="is not a list of verdicts"):
        check_videos(catalog, out=tmp_path)
    assert (tmp_path / "verdicts.json").read_text() == '{"mine": 1}'
