"""Files whose name does not say what they are: the first bytes tell whether one is a video.

Only containers and streams that ``video.decode.FORMATS`` lets FFmpeg open are known here. What customarily lies beside
videos (subtitles, sound, pictures, tables, archives, downloads that have not ended) is not opened at all.
"""

import os
import stat
from pathlib import Path

# fmt: off
COMPANIONS = frozenset((
    ".txt", ".csv", ".tsv", ".json", ".jsonl", ".xml", ".yaml", ".yml", ".toml", ".md", ".rst", ".html", ".htm", ".pdf",
    ".doc", ".docx", ".xls", ".xlsx", ".log", ".nfo", ".ini", ".cfg", ".py", ".ipynb", ".sh", ".m", ".r", ".url",
    ".srt", ".vtt", ".ass", ".ssa", ".sub", ".idx", ".lrc", ".sbv",
    ".wav", ".mp3", ".flac", ".aac", ".m4a", ".opus", ".wma", ".oga", ".mka", ".aif", ".aiff", ".mid",
    ".jpg", ".jpeg", ".png", ".bmp", ".tif", ".tiff", ".webp", ".heic", ".svg", ".psd", ".exr", ".thm", ".ico",
    ".npy", ".npz", ".pkl", ".pickle", ".pt", ".pth", ".h5", ".hdf5", ".mat", ".bin", ".parquet", ".feather",
    ".tfrecord", ".lmdb", ".mdb", ".db", ".sqlite", ".safetensors", ".onnx", ".bvh", ".c3d", ".ply", ".avro", ".gpx",
    ".zip", ".tar", ".gz", ".tgz", ".bz2", ".xz", ".zst", ".7z", ".rar", ".iso", ".md5", ".sha1", ".sha256", ".sig",
    ".part", ".crdownload", ".download", ".tmp", ".temp", ".ytdl", ".aria2", ".bak", ".swp", ".lock", ".lnk",
    ".m3u", ".m3u8", ".mpd", ".pls", ".asx", ".sdp", ".torrent",
))
# fmt: on
BOXES = (
    b"ftyp",
    b"moov",
    b"mdat",
    b"wide",
    b"free",
    b"skip",
    b"pnot",
)  # of MP4, after four bytes of length
UNITS = (0x09, 0x27, 0x67, 0x40, 0x42, 0x46)  # that a raw stream of H.264 or HEVC may begin with
BEGINNINGS = (
    b"\x1a\x45\xdf\xa3",  # Matroska, WebM
    b"GIF87a",
    b"GIF89a",
    b"\x00\x00\x01\xba",  # MPEG program stream
    b"\x00\x00\x01\xb3",  # MPEG-1 and MPEG-2 video
    b"\x00\x00\x01\xb0",  # MPEG-4 video
    b"\x30\x26\xb2\x75\x8e\x66\xcf\x11",  # ASF, WMV
    b"FLV\x01",
    b"DKIF",  # IVF
    b"DHAV",  # recorders of cameras
    b"YUV4MPEG2 ",
    b".RMF",  # RealMedia
    b"\xb7\xd8\x00\x20\x37\x49\xda\x11",  # WTV
    b"\x1f\x07\x00",  # DV
    b"\x12\x00\x0a",  # AV1
    b"\x06\x0e\x2b\x34\x02\x05\x01\x01\x0d\x01\x02",  # MXF
    *(start + bytes([unit]) for start in (b"\0\0\0\1", b"\0\0\1") for unit in UNITS),  # H.264, HEVC
)
PACKETS = (188, 192, 204)  # sizes of packets of MPEG transport streams


def begins_as_video(path: str | os.PathLike[str]) -> bool:
    """Return whether a file whose ending says nothing begins as a video that can be read; False for companions."""
    if Path(path).suffix.lower() in COMPANIONS or os.fspath(path).endswith("~"):
        return False
    try:
        if not stat.S_ISREG(os.stat(path).st_mode):  # opening a pipe would wait for ever
            return False
        with open(path, "rb") as file:
            head = file.read(1024)
    except (OSError, ValueError):
        return False
    return (
        head.startswith(BEGINNINGS)
        or head[4:8] in BOXES
        or (head.startswith(b"RIFF") and head[8:12] in (b"AVI ", b"AMV "))
        or (head.startswith(b"\x89PNG") and b"acTL" in head)
        or (head.startswith(b"OggS") and any(codec in head for codec in (b"theora", b"OVP80", b"BBCD")))
        or any(_is_transport_stream(head, size) for size in PACKETS)
    )


def _is_transport_stream(head: bytes, size: int) -> bool:
    start = 4 if size == 192 else 0  # those of Blu-ray and AVCHD have a time before each packet
    marks = head[start::size]
    return len(marks) >= 4 and set(marks) == {0x47}
