"""The generated data set `shapes`: real video files of eight classes that differ in nothing but motion.

A textured shape lies on a textured, static background. Its pose has four coordinates (x, y, angle, log radius), each
given by a phase in [0, 1]. One phase runs from 0 to 1 over the video and names the motion; the other three stand still
at a uniformly drawn value. So a single frame has the same distribution in all classes, a set of frames without their
order tells which coordinate moves, and only the order tells a motion from its reverse: the reverse class plays a fresh
draw of the motion backwards, which leaves a network that is blind to the order of frames at 50 % at best. (One that
looks at each frame alone and averages the scores linearly stays at chance, 12.5 %.)

Every frame is coded by itself at a constant quantiser, because a first frame that looks better than the ones predicted
from it would mark the beginning. What a decoder returns for a reversed video is therefore the exact reversal too.

Legend: T frames, H height, W width, 3 colours in red, green, blue.
"""

import csv
import json
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np
from numpy.typing import NDArray

from pvnas.errors import UserError
from pvnas.runtime.files import write_atomic
from pvnas.runtime.progress import Progress, begin

Floats = NDArray[np.float64]
Image = NDArray[np.uint8]

# Class name -> (coordinate that moves, played backwards). Clockwise as seen on the screen.
CLASSES: dict[str, tuple[str, bool]] = {
    "grow": ("radius", False),
    "move_down": ("y", False),
    "move_left": ("x", True),
    "move_right": ("x", False),
    "move_up": ("y", True),
    "shrink": ("radius", True),
    "turn_clockwise": ("angle", False),
    "turn_counterclockwise": ("angle", True),
}
COORDINATES = ("x", "y", "angle", "radius")
SPLIT_SHARES = {"train": 100, "val": 15, "test": 25}
FRAME_RATE = 30
# As long as the demo's clip: a longer video would be seen from its start more often than to its end, which tells a
# small start from a small end without any regard to the order of frames.
SECONDS = 32 / FRAME_RATE
OUTLINES = ("ellipse", "rectangle", "triangle", "pentagon", "cross")
MARKER = ".pvnas-shapes.json"
VERSION = 1
LUMA = np.array([0.299, 0.587, 0.114])


@dataclass(frozen=True)
class Poses:
    """Where the shape is in each frame, each (T,): centre, radius in sides of the frame, angle in radians clockwise."""

    x: Floats
    y: Floats
    angle: Floats
    radius: Floats


def draw_video(name: str, generator: np.random.Generator, *, size: int = 64, frames: int = 32) -> Image:
    """Return one video of class `name`, uint8 (T, H, W, 3); equal generators give a motion and its exact reversal."""
    moving, backwards = CLASSES[name]
    poses = draw_poses(moving, generator, frames)
    background_HW3 = _background(generator, size)
    video_THW3 = _paint(background_HW3, poses, generator)
    return np.ascontiguousarray(video_THW3[::-1]) if backwards else video_THW3


def draw_poses(moving: str, generator: np.random.Generator, frames: int) -> Poses:
    """Draw the four coordinates over time; the draws are the same whichever coordinate is the moving one."""
    phase = {name: np.full(frames, generator.uniform()) for name in COORDINATES}
    phase[moving] = np.linspace(0.0, 1.0, frames)
    centre_x, centre_y = generator.uniform(0.47, 0.53, 2)
    travel_x, travel_y = generator.uniform(0.4, 0.55, 2)
    first_angle, turn = generator.uniform(0, 2 * np.pi), np.deg2rad(generator.uniform(90, 200))
    radius, growth = generator.uniform(0.21, 0.25), generator.uniform(1.7, 2.5)
    return Poses(
        x=centre_x + travel_x * (phase["x"] - 0.5),
        y=centre_y + travel_y * (phase["y"] - 0.5),
        angle=first_angle + turn * phase["angle"],
        radius=radius * growth ** (phase["radius"] - 0.5),
    )


def _paint(background_HW3: Floats, poses: Poses, generator: np.random.Generator) -> Image:
    """Lay a shape of random outline, texture and colours over the background in each pose."""
    size = len(background_HW3)
    outline, slimness = str(generator.choice(OUTLINES)), generator.uniform(0.5, 0.7)
    u_THW, v_THW = _shape_coordinates(poses, size)
    edge_THW = _signed_distance(outline, slimness, u_THW, v_THW) * poses.radius[:, None, None] * size
    cover_THW = np.clip(0.5 - edge_THW, 0.0, 1.0)  # one pixel of soft edge instead of supersampling
    dark, light = _colour(generator, 0.02, 0.3), _colour(generator, 0.7, 0.98)
    frame_P, row_P, column_P = np.nonzero(cover_THW)  # the pixels of the shape, a fifth or so of all
    inside = frame_P, row_P, column_P
    blend_P = 0.5 + 0.5 * np.tanh(2.0 * _waves(generator, u_THW[inside], v_THW[inside], (1.5, 2.5, 4.0, 5.5)))
    shape_P3, behind_P3 = dark + (light - dark) * blend_P[:, None], background_HW3[row_P, column_P]
    video_THW3 = np.repeat(_as_pixels(background_HW3)[None], len(poses.x), axis=0)
    video_THW3[inside] = _as_pixels(behind_P3 + (shape_P3 - behind_P3) * cover_THW[inside][:, None])
    return video_THW3


