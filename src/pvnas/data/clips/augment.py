"""Crops in space, turned or not, flips, and what a flip does to a label. Clips stay uint8 until they are on the device.

Legend: N clips, C channels, T frames, H and W pixels. Scaling a video and cropping it is one thing here: a box in the
pixels of the video, resized once to what the network sees. All frames of a clip have the same box.
"""

import math
import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor

from pvnas.config import AugmentConfig
from pvnas.data.clips.chances import MIDDLE, Chances

# Pixels of the source for one of a turned crop, above which one sample of them would miss too many.
PIXELS_A_SAMPLE = 1.6
# Of the epochs, in which clips grow; and by how many pixels: stems and cells halve them four times or so.
GROWING_SHARE, CROP_STEP = 0.7, 8


@dataclass(frozen=True)
class CropBox:
    """A part of the source, in its pixels: ``side`` rows, as many columns unless ``columns`` says otherwise.

    ``flip``: mirrored left to right. ``shear``, ``angle``: slanted, then turned about its middle by so many degrees, as
    the source lies in it; a turned box may reach beyond the source, which goes on there as if it were mirrored.
    """

    top: int
    left: int
    side: int
    flip: bool = False
    columns: int | None = None
    angle: float = 0.0
    shear: float = 0.0

    @property
    def width(self) -> int:
        return self.side if self.columns is None else self.columns

    @property
    def is_turned(self) -> bool:
        return self.angle != 0.0 or self.shear != 0.0


def random_crop_box(
    height: int,
    width: int,
    augment: AugmentConfig,
    generator: torch.Generator,
    *,
    may_flip: bool,
    chances: Chances = MIDDLE,
) -> CropBox:
    """Return the box of a random crop after scaling the shorter side to a random length (paper, section 4.1).

    Half of them are mirrored where they may be. Four numbers are drawn whatever the settings, so that one setting never
    changes what another one draws; ``chances`` say how far the box is from an upright square of the same area.
    """
    u_side, u_top, u_left, u_flip = torch.rand(4, generator=generator, dtype=torch.float64).tolist()
    short_side = augment.short_side_min + u_side * (augment.short_side_max - augment.short_side_min)
    side = _side(height, width, augment.crop, short_side)
    ratio = math.sqrt(augment.aspect) ** (2 * chances.aspect - 1)
    rows, columns = min(height, max(1, round(side / ratio))), min(width, max(1, round(side * ratio)))
    top, left = math.floor(u_top * (height - rows + 1)), math.floor(u_left * (width - columns + 1))
    angle, shear = augment.rotate * (2 * chances.angle - 1), augment.shear * (2 * chances.shear - 1)
    return CropBox(top, left, rows, may_flip and u_flip < 0.5, None if columns == rows else columns, angle, shear)


