"""The numbers that decide what is done to one training clip, all drawn at once whatever the settings.

So no setting changes what another one draws, and a clip with everything off is the one that it always was.
"""

from typing import NamedTuple, Self

import torch


class Chances(NamedTuple):
    """Numbers uniform in [0, 1) of one clip, by what they decide. New ones go to the end."""

    aspect: float
    angle: float
    shear: float
    window: float
    window_start: float
    brightness: float
    contrast: float
    saturation: float
    grey: float
    drop_rgb: float
    static: float
    static_share: float
    static_video: float
    static_frame: float

    @classmethod
    def drawn(cls, generator: torch.Generator) -> Self:
        """Return the next numbers of a generator."""
        return cls(*torch.rand(len(cls._fields), generator=generator, dtype=torch.float64).tolist())


MIDDLE = Chances(*(0.5 for _ in Chances._fields))
"""Those of an upright square: half way from the largest change one way to the largest the other way."""
