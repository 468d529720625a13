"""A catalogue of videos as a pack: tar shards of JPEG frames in the WebDataset convention, made for training.

A pack is read in sequence by any tool that reads tar files, or a clip at a time from a disk or a URL, decoding only the
frames a clip needs. Nothing in it is ever unpickled.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from pvnas.data.pack.info import PackInfo
    from pvnas.data.pack.opening import Pack, is_pack, open_pack
    from pvnas.data.pack.reader import PackReader
    from pvnas.data.pack.verify import verify_pack
    from pvnas.data.pack.write import pack_videos

# Public name -> where it is defined.
_HOMES = {
    "Pack": "pvnas.data.pack.opening",
    "PackInfo": "pvnas.data.pack.info",
    "PackReader": "pvnas.data.pack.reader",
    "is_pack": "pvnas.data.pack.opening",
    "open_pack": "pvnas.data.pack.opening",
    "pack_videos": "pvnas.data.pack.write",
    "verify_pack": "pvnas.data.pack.verify",
}

__all__ = ["Pack", "PackInfo", "PackReader", "is_pack", "open_pack", "pack_videos", "verify_pack"]


def __getattr__(name: str) -> Any:
    """Imports a public name when it is first asked for: to look at `pack.json` alone (`info`) needs no torch."""
    if name not in _HOMES:
        raise AttributeError(f"module 'pvnas.data.pack' has no attribute {name!r}")
    return getattr(import_module(_HOMES[name]), name)