def centre_box(height: int, width: int, crop: int, short_side: float) -> CropBox:
    """Return the box of the centre crop of ``crop`` pixels after scaling the shorter side to ``short_side``."""
    side = _side(height, width, crop, short_side)
    return CropBox((height - side) // 2, (width - side) // 2, side)


def validation_box(height: int, width: int, augment: AugmentConfig) -> CropBox:
    """Return the box of the centre crop at the middle of the training sizes."""
    return centre_box(height, width, augment.crop, (augment.short_side_min + augment.short_side_max) / 2)


def spatial_view_box(height: int, width: int, crop: int, short_side: float, view: int, views: int) -> CropBox:
    """Return the box of one of ``views`` test crops along the longer side: left or top, centre, right or bottom.

    The offset of the centre is ceil((L - crop) / 2), as in PySlowFast. ``views``: 1 (the centre) or 3.
    """
    if views == 1:
        return centre_box(height, width, crop, short_side)
    side = _side(height, width, crop, short_side)
    tops, lefts = ((0, math.ceil((length - side) / 2), length - side) for length in (height, width))
    along_height = height > width  # a square has one longer side: its width
    return CropBox(tops[view if along_height else 1], lefts[1 if along_height else view], side)


def crop_of_epoch(augment: AugmentConfig, epoch: int, epochs: int) -> int:
    """Return the side of the crops of an epoch, from 0 on: in equal stages from ``first_crop`` up to ``crop``.

    The last epoch has crops of full size in any case. Small clips teach the first epochs as much in less time (Wu et
    al., A Multigrid Method for Efficiently Training Video Models, 2020; Tan and Le, EfficientNetV2, 2021).
    """
    smaller = range(augment.first_crop or augment.crop, augment.crop, CROP_STEP)
    return _of_epoch(smaller, augment.crop, epoch, epochs)


def frames_of_epoch(augment: AugmentConfig, frames: int, epoch: int, epochs: int) -> int:
    """Return the frames of the clips of an epoch, as ``crop_of_epoch``: ``first_frames`` and its doubles, then all."""
    fewer, few = list[int](), augment.first_frames or frames
    while few < frames:
        fewer.append(few)
        few *= 2
    return _of_epoch(fewer, frames, epoch, epochs)


def smallest_size(augment: AugmentConfig, frames: int) -> tuple[int, int]:
    """Return the side of the smallest crops and the frames of the shortest clips of a stage whose clips grow or not."""
    return min(augment.first_crop or augment.crop, augment.crop), min(augment.first_frames or frames, frames)


def full_size(augment: AugmentConfig) -> AugmentConfig:
    """Return the augmentation of clips that do not grow."""
    return replace(augment, first_crop=0, first_frames=0)


def _of_epoch(smaller: Sequence[int], full: int, epoch: int, epochs: int) -> int:
    """Return an epoch's one of some sizes, each of which has as many epochs, before those of full size."""
    stage = int(epoch / epochs / GROWING_SHARE * len(smaller))
    return smaller[stage] if stage < len(smaller) and epoch + 1 < epochs else full


def _side(height: int, width: int, crop: int, short_side: float) -> int:
    """Side of the box in source pixels, at least 1 and at most the source's shorter side."""
    shorter = min(height, width)
    return max(1, min(shorter, round(crop * shorter / short_side)))


def crop_resize(frames_TCHW: Tensor, box: CropBox, size: int) -> Tensor:
    """Return the box of all frames, resized to (C, T, size, size) uint8, bilinear and antialiased.

    Fastest on frames that lie as (T, H, W, C) in memory, and leaves the clip so.
    """
    if box.is_turned:
        return turned_crops(frames_TCHW[None], [box], size)[0]
    crop = frames_TCHW[:, :, box.top : box.top + box.side, box.left : box.left + box.width]
    if (box.side, box.width) != (size, size):
        crop = F.interpolate(crop, size=(size, size), mode="bilinear", antialias=True)
    if box.flip:
        crop = crop.flip(3)
    return crop.transpose(0, 1)


def crop_batch(clips: Sequence[Tensor], boxes: Sequence[CropBox], size: int) -> Tensor:
    """Return the boxes of clips (T, C, H, W) uint8 as one batch (N, C, T, size, size) uint8, on the clips' device.

    On a GPU all clips of one height and width are resized at once.
    """
    if clips[0].is_cuda:
        return _crop_at_once(clips, boxes, size)
    n, (t, c) = len(clips), clips[0].shape[:2]
    # In memory (N, T, H, W, C): the channels-last form that the networks work on.
    batch_NTHWC = torch.empty((n, t, size, size, c), dtype=torch.uint8)
    batch_NCTHW = batch_NTHWC.permute(0, 4, 1, 2, 3)
    for number, (clip, box) in enumerate(zip(clips, boxes, strict=True)):
        batch_NCTHW[number] = crop_resize(clip, box, size)
    return batch_NCTHW


def _crop_at_once(clips: Sequence[Tensor], boxes: Sequence[CropBox], size: int) -> Tensor:
    """Crop all clips of one shape together, those that are turned and those that are not."""
    t, c = clips[0].shape[:2]
    batch_NCTHW = torch.empty((len(clips), c, t, size, size), dtype=torch.uint8, device=clips[0].device)
    alike: dict[tuple[object, ...], list[int]] = {}
    for number, (clip, box) in enumerate(zip(clips, boxes, strict=True)):
        # By the samples too: what becomes of a clip must not hang on the others of its batch.
        alike.setdefault((clip.shape, box.is_turned and _samples(box, size)), []).append(number)
    for (_, turned), numbers in alike.items():
        frames_NTCHW, chosen = torch.stack([clips[n] for n in numbers]), [boxes[n] for n in numbers]
        batch_NCTHW[numbers] = (turned_crops if turned else _upright_crops)(frames_NTCHW, chosen, size)
    return batch_NCTHW


def _upright_crops(frames_NTCHW: Tensor, boxes: Sequence[CropBox], size: int) -> Tensor:
    """Crop, flip and resize as two products of matrices: rows of the box to rows of the crop, then columns.

    Differs from ``crop_resize``, which rounds between the two, by a grey level at the most.
    """
    height, width = frames_NTCHW.shape[3:]
    device = frames_NTCHW.device
    rows_NSH = resize_matrices(height, [box.top for box in boxes], [box.side for box in boxes], size).to(device)
    columns_NSW = resize_matrices(width, [box.left for box in boxes], [box.width for box in boxes], size).to(device)
    mirrored = torch.tensor([box.flip for box in boxes], device=device)
    columns_NSW = torch.where(mirrored[:, None, None], columns_NSW.flip(1), columns_NSW)
    y_NTCSS = rows_NSH[:, None, None] @ frames_NTCHW.float() @ columns_NSW[:, None, None].mT
    return y_NTCSS.round_().clamp_(0, 255).to(torch.uint8).transpose(1, 2)


def resize_matrices(length: int, starts: Sequence[int], sides: Sequence[int], size: int) -> Tensor:
    """Return matrices (N, size, length) that resize the pixels [start, start + side) of a line to ``size`` pixels.

    Bilinear, antialiased: the weights are a triangle about the centre of the new pixel, as wide as the larger of the
    old pixel and the new one, cut off at the ends of the box, of sum 1.
    """
    side_N = torch.tensor(list(sides), dtype=torch.float64)[:, None, None]
    start_N = torch.tensor(list(starts), dtype=torch.float64)[:, None, None]
    scale_N = side_N / size
    centre_NS = (torch.arange(size, dtype=torch.float64)[:, None] + 0.5) * scale_N
    pixel_NL = torch.arange(length, dtype=torch.float64) + 0.5 - start_N
    weights_NSL = (1 - (pixel_NL - centre_NS).abs() / scale_N.clamp_min(1)).clamp_min(0)
    weights_NSL = weights_NSL * ((pixel_NL > 0) & (pixel_NL < side_N))
    return (weights_NSL / weights_NSL.sum(2, keepdim=True)).float()


def turned_crops(frames_NTCHW: Tensor, boxes: Sequence[CropBox], size: int) -> Tensor:
    """Return turned or slanted boxes of uint8 frames as (N, C, T, size, size) uint8, sampled once, bilinear.

    Antialiased as far as the largest box needs it: each pixel is the mean of samples that are at most
    PIXELS_A_SAMPLE apart.
    """
    places = torch.tensor([_places(box) for box in boxes], dtype=torch.float64)
    return warped(frames_NTCHW, places, size, max(_samples(box, size) for box in boxes))


def _samples(box: CropBox, size: int) -> int:
    """Samples of a line for each pixel of a crop."""
    return math.ceil(max(box.side, box.width) / size / PIXELS_A_SAMPLE)


def _places(box: CropBox) -> list[list[float]]:
    """Return the matrix (2, 3) from (x, y, 1) in a crop, -1 to 1, to (x, y) in the source, in its pixels."""
    half_x, half_y = (-box.width if box.flip else box.width) / 2, box.side / 2
    slant, turn = math.tan(math.radians(box.shear)), math.radians(box.angle)
    cos, sin = math.cos(turn), math.sin(turn)
    return [
        [cos * half_x, (cos * slant - sin) * half_y, box.left + box.width / 2],
        [sin * half_x, (sin * slant + cos) * half_y, box.top + box.side / 2],
    ]


def warped(frames_NTCHW: Tensor, places_N23: Tensor, size: int, samples: int = 1) -> Tensor:
    """Return uint8 frames as (N, C, T, size, size) uint8, each pixel from where ``places`` say it is in them.

    ``places``: float64 matrices from (x, y, 1) in the result, -1 to 1, to (x, y) in pixels of the frames; beyond their
    edges the frames are mirrored. A pixel is the mean of samples x samples bilinear ones.
    """
    n, t, c, height, width = frames_NTCHW.shape
    along_S = (torch.arange(size * samples, dtype=torch.float64) + 0.5) * (2 / (size * samples)) - 1
    x_N, y_N, one_N = places_N23[:, :, :, None, None].unbind(2)
    pixels_N2SS = x_N * along_S[None, None, None, :] + y_N * along_S[None, None, :, None] + one_N
    grid_NSS2 = (pixels_N2SS.permute(0, 2, 3, 1) * torch.tensor([2 / width, 2 / height], dtype=torch.float64) - 1).to(
        frames_NTCHW.device, torch.float32
    )
    x_NCHW = frames_NTCHW.reshape(n, t * c, height, width).float()
    y_NCSS = F.grid_sample(x_NCHW, grid_NSS2, mode="bilinear", padding_mode="reflection", align_corners=False)
    if samples > 1:
        y_NCSS = F.avg_pool2d(y_NCSS, samples)
    y_NTCSS = y_NCSS.round_().clamp_(0, 255).to(torch.uint8).view(n, t, c, size, size)
    return y_NTCSS.transpose(1, 2)


MIRRORED = {"left": "right", "right": "left", "clockwise": "counterclockwise", "counterclockwise": "clockwise"}
NEVER = -1
# "Swiping Left", "swipe_left", "SwipeLeft" and "swipe-left" are the same words.
WORD = re.compile(r"[A-Z]?[a-z]+|[A-Z]+(?![a-z])|\d+")
# "pulling it right out", a class of Something-Something V2, has no side.
ADVERB = re.compile(r"(?i)\bright(?=[ _-](out|away|after|before|behind|back)\b)")
COUNTERCLOCKWISE = re.compile(r"(?i)(counter|anti)[ _-]?clockwise")


def flipped_labels(classes: Sequence[str], flip: Literal["auto", "true", "false", "swap"]) -> tuple[int, ...]:
    """Return for each class the label of its mirrored clips, NEVER for a class whose clips are not mirrored.

    `true` keeps every label, `auto` does so unless a class name tells left from right, `swap` gives such a class the
    label of its counterpart (of Something-Something V2: 86 and 87, 93 and 94, 166 and 167), or NEVER where it has none.
    """
    if flip == "false" or (flip == "auto" and sided_classes(classes)):
        return (NEVER,) * len(classes)
    if flip != "swap":
        return tuple(range(len(classes)))
    label_of = {_words(name): label for label, name in enumerate(classes)}
    mirrored = (tuple(MIRRORED.get(word, word) for word in _words(name)) for name in classes)
    return tuple(label_of.get(words, NEVER) for words in mirrored)


def sided_classes(classes: Sequence[str]) -> tuple[str, ...]:
    """Return the class names that tell left from right, or one sense of rotation from the other."""
    return tuple(name for name in classes if not MIRRORED.keys().isdisjoint(_words(name)))


def flip_message(classes: Sequence[str], flip: str, stage: str) -> str | None:
    """Return one line that tells a person what becomes of flips in a stage, None where there is nothing to tell."""
    sided = sided_classes(classes)
    if not sided or flip == "false":
        return None
    option = f"--{stage}.augment.flip"
    if flip == "auto":
        return f"{stage}: no flips, since {sided[0]!r} tells left from right; {option} swap flips and swaps such labels"
    if flip == "true":
        return (
            f"warning: {stage}: flips are on, and {sided[0]!r} is a class that a flip may turn into another; "
            f"switch them off with {option} false, or swap the labels too with {option} swap"
        )
    labels = flipped_labels(classes, "swap")
    single = [name for name, label in zip(classes, labels, strict=True) if label == NEVER]
    pairs = sum(a < b for a, b in enumerate(labels))
    lone = f"; without a counterpart, so never flipped: {', '.join(map(repr, single))}" if single else ""
    return f"{stage}: flips swap the labels of {pairs} pairs of classes{lone}"


def _words(name: str) -> tuple[str, ...]:
    name = ADVERB.sub("just", COUNTERCLOCKWISE.sub("Counterclockwise", name))
    return tuple(word.lower() for word in WORD.findall(name))
