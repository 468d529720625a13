"""What is done to the pixels of cropped uint8 clips: colours, and a still frame of another video mixed in.

Legend: N clips, C channels (red, green, blue), T frames, H and W pixels. All frames of a clip are changed alike.
"""

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from pvnas.config import AugmentConfig
from pvnas.data.clips.augment import CropBox, crop_batch
from pvnas.data.clips.chances import Chances

LUMA = (0.299, 0.587, 0.114)  # ITU-R BT.601: the grey level of a colour


class Colours(NamedTuple):
    """Factors on a clip's brightness, on the distances from its mean grey level, and on those of colours from grey."""

    brightness: float = 1.0
    contrast: float = 1.0
    saturation: float = 1.0


class Still(NamedTuple):
    """A frame of another video, and the share that it takes of the pixels of a clip."""

    frame_1CHW: Tensor
    box: CropBox
    share: float


def drawn_colours(augment: AugmentConfig, chances: Chances) -> Colours | None:
    """Return the colours of a clip, None where the config leaves all clips as they are."""
    if not (augment.brightness or augment.contrast or augment.saturation or augment.grey):
        return None
    names = Colours._fields
    factors = (1 + getattr(augment, name) * (2 * getattr(chances, name) - 1) for name in names)
    colours = Colours(*factors)
    return colours._replace(saturation=0.0) if chances.grey < augment.grey else colours


def grey_levels(x_NCTHW: Tensor) -> Tensor:
    """Return the grey levels (N, 1, T, H, W) of colours or of grey levels, in their units."""
    if x_NCTHW.shape[1] == 1:
        return x_NCTHW
    red, green, blue = x_NCTHW.split(1, dim=1)
    return LUMA[0] * red + LUMA[1] * green + LUMA[2] * blue


def recoloured(clips_NCTHW: Tensor, colours: Sequence[Colours]) -> Tensor:
    """Return uint8 clips with other colours, on their device: saturation, then contrast, then brightness.

    All three are one linear step, rounded and cut off at 0 and 255 once.
    """
    device, pixels = clips_NCTHW.device, clips_NCTHW[0, 0].numel()
    factors = torch.tensor([list(each) for each in colours], dtype=torch.float32)[:, :, None, None, None, None]
    brightness, contrast, saturation = factors.to(device).unbind(1)
    x = clips_NCTHW.float()
    # Sums of whole numbers, which no order changes.
    mean = grey_levels(clips_NCTHW.sum((2, 3, 4), keepdim=True).float()) / pixels
    grey = grey_levels(x)
    strength = brightness * contrast
    y = x * (strength * saturation) + grey * (strength * (1 - saturation)) + mean * (brightness * (1 - contrast))
    return y.round_().clamp_(0, 255).to(torch.uint8)


def with_stills(clips_NCTHW: Tensor, stills: Sequence[Still | None], size: int) -> Tensor:
    """Return uint8 clips with stills mixed into all frames of those that have one.

    Against learning backgrounds by heart: background erasing (Wang et al. 2021, arXiv 2009.05769), StillMix (Li et al.
    2023, arXiv 2211.12883).
    """
    numbers = [number for number, still in enumerate(stills) if still is not None]
    chosen = [still for still in stills if still is not None]
    if not chosen:
        return clips_NCTHW
    stills_NC1HW = crop_batch([still.frame_1CHW for still in chosen], [still.box for still in chosen], size).float()
    shares = torch.tensor([still.share for still in chosen], device=clips_NCTHW.device)[:, None, None, None, None]
    x = clips_NCTHW[numbers].float()
    mixed, result = x + shares * (stills_NC1HW - x), clips_NCTHW.clone()
    result[numbers] = mixed.round_().clamp_(0, 255).to(torch.uint8)
    return result
