"""The frames of one clip out of a video file, bit for bit those of a full decode, decoding little else.

A file's packets are listed first (about a millisecond for ten seconds of video); their time stamps, never a count or an
average rate, say which frame is shown when. From each group of pictures that holds a wanted frame only the packets up
to the last wanted one are decoded, and in codecs where it is exact the frames that no other frame refers to are
skipped. Where the stamps cannot be trusted the whole file is decoded in order.
"""

import math
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from functools import lru_cache
from itertools import count
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from pvnas.data.video.decode import (
    OnLength,
    Painter,
    actual_rate,
    average_rate,
    decode_in_order,
    longest_claim,
    open_video,
    stacked,
)
from pvnas.data.video.segment import Choose, within

if TYPE_CHECKING:
    from torch import Tensor

Make = Callable[[Any], Any]
"""What a reader makes of a decoded frame: a picture, a JPEG file."""

# Where FFmpeg's `skip_frame = NONREF` leaves all other frames as they are; in AV1 it does not.
SKIPPABLE_CODECS = frozenset({"h264", "hevc"})
# They count packets in the order of decoding: no times of frames, where that is not the order of showing.
FORMATS_IN_DECODING_ORDER = frozenset({"avi", "dhav"})
# Of its packets some are never shown.
UNTRUSTED_CODECS = frozenset({"vp8"})
# Compressed bytes (and pictures, where a file is decoded in order) that are held for one clip; larger files are sought.
HELD_BYTES = 64 << 20
SEGMENTED_BYTES = 4 << 20  # of a file of which segments are read: there are many, and each needs little of it
HELD_PICTURES = 512 << 20
CACHED_TABLES = 64


@dataclass(frozen=True)
class PacketTable:
    """What a file's packets say without being decoded. Rows of packets are in the order of decoding."""

    stamps_P: NDArray[np.int64]  # presentation time stamp of every packet, in units of ``base`` seconds
    keys_K: NDArray[np.int64]  # packets at which decoding can begin
    order_T: NDArray[np.int64]  # packet of each frame, in the order of showing
    times_T: NDArray[np.float64]  # when each frame begins, in seconds; the first at 0
    duration: float  # seconds from the first frame to the end of the last

    def runs(self, packets: Iterable[int]) -> list[tuple[int, int]]:
        """Return the ranges [first, end) of packets to decode for the frames of these packets.

        Each begins at a key packet. A frame that is shown before the key packet of its group refers to the group
        before, so that one is decoded as well.
        """
        runs: list[tuple[int, int]] = []
        for packet in sorted(set(packets)):
            key = max(0, int(np.searchsorted(self.keys_K, packet, side="right")) - 1)
            while key > 0 and self.stamps_P[packet] < self.stamps_P[self.keys_K[key]]:
                key -= 1
            first = int(self.keys_K[key])
            while runs and first < runs[-1][1]:
                first = min(first, runs.pop()[0])
            runs.append((first, packet + 1))
        return runs


def read_frames(path: str | Path, choose: Choose, *, short_side: int | None = None) -> "Tensor":
    """Return the (T, C, H, W) uint8 RGB frames, upright, at the indices that ``choose(times_T, duration)`` returns.

    ``short_side`` scales them so that the shorter side has this many pixels. In a damaged file the last frame before
    takes the place of one that does not decode. Raises VideoError.
    """
    painter = Painter(short_side)
    return stacked(read_items(path, choose, painter.paint, painter))


def read_items(
    path: str | Path,
    choose: Choose,
    make: Make,
    painter: Painter,
    start: float = 0.0,
    end: float = math.inf,
    on_length: OnLength = lambda seconds: None,
) -> list[Any]:
    """Return what ``make`` makes of each frame that ``choose`` asks for; of one that is asked for twice it is the same.

    ``painter`` is given the size of the frames before. ``start`` and ``end``: the segment that is meant, in seconds;
    ``on_length`` is told how long the file is. Raises VideoError.
    """
    is_segment = start > 0 or end < math.inf
    choose = within(choose, start, end) if is_segment else choose
    with open_video(path) as (container, stream):
        on_length(longest_claim(container, stream))
        most = SEGMENTED_BYTES if is_segment else HELD_BYTES
        packets, table = packets_and_table(Path(path), container, stream, most)
        width, height = stream.codec_context.width, stream.codec_context.height
        if table is not None and width and height:  # a damaged header may hold no size; then the first frame tells
            wanted = table.order_T[choose(table.times_T, table.duration)]
            painter.fit(width, height)
            needed = set(wanted.tolist())
            # A decoder that begins at a key packet may distrust what follows it: then from the first packet on.
            for runs in (table.runs(needed), [(0, max(needed) + 1)]):
                items = decode_runs(container, stream, packets, table, needed, runs, make)
                if len(items) == len(needed):
                    return [items[packet] for packet in wanted.tolist()]
    return _read_in_order(path, choose, make, painter, table, on_length)


# ---- the table of packets


