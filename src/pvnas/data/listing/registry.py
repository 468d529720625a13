"""What every format of lists has in common: where it is read from, what it says, and how it is told from the others.

A format is one file beside this one with a `ListFormat`, and its name in ``config.DataConfig.format``. Each folder of a
data set is listed once, and nothing that is listed leads out of it unasked: a quarter of a million questions whether a
file exists take minutes on a network disk; listing 400 folders does not.
"""

import math
import os
import re
from collections.abc import Callable, Sequence
from contextlib import suppress
from functools import cache
from pathlib import Path, PurePosixPath
from typing import NamedTuple, Self

from pvnas.config import DataConfig
from pvnas.data.listing.first_bytes import begins_as_video
from pvnas.data.listing.text import at, shown
from pvnas.data.video.pictures import is_picture
from pvnas.errors import UserError

SPLIT_NAMES = {
    **dict.fromkeys(("train", "training", "trainval"), "train"),
    **dict.fromkeys(("val", "valid", "validate", "validation", "dev", "devel", "eval", "evaluation"), "val"),
    **dict.fromkeys(("test", "testing"), "test"),
}
# What FFmpeg reads under ``video.decode.FORMATS``. Files with other endings are asked for their first bytes.
VIDEO_ENDINGS = (
    *(".264", ".265", ".3g2", ".3gp", ".3gp2", ".3gpp", ".amv", ".apng", ".asf", ".avc", ".avi", ".dav", ".dif"),
    *(".divx", ".dv", ".dvr-ms", ".f4v", ".flv", ".gif", ".h264", ".h265", ".hevc", ".insv", ".ismv", ".ivf", ".lrv"),
    *(".m1v", ".m2p", ".m2t", ".m2ts", ".m2v", ".m4v", ".mj2", ".mk3d", ".mkv", ".mod", ".mov", ".mp2v", ".mp4"),
    *(".mp4v", ".mpe", ".mpeg", ".mpg", ".mpv", ".mqv", ".mts", ".mxf", ".obu", ".ogm", ".ogv", ".qt", ".rm"),
    *(".rmvb", ".tod", ".tp", ".trp", ".ts", ".vob", ".vro", ".webm", ".wm", ".wmv", ".wtv", ".xvid", ".y4m"),
)
JUNK = {"__macosx", "@eadir", "lost+found", "system volume information", "$recycle.bin", "thumbs.db", "desktop.ini"}
LIST_FOLDERS = re.compile(
    r"(?:ucfTrainTestlist|(?:hmdb51_)?testTrainMulti_7030_splits|annotations?|labels?|lists?|splits?|csvs?|meta(?:data)?)"
    r"(?:[-_].*)?",
    re.IGNORECASE,
)
LIST_ENDINGS = (".txt", ".csv", ".tsv", ".json")
# Of more files in one folder each is about one video (boxes, captions): only names that say so are those of lists.
MOST_LISTS = 1000
NAME_OF_LIST = re.compile(r"train|val|test|dev|split|class|label|annot|list|meta", re.IGNORECASE)
# UCF-101 names the film a clip was cut from: v_Archery_g08_c01.avi. Clips of one film must not be in two splits.
GROUP_IN_NAME = re.compile(r"_(g\d+)_")
UNCLEAN = re.compile(r"(?:^|/)\.{0,2}(?:/|$)|\0")  # an empty part, '.' or '..'
ALLOW = "type --data.allow_outside FOLDER"


class Folder(NamedTuple):
    """What lies in a folder."""

    files: frozenset[str] = frozenset()
    folders: tuple[str, ...] = ()  # sorted, without hidden ones and those that systems and editors leave behind
    links: frozenset[str] = frozenset()  # those of the files and folders that are symbolic links
    error: str = ""  # why a folder that is there cannot be listed


