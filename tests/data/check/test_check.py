"""The check of many videos in real processes: order, time, memory, crashes."""

from __future__ import annotations

import io
import os
import re
import signal
import subprocess
import sys
from collections.abc import Callable
from contextlib import suppress
from multiprocessing import active_children
from pathlib import Path

import numpy as np
import pytest
from films import film
from test_faults import catalog_of, write

from pvnas.data.check import Limits, check_videos
from pvnas.data.check.examine import examine
from pvnas.data.check.results import CheckResult, summary, usable
from pvnas.data.shapes import draw_video, encode
from pvnas.data.video.decode import VideoError, decode_video
from pvnas.errors import UserError
from pvnas.runtime.progress import Progress

linux_only = pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")


def good(path: Path) -> Path:
    encode(path, draw_video("grow", np.random.default_rng(0), frames=8))
    return path


class Watcher:
    """Asked between two verdicts as a stop request is, it may look at the workers, or end them."""

    def __init__(self, look: Callable[[int], None]) -> None:
        self.look = look

    @property
    def requested(self) -> bool:
        for worker in active_children():
            assert worker.pid
            self.look(worker.pid)
        return False


def killer(number: int) -> Watcher:
    """Return what sends one signal to a worker that has decoded for a while."""
    asked: list[int] = []

    def look(pid: int) -> None:
        asked.append(pid)
        if len(asked) == 6:  # three times for each video that begins: begun, its length, its result or a moment
            os.kill(pid, number)

    return Watcher(look)


def memory(pid: int, field: str) -> float:
    """Return VmRSS (memory held) or VmHWM (the most ever held) of a process in MiB."""
    found = re.search(rf"{field}:\s+(\d+) kB", Path(f"/proc/{pid}/status").read_text())
    return int(found[1]) / 1024 if found else 0.0


def kinds(verdicts: list[CheckResult]) -> dict[str, str]:
    return {verdict.path: verdict.verdict for verdict in verdicts}


