"""The check of segments: each file is decoded once for all of them, and each has a verdict of its own."""

from __future__ import annotations

from pathlib import Path

import pytest
from numbered import write_numbered
from segments import segments_of_films

from pvnas.data import check as check_module
from pvnas.data.catalog import Catalog, Video
from pvnas.data.check import Limits, check_videos
from pvnas.data.check.examine import Job
from pvnas.data.check.results import CheckResult, read_check_results, usable
from pvnas.errors import UserError


def film(folder: Path, *seconds: tuple[float, float]) -> Catalog:
    """Return the catalogue of segments of a film of four seconds, ten frames a second, and of a video beside it."""
    write_numbered(folder / "film.mp4")
    write_numbered(folder / "other.mp4", 8)
    videos = [Video("film.mp4", n % 2, "train", None, *pair) for n, pair in enumerate(seconds)]
    return Catalog.of(folder, ("a", "b"), [*videos, Video("other.mp4", 0, "train"), Video("other.mp4", 1, "test")])


def verdicts(catalog: Catalog, **options: object) -> list[tuple[str, str, str, int, float]]:
    found = check_videos(catalog, Limits(workers=1), **options)  # type: ignore[arg-type]
    return [(v.path, v.verdict, v.detail, v.frames, v.seconds) for v in found]


def test_each_segment_has_its_verdict(tmp_path: Path) -> None:
    catalog = film(tmp_path, (0.0, 1.0), (0.5, 0.52), (3.0, 6.0), (3.9, 4.05), (4.0, 5.0), (80.125, float("inf")))
    beyond = "the video ends at 4 s, 2 s before the segment"
    assert verdicts(catalog)[:6] == [
        ("film.mp4 [0-1 s]", "ok", "", 10, 1.0),
        ("film.mp4 [0.5-0.52 s]", "short", "1 frame, 0.020 s", 1, 0.02),
        ("film.mp4 [3-6 s]", "partial", beyond, 10, 1.0),
        ("film.mp4 [3.9-4.05 s]", "partial", "the video ends at 4 s, 0.05 s before the segment", 1, 0.1),
        ("film.mp4 [4-5 s]", "empty", "the segment begins at 4 s, but the video ends at 4 s", 0, 0.0),
        ("film.mp4 [80.125- s]", "empty", "the segment begins at 80.125 s, but the video ends at 4 s", 0, 0.0),
    ]
    assert [row[:2] for row in verdicts(catalog)[6:]] == [("other.mp4", "ok"), ("other.mp4", "ok")]


def test_a_file_is_decoded_once_for_its_segments(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    jobs: list[Job] = []
    run_jobs = check_module.run_jobs

    def spy(work: object, given: object, *rest: object, **options: object) -> object:
        def seen() -> object:
            for job in given:  # type: ignore[attr-defined]
                jobs.append(job)
                yield job

        return run_jobs(work, seen(), *rest, **options)  # type: ignore[arg-type]

    monkeypatch.setattr(check_module, "run_jobs", spy)
    catalog = segments_of_films(tmp_path)
    check_videos(catalog, Limits(workers=1), out=tmp_path / "out")
    assert [(job.path, len(job.videos)) for job in jobs] == [("c.mp4", 1), ("films/a.mp4", 4), ("films/b.mkv", 4)]
    jobs.clear()
    more = Catalog.of(tmp_path, catalog.classes, [*catalog.videos, Video("films/a.mp4", 0, "test", None, 0.1, 0.4)])
    found = check_videos(more, Limits(workers=1), out=tmp_path / "out")
    assert [(job.path, job.videos) for job in jobs] == [("films/a.mp4", (("films/a.mp4 [0.1-0.4 s]", 0.1, 0.4),))]
    assert [(v.frames, v.bytes > 0) for v in found[-1:]] == [(3, True)]
    assert read_check_results(tmp_path / "out/verdicts.json") == found


def test_the_segments_of_a_file_share_its_fate(tmp_path: Path) -> None:
    catalog = film(tmp_path, (0.0, 1.0), (1.0, 2.0))
    (tmp_path / "film.mp4").write_bytes(b"nothing")
    assert [row[:2] for row in verdicts(catalog)[:2]] == [
        ("film.mp4 [0-1 s]", "unreadable"),
        ("film.mp4 [1-2 s]", "unreadable"),
    ]
    (tmp_path / "film.mp4").unlink()
    assert [row[1:3] for row in verdicts(catalog)[:2]] == [("missing", "no such file")] * 2
    assert list(catalog.missing().names) == ["film.mp4 [0-1 s]", "film.mp4 [1-2 s]"]


def test_damage_is_that_of_the_segments_it_lies_in(tmp_path: Path) -> None:
    path = write_numbered(tmp_path / "film.ts", rate=10, codec="mpeg2video")
    content = bytearray(path.read_bytes())
    middle = len(content) // 2 // 188 * 188
    content[middle : middle + 188 * 8] = b"\x47\x01\x00\x10" + b"\xff" * (188 * 8 - 4)
    path.write_bytes(content)
    parts = [(0.0, 1.0), (3.0, 4.0), (0.0, 4.0)]
    catalog = Catalog.of(tmp_path, ("a", "b"), [Video("film.ts", 0, "train", None, *part) for part in parts])
    assert [row[1] for row in verdicts(catalog)] == ["ok", "ok", "partial"]


def test_bad_segments_are_left_out_and_the_others_stay(tmp_path: Path) -> None:
    catalog = film(tmp_path, (0.0, 1.0), (1.0, 2.0), (9.0, 10.0), (2.0, 3.0))
    results: list[CheckResult] = check_videos(catalog, Limits(workers=1))
    rest = usable(catalog, results, max_bad_share=0.2)
    assert [video.name for video in rest.videos][:3] == ["film.mp4 [0-1 s]", "film.mp4 [1-2 s]", "film.mp4 [2-3 s]"]
    with pytest.raises(UserError, match=r"the first is 'film\.mp4 \[9-10 s\]' \(empty: the segment begins at 9 s, but"):
        usable(catalog, results, max_bad_share=0.0)