def _as_pixels(colours: Floats) -> Image:
    """Return colours of 0 to 1 as bytes."""
    return np.rint(np.clip(colours, 0.0, 1.0) * 255.0).astype(np.uint8)


def _shape_coordinates(poses: Poses, size: int) -> tuple[Floats, Floats]:
    """Return the coordinates (u, v) of every pixel in the shape's own frame, where its radius is 1; two (T, H, W)."""
    pixel = (np.arange(size) + 0.5) / size
    dx_THW = pixel[None, None, :] - poses.x[:, None, None]
    dy_THW = pixel[None, :, None] - poses.y[:, None, None]
    # y points down, so that a growing angle turns the shape clockwise on the screen.
    cosine_T, sine_T = np.cos(poses.angle) / poses.radius, np.sin(poses.angle) / poses.radius
    cosine_THW, sine_THW = cosine_T[:, None, None], sine_T[:, None, None]
    return cosine_THW * dx_THW + sine_THW * dy_THW, cosine_THW * dy_THW - sine_THW * dx_THW


def _signed_distance(outline: str, slimness: float, u: Floats, v: Floats) -> Floats:
    """Return about how far each point lies outside (positive) or inside (negative) the outline, in radii."""
    if outline == "ellipse":
        return (np.hypot(u, v / slimness) - 1.0) * slimness
    if outline == "rectangle":
        return np.maximum(np.abs(u) - 0.9, np.abs(v) - 0.9 * slimness)
    if outline == "cross":
        long, short = 1.0, 0.6 * slimness
        lying = np.maximum(np.abs(u) - long, np.abs(v) - short)
        return np.minimum(lying, np.maximum(np.abs(v) - long, np.abs(u) - short))
    corners = {"triangle": 3, "pentagon": 5}[outline]
    normals = 2 * np.pi * np.arange(corners) / corners
    beyond = [u * np.cos(normal) + v * np.sin(normal) for normal in normals]
    return np.maximum.reduce(beyond) - 1.1 * np.cos(np.pi / corners)


def _waves(generator: np.random.Generator, u: Floats, v: Floats, frequencies: tuple[float, ...]) -> Floats:
    """Return a random smooth pattern over (u, v): a wave for each frequency (radians per unit), low ones strongest."""
    pattern = np.zeros(np.broadcast_shapes(u.shape, v.shape))
    for frequency in frequencies:
        # A small shift puts a crossing from dark to light near the origin: the middle of a shape, whose turns it shows.
        direction, shift = generator.uniform(0, 2 * np.pi), generator.uniform(-0.7, 0.7)
        scaled = frequency * generator.uniform(0.8, 1.2)
        wave = np.sin(u * (scaled * np.cos(direction)) + v * (scaled * np.sin(direction)) + shift)
        pattern += wave * (frequencies[0] / frequency) ** 0.5
    return pattern


def _background(generator: np.random.Generator, size: int) -> Floats:
    """Return a static background of middle brightness, float64 (H, W, 3): soft waves and grain in two colours."""
    pixel = np.arange(size) / size
    waves_HW = _waves(generator, pixel[None, :], pixel[:, None], (6.0, 10.0, 16.0, 24.0)) / 2.0
    grain_HW = generator.normal(0.0, 0.04, (size, size))
    first, second = _colour(generator, 0.4, 0.6), _colour(generator, 0.4, 0.6)
    strength = generator.uniform(0.04, 0.1)
    soft_HW3 = first + (second - first) * (0.5 + 0.5 * np.tanh(waves_HW))[..., None]
    return soft_HW3 + (strength * waves_HW + grain_HW)[..., None]


def _colour(generator: np.random.Generator, darkest: float, lightest: float) -> Floats:
    """Return a random colour (3,) whose brightness lies in the given range."""
    tint = generator.uniform(-0.3, 0.3, 3)
    return np.clip(generator.uniform(darkest, lightest) + tint - tint @ LUMA, 0.0, 1.0)


