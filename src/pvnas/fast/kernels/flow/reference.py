"""Optical flow by PyTorch's operations: as it is defined."""

from pvnas.data.clips.optical_flow import optical_flow

__all__ = ["optical_flow"]
