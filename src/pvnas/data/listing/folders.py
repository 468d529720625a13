"""Folders: {train,val,test}/class/video or class/video."""

from collections.abc import Iterator

from pvnas.data.listing.registry import SPLIT_NAMES, Entry, ListFolder, ListFormat, Listing, group_in_name, is_video
from pvnas.errors import UserError

FOLDERS_OF_SPLITS = {"train", "val", "valid", "validation", "test"}


def read_folders(folder: ListFolder) -> Listing:
    """Return the videos of {train,val,test}/class/video or of class/video. Raises UserError."""
    tree, root = folder.tree, folder.root
    names = tree.listing("").folders
    parents: dict[str, str | None] = {"": None}
    if "train" in names:
        if not _holds_videos(folder, "train"):  # one that itself holds videos is a class, the vehicle
            parents = {f"{name}/": SPLIT_NAMES[name] for name in names if name in FOLDERS_OF_SPLITS}
    elif names and FOLDERS_OF_SPLITS.issuperset(names) and not any(_holds_videos(folder, name) for name in names):
        raise UserError(f"{root} has no folder 'train' beside {names[0]!r}; add train/class/video")
    entries: list[Entry] = []
    for parent, split in parents.items():
        if parent:
            tree.inside(parent[:-1], str(root))
        for label in tree.listing(parent[:-1]).folders:
            tree.inside(f"{parent}{label}", str(root))
            videos = list(_videos(folder, f"{parent}{label}"))
            if not videos:
                raise UserError(
                    f"class folder {root / parent / label} holds no videos (such as .mp4, .avi, .webm); "
                    "fill it or remove it"
                )
            entries += (Entry(path, label, split, group_in_name(label, name)) for path, name in videos)
    return Listing(entries)


def _videos(lists: ListFolder, folder: str) -> Iterator[tuple[str, str]]:
    """Yield path and name of the videos below a class folder."""
    content, root = lists.tree.listing(folder), str(lists.root)
    for name in filter(_is_video, content.files):
        yield lists.tree.inside(f"{folder}/{name}", root), name
    for name in content.folders:
        if name in content.links:  # it could lead round in circles
            link = lists.root / folder / name
            raise UserError(f"{root}: {link} is a link to a folder inside a class; put the folder itself there")
        yield from _videos(lists, f"{folder}/{name}")


def _holds_videos(lists: ListFolder, folder: str) -> bool:
    content = lists.tree.listing(folder)
    return any(map(_is_video, (*content.files, *content.folders)))


def _is_video(name: str) -> bool:
    return not name.startswith(".") and is_video(name)


FOLDERS = ListFormat("folders", read_folders, lambda folder: not folder.chosen)
