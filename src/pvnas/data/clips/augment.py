"""Crops in space, flips, and what a flip does to a label. Clips stay uint8 until they are on the device.

Legend: N clips, C channels, T frames, H and W pixels. Scaling a video and cropping it is one thing here: a box in the
pixels of the video, resized once to what the network sees.
"""

import math
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor

from pvnas.config import AugmentConfig


@dataclass(frozen=True)
class CropBox:
    """A square of the source, in its pixels, and whether it is mirrored left to right."""

    top: int
    left: int
    side: int
    flip: bool = False


def random_crop_box(
    height: int, width: int, augment: AugmentConfig, generator: torch.Generator, *, may_flip: bool
) -> CropBox:
    """Return the box of a random crop after scaling the shorter side to a random length (paper, section 4.1).

    Half of them are mirrored where they may be. Four numbers are drawn whatever the settings, so that one setting never
    changes what another one draws.
    """
    u_side, u_top, u_left, u_flip = torch.rand(4, generator=generator, dtype=torch.float64).tolist()
    short_side = augment.short_side_min + u_side * (augment.short_side_max - augment.short_side_min)
    side = _side(height, width, augment.crop, short_side)
    top, left = (math.floor(u * (length - side + 1)) for u, length in ((u_top, height), (u_left, width)))
    return CropBox(top, left, side, may_flip and u_flip < 0.5)


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


def _side(height: int, width: int, crop: int, short_side: float) -> int:
    """Side of the box in source pixels, at least 1 and at most the source's shorter side."""
    shorter = min(height, width)
    return max(1, min(shorter, round(crop * shorter / short_side)))


def crop_resize(frames_TCHW: Tensor, box: CropBox, size: int) -> Tensor:
    """Return the box of all frames, resized to (C, T, size, size) uint8, bilinear and antialiased.

    Fastest on frames that lie as (T, H, W, C) in memory, and leaves the clip so.
    """
    crop = frames_TCHW[:, :, box.top : box.top + box.side, box.left : box.left + box.side]
    if box.side != size:
        crop = F.interpolate(crop, size=(size, size), mode="bilinear", antialias=True)
    if box.flip:
        crop = crop.flip(3)
    return crop.transpose(0, 1)


def crop_batch(clips: Sequence[Tensor], boxes: Sequence[CropBox], size: int) -> Tensor:
    """Return the boxes of clips (T, C, H, W) uint8 as one batch (N, C, T, size, size) uint8, on the clips' device.

    On a GPU all clips of one height and width are resized at once.
    """
    if clips[0].is_cuda:
        return _crop_by_matrices(clips, boxes, size)
    n, (t, c) = len(clips), clips[0].shape[:2]
    # In memory (N, T, H, W, C): the channels-last form that the networks work on.
    batch_NTHWC = torch.empty((n, t, size, size, c), dtype=torch.uint8)
    batch_NCTHW = batch_NTHWC.permute(0, 4, 1, 2, 3)
    for number, (clip, box) in enumerate(zip(clips, boxes, strict=True)):
        batch_NCTHW[number] = crop_resize(clip, box, size)
    return batch_NCTHW


def _crop_by_matrices(clips: Sequence[Tensor], boxes: Sequence[CropBox], size: int) -> Tensor:
    """Crop, flip and resize as two products of matrices: rows of the box to rows of the crop, then columns.

    Differs from ``crop_resize``, which rounds between the two, by a grey level at the most.
    """
    (t, c), device = clips[0].shape[:2], clips[0].device
    batch_NCTHW = torch.empty((len(clips), c, t, size, size), dtype=torch.uint8, device=device)
    by_shape: dict[tuple[int, ...], list[int]] = {}
    for number, clip in enumerate(clips):
        by_shape.setdefault(tuple(clip.shape), []).append(number)
    for (_, _, height, width), numbers in by_shape.items():
        chosen = [boxes[number] for number in numbers]
        rows_NSH = resize_matrices(height, [box.top for box in chosen], chosen, size).to(device)
        columns_NSW = resize_matrices(width, [box.left for box in chosen], chosen, size).to(device)
        mirrored = torch.tensor([box.flip for box in chosen], device=device)
        columns_NSW = torch.where(mirrored[:, None, None], columns_NSW.flip(1), columns_NSW)
        x_NTCHW = torch.stack([clips[number] for number in numbers]).float()
        y_NTCSS = rows_NSH[:, None, None] @ x_NTCHW @ columns_NSW[:, None, None].mT
        batch_NCTHW[numbers] = y_NTCSS.round_().clamp_(0, 255).to(torch.uint8).transpose(1, 2)
    return batch_NCTHW


def resize_matrices(length: int, starts: Sequence[int], boxes: Sequence[CropBox], size: int) -> Tensor:
    """Return matrices (N, size, length) that resize the pixels [start, start + side) of a line to ``size`` pixels.

    Bilinear, antialiased: the weights are a triangle about the centre of the new pixel, as wide as the larger of the
    old pixel and the new one, cut off at the ends of the box, of sum 1.
    """
    side_N = torch.tensor([box.side for box in boxes], dtype=torch.float64)[:, None, None]
    start_N = torch.tensor(list(starts), dtype=torch.float64)[:, None, None]
    scale_N = side_N / size
    centre_NS = (torch.arange(size, dtype=torch.float64)[:, None] + 0.5) * scale_N
    pixel_NL = torch.arange(length, dtype=torch.float64) + 0.5 - start_N
    weights_NSL = (1 - (pixel_NL - centre_NS).abs() / scale_N.clamp_min(1)).clamp_min(0)
    weights_NSL = weights_NSL * ((pixel_NL > 0) & (pixel_NL < side_N))
    return (weights_NSL / weights_NSL.sum(2, keepdim=True)).float()


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
