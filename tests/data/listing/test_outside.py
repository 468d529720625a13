"""Paths and links out of the folder: refused with file and line, unless they lead into a folder allowed by name."""

from __future__ import annotations

from pathlib import Path

import pytest

from catalogs import read_catalog
from pvnas.errors import UserError


@pytest.fixture
def outside(tmp_path: Path) -> Path:
    folder = tmp_path / "outside"
    (folder / "deep").mkdir(parents=True)
    for name in ("a.mp4", "deep/b.mp4"):
        (folder / name).touch()
    return folder


def test_absolute_and_rising_paths_need_a_name(write, outside: Path) -> None:
    root = write({"train.txt": f"{outside}/a.mp4 0\n../outside/deep/../deep/b.mp4 1\nc.mp4 1\n", "c.mp4": ""})
    with pytest.raises(
        UserError, match=r"train.txt, line 1: path '.*a.mp4' leads out .*type --data.allow_outside FOLDER"
    ):
        read_catalog(root, as_listed=True)
    catalog = read_catalog(root, allow_outside=outside, as_listed=True)
    assert set(catalog.videos.paths) == {f"{outside}/a.mp4", f"{outside}/deep/b.mp4", "c.mp4"}
    assert len(catalog.missing()) == 0
    with pytest.raises(UserError, match=r"line 1: path '.*a.mp4' leads out"):
        read_catalog(root, allow_outside=outside / "deep", as_listed=True)


def test_an_allowed_folder_that_holds_the_root_gives_relative_paths(write, tmp_path: Path) -> None:
    root = write({"c.mp4": ""})
    write({"train.txt": f"{root}/c.mp4 0\nx/../d.mp4 1\n"})
    catalog = read_catalog(root, allow_outside=tmp_path, as_listed=True)
    assert set(catalog.videos.paths) == {"c.mp4", "d.mp4"}
    write({"train.txt": f"{root}/c.mp4 0\nc.mp4 1\n"})
    with pytest.raises(UserError, match=r"line 2: 'c.mp4' is listed before, in line 1"):
        read_catalog(root, allow_outside=tmp_path, as_listed=True)


def test_a_link_in_the_allowed_folder_must_not_lead_further(write, outside: Path, tmp_path: Path) -> None:
    (tmp_path / "secret.mp4").touch()
    (outside / "link.mp4").symlink_to(tmp_path / "secret.mp4")
    root = write({"train.txt": f"{outside}/a.mp4 0\n{outside}/link.mp4 0\n"})
    with pytest.raises(UserError, match=r"line 2: '.*link.mp4' is a symbolic link out of the folder"):
        read_catalog(root, allow_outside=outside, as_listed=True)


@pytest.mark.parametrize("link, target", [("a.mp4", "a.mp4"), ("sub", "deep")])
def test_links_in_listed_paths(write, outside: Path, link: str, target: str) -> None:
    root = write({"train.txt": "a.mp4 0\nsub/b.mp4 1\n"})
    (root / link).symlink_to(outside / target)
    with pytest.raises(
        UserError, match=r"line [12]: '.*' is a symbolic link out of .*type --data.allow_outside FOLDER"
    ):
        read_catalog(root, as_listed=True)
    assert set(read_catalog(root, allow_outside=outside, as_listed=True).videos.paths) == {"a.mp4", "sub/b.mp4"}


def test_links_of_whole_folders_of_videos(write, outside: Path) -> None:
    root = write({"classInd.txt": "1 deep\n2 x\n", "trainlist01.txt": "deep/b.avi 1\nx/c.avi 2\n"})
    (root / "UCF-101").symlink_to(outside)
    with pytest.raises(UserError, match=r"'UCF-101' is a symbolic link out of the folder"):
        read_catalog(root, as_listed=True)
    catalog = read_catalog(root, allow_outside=outside, as_listed=True)
    assert set(catalog.videos.paths) == {"UCF-101/deep/b.mp4", "UCF-101/x/c.avi"}


def test_class_folders_behind_links(write, outside: Path) -> None:
    root = write({"run/a.mp4": ""})
    (root / "walk").symlink_to(outside)
    with pytest.raises(UserError, match=r"'walk' is a symbolic link out of the folder"):
        read_catalog(root, as_listed=True)
    assert len(read_catalog(root, allow_outside=outside, as_listed=True).videos) == 3
