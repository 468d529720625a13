"""Optical flow between two frames: where each pixel goes, without what it looks like.

Least squares on the brightness constancy of all pixels of a window (Lucas and Kanade, IJCAI 1981), from coarse to fine
with the later frame brought back by the flow so far (Bouguet, Pyramidal Implementation of the Lucas Kanade Feature
Tracker, Intel, 2000). A few box filters on small frames: it is made anew for each augmented clip, on its device.
Legend: P pairs of frames, H and W pixels.
"""

from functools import lru_cache

import torch
import torch.nn.functional as F
from torch import Tensor

LEVELS = 2  # frames at full and at half the size: motions up to some eight pixels
ITERATIONS = 2  # on each level
SMOOTH = 3  # pixels, the side of the squares that frames (twice) and flow are smoothed by
WINDOW = 9  # pixels, the side of the square in which all pixels move alike
LARGEST_STEP = 2.0  # pixels, of one iteration
# Added to the squared gradients, of grey levels of 0 to 1: without structure in a window nothing moves there.
FLAT = 2e-4


def optical_flow(now_PHW: Tensor, later_PHW: Tensor, *, steady: bool = False) -> Tensor:
    """Return by how many pixels to the right and down each pixel moves: (P, 2, H, W), of grey levels of 0 to 1.

    ``steady``: less the median of each frame (the lower of two middle ones): it is mostly the camera that moves so.
    """
    pyramid = [torch.stack([now_PHW, later_PHW], dim=1)]
    while len(pyramid) < LEVELS and min(pyramid[-1].shape[2:]) >= 2 * WINDOW:
        pyramid.append(F.avg_pool2d(pyramid[-1], 2))
    flow = torch.zeros_like(pyramid[-1])
    for frames in reversed(pyramid):
        size = frames.shape[2:]
        if flow.shape[2:] != size:
            flow = F.interpolate(flow, size=size, mode="bilinear", align_corners=False) * 2
        now, later = _means(_means(frames, SMOOTH), SMOOTH).split(1, dim=1)
        flow = _refined(flow, now, later)
    flow = _means(flow, SMOOTH)
    return flow - flow.flatten(2).median(2).values[:, :, None, None] if steady else flow


def _refined(flow_P2HW: Tensor, now_P1HW: Tensor, later_P1HW: Tensor) -> Tensor:
    """Return the flow after ITERATIONS steps of Gauss and Newton on one level."""
    height, width = now_P1HW.shape[2:]
    gradient = _gradient(now_P1HW)
    xx_yy, xy = _means(gradient.square(), WINDOW) + FLAT, _means(gradient.prod(1, keepdim=True), WINDOW)
    determinant = xx_yy.prod(1, keepdim=True) - xy.square()
    upright = torch.eye(2, 3, device=flow_P2HW.device, dtype=flow_P2HW.dtype)
    here = F.affine_grid(upright[None], [1, 1, height, width], align_corners=False)
    pixels = torch.tensor([2.0 / width, 2.0 / height], device=flow_P2HW.device, dtype=flow_P2HW.dtype)
    for _ in range(ITERATIONS):
        there = here + flow_P2HW.permute(0, 2, 3, 1) * pixels
        brought_back = F.grid_sample(later_P1HW, there, padding_mode="border", align_corners=False)
        xt_yt = _means(gradient * (brought_back - now_P1HW), WINDOW)
        # [xx xy; xy yy] step = -[xt; yt]
        step = (xy * xt_yt.flip(1) - xx_yy.flip(1) * xt_yt) / determinant
        flow_P2HW = flow_P2HW + step.clamp(-LARGEST_STEP, LARGEST_STEP)
    return flow_P2HW


def _gradient(x_P1HW: Tensor) -> Tensor:
    """Return the central differences along the width and the height: (P, 2, H, W)."""
    x = F.pad(x_P1HW, (1, 1, 1, 1), mode="replicate")
    return torch.cat([x[:, :, 1:-1, 2:] - x[:, :, 1:-1, :-2], x[:, :, 2:, 1:-1] - x[:, :, :-2, 1:-1]], dim=1) / 2


def _means(x_PCHW: Tensor, side: int) -> Tensor:
    """Return the means over squares of so many pixels; at the borders over what there is of them."""
    height, width = x_PCHW.shape[2:]
    down, across = (window_matrix(length, side, x_PCHW.device, x_PCHW.dtype) for length in (height, width))
    return down @ x_PCHW @ across.mT


@lru_cache(maxsize=64)
def window_matrix(length: int, side: int, device: torch.device, dtype: torch.dtype) -> Tensor:
    """Return the matrix (length, length) that takes the mean over a window about each pixel of a line.

    As a product a box filter on frames this small takes a fifth of the time of PyTorch's pooling on a CPU.
    """
    pixel = torch.arange(length, device=device)
    near = ((pixel[:, None] - pixel).abs() <= side // 2).double()
    return (near / near.sum(1, keepdim=True)).to(dtype)