def encode(path: Path, video_THW3: Image) -> None:
    """Write frames as H.264 in mp4 at 30 fps, every frame for itself and with the same quantiser."""
    size = video_THW3.shape[1]
    with av.open(str(path), "w", format="mp4") as container:
        stream: Any = container.add_stream("libx264", rate=FRAME_RATE, options={"qp": "22", "preset": "fast"})
        stream.width = stream.height = size
        stream.pix_fmt, stream.gop_size, stream.max_b_frames = "yuv420p", 1, 0
        stream.codec_context.time_base = Fraction(1, FRAME_RATE)
        stream.codec_context.thread_count = 1
        for number, image_HW3 in enumerate(video_THW3):
            frame = av.VideoFrame.from_ndarray(image_HW3, format="rgb24")
            frame.pts = number
            container.mux(stream.encode(frame))
        container.mux(stream.encode())


def write_shapes(
    directory: str | Path,
    *,
    videos_per_class: int = 140,
    seed: int = 0,
    size: int = 64,
    seconds: float = SECONDS,
    workers: int = 2,
    progress: Progress | None = None,
) -> Path:
    """Write the set into `directory` (class/video.mp4 and split.csv) and return it; a complete one is left as it is.

    `videos_per_class` are divided 100 : 15 : 25 into train, val and test, each at least one. `size` is the frame's side
    in pixels, `seconds` the length of a video at 30 fps. The frames depend on the parameters alone, not on `workers`,
    the number of threads.
    Raises UserError for impossible parameters and for a folder that holds anything but this very set.
    """
    if videos_per_class < len(SPLIT_SHARES) or not 16 <= size <= 1024 or size % 2 or not 0.1 <= seconds <= 60:
        raise UserError(
            f"cannot generate shapes with videos_per_class={videos_per_class}, size={size}, seconds={seconds:g}; "
            "give at least 3 videos per class, an even size from 16 to 1024 and 0.1 to 60 seconds"
        )
    root = Path(directory)
    parameters = {"version": VERSION, "videos_per_class": videos_per_class, "seed": seed, "size": size}
    parameters |= {"frames": round(seconds * FRAME_RATE)}
    splits = [split for split, count in split_counts(videos_per_class).items() for _ in range(count)]
    names = [(label, f"{label}_{number:04d}", split) for label in CLASSES for number, split in enumerate(splits)]
    # Path, label, split and group; no two videos share a draw: each is a group.
    rows = [(f"{label}/{name}.mp4", label, split, name) for label, name, split in names]
    if _is_complete(root, parameters, [path for path, *_ in rows]):
        return root
    for label in CLASSES:
        (root / label).mkdir(parents=True, exist_ok=True)
    marker = {"parameters": parameters, "complete": False}  # says that the folder is ours, should we be interrupted
    write_atomic(root / MARKER, json.dumps(marker) + "\n")
    _write_videos(root, rows, parameters, workers, progress)
    with (root / "split.csv").open("w", encoding="utf-8", newline="") as file:
        csv.writer(file, lineterminator="\n").writerows([("path", "label", "split", "group"), *rows])
    write_atomic(root / MARKER, json.dumps(marker | {"complete": True}) + "\n")
    return root


def _write_videos(
    root: Path,
    rows: list[tuple[str, str, str, str]],
    parameters: dict[str, int],
    workers: int,
    progress: Progress | None,
) -> None:
    """Draw and encode every video, in threads: both numpy and the encoder let others run."""

    def write(index: int) -> None:
        path, label, *_ = rows[index]
        generator = np.random.default_rng([parameters["seed"], *divmod(index, parameters["videos_per_class"])])
        video_THW3 = draw_video(label, generator, size=parameters["size"], frames=parameters["frames"])
        encode(root / path, video_THW3)

    with begin(progress, "generating videos", len(rows)) as bar, ThreadPoolExecutor(max(1, workers)) as pool:
        for _ in pool.map(write, range(len(rows))):  # left early, it cancels what has not begun
            bar.advance(1)


def split_counts(videos_per_class: int) -> dict[str, int]:
    """Return how many videos of each class go to train, val and test; 140 are divided 100, 15, 25."""
    whole = sum(SPLIT_SHARES.values())
    held = {split: max(1, round(videos_per_class * SPLIT_SHARES[split] / whole)) for split in ("val", "test")}
    return {"train": videos_per_class - sum(held.values()), **held}


def _is_complete(root: Path, parameters: dict[str, int], paths: list[str]) -> bool:
    """Return whether the set is there already. Raises UserError when the folder holds something else."""
    if not root.exists():
        return False
    advice = "name another folder for the generated videos, or delete this one"
    if not root.is_dir():
        raise UserError(f"{root} is a file; {advice}")
    if not any(root.iterdir()):
        return False
    try:
        marker = json.loads((root / MARKER).read_text(encoding="utf-8"))
        there, complete = marker["parameters"], marker["complete"]
    except (OSError, ValueError, KeyError, TypeError):
        raise UserError(f"{root} is not empty and not a generated set; {advice}") from None
    if there != parameters:
        raise UserError(f"{root} holds a set generated with other parameters ({there}); {advice}")
    return bool(complete) and all((root / path).is_file() for path in ("split.csv", *paths))