def packet_table(container: Any, stream: Any, packets: list[Any] | None = None) -> PacketTable | None:
    """Return the table of a file, or None where its stamps do not tell what a full decode would show, and when.

    The packets are added to ``packets``.
    """
    import av

    rows: list[tuple[int | None, bool, bool]] = []  # time stamp, can decoding begin here, is the frame never shown
    try:
        for packet in container.demux(stream):
            if packet.size:
                rows.append((packet.pts, packet.is_keyframe, packet.is_discard))
                if packets is not None:
                    packets.append(packet)
    except (av.FFmpegError, IndexError):  # it ends in the middle of a packet, or one more stream begins
        return None
    stamps = [stamp for stamp, _, _ in rows if stamp is not None]
    base, context = float(stream.time_base or 0), stream.codec_context
    reordered = container.format.name in FORMATS_IN_DECODING_ORDER and context.has_b_frames
    if not stamps or base <= 0 or reordered or context.name in UNTRUSTED_CODECS:
        return None
    shown = np.array([not discard for _, _, discard in rows])
    if len(stamps) < len(rows) or len(set(stamps)) < len(stamps) or not shown.any():
        return None
    stamps_P = np.array(stamps, dtype=np.int64)
    keys_K = np.flatnonzero([key for _, key, _ in rows])
    first = stamps_P[shown][0]
    # A cut before a key frame leaves frames that refer to what is gone and are shown before it: HEVC drops them.
    if first != stamps_P[shown].min() or not len(keys_K) or keys_K[0] != 0:
        return None
    order_T = np.argsort(stamps_P, kind="stable")
    order_T = order_T[shown[order_T]]
    times_T = (stamps_P[order_T] - first) * base
    duration = float(times_T[-1]) + 1.0 / actual_rate(times_T, average_rate(stream))
    return PacketTable(stamps_P, keys_K, order_T, times_T, duration)


@lru_cache(CACHED_TABLES)
def _table_of_large_file(path: Path, size: int, modified_ns: int) -> PacketTable | None:
    """Return the table of a file whose packets are too many to hold and whose listing takes too long for every clip."""
    with open_video(path) as (container, stream):
        return packet_table(container, stream)


def packets_and_table(
    path: Path, container: Any, stream: Any, held_bytes: int = HELD_BYTES
) -> tuple[list[Any] | None, PacketTable | None]:
    """Return (packets, table); None for packets of a file of more bytes, None for a table that cannot be trusted."""
    status = path.stat()
    if status.st_size > held_bytes:
        return None, _table_of_large_file(path, status.st_size, status.st_mtime_ns)
    packets: list[Any] = []
    return packets, packet_table(container, stream, packets)


# ---- decoding what is wanted


def decode_runs(
    container: Any,
    stream: Any,
    packets: list[Any] | None,
    table: PacketTable,
    wanted: set[int],
    runs: list[tuple[int, int]],
    make: Make,
) -> dict[int, Any]:
    """Return what is made of the wanted frames, by packet; fewer than wanted where something does not decode."""
    import av

    packet_of = {int(table.stamps_P[packet]): packet for packet in wanted}
    items: dict[int, Any] = {}
    context = stream.codec_context
    skips = context.name in SKIPPABLE_CODECS

    def take(frames: list[Any]) -> None:
        for frame in frames:
            if frame.pts in packet_of and not frame.is_corrupt:
                items[packet_of[frame.pts]] = make(frame)

    try:
        for first, end in runs:
            context.flush_buffers()
            run = packets[first:end] if packets is not None else _sought(container, stream, table, first, end)
            for number, packet in enumerate(run, start=first):
                if skips:
                    context.skip_frame = "DEFAULT" if number in wanted else "NONREF"
                take(context.decode(packet))
            take(context.decode(None))
    except av.FFmpegError:
        return {}
    return items


def _sought(container: Any, stream: Any, table: PacketTable, first: int, end: int) -> Iterator[Any]:
    """Yield the packets [first, end) of a file that is too large to hold; fewer where seeking does not lead there."""
    container.seek(int(table.stamps_P[first]), stream=stream)
    number = -1
    for packet in container.demux(stream):
        if not packet.size:
            continue
        if number < 0:
            number = first if packet.pts == table.stamps_P[first] else -1
        if number >= first:
            if packet.pts != table.stamps_P[number]:
                return
            yield packet
            number += 1
            if number == end:
                return


def _read_in_order(
    path: str | Path, choose: Choose, make: Make, painter: Painter, table: PacketTable | None, on_length: OnLength
) -> list[Any]:
    """Decode from the beginning, count the frames and return what is made of those that are wanted.

    With a table the file's stamps are right and some of its frames do not decode: the frames are chosen by the table,
    as if the file were whole, and each that is lacking is the last one before it.
    """
    held_bytes = 0

    def hold(frame: Any) -> Any:
        nonlocal held_bytes
        held_bytes += frame.width * frame.height * 2
        return frame if held_bytes <= HELD_PICTURES else None

    decoded = decode_in_order(path, hold, painter, on_length)
    frames, times_T, duration = decoded.items, decoded.times_T, decoded.duration
    if table is None:
        wanted = choose(times_T, duration)
    else:
        instants = table.times_T[choose(table.times_T, table.duration)]
        wanted = np.searchsorted(times_T, instants + 1e-9, side="right") - 1
    wanted = np.clip(wanted, 0, len(frames) - 1)
    needed, numbers = dict.fromkeys(sorted(wanted.tolist())), count()
    if any(frames[index] is None for index in needed):  # made as they come: there is no room for whole frames
        again = decode_in_order(path, lambda frame: make(frame) if next(numbers) in needed else None, painter)
        return [again.items[index] for index in wanted.tolist()]
    items = {index: make(frames[index]) for index in needed}
    return [items[index] for index in wanted.tolist()]
