"""A check that several processes make in parts finds what a single one finds, and reads no video twice."""

from __future__ import annotations

from pathlib import Path

import pytest

from catalogs import read_catalog
from pvnas.data.check import JOURNAL_OF_PART, Limits, check_videos
from pvnas.errors import UserError
from pvnas.runtime.files import hold, opened


def lists(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def test_parts_join_to_the_lists_of_a_whole_check(
    tiny_shapes: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    catalog = read_catalog(tiny_shapes)
    alone, joined = tmp_path / "alone", tmp_path / "joined"
    results = check_videos(catalog, Limits(1), out=alone)
    parts = [check_videos(catalog, Limits(1), out=joined, part=(number, 3)) for number in (1, 2, 3)]
    assert [len(part) for part in parts] == [16, 16, 16]
    assert sorted(lists(joined)) == [JOURNAL_OF_PART.format(number, 3) for number in (1, 2, 3)]

    def read(*_: object, **__: object) -> None:
        raise AssertionError("a video is read again")

    monkeypatch.setattr("pvnas.data.check.examine_within_limits", read)
    assert check_videos(catalog, Limits(1), out=joined) == results
    assert lists(joined) == lists(alone)


def test_the_whole_waits_for_a_part_that_is_being_checked(tiny_shapes: Path, tmp_path: Path) -> None:
    catalog = read_catalog(tiny_shapes)
    check_videos(catalog, Limits(1), out=tmp_path, part=(1, 8))
    with opened(tmp_path / JOURNAL_OF_PART.format(1, 8)) as journal:
        hold(journal)
        with pytest.raises(UserError, match=r"still being checked \(verdicts-1-of-8.journal\)"):
            check_videos(catalog, Limits(1), out=tmp_path)
        with pytest.raises(UserError, match="another check writes there"):
            check_videos(catalog, Limits(1), out=tmp_path, part=(1, 8))
    assert len(check_videos(catalog, Limits(1), out=tmp_path)) == 48