class Tree:
    """The root, what lies below it, and the folder outside that the user allowed by name.

    Raises UserError unless that folder exists.
    """

    def __init__(self, root: Path, allow_outside: str = "") -> None:
        if allow_outside and not os.path.isdir(allow_outside):
            raise UserError(f"allow_outside {shown(allow_outside)} is no folder; {ALLOW} with one that exists")
        self.root, self.top = root, os.path.realpath(root)
        self.allowed = os.path.realpath(allow_outside) if allow_outside else ""
        self.listing = cache(lambda folder: list_folder(os.path.join(root, folder)))
        """Return what lies in a folder, '' for the root; nothing where there is none. Follows links to folders."""
        self._is_secure = cache(self._leads_inside)
        self._resolved = cache(os.path.realpath)

    def inside(self, path: str, where: str) -> str:
        """Return the path from the root in its shortest form, absolute only where it leads into the allowed folder.

        Raises UserError when it leads out of the root, by its parts or through a link, and not into the allowed one.
        """
        return self.checked(self._clean(path, where) if UNCLEAN.search(path) else path, where)

    def checked(self, path: str, where: str) -> str:
        """Return a path of proper parts. Raises UserError when it leads out through a link."""
        folder, _, name = path.rpartition("/")
        is_link = name in self.listing(folder).links
        if not self._is_secure(folder) or (is_link and not self._leads_inside(path)):
            raise UserError(
                f"{where}: {shown(path)} is a symbolic link out of the folder; put a copy of its target there, "
                f"or {ALLOW}"
            )
        return path

    def _leads_inside(self, path: str) -> bool:
        full = os.path.realpath(os.path.join(self.root, path))
        return _within(self.top, full) or bool(self.allowed and _within(self.allowed, full))

    def _clean(self, path: str, where: str) -> str:
        if "\0" in path:
            raise UserError(f"{where}: path {shown(path)} holds a NUL character; remove it")
        pure = PurePosixPath(path)
        if not pure.name:
            raise UserError(f"{where}: path {shown(path)} names no file; give a path such as walking/a.mp4")
        if not pure.is_absolute() and ".." not in pure.parts:
            return str(pure)
        full = os.path.join(self._resolved(self.root / pure.parent), pure.name)
        if pure.name != ".." and _within(self.top, full):
            return os.path.relpath(full, self.top)
        if pure.name == ".." or not self.allowed or not _within(self.allowed, full):
            raise UserError(
                f"{where}: path {shown(path)} leads out of the folder; give paths below it, without '..', or {ALLOW}"
            )
        return full


def _within(top: str, full: str) -> bool:
    return os.path.commonpath((top, full)) == top


def list_folder(folder: str) -> Folder:
    """Return what lies in a folder; nothing where there is none."""
    files, folders, links = [], [], []
    try:
        with os.scandir(folder) as entries:
            for entry in entries:
                if entry.is_symlink():
                    links.append(entry.name)
                is_folder = False
                with suppress(OSError):  # a link that leads nowhere costs the folder nothing else
                    is_folder = entry.is_dir()
                if not is_folder:
                    files.append(entry.name)
                elif not is_junk(entry.name):
                    folders.append(entry.name)
    except (FileNotFoundError, NotADirectoryError, ValueError):  # none there, or no name that a file system knows
        return Folder()
    except OSError as error:
        return Folder(error=error.strerror or str(error))
    return Folder(frozenset(files), tuple(sorted(folders)), frozenset(links))


class Entry(NamedTuple):
    """A video as the folder or the list names it; a tuple, because there are a quarter of a million of them."""

    path: str
    label: str  # name of the class
    split: str | None = None  # None where we are to choose
    group: str | None = None
    file: str = ""  # the list that names it, for messages
    line: int = 0
    start: float = 0.0  # of the segment that is meant, in seconds of the file
    end: float = math.inf

    @property
    def where(self) -> str:
        """What a message begins with."""
        return at(self.file, self.line)


class Listing(NamedTuple):
    """All that the lists say."""

    entries: list[Entry]
    classes: Sequence[str] | None = None  # in their official order; None: the labels of the entries, sorted
    unlabelled: int = 0  # listed videos without a label, which are left out
    remarks: tuple[str, ...] = ()  # one line each: see ``Catalog.remarks``

    @classmethod
    def of(cls, rows: Sequence[Entry | None], classes: Sequence[str] | None, remarks: Sequence[str] = ()) -> Self:
        """Return the listing of rows, None where one has no label."""
        entries = [row for row in rows if row is not None]
        return cls(entries, classes, len(rows) - len(entries), tuple(remarks))


