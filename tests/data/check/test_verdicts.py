"""The lists of verdicts: exact in JSON, inert in csv, summed by class, and when they stop a run."""

from __future__ import annotations

import csv
from pathlib import Path

import pytest

from pvnas.data.catalog import Catalog, Video
from pvnas.data.check.results import (
    CheckResult,
    by_class,
    counts,
    inert,
    read_check_results,
    summary,
    usable,
    write_check_results,
)
from pvnas.errors import UserError


def test_the_lists_are_written_and_inert(tmp_path: Path) -> None:
    verdicts = [
        CheckResult('=cmd("x").mp4', "unreadable", "@sum\x1b[31m\nred"),
        CheckResult("a,b.mp4", "ok", "", 3, 3, 29.97, True, 90, 4, 6, False, "h264", 0.1, 77, 5),
        CheckResult("name\udcff.mp4", "empty", "-1"),
    ]
    write_check_results(verdicts, tmp_path / "run")
    assert read_check_results(tmp_path / "run" / "verdicts.json") == verdicts
    with (tmp_path / "run" / "verdicts.csv").open(newline="") as file:
        rows = list(csv.reader(file))
    about = ["frames", "claimed", "rate", "variable_rate", "rotation", "width", "height", "resized", "codec", "seconds"]
    assert rows[0] == ["path", "verdict", "detail", *about, "bytes"]
    assert rows[1][:3] == ['\'=cmd("x").mp4', "unreadable", "'@sum\\x1b[31m\\nred"]
    assert rows[2] == ["a,b.mp4", "ok", "", "3", "3", "29.97", "True", "90", "4", "6", "False", "h264", "0.1", "77"]
    assert rows[3][:3] == ["name\\udcff.mp4", "empty", "'-1"]
    assert sorted(path.name for path in (tmp_path / "run").iterdir()) == ["verdicts.csv", "verdicts.json"]


def test_a_list_of_nothing_is_a_list(tmp_path: Path) -> None:
    write_check_results([], tmp_path)
    assert read_check_results(tmp_path / "verdicts.json") == []


@pytest.mark.parametrize("text", ["", "[1]", '[{"path": "a"}]', "{}x", '[{"path": "a", "verdict": "fine"}]'])
def test_a_list_that_is_not_ours_is_named(tmp_path: Path, text: str) -> None:
    (tmp_path / "verdicts.json").write_text(text)
    with pytest.raises(UserError, match="delete it"):
        read_check_results(tmp_path / "verdicts.json")


@pytest.mark.parametrize(
    "cell, shown",
    [
        ("=1+1", "'=1+1"),
        ("+1", "'+1"),
        ("\t=1", "\\t=1"),
        ("\x9b31m", "\\x9b31m"),
        ("a\u202eb", "a\\u202eb"),
        ("＝1", "'＝1"),
        (-1.5, "-1.5"),
        ("a-b", "a-b"),
        ("", ""),
    ],
)
def test_cells(cell: object, shown: str) -> None:
    assert inert(cell) == shown


def catalog_of(videos: int) -> Catalog:
    return Catalog.of(
        Path("set"),
        ("run", "jump"),
        tuple(Video(f"{n}.mp4", n % 2, "train" if n < videos // 2 else "test") for n in range(videos)),
    )


def verdicts_of(catalog: Catalog, **bad: str) -> list[CheckResult]:
    return [CheckResult(v.path, bad.get(f"v{v.path.removesuffix('.mp4')}", "ok"), "why") for v in catalog.videos]


def test_bad_videos_are_dropped_and_partial_ones_kept() -> None:
    catalog = catalog_of(100)
    verdicts = verdicts_of(catalog, v3="unreadable", v4="partial", v5="short")
    remaining = usable(catalog, verdicts, 0.01)
    assert {v.path for v in catalog.videos} - {v.path for v in remaining.videos} == {"3.mp4"}
    assert remaining.classes == catalog.classes
    assert summary(verdicts) == "97 ok, 1 short, 1 partial, 1 unreadable"


def test_too_many_bad_videos_are_refused_with_what_to_type() -> None:
    catalog = catalog_of(100)
    verdicts = verdicts_of(catalog, v3="empty", v7="refused")
    with pytest.raises(UserError, match=r"2 of 100 .*'3.mp4' \(empty: why\).*--data.max_bad_share 0.02$"):
        usable(catalog, verdicts, 0.01)
    assert len(usable(catalog, verdicts, 0.02).videos) == 98


def test_a_class_without_any_usable_training_video_is_refused() -> None:
    catalog = catalog_of(8)  # the training videos of 'run' are 0 and 2
    verdicts = verdicts_of(catalog, v0="empty", v2="no-video")
    with pytest.raises(UserError, match="no training video of class 'run'"):
        usable(catalog, verdicts, 1.0)


def test_a_class_that_never_had_training_videos_is_no_reason_to_refuse() -> None:
    videos = (Video("0.mp4", 0, "train"), Video("1.mp4", 0, "train"), Video("2.mp4", 1, "test"))
    catalog = Catalog.of(Path("set"), ("run", "jump"), videos)
    assert len(usable(catalog, verdicts_of(catalog, v0="empty"), 1.0).videos) == 2


def test_missing_files_count_as_bad() -> None:
    catalog = catalog_of(100)
    with pytest.raises(UserError, match="2 of 100 videos cannot be used"):
        usable(catalog, verdicts_of(catalog, v3="missing", v7="timeout"), 0.01)


def test_where_nearly_all_files_are_missing_it_is_said_where_they_were_looked_for() -> None:
    catalog = catalog_of(20)
    missing = {f"v{number}": "missing" for number in range(19)}
    with pytest.raises(UserError, match=r"19 of 20 listed videos are missing; the first was looked for as .*0.mp4"):
        usable(catalog, verdicts_of(catalog, **missing), 0.01)


def test_sums_by_class_are_in_the_catalogs_order() -> None:
    catalog = catalog_of(6)
    verdicts = verdicts_of(catalog, v0="missing", v1="partial", v3="partial")
    assert by_class(catalog, verdicts) == {"run": {"ok": 2, "missing": 1}, "jump": {"ok": 1, "partial": 2}}
    assert counts(verdicts) == {"ok": 3, "partial": 2, "missing": 1}
