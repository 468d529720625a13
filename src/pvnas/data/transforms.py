"""Crops in space. Clips stay uint8 until they are on the device.

Legend: N clips, C channels, T frames, H and W pixels. Scaling a video and cropping it is one thing here: a box in the
pixels of the source, resized once to what the network sees.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from pvnas.config import AugmentConfig

# Of the kinetics-trained networks of PySlowFast; one value for all channels.
MEAN = (0.45, 0.45, 0.45)
STD = (0.225, 0.225, 0.225)


@dataclass(frozen=True)
class CropBox:
    """A square of the source, in its pixels, and whether it is mirrored left to right."""

    top: int
    left: int
    side: int
    flip: bool = False


def random_crop_box(height: int, width: int, augment: AugmentConfig, generator: torch.Generator) -> CropBox:
    """Return the box of a random crop after scaling the shorter side to a random length (paper, section 4.1).

    Four numbers are drawn whatever the settings, so that one setting never changes what another one draws.
    """
    u_side, u_top, u_left, u_flip = torch.rand(4, generator=generator, dtype=torch.float64).tolist()
    short_side = augment.short_side_min + u_side * (augment.short_side_max - augment.short_side_min)
    side = _side(height, width, augment.crop, short_side)
    top, left = (math.floor(u * (length - side + 1)) for u, length in ((u_top, height), (u_left, width)))
    return CropBox(top, left, side, augment.flip and u_flip < 0.5)


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
    box = {}
    for name, length in (("top", height), ("left", width)):
        along = length == max(height, width)
        places = (0, math.ceil((length - side) / 2), length - side)
        box[name] = places[view] if along else places[1]
    if height == width:
        box["top"] = math.ceil((height - side) / 2)  # a square has one longer side: its width
    return CropBox(box["top"], box["left"], side)


def _side(height: int, width: int, crop: int, short_side: float) -> int:
    """Side of the box in source pixels, at least 1 and at most the source's shorter side."""
    shorter = min(height, width)
    return max(1, min(shorter, round(crop * shorter / short_side)))


def crop_resize(frames_TCHW: Tensor, box: CropBox, size: int) -> Tensor:
    """Return the box of all frames, resized to (C, T, size, size) uint8, bilinear and antialiased."""
    crop = frames_TCHW[:, :, box.top : box.top + box.side, box.left : box.left + box.side]
    if box.flip:
        crop = crop.flip(3)
    if box.side != size:
        crop = F.interpolate(crop.contiguous(), size=(size, size), mode="bilinear", antialias=True)
    return crop.transpose(0, 1).contiguous()


def normalise(clips_NCTHW: Tensor) -> Tensor:
    """Return the uint8 clips as floats of about zero mean and unit variance, on the clips' device."""
    mean, std = (torch.tensor(v, device=clips_NCTHW.device).view(1, 3, 1, 1, 1) for v in (MEAN, STD))
    x = clips_NCTHW.contiguous(memory_format=torch.channels_last_3d).float()
    return x.mul_(1 / 255).sub_(mean).div_(std)
