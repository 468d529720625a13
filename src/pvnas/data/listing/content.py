"""What lies below a folder, found in one pass and without opening a file whose name says what it is."""

import os
import re
from collections import Counter
from collections.abc import Collection, Iterator
from functools import cached_property

from pvnas.data.listing.first_bytes import begins_as_video
from pvnas.data.listing.registry import Folder, Tree, is_junk, is_video, list_folder
from pvnas.data.listing.text import shown
from pvnas.data.video.pictures import is_picture
from pvnas.errors import UserError

# Files that tell a folder that was written here: a test of another set, a pack, a check, a run.
WRITTEN = (
    frozenset(("tested.json",)),
    frozenset(("pack.json",)),
    frozenset(("verdicts.json", "verdicts.csv")),
    frozenset(("verdicts.journal",)),
    frozenset(("config.yaml", "environment.json")),
)
BEGUN = frozenset((".lock", "config.yaml"))  # all that lies in the directory of a run that has not begun
UNFINISHED_PACK = ("unfinished", "goal.json")
# What lies beside any videos and is none of them, nor a list.
ABOUT = re.compile(r"(?:read_?me|licen[cs]e|requirements|changelog|copying|notice|authors)\b.*", re.IGNORECASE)
LONGEST_ENDING = 12  # what is longer is part of a name, "Holidays. At the beach"
DEEPEST = 100  # folders in folders; Python's own limit would come later, with a traceback


class Files:
    """How many files there are by ending; of millions of pictures the names would take a gigabyte."""

    def __init__(self) -> None:
        self.endings = Counter[str]()
        self.first = ""

    @property
    def number(self) -> int:
        """How many there are."""
        return self.endings.total()

    def add(self, name: str) -> None:
        """Count a file."""
        ending = os.path.splitext(name)[1].lower()
        self.endings[ending if ending[1:].isalnum() and len(ending) <= LONGEST_ENDING else ""] += 1
        self.first = self.first or name


class Content:
    """A folder with all that lies below it, hidden files and junk apart."""

    def __init__(self, path: str) -> None:
        self.path = path  # below the root, '' for the root
        self.name = path.rpartition("/")[2]
        self.videos: list[str] = []  # names of its files that are videos, sorted, as the others
        self.found: list[str] = []  # those of them that only their first bytes tell
        self.pictures = Files()
        self.others = Files()
        self.links: frozenset[str] = frozenset()  # those of its files and folders that are symbolic links
        self.folders: list[Content] = []
        self.is_link = False
        self.was_written = False  # whether a run, a pack or a check made it; what lies below it is then left out

    def of(self, name: str) -> str:
        """Return the path of a file or folder in it."""
        return f"{self.path}/{name}" if self.path else name

    @cached_property
    def is_pictures(self) -> bool:
        """Whether it is a video that lies as pictures. Folders in it (masks, say) hold no more, and no video."""
        most = max((folder.pictures.number for folder in self.folders), default=0)
        return self.pictures.number > 0 and self.pictures.number >= most and not self.has_files

    @cached_property
    def has_files(self) -> bool:
        """Whether a video file lies in it or below it."""
        return bool(self.videos) or any(folder.has_files for folder in self.folders)

    @cached_property
    def has_videos(self) -> bool:
        """Whether it is a video, or one lies in it or below it."""
        return self.is_pictures or bool(self.videos) or any(folder.has_videos for folder in self.folders)

    @cached_property
    def written(self) -> "list[Content]":
        """The folders in it and below it that a run, a pack or a check has made."""
        return [self] if self.was_written else [one for folder in self.folders for one in folder.written]

    @property
    def has_own_videos(self) -> bool:
        """Whether videos lie in it itself, and not only in folders of its own."""
        return bool(self.videos) or any(folder.is_pictures for folder in self.folders)

    @property
    def groups(self) -> "list[Content]":
        """The folders in it that hold videos: what classes, splits and sessions are."""
        return [folder for folder in self.folders if folder.has_videos and not folder.is_pictures]

    def walk(self) -> "Iterator[Content]":
        """Yield it and every folder below it."""
        yield self
        for folder in self.folders:
            yield from folder.walk()


def content_of(
    tree: Tree, path: str = "", *, apart: Collection[str] = (), below_link: bool = False, depth: int = 0
) -> Content:
    """Return what lies in a folder of a tree, links to folders followed once.

    ``apart``: paths of files that are told of elsewhere and not counted here. Of what a run, a pack or a check has made
    nothing is returned but that, unless it is the root itself or holds video files. Raises UserError for a folder that
    cannot be listed, a link that leads out of the tree, and links in links.
    """
    content, listed = Content(path), list_folder(os.path.join(tree.root, path))
    content.links = listed.links
    if listed.error or depth > DEEPEST:
        why = listed.error or f"more than {DEEPEST} folders in one another"
        raise UserError(f"{shown(os.path.join(tree.root, path))} cannot be read ({why}); mend it or take it away")
    for name in sorted(listed.files):
        if is_junk(name):
            if is_video(name) and not name.startswith("._"):  # hidden, but it could be meant
                content.others.add(name)
            continue
        if is_video(name):
            content.videos.append(name)
        elif is_picture(name):
            content.pictures.add(name)
        elif name not in listed.links and begins_as_video(os.path.join(tree.root, path, name)):
            content.videos.append(name)
            content.found.append(name)
        elif not (ABOUT.fullmatch(name) or content.of(name) in apart):
            content.others.add(name)
    for name in listed.folders:
        inner, is_link = content.of(name), name in listed.links
        if is_link:
            tree.checked(inner, str(tree.root))
        if is_link and (below_link or _leads_up(tree, inner)):
            raise UserError(f"{tree.root}: {inner} is a link to a folder inside a class; put the folder itself there")
        content.folders.append(content_of(tree, inner, apart=apart, below_link=below_link or is_link, depth=depth + 1))
        content.folders[-1].is_link = is_link
    if depth and _was_written(tree, path, listed) and not content.has_files:
        content = Content(path)
        content.was_written = True
    return content


def _was_written(tree: Tree, path: str, listed: Folder) -> bool:
    """Return whether a folder was made by a run, a pack or a check."""
    folder, goal = UNFINISHED_PACK
    if any(names <= listed.files for names in WRITTEN):
        return True
    if ".lock" in listed.files and listed.files <= BEGUN and not listed.folders:
        return True
    return folder in listed.folders and os.path.isfile(os.path.join(tree.root, path, folder, goal))


def unlisted(tree: Tree, taken: Collection[str]) -> list[str]:
    """Return a remark on the videos below the root that are not among those taken, none where there are none.

    Folders of pictures count only where some are taken: else they are thumbnails or masks of the videos.
    """
    try:
        folders = list(content_of(tree).walk())
    except UserError:  # links and folders that cannot be listed: whoever lists videos by their paths needs none of them
        return []
    left = [path for folder in folders for name in folder.videos if (path := folder.of(name)) not in taken]
    pictures = [folder.path for folder in folders if folder.is_pictures]
    if any(path in taken for path in pictures):
        left += [path for path in pictures if path not in taken]
    lie = "video lies" if len(left) == 1 else "videos lie"
    return [f"{len(left)} {lie} there and in no list, and so not read (the first: {shown(left[0])})"] if left else []


def _leads_up(tree: Tree, path: str) -> bool:
    """Return whether a link leads to a folder that it lies in, so that following it would never end."""
    target, place = (os.path.realpath(os.path.join(tree.root, p)) for p in (path, os.path.dirname(path)))
    return os.path.commonpath((target, place)) == target
