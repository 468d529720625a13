"""Videos to measure with: ten seconds of panning texture with grain, about as many bits to a frame as real footage."""

from collections.abc import Iterator
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
from numpy.typing import NDArray

WIDTH, HEIGHT, FRAMES, RATE = 340, 256, 300, 30
GRAIN = 5.5


def write_footage(folder: Path, *, gop: int, videos: int, original: Path | None = None) -> list[Path]:
    """Write H.264 videos of 340x256 with a key frame every ``gop`` frames, or fewer, and return their paths.

    Each is generated, or (``original``) the first 300 frames of that video, scaled and encoded again.
    """
    paths = [folder / f"gop{gop}_{number}.mp4" for number in range(videos)]
    for number, path in enumerate(paths):
        _encode(path, gop, _frames_of(original) if original else _panning(np.random.default_rng([0, number])))
    return paths


def _encode(path: Path, gop: int, frames: Iterator[av.VideoFrame]) -> None:
    options = {"preset": "medium", "crf": "23", "g": str(gop), "threads": "1"}
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=RATE, options=options)
        stream.width, stream.height, stream.pix_fmt = WIDTH, HEIGHT, "yuv420p"
        for number, frame in enumerate(frames):
            frame.pts, frame.time_base = number, Fraction(1, RATE)
            container.mux(stream.encode(frame))
        container.mux(stream.encode())


def _frames_of(original: Path) -> Iterator[av.VideoFrame]:
    with av.open("file:" + str(original.absolute())) as container:
        for number, frame in enumerate(container.decode(video=0)):
            if number == FRAMES:
                return
            yield frame.reformat(WIDTH, HEIGHT, "yuv420p")


def _panning(draw: np.random.Generator) -> Iterator[av.VideoFrame]:
    """Yield a texture that moves behind another one that moves otherwise, with grain of its own in every frame."""
    behind, before = _texture(draw, 2 * HEIGHT, 2 * WIDTH), _texture(draw, HEIGHT // 2, WIDTH // 3)
    turns, phases = draw.uniform(0.01, 0.04, 4), draw.uniform(0, 6.28, 4)
    for number in range(FRAMES):
        down, right, row, column = np.sin(turns * number + phases)  # up to six pixels a frame
        top, left = round(HEIGHT / 2 * (1 + 0.9 * down)), round(WIDTH / 2 * (1 + 0.9 * right))
        image = behind[top : top + HEIGHT, left : left + WIDTH].copy()
        top, left = round(HEIGHT / 4 * (1 + 0.9 * row)), round(WIDTH / 3 * (1 + 0.9 * column))
        image[top : top + before.shape[0], left : left + before.shape[1]] = before
        image += draw.normal(0, GRAIN, (HEIGHT, WIDTH, 1))
        yield av.VideoFrame.from_ndarray(image.clip(0, 255).astype(np.uint8), format="rgb24")


def _texture(draw: np.random.Generator, height: int, width: int) -> NDArray[np.float64]:
    """Return (H, W, 3) noise of many scales, about 0 to 255: large patches with fine detail on them."""
    image = np.zeros((height, width, 3))
    for cell in (64, 32, 16, 8, 4):
        coarse = draw.uniform(-1, 1, (height // cell + 2, width // cell + 2, 3))
        image += 4 * cell**0.5 * np.kron(coarse, np.ones((cell, cell, 1)))[:height, :width]
    return 128 + image
