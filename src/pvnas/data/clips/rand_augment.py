"""RandAugment (Cubuk et al. 2019, arXiv 1909.13719): random operations on a cropped uint8 clip, one after another.

The paper's fourteen, each with a strength of magnitude / 30, the same for all frames; histograms are those of the whole
clip. Legend: C channels, T frames, H and W pixels.
"""

import math
from collections.abc import Callable, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from pvnas.data.clips.appearance import Colours, recoloured
from pvnas.data.clips.augment import warped

LARGEST_MAGNITUDE = 30.0
LARGEST_ANGLE = 30.0  # degrees
LARGEST_SLANT = 0.3  # of a line's length
LARGEST_SHIFT = 0.45  # of the crop's side
LARGEST_CHANGE = 0.9  # of brightness, contrast, colour and sharpness, as a share
LARGEST_LOST_BITS = 4

Operation = Callable[[Tensor, float], Tensor]
"""Of a clip (C, T, H, W) and a strength, -1 to 1: either direction."""


def identity(clip: Tensor, strength: float) -> Tensor:
    """Leave the clip as it is."""
    return clip


def auto_contrast(clip: Tensor, strength: float) -> Tensor:
    """Stretch the levels of each channel over 0 to 255, whatever the strength."""
    low, high = clip.amin((1, 2, 3), keepdim=True).float(), clip.amax((1, 2, 3), keepdim=True).float()
    stretched = (clip.float() - low) * (255 / (high - low).clamp_min(1))
    return torch.where(high > low, stretched.round_(), clip.float()).to(torch.uint8)


def equalise(clip: Tensor, strength: float) -> Tensor:
    """Give each channel a flat histogram, whatever the strength."""
    return torch.stack([_equalised(channel) for channel in clip])


def _equalised(levels: Tensor) -> Tensor:
    below = torch.bincount(levels.flatten().long(), minlength=256).cumsum(0)
    darkest = below[below > 0][0]
    if darkest == levels.numel():  # one level alone
        return levels
    new = ((below - darkest).clamp_min(0) * 255).double() / (levels.numel() - darkest)
    return new.round().to(torch.uint8)[levels.long()]


def solarise(clip: Tensor, strength: float) -> Tensor:
    """Invert levels above a threshold, which is lower the larger the strength."""
    threshold = 256 * (1 - abs(strength))
    return torch.where(clip >= threshold, 255 - clip, clip)


def posterise(clip: Tensor, strength: float) -> Tensor:
    """Set the lowest bits of all levels to 0."""
    lost = round(LARGEST_LOST_BITS * abs(strength))
    return (clip >> lost) << lost


def brightness(clip: Tensor, strength: float) -> Tensor:
    """Multiply all levels."""
    return recoloured(clip[None], [Colours(brightness=1 + LARGEST_CHANGE * strength)])[0]


def contrast(clip: Tensor, strength: float) -> Tensor:
    """Multiply the distances from the mean grey level."""
    return recoloured(clip[None], [Colours(contrast=1 + LARGEST_CHANGE * strength)])[0]


def colour(clip: Tensor, strength: float) -> Tensor:
    """Multiply the distances of colours from grey."""
    return recoloured(clip[None], [Colours(saturation=1 + LARGEST_CHANGE * strength)])[0]


def sharpness(clip: Tensor, strength: float) -> Tensor:
    """Multiply the distances from a smoothed clip; the outermost pixels stay."""
    kernel = torch.ones(3, 3, device=clip.device)
    kernel[1, 1] = 5
    x = clip.float()
    smooth = x.clone()
    inner = F.conv2d(x.flatten(0, 1)[:, None], kernel[None, None] / kernel.sum())
    smooth[:, :, 1:-1, 1:-1] = inner.view(*x.shape[:2], *inner.shape[2:])
    sharp = smooth + (x - smooth) * (1 + LARGEST_CHANGE * strength)
    return sharp.round_().clamp_(0, 255).to(torch.uint8)


def rotate(clip: Tensor, strength: float) -> Tensor:
    """Turn the clip about its middle."""
    turn = math.radians(LARGEST_ANGLE * strength)
    cos, sin = math.cos(turn), math.sin(turn)
    return _moved(clip, [[cos, -sin, 0], [sin, cos, 0]])


def shear_x(clip: Tensor, strength: float) -> Tensor:
    """Slant the columns."""
    return _moved(clip, [[1, LARGEST_SLANT * strength, 0], [0, 1, 0]])


def shear_y(clip: Tensor, strength: float) -> Tensor:
    """Slant the rows."""
    return _moved(clip, [[1, 0, 0], [LARGEST_SLANT * strength, 1, 0]])


def translate_x(clip: Tensor, strength: float) -> Tensor:
    """Shift the clip sideways."""
    return _moved(clip, [[1, 0, 2 * LARGEST_SHIFT * strength], [0, 1, 0]])


def translate_y(clip: Tensor, strength: float) -> Tensor:
    """Shift the clip up or down."""
    return _moved(clip, [[1, 0, 0], [0, 1, 2 * LARGEST_SHIFT * strength]])


def _moved(clip: Tensor, places: list[list[float]]) -> Tensor:
    """Return the clip sampled where a matrix from (x, y, 1) says, both -1 to 1; mirrored beyond its edges."""
    size = clip.shape[-1]
    matrix = torch.tensor([places], dtype=torch.float64)
    matrix[..., 2] += 1
    return warped(clip.transpose(0, 1)[None], matrix * (size / 2), size)[0]


OPERATIONS: tuple[Operation, ...] = (
    *(identity, auto_contrast, equalise, solarise, posterise, brightness, contrast, colour, sharpness),
    *(rotate, shear_x, shear_y, translate_x, translate_y),
)


def drawn_operations(n: int, magnitude: float, generator: torch.Generator) -> list[tuple[Operation, float]]:
    """Return ``n`` operations, uniform over all, each with its strength in one direction or the other."""
    chosen_and_signs = torch.rand((n, 2), generator=generator, dtype=torch.float64).tolist()
    strength = magnitude / LARGEST_MAGNITUDE
    return [(OPERATIONS[int(u * len(OPERATIONS))], strength if v < 0.5 else -strength) for u, v in chosen_and_signs]


def changed_by(clip_CTHW: Tensor, operations: Sequence[tuple[Operation, float]]) -> Tensor:
    """Return a uint8 clip after its operations."""
    for operation, strength in operations:
        clip_CTHW = operation(clip_CTHW, strength)
    return clip_CTHW