class ListFolder(NamedTuple):
    """The folder of a data set, and the files that may list its videos."""

    tree: Tree
    files: tuple[Path, ...]  # text, csv and json files where official lists customarily lie
    folder: Path  # where the lists were looked for, for messages
    chosen: Path | None = None  # the one list that the user named
    split: int = 1  # number of the official split
    video: str = ""  # name of the one video that the user named in place of a folder
    frame_rate: float = 25.0  # of videos that lie as folders of pictures, in pictures a second
    told: frozenset[str] = frozenset()  # files below the root of which a remark tells already

    @classmethod
    def of(cls, config: DataConfig) -> Self:
        """Return what a folder or a list file stands for. Raises UserError for a path that does not exist."""
        path, annotations = config.path, config.annotations
        if config.split < 1:
            raise UserError(f"split={config.split}: official splits are numbered from 1; type --data.split 1")
        given = Path(path)
        if not os.path.exists(given):
            raise UserError(f"{path!r} does not exist; give a folder of videos (class/video), or a list of them")
        lists = Path(annotations) if annotations else given
        if not os.path.exists(lists):
            raise UserError(f"annotations {annotations!r} do not exist; give the file or folder of official lists")
        if _is_one_video(given):
            if annotations or config.format not in ("auto", "folders", "classes"):
                raise UserError(f"{path!r} is one video; give a folder of videos (class/video), or a list")
            root = Path(os.path.abspath(given)).parent
            name = os.path.basename(os.path.abspath(given))
            return cls(Tree(root, config.allow_outside), (), root, video=name, frame_rate=config.frame_rate)
        chosen = None if lists.is_dir() else lists
        folder = lists if chosen is None else lists.parent
        root = given if given.is_dir() else given.parent
        tree, files = Tree(root, config.allow_outside), tuple(_list_files(folder))
        return cls(tree, files, folder, chosen, config.split, frame_rate=config.frame_rate)

    @property
    def root(self) -> Path:
        """The folder that the paths of the videos are relative to."""
        return self.tree.root

    @property
    def lists(self) -> tuple[Path, ...]:
        """The files that may be read as lists: the one that the user named, or all."""
        return (self.chosen,) if self.chosen else self.files


class ListFormat(NamedTuple):
    """How a data set's lists are recognised and read."""

    name: str  # what ``--format`` calls it
    read: Callable[[ListFolder], Listing]  # raises UserError that names file and line
    recognises: Callable[[ListFolder], bool]  # by the files, or the one that the user named
    validation_is_test: bool = False  # test labels are not public: results are on validation videos


def is_video(name: str) -> bool:
    """Return whether a file's name ends as a video's."""
    return name.lower().endswith(VIDEO_ENDINGS)


def is_junk(name: str) -> bool:
    """Return whether a file or folder is hidden, or left behind by a system, an editor or a storage device."""
    return name.startswith(".") or name.casefold() in JUNK


def group_in_name(label: str, name: str) -> str | None:
    """Return the film that a clip's name says it was cut from."""
    match = GROUP_IN_NAME.search(name)
    return f"{label}/{match[1]}" if match else None


def _is_one_video(path: Path) -> bool:
    """Return whether a path is that of a video file, or of a folder of nothing but the pictures of one."""
    if not path.is_dir():
        return is_video(path.name) or begins_as_video(path)
    content = list_folder(os.fspath(path))
    files = [name for name in content.files if not is_junk(name)]
    return bool(files) and not content.folders and all(map(is_picture, files))


def _list_files(folder: Path) -> list[Path]:
    """Return the text, csv and json files of a folder, of its customary folders of lists and of its splits, sorted."""
    files, folders = list[Path](), [(folder, 0)]
    for parent, depth in folders:
        content = list_folder(os.fspath(parent))
        names = [n for n in content.files if n.lower().endswith(LIST_ENDINGS) and not n.startswith(".")]
        if len(names) > MOST_LISTS:
            names = sorted(filter(NAME_OF_LIST.search, names))[:MOST_LISTS]
        files += (parent / name for name in names if (parent / name).is_file())
        lists = [n for n in content.folders if depth < 2 and (LIST_FOLDERS.fullmatch(n) or n.lower() in SPLIT_NAMES)]
        folders += ((parent / name, depth + 1) for name in lists)
    return sorted(files)