@pytest.fixture(scope="module")
def films(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a folder with a film that takes seconds to decode between two good videos."""
    root = tmp_path_factory.mktemp("films")
    good(root / "a.mp4")
    film(root / "b.mp4", repeats=10_000)
    good(root / "c.mp4")
    return root


FILMS = ["a.mp4", "b.mp4", "c.mp4"]


def test_verdicts_come_in_the_order_of_the_catalog_whatever_the_workers(films: Path) -> None:
    names = [*FILMS, "gone.mp4", "a.mp4"]  # a video may be listed twice
    with Progress(io.StringIO()) as progress:  # what the program uses, so that the two fit each other
        first = check_videos(catalog_of(films, names), Limits(workers=3), progress=progress)
    assert [(each.path, each.verdict) for each in first] == [
        ("a.mp4", "ok"),
        ("b.mp4", "ok"),
        ("c.mp4", "ok"),
        ("gone.mp4", "missing"),
        ("a.mp4", "ok"),
    ]
    assert first[1].frames == first[1].claimed == 10_000
    assert check_videos(catalog_of(films, names), Limits(workers=1)) == first


def test_the_generated_set_is_all_ok(tiny_shapes: Path) -> None:
    names = sorted(str(path.relative_to(tiny_shapes)) for path in tiny_shapes.rglob("*.mp4"))
    catalog = catalog_of(tiny_shapes, names)
    verdicts = check_videos(catalog)
    assert summary(verdicts) == "48 ok"
    assert usable(catalog, verdicts, 0.0) == catalog


def test_a_file_that_takes_too_long_costs_only_its_own_verdict(films: Path) -> None:
    verdicts = check_videos(catalog_of(films, FILMS), Limits(workers=1, deadline=0.1))
    assert kinds(verdicts) == {"a.mp4": "ok", "b.mp4": "timeout", "c.mp4": "ok"}
    size = (films / "b.mp4").stat().st_size
    seconds = 0.1 * (1 + size / (60 << 20) + 10_000 / 30 / 60)
    assert verdicts[1].detail == f"decoding it takes more than {seconds:.3g} s"


def test_large_files_and_long_videos_have_longer() -> None:
    limits = Limits(deadline=60.0)
    assert limits.seconds_for(0) == 60
    assert limits.seconds_for(60 << 20) == 120
    assert limits.seconds_for(60 << 20, 3600.0) == 60 * (1 + 1 + 60)
    assert limits.seconds_for(6000, 1e12) == pytest.approx(60 * (1 + 0.1), abs=0.01)  # 6 kB hold no more than 6 s


def told_lengths(path: Path) -> list[float]:
    told: list[float] = []
    assert examine(path, told.append).usable
    return told


def test_the_length_is_the_header_s_and_grows_where_the_video_goes_on_after_that(tmp_path: Path) -> None:
    assert told_lengths(film(tmp_path / "known.mp4", repeats=5400)) == [pytest.approx(180.0)]
    raw = film(tmp_path / "unknown.h264", repeats=5400)  # a raw stream has no length, and 25 frames a second
    assert told_lengths(raw) == pytest.approx([0.0, 60.04, 120.08, 180.12])


def test_a_run_that_time_stops_names_the_option_with_a_value(films: Path) -> None:
    catalog = catalog_of(films, FILMS)
    verdicts = check_videos(catalog, Limits(workers=2, deadline=0.1))
    with pytest.raises(UserError) as refused:
        usable(catalog, verdicts, 0.01, 0.1)
    assert "give them more time: --data.deadline 0.5, mend or remove them" in str(refused.value)


@linux_only
def test_a_worker_that_crashes_costs_only_its_file(films: Path) -> None:
    verdicts = check_videos(catalog_of(films, FILMS), Limits(workers=1), stop=killer(signal.SIGKILL))
    assert kinds(verdicts) == {"a.mp4": "ok", "b.mp4": "unreadable", "c.mp4": "ok"}
    assert verdicts[1].detail == "crashed: the decoder's process was ended by SIGKILL"


@linux_only
def test_a_worker_that_is_told_to_end_costs_nothing(films: Path) -> None:
    """A scheduler that ends a job tells all of its processes: no fault of the file that one of them reads."""
    verdicts = check_videos(catalog_of(films, FILMS), Limits(workers=1), stop=killer(signal.SIGTERM))
    assert kinds(verdicts) == dict.fromkeys(FILMS, "ok")


@linux_only
def test_idle_workers_that_are_killed_are_replaced(films: Path) -> None:
    ended: list[int] = []

    def look(pid: int) -> None:
        if len(ended) < 6:
            ended.append(pid)
            with suppress(ProcessLookupError):  # it may have ended between being listed and now
                os.kill(pid, signal.SIGKILL)

    verdicts = check_videos(catalog_of(films, ["a.mp4", "c.mp4"]), Limits(workers=2), stop=Watcher(look))
    assert all(each.verdict == "ok" or each.detail.startswith("crashed") for each in verdicts)


@linux_only
def test_a_video_that_needs_more_memory_than_is_allowed_is_refused(films: Path, tmp_path: Path) -> None:
    film(tmp_path / "large.mp4", repeats=2, size=(2560, 1440))
    names = [str(films / "a.mp4"), "large.mp4", str(films / "c.mp4")]
    verdicts = check_videos(catalog_of(tmp_path, names), Limits(workers=1, memory_mib=8))
    assert [each.verdict for each in verdicts] == ["ok", "refused", "ok"]
    assert verdicts[1].detail.startswith("memory: ")
    assert [each.verdict for each in check_videos(catalog_of(tmp_path, names))] == ["ok"] * 3


@linux_only
def test_memory_stays_flat_over_many_videos_and_a_long_one(films: Path, tmp_path: Path) -> None:
    for number in range(220):
        (tmp_path / f"{number:03d}.mp4").symlink_to(films / ("a.mp4", "c.mp4")[number % 2])
    held: dict[int, list[float]] = {}

    def look(pid: int) -> None:
        held.setdefault(pid, []).append(memory(pid, "VmRSS"))

    names = sorted(os.listdir(tmp_path))
    check_videos(catalog_of(tmp_path, [*names, str(films / "b.mp4")]), Limits(workers=1), stop=Watcher(look))
    ((_, values),) = held.items()  # one worker has read them all
    print(f"{min(values):.1f} MiB at the beginning, {values[-1]:.1f} after {len(names)} videos and a film")
    assert len(values) > 200
    assert values[-1] - values[30] < 8


def test_a_script_needs_no_guard_and_workers_no_torch(films: Path, tmp_path: Path) -> None:
    """Multiprocessing would run the script again in each worker."""
    script = tmp_path / "script.py"
    script.write_text(
        "import sys\n"
        "from pathlib import Path\n"
        "from pvnas.data.catalog import Catalog\n"
        "from pvnas.data.check import check_videos\n"
        "from pvnas.data.catalog import Video\n"
        "print('begins')\n"
        f"catalog = Catalog.of(Path({str(films)!r}), ('a',), [Video('a.mp4', 0, 'train')])\n"
        "print(check_videos(catalog)[0].verdict, 'torch' in sys.modules)\n"
    )
    done = subprocess.run([sys.executable, str(script)], capture_output=True, text=True, timeout=60, check=True)
    assert done.stdout.split() == ["begins", "ok", "False"]


@pytest.mark.parametrize("limits", [{"workers": 0}, {"deadline": 0.0}, {"deadline": float("nan")}, {"memory_mib": 0}])
def test_limits_that_cannot_be_meant_are_refused(limits: dict[str, int]) -> None:
    with pytest.raises(UserError):
        Limits(**limits)


def test_damage_of_any_kind_has_one_verdict_and_no_other_count_than_training(tmp_path: Path) -> None:
    """Damage may claim gigabytes: FFmpeg then says that it lacks memory, with a limit and without one."""
    rng = np.random.default_rng(1)
    for ending, form in (("mp4", "mp4"), ("mkv", "matroska"), ("ts", "mpegts"), ("avi", "avi"), ("flv", "flv")):
        whole = write(tmp_path / f"whole.{ending}", container_format=form).read_bytes()
        for number in range(0, 72, 3):
            raw = np.frombuffer(whole, np.uint8).copy()
            raw[rng.integers(0, len(raw), 1 + number)] ^= rng.integers(1, 256, dtype=np.uint8)
            (tmp_path / f"{number}.{ending}").write_bytes(raw[: rng.integers(10, len(raw))] if number % 4 == 0 else raw)
    catalog = catalog_of(tmp_path, sorted(path.name for path in tmp_path.iterdir()))
    verdicts = check_videos(catalog)
    assert check_videos(catalog) == verdicts
    for verdict in verdicts:
        try:
            frames = len(decode_video(tmp_path / verdict.path, short_side=16).frames_TCHW)
        except VideoError:
            frames = 0
        assert frames == verdict.frames, verdict


@linux_only
def test_pictures_of_more_than_4k_may_take_as_many_times_the_memory(tmp_path: Path) -> None:
    film(tmp_path / "8k.mp4", repeats=2, size=(7680, 4320))
    film(tmp_path / "4k.mp4", repeats=2, size=(3840, 2160))
    verdicts = check_videos(catalog_of(tmp_path, ["8k.mp4", "4k.mp4"]), Limits(workers=1, memory_mib=40))
    assert kinds(verdicts) == {"8k.mp4": "ok", "4k.mp4": "ok"}
