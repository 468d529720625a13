"""Films that are long to decode and quick to make."""

from pathlib import Path

import av
import numpy as np


def film(path: Path, repeats: int, size: tuple[int, int] = (320, 240)) -> Path:
    """Write a picture so many times over: seconds of decoding, made in a moment."""
    width, height = size
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=30, options={"tune": "zerolatency", "threads": "1"})
        stream.width, stream.height, stream.pix_fmt = width, height, "yuv420p"
        ramp = np.linspace(0, 255, width * height * 3).astype(np.uint8).reshape(height, width, 3)
        (packet,) = stream.encode(av.VideoFrame.from_ndarray(ramp, format="rgb24"))
        content, base = bytes(packet), packet.time_base
        for number in range(repeats):
            packet = av.Packet(content)
            packet.stream, packet.time_base, packet.is_keyframe = stream, base, True
            packet.pts = packet.dts = number
            container.mux(packet)
    return path
