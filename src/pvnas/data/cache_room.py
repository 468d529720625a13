"""How much memory decoded videos take that are kept, and how much there is for them."""

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

from pvnas.config import DataConfig
from pvnas.runtime.memory import free_memory, shown_bytes

if TYPE_CHECKING:
    import torch

GIB = 1 << 30
# Of what is free this is left for the networks: at least so many bytes, and so large a share.
LEFT_BYTES, LEFT_SHARE = GIB, 0.25


@dataclass(frozen=True)
class Room:
    """Bytes that videos may take where they are kept."""

    bytes: float
    what: str  # what leaves no more, as a message says it

    def __str__(self) -> str:
        return f"{shown_bytes(self.bytes)} that {self.what}"


def room_for(config: DataConfig, device: "torch.device | None" = None) -> Room:
    """Return how much room there is for videos: with ``auto`` what is left beside the networks, else all there is."""
    if config.cache == "gpu" and device is not None and device.type == "cuda":
        import torch

        return Room(float(torch.cuda.mem_get_info(device)[0]), "the GPU has free")
    free, what = free_memory()
    if config.cache != "auto":
        return Room(free, what)
    beside = Room(max(0.0, free - max(LEFT_BYTES, LEFT_SHARE * free)), f"{what} beside the networks")
    asked = Room(config.cache_gib * GIB, "data.cache_gib allows")
    return min(asked, beside, key=lambda room: room.bytes)


def decoded_pixels(frames: int, height: int, width: int, short_side: int) -> int:
    """Return the pixels of so many frames, scaled so that the shorter side has ``short_side`` pixels."""
    factor = short_side / max(1, min(height, width))
    return frames * math.prod(max(1, round(side * factor)) for side in (height, width))
