"""Our own lists: the folders {train,val,test}/class/video or class/video, and split.csv, path,label,split,group."""

from collections.abc import Iterator
from pathlib import Path

from pvnas.data.listing.registry import SPLIT_NAMES, Entry, ListFolder, ListFormat, Listing, group_in_name, is_video
from pvnas.data.listing.text import at, csv_rows, shown
from pvnas.errors import UserError

FOLDERS_OF_SPLITS = {"train", "val", "valid", "validation", "test"}
SPLIT_FILE = "split.csv"
COLUMNS = ("path", "label", "split", "group")
HEADER = ",".join(COLUMNS)


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


def read_split_file(folder: ListFolder) -> Listing:
    """Return the rows of split.csv: header path,label,split,group, of which group may be missing. Raises UserError."""
    path = _file(folder)
    if not path.is_file():
        raise UserError(f"no {SPLIT_FILE} in {folder.folder}; write one with the header {HEADER}")
    rows = csv_rows(path, HEADER)
    _, header = next(rows, (1, []))
    for name in COLUMNS[:3]:
        if name not in header:
            raise UserError(f"{at(path, 1)}: no column {name!r}; the header must be {HEADER}")
    for name in COLUMNS:
        if header.count(name) > 1:
            raise UserError(f"{at(path, 1)}: column {name!r} is there twice; remove one")
    entries = []
    for line, row in rows:
        where = at(path, line)
        if len(row) > len(header):
            raise UserError(f"{where}: more cells than the header; quote a path or label that holds a comma")
        cells = dict(zip(header, map(str.strip, row), strict=False))
        video, label, split = (cells.get(name, "") for name in COLUMNS[:3])
        if not video or not label:
            raise UserError(f"{where}: no {'label' if video else 'path'}; expected {HEADER}")
        if split and split not in SPLIT_NAMES:
            raise UserError(f"{where}: unknown split {shown(split)}; use train, val or test")
        # An empty split column means train: the other splits are then held out of it where no row names them.
        split, video = SPLIT_NAMES[split or "train"], folder.tree.inside(video, where)
        entries.append(Entry(video, label, split, cells.get("group") or None, str(path), line))
    return Listing(entries)


def _file(folder: ListFolder) -> Path:
    return folder.chosen or folder.folder / SPLIT_FILE


FOLDERS = ListFormat("folders", read_folders, lambda folder: not folder.chosen)
SPLIT_CSV = ListFormat("split.csv", read_split_file, lambda f: _file(f).name == SPLIT_FILE and _file(f).is_file())
