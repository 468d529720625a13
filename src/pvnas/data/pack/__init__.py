"""A catalogue of videos as a pack: tar files of JPEG frames in the WebDataset convention, made for training.

A pack is read in sequence by any tool that reads tar files, or a clip at a time from a disk or a URL, decoding only the
frames a clip needs. Nothing in it is ever unpickled.
"""

from pvnas.data.pack.format import PackInfo
from pvnas.data.pack.read import Pack, is_pack, open_pack, verify_pack
from pvnas.data.pack.write import pack_videos

__all__ = ["Pack", "PackInfo", "is_pack", "open_pack", "pack_videos", "verify_pack"]
