"""Videos that lie as folders of pictures, one file a frame, in the natural order of their names: img_2 before img_10.

Files with other endings are not opened, links are not followed, and only the decoders of JPEG, PNG and BMP are asked.
"""

import os
import re
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pvnas.data.video.decode import MAX_PIXELS, Painter, VideoError, reason
from pvnas.data.video.segment import Choose

PICTURE_ENDINGS = (".jpg", ".jpeg", ".png", ".bmp")
DECODERS = ("JPEG", "PNG", "BMP")
DIGITS = re.compile(r"([0-9]+)")
COLOUR, FLOW = ("img", "image", "frame", "rgb"), ("flow_", "x_", "y_")  # how names of both begin by custom
TURNS_SIDEWAYS = frozenset({5, 6, 7, 8})  # EXIF's orientations in which width and height change places
ORIENTATION = 0x0112


def is_picture(name: str) -> bool:
    """Return whether a file's name ends as a picture's."""
    return name.lower().endswith(PICTURE_ENDINGS)


def is_picture_folder(path: str | Path) -> bool:
    """Return whether a folder with pictures directly in it lies there: a video, if it is named."""
    try:
        return bool(picture_files(path))
    except VideoError:
        return False


def natural_order(name: str) -> list[tuple[int, str]]:
    """Return what sorts names by the numbers in them: img_2 before img_10."""
    return [(int(part) if number % 2 else 0, part) for number, part in enumerate(DIGITS.split(name))]


def picture_files(folder: str | Path) -> list[str]:
    """Return the paths of a folder's pictures, in their order. Raises VideoError where there are none."""
    try:
        with os.scandir(folder) as entries:
            found = [entry for entry in entries if is_picture(entry.name) and not entry.name.startswith(".")]
            links = [entry.name for entry in found if entry.is_symlink()]
            names = [entry.name for entry in found if entry.is_file(follow_symlinks=False)]
    except OSError as error:
        raise VideoError("missing" if isinstance(error, FileNotFoundError) else "unreadable", reason(error)) from None
    if links:
        raise VideoError("refused", f"its {min(links)} is a symbolic link; put the pictures themselves there")
    if not names:
        raise VideoError("empty", f"the folder holds no pictures ({', '.join(PICTURE_ENDINGS)})")
    names = _of_one_kind(names)
    return [os.path.join(folder, name) for name in sorted(names, key=natural_order)]


def _of_one_kind(names: list[str]) -> list[str]:
    """Return the pictures of a video, without those of its optical flow beside them (img_1, flow_x_1, flow_y_1).

    Raises VideoError where pictures of other kinds of names have the same numbers: they are not one video.
    """
    kinds: dict[str, dict[str, str]] = {}  # by the name without its numbers: the names by their numbers
    for name in names:
        kinds.setdefault(DIGITS.sub("#", name), {})["-".join(DIGITS.findall(name))] = name
    in_colour = [kind for kind in kinds if kind.startswith(COLOUR)]
    if len(in_colour) == 1 and all(kind.startswith(FLOW) for kind in kinds if kind not in in_colour):
        return list(kinds[in_colour[0]].values())
    numbers: dict[str, str] = {}
    for by_number in kinds.values():
        for number, name in by_number.items():
            if number and number in numbers:
                both = f"{min(numbers[number], name)} and {max(numbers[number], name)}"
                raise VideoError("refused", f"it holds several pictures for one frame ({both}); keep one kind of them")
            numbers[number] = name
    return names


def folder_stamp(folder: str | Path) -> tuple[int, int]:
    """Return the bytes of a folder's pictures together, and the last change of one of them or of the folder, in ns.

    Raises VideoError where there are none.
    """
    try:
        states = [os.stat(file) for file in picture_files(folder)]
        changed = os.stat(folder).st_mtime_ns
    except OSError as error:
        raise VideoError("unreadable", reason(error)) from None
    return sum(state.st_size for state in states), max(changed, *(state.st_mtime_ns for state in states))


def read_picture(file: str | Path) -> NDArray[np.uint8]:
    """Return a picture (H, W, 3), RGB, upright as its EXIF says; what is transparent is as if it were not.

    Raises VideoError.
    """
    from PIL import Image, ImageOps

    try:
        with Image.open(file, formats=DECODERS) as image:
            _refuse_large(*image.size)
            if image.mode.startswith("I"):  # 16 bits of grey: the upper eight
                grey_HW = np.clip(np.asarray(image).astype(np.int64) >> 8, 0, 255).astype(np.uint8)
                return np.repeat(grey_HW[..., None], 3, axis=2)
            return np.array(ImageOps.exif_transpose(image).convert("RGB"))
    except VideoError:
        raise
    except Exception as error:  # whatever a file makes of Pillow is that file's fault
        raise VideoError("unreadable", f"{os.path.basename(file)}: {_why(error)}") from None


def picture_size(file: str | Path) -> tuple[int, int]:
    """Return width and height of a picture as shown, from its header. Raises VideoError."""
    from PIL import Image

    try:
        with Image.open(file, formats=DECODERS) as image:
            width, height = image.size
            sideways = image.getexif().get(ORIENTATION) in TURNS_SIDEWAYS
    except Exception as error:
        raise VideoError("unreadable", f"{os.path.basename(file)}: {_why(error)}") from None
    _refuse_large(width, height)
    return (height, width) if sideways else (width, height)


def _refuse_large(width: int, height: int) -> None:
    if width * height > MAX_PIXELS:
        raise VideoError("refused", f"{width}x{height} pixels are more than {MAX_PIXELS}")


def _why(error: Exception) -> str:
    """Return Pillow's words for an error, without the file's path."""
    return "it is no picture that can be read" if "identify" in str(error) else reason(error)


def size_of_first(files: list[str]) -> tuple[int, int]:
    """Return width and height of the first picture that can be read. Raises VideoError where none can."""
    first_error = None
    for file in files:
        try:
            return picture_size(file)
        except VideoError as error:
            first_error = first_error or error
    assert first_error is not None
    raise VideoError(first_error.kind, f"none of its {len(files)} pictures can be read: {first_error.text}")


def read_picture_items(
    folder: str | Path, frame_rate: float, choose: Choose, make: Callable[[Any], Any], painter: Painter
) -> list[Any]:
    """Return what ``make`` makes of each frame that ``choose`` asks for: see ``seek.read_items``.

    ``frame_rate``: pictures that are shown in a second. No other picture is read, but in the place of one that cannot
    be read the one before it, or the first that can. Raises VideoError.
    """
    from av import VideoFrame

    files = picture_files(folder)
    wanted = choose(np.arange(len(files)) / frame_rate, len(files) / frame_rate)
    painter.fit(*size_of_first(files))
    items: dict[int, Any] = {}
    for index in sorted(set(wanted.tolist())):
        picture_HWC = _picture_at(files, index)
        items[index] = make(VideoFrame.from_ndarray(np.ascontiguousarray(picture_HWC), format="rgb24"))
    return [items[index] for index in wanted.tolist()]


def _picture_at(files: list[str], index: int) -> NDArray[np.uint8]:
    for candidate in (*range(index, -1, -1), *range(index + 1, len(files))):
        with suppress(VideoError):
            return read_picture(files[candidate])
    raise VideoError("unreadable", f"none of its {len(files)} pictures can be read")
