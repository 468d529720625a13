"""How others read a clip, to measure against: each as its own manual says, on one thread.

Each function returns (T, H, W, C) or (T, C, H, W) uint8 frames at the wanted indices, ``size`` = (height, width).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np

Read = Callable[[Path, Sequence[int], float, tuple[int, int]], Any]
"""(path, frame indices, frames per second, (height, width)) -> frames."""


def installed_peers() -> dict[str, Read]:
    """Return the readers of the packages that are installed and can be imported here, PyAV's own among them."""
    readers = {"pyav": read_pyav, "torchcodec": read_torchcodec, "torchcodec_approximate": read_torchcodec_approximate}
    readers["decord"] = read_decord
    return {name: read for name, read in readers.items() if _works(name.partition("_")[0])}


def _works(name: str) -> bool:
    package = {"pyav": "av"}.get(name, name)
    if find_spec(package) is None:
        return False
    try:
        import_module("torchcodec.decoders" if package == "torchcodec" else package)
    except (ImportError, OSError, RuntimeError):  # without a matching FFmpeg on the system
        return False
    return True


def read_pyav(path: Path, indices: Sequence[int], rate: float, size: tuple[int, int]) -> Any:
    """Seek to the key frame before the first wanted frame, decode on, convert the wanted ones."""
    import av

    wanted, pictures = set(indices), {}
    with av.open(str(path)) as container:
        stream = container.streams.video[0]
        stream.codec_context.thread_count = 1
        assert stream.time_base is not None
        container.seek(round(indices[0] / rate / stream.time_base), stream=stream)
        for frame in container.decode(stream):
            index = round(frame.time * rate)
            if index in wanted:
                pictures[index] = frame.reformat(size[1], size[0], "rgb24", interpolation="BILINEAR").to_ndarray()
                if len(pictures) == len(wanted):
                    break
    return np.stack([pictures[index] for index in indices])


def read_torchcodec(path: Path, indices: Sequence[int], rate: float, size: tuple[int, int]) -> Any:
    """Read by index, in the exact mode that its manual starts with."""
    return _torchcodec(path, indices, size, "exact")


def read_torchcodec_approximate(path: Path, indices: Sequence[int], rate: float, size: tuple[int, int]) -> Any:
    """Read by index, times taken from the average rate: not exact where the rate varies."""
    return _torchcodec(path, indices, size, "approximate")


def _torchcodec(path: Path, indices: Sequence[int], size: tuple[int, int], mode: str) -> Any:
    from torchcodec.decoders import VideoDecoder
    from torchcodec.transforms import Resize

    decoder = VideoDecoder(str(path), num_ffmpeg_threads=1, seek_mode=mode, transforms=[Resize(size)])
    return decoder.get_frames_at(indices=list(indices)).data


def read_decord(path: Path, indices: Sequence[int], rate: float, size: tuple[int, int]) -> Any:
    """Read a batch of indices, scaled by the reader."""
    import decord

    reader = decord.VideoReader(str(path), ctx=decord.cpu(0), width=size[1], height=size[0], num_threads=1)
    return reader.get_batch(list(indices)).asnumpy()
