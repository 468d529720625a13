"""Which format a folder has, told by what lies in it."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from pvnas.data.listing.hmdb51 import LIST as HMDB51_LIST
from pvnas.data.listing.hmdb51 import is_hmdb51
from pvnas.data.listing.jester import is_jester
from pvnas.data.listing.kinetics import is_kinetics
from pvnas.data.listing.path_list import is_list
from pvnas.data.listing.source import Source
from pvnas.data.listing.split_file import SPLIT_FILE, has_split_file
from pvnas.data.listing.ssv2 import is_ssv2
from pvnas.data.listing.ucf101 import LIST as UCF101_LIST
from pvnas.data.listing.ucf101 import is_ucf101
from pvnas.errors import UserError

OFFICIAL: Mapping[str, Callable[[Source], bool]] = {
    "kinetics": is_kinetics,
    "ssv2": is_ssv2,
    "ucf101": is_ucf101,
    "hmdb51": is_hmdb51,
    "jester": is_jester,
}


def detect_format(source: Source, formats: tuple[str, ...]) -> str:
    """Return the format. Raises UserError where the lists of several data sets lie together, or no list is known."""
    if source.chosen:
        return _of_file(source, formats)
    if has_split_file(source):
        return "split.csv"
    found = [name for name, test in OFFICIAL.items() if test(source)]
    if len(found) > 1:
        raise UserError(
            f"{source.folder} holds lists of {' and '.join(found)}; say which to read: type --format {found[0]}"
        )
    if found:
        return found[0]
    if is_list(source):
        return "list"
    if source.folder != source.root:
        raise UserError(
            f"no list of a known format in {source.folder}; give official lists, or type --format NAME, "
            f"one of {', '.join(formats)}"
        )
    return "folders"


def _of_file(source: Source, formats: tuple[str, ...]) -> str:
    """Return the format of the one list that the user named; one of several files stands for all of them."""
    assert source.chosen is not None
    name = source.chosen.name
    if name == SPLIT_FILE:
        return "split.csv"
    if is_kinetics(source):
        return "kinetics"
    if UCF101_LIST.fullmatch(name) and is_ucf101(source):
        return "ucf101"
    if HMDB51_LIST.fullmatch(name):
        return "hmdb51"
    if name.lower().endswith(".json"):
        return "ssv2"
    if is_jester(source) and not is_list(source):
        return "jester"
    if name.lower().endswith((".txt", ".csv")) or is_list(source):
        return "list"
    raise UserError(f"{source.chosen} is no list of a known format; type --format NAME, one of {', '.join(formats)}")
