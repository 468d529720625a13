"""Optical flow by the fastest kernels that there are for the frames."""

from torch import Tensor

from pvnas.fast.kernels.choice import kernels_for


def optical_flow(now_PHW: Tensor, later_PHW: Tensor, *, steady: bool = False) -> Tensor:
    """Return what ``data.clips.optical_flow`` does: (P, 2, H, W)."""
    return kernels_for(now_PHW).optical_flow(now_PHW, later_PHW, steady=steady)
