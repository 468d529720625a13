"""The json member of a sample: when its frames begin and where their bytes lie."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pvnas.data.pack.info import DamageError, load_object


@dataclass(frozen=True, eq=False)
class Sample:
    """What reading a clip of a video needs."""

    times_T: NDArray[np.float64]
    """When each frame begins, in seconds; the first at 0."""
    duration: float
    """Seconds from the first frame to the end of the last."""
    starts: NDArray[np.int64]
    """(T + 1,) where each frame begins in the mjpeg data, and where the last one ends."""
    about: dict[str, Any]
    """All of the member but times and sizes."""


def parse_sample(content: bytes, *, frames: int, size: int, height: int, width: int) -> Sample:
    """Return what a json member says. Raises DamageError where it does not fit what the catalogue says of the sample.

    ``frames``: their number; ``size``: bytes of the mjpeg data; ``height`` and ``width`` in pixels.
    """
    about = load_object(content, "its json")
    times_T = _column(about.pop("times", None), frames, "times", float)
    sizes_T = _column(about.pop("sizes", None), frames, "sizes", int)
    duration = about.get("duration")
    if times_T[0] != 0 or not np.isfinite(times_T).all() or (np.diff(times_T) <= 0).any():
        raise DamageError("its json has times that do not rise from 0")
    if not isinstance(duration, float) or not times_T[-1] < duration < np.inf:
        raise DamageError("its json has a duration that is none")
    if sizes_T.min() < 1 or sizes_T.max() > size or int(sizes_T.sum()) != size:
        raise DamageError("its json has sizes of frames that do not add up")
    if about.get("height") != height or about.get("width") != width:
        raise DamageError("its json and the catalogue differ in the size of the frames")
    starts = np.zeros(frames + 1, dtype=np.int64)
    np.cumsum(sizes_T, out=starts[1:])
    return Sample(times_T, duration, starts, about)


def _column(values: Any, frames: int, name: str, kind: type[int] | type[float]) -> NDArray[Any]:
    """Return a list of so many numbers of this kind alone; whatever else converts to a number is refused."""
    if not isinstance(values, list) or len(values) != frames or set(map(type, values)) != {kind}:
        raise DamageError(f"its json has no list of {frames} {name}")
    try:
        return np.array(values, dtype=np.int64 if kind is int else np.float64)
    except OverflowError:
        raise DamageError(f"its json has {name} that are too large") from None
