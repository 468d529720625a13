"""What a network sees of a clip: its colours, how they change within a short time, or both.

Legend: N clips, T frames of a clip, C channels, H and W pixels. Where motion is seen a clip is read as 2T frames: T
frames, then for each of them the one ``motion_seconds`` later. What is done to a clip before (crops, colours)
is done to both alike, so that only what moves is left in their difference.
"""

from dataclasses import replace
from functools import lru_cache

import torch
from torch import Tensor

from pvnas.config import ClipConfig

# Of the kinetics-trained networks of PySlowFast; one value for all channels.
MEAN = (0.45, 0.45, 0.45)
STD = (0.225, 0.225, 0.225)
# Added to the strength that a clip's motion is divided by, in grey levels of 0 to 1: noise of a clip without motion
# stays small.
QUIET = 0.005
SHOWN = 3.0
"""Motion that a picture of it shows as black or white, in parts of its strength in the clip."""


def frames_read(clip: ClipConfig) -> int:
    """Return how many frames of a video a clip is made of."""
    return clip.frames if clip.input == "rgb" else 2 * clip.frames


def network_input(clips_NCTHW: Tensor, clip: ClipConfig, keeps_rgb_N: Tensor | None = None) -> Tensor:
    """Return what the network sees of uint8 clips (N, 3, T or 2T, H, W): floats (N, 3 or 6, T, H, W), on their device.

    rgb: about zero mean and unit variance over all videos. motion: the differences, divided by their root mean square
    over the clip, so that a slow or pale motion counts as much as a fast one. both: motion, then rgb, which is 0
    for the clips whose ``keeps_rgb`` is.
    """
    x = clips_NCTHW.contiguous(memory_format=torch.channels_last_3d).float()
    if clip.input == "rgb":
        return normalised(x)
    now, later = x.chunk(2, dim=2)
    moved = (later - now).mul_(1 / 255)
    strength_N1111 = moved.square().mean((1, 2, 3, 4), keepdim=True).sqrt_().add_(QUIET)
    moved = moved.div_(strength_N1111)
    if clip.input == "motion":
        return moved
    colours = normalised(now)
    if keeps_rgb_N is not None:
        colours = colours.mul_(keeps_rgb_N[:, None, None, None, None])
    return torch.cat([moved, colours], dim=1)


def normalised(x_NCTHW: Tensor) -> Tensor:
    """Return grey levels of 0 to 255 with about zero mean and unit variance; works in place."""
    mean, std = _mean_and_std(x_NCTHW.device)
    return x_NCTHW.mul_(1 / 255).sub_(mean).div_(std)


def motion_pictures(clips_NCTHW: Tensor, clip: ClipConfig) -> Tensor:
    """Return the motion that the network sees of uint8 clips as pictures (N, 3, T, H, W) uint8, the rest cut off.

    Mid-grey where nothing moves, black at ``-SHOWN`` of what the network sees, white at ``SHOWN``.
    """
    moved = network_input(clips_NCTHW, replace(clip, input="motion"))
    return moved.mul_(127.5 / SHOWN).add_(127.5).round_().clamp_(0, 255).to(torch.uint8)


@lru_cache(maxsize=8)
def _mean_and_std(device: torch.device) -> tuple[Tensor, Tensor]:
    """Kept, since to bring numbers to a GPU is to wait for it."""
    mean, std = (torch.tensor(v, device=device).view(1, 3, 1, 1, 1) for v in (MEAN, STD))
    return mean, std
