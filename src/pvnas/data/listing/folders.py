"""Folders: {train,val,test}/class/video, and class/video, which we split ourselves."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from pathlib import Path

from pvnas.data.listing.entries import SPLIT_NAMES, VIDEO_ENDINGS, Entry, Listing
from pvnas.data.listing.source import Source
from pvnas.data.listing.tree import Tree
from pvnas.errors import UserError

# UCF-101 names the film a clip was cut from: v_Archery_g08_c01.avi. Clips of one film must not be on both sides.
GROUP_IN_NAME = re.compile(r"_(g\d+)_")

FOLDERS_OF_SPLITS = {"train", "val", "valid", "validation", "test"}


def read_folders(source: Source) -> Listing:
    """Return the videos of {train,val,test}/class/video or of class/video. Raises UserError."""
    return Listing(list(_entries(source)))


def _entries(source: Source) -> Iterator[Entry]:
    root, tree = source.root, source.tree
    folders = _subfolders(root)
    if not _is_split_layout(root, folders):
        yield from _read_classes(root, folders, None, tree)
        return
    for folder in folders:
        if folder.name in FOLDERS_OF_SPLITS:
            tree.inside(folder.name, str(root))
            yield from _read_classes(root, _subfolders(folder), SPLIT_NAMES[folder.name], tree)


def _is_split_layout(root: Path, folders: list[Path]) -> bool:
    """Return whether the folders name splits: a `train` that itself holds videos is a class, the vehicle."""
    names = {folder.name for folder in folders}
    if "train" in names:
        return not _holds_videos(root / "train")
    if names and names <= FOLDERS_OF_SPLITS and not any(map(_holds_videos, folders)):
        raise UserError(f"{root} has no folder 'train' beside {sorted(names)[0]!r}; add train/class/video")
    return False


def _read_classes(root: Path, folders: list[Path], split: str | None, tree: Tree) -> Iterator[Entry]:
    """Yield the videos of each class folder. Raises UserError for one without any."""
    for folder in folders:
        found = False
        tree.inside(folder.relative_to(root).as_posix(), str(root))
        for file in _files(folder, root):
            path = file.relative_to(root).as_posix()
            tree.inside(path, str(root))
            found = True
            match = GROUP_IN_NAME.search(file.name)
            group = f"{folder.name}/{match[1]}" if match else None
            yield Entry(path, folder.name, split, group)
        if not found:
            raise UserError(f"class folder {folder} holds no videos (such as .mp4, .avi, .webm); fill it or remove it")


def _subfolders(folder: Path) -> list[Path]:
    return sorted(entry for entry in folder.iterdir() if entry.is_dir() and not entry.name.startswith("."))


def _files(folder: Path, root: Path) -> Iterator[Path]:
    """Yield the videos below a class folder in sorted order; a link to a folder in it could lead round in circles."""
    for name in sorted(os.listdir(folder)):
        path = folder / name
        if name.startswith("."):
            continue
        if path.is_dir():
            if path.is_symlink():
                raise UserError(f"{root}: {path} is a link to a folder inside a class; put the folder itself there")
            yield from _files(path, root)
        elif _is_video(name):
            yield path


def _holds_videos(folder: Path) -> bool:
    return any(map(_is_video, os.listdir(folder)))


def _is_video(name: str) -> bool:
    return not name.startswith(".") and os.path.splitext(name)[1].lower() in VIDEO_ENDINGS
