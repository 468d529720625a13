"""Optical flow in C++."""

from torch import Tensor

from pvnas.data.clips.optical_flow import FLAT, ITERATIONS, LARGEST_STEP, LEVELS, SMOOTH, WINDOW
from pvnas.fast.kernels.cpp_library import as_bits, call


def optical_flow(now_PHW: Tensor, later_PHW: Tensor, *, steady: bool = False) -> Tensor:
    p, h, w = now_PHW.shape
    flow_P2HW = now_PHW.new_empty(p, 2, h, w)
    sizes = p, h, w, LEVELS, ITERATIONS, WINDOW, SMOOTH
    frames = now_PHW.contiguous(), later_PHW.contiguous()
    call("optical_flow", frames, flow_P2HW, *sizes, as_bits(FLAT), as_bits(LARGEST_STEP), int(steady))
    return flow_P2HW
