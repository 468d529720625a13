"""The same numbers as ``space``, faster: ``accelerate`` for a search, ``for_inference`` for predictions.

Nothing in ``space`` knows of it. A cell computes by one of three sets of kernels (``kernels.choice``).
"""

from pvnas.fast.accelerate import accelerate, shared_passes
from pvnas.fast.inference import for_inference

__all__ = ["accelerate", "for_inference", "shared_passes"]
