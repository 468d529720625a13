"""What a network sees of a clip: its colours, how they change or where they go within a short time, or both.

Legend: N clips, T frames of a clip, C channels, H and W pixels. Where motion or flow is seen a clip is read as 2T
frames: T frames, then for each of them the one ``motion_seconds`` later. What is done to a clip before (crops, colours)
is done to both alike, so that only what moves is left between them.
"""

from collections.abc import Callable
from dataclasses import replace
from functools import lru_cache

import torch
from torch import Tensor

from pvnas.config import ClipConfig
from pvnas.data.clips.optical_flow import optical_flow

# Of the kinetics-trained networks of PySlowFast; one value for all channels.
MEAN = (0.45, 0.45, 0.45)
STD = (0.225, 0.225, 0.225)
# Added to the strength that a clip's motion is divided by, so that the noise of a clip without motion stays small: of
# differences in grey levels of 0 to 1, of flow in pixels.
QUIET, SLOW = 0.005, 0.05
SHOWN = 3.0
"""Motion that a picture of it shows as black or white, in parts of its strength in the clip."""


def frames_read(clip: ClipConfig) -> int:
    """Return how many frames of a video a clip is made of."""
    return clip.frames if clip.input == "rgb" else 2 * clip.frames


Flow = Callable[..., Tensor]
"""What ``optical_flow`` does."""


def network_input(
    clips_NCTHW: Tensor, clip: ClipConfig, keeps_rgb_N: Tensor | None = None, flow: Flow = optical_flow
) -> Tensor:
    """Return what the network sees of uint8 clips (N, 1 or 3, T or 2T, H, W), on their device: (N, 2 to 6, T, H, W).

    Motion or flow comes first, then rgb, which is 0 for the clips whose ``keeps_rgb`` is. ``flow``: makes the flow.
    """
    x = clips_NCTHW.contiguous(memory_format=torch.channels_last_3d).float()
    if clip.input == "rgb":
        return normalised(x)
    now, later = x.chunk(2, dim=2)
    moved = flow_between(now, later, flow) if clip.input.startswith("flow") else motion_between(now, later)
    if clip.input in ("motion", "flow"):
        return moved
    colours = normalised(now)
    if keeps_rgb_N is not None:
        colours = colours.mul_(keeps_rgb_N[:, None, None, None, None])
    return torch.cat([moved, colours], dim=1)


def motion_between(now_NCTHW: Tensor, later_NCTHW: Tensor) -> Tensor:
    """Return the differences of grey levels of 0 to 255 (N, 3, T, H, W), of about unit variance over each clip.

    So a slow or pale motion counts as much as a fast one.
    """
    moved = (later_NCTHW - now_NCTHW).mul_(1 / 255)
    return moved.div_(_strength(moved).add_(QUIET))


def flow_between(now_NCTHW: Tensor, later_NCTHW: Tensor, flow: Flow = optical_flow) -> Tensor:
    """Return the optical flow of levels of 0 to 255: to the right and down (N, 2, T, H, W), of about unit variance."""
    n, _, frames = now_NCTHW.shape[:3]
    now, later = (x.mean(1).flatten(0, 1) / 255 for x in (now_NCTHW, later_NCTHW))
    flow_P2HW = flow(now, later, steady=True)
    flow_NCTHW = flow_P2HW.unflatten(0, (n, frames)).transpose(1, 2)
    return flow_NCTHW / _strength(flow_NCTHW).add_(SLOW)


def _strength(moved_NCTHW: Tensor) -> Tensor:
    """Return the root mean square over each clip: (N, 1, 1, 1, 1)."""
    return moved_NCTHW.square().mean((1, 2, 3, 4), keepdim=True).sqrt_()


def normalised(x_NCTHW: Tensor) -> Tensor:
    """Return grey levels of 0 to 255 with about zero mean and unit variance; works in place."""
    mean, std = _mean_and_std(x_NCTHW.device)
    return x_NCTHW.mul_(1 / 255).sub_(mean).div_(std)


def motion_pictures(clips_NCTHW: Tensor, clip: ClipConfig) -> Tensor:
    """Return the motion or flow, no colours, that the network sees of uint8 clips as pictures (N, 3, T, H, W) uint8.

    Mid-grey where nothing moves, black at ``-SHOWN`` of what the network sees, white at ``SHOWN``. Of flow red is the
    part to the right and green the part down.
    """
    flows = clip.input.startswith("flow")
    moved = network_input(clips_NCTHW, replace(clip, input="flow" if flows else "motion"))
    if flows:
        moved = torch.cat([moved, torch.zeros_like(moved[:, :1])], dim=1)
    return moved.mul_(127.5 / SHOWN).add_(127.5).round_().clamp_(0, 255).to(torch.uint8)


@lru_cache(maxsize=8)
def _mean_and_std(device: torch.device) -> tuple[Tensor, Tensor]:
    """Kept, since to bring numbers to a GPU is to wait for it."""
    mean, std = (torch.tensor(v, device=device).view(1, 3, 1, 1, 1) for v in (MEAN, STD))
    return mean, std
