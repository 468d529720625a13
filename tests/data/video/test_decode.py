"""The decoder's examination: true files of many containers and codecs, made ones with one fault each, and attacks."""

from __future__ import annotations

import copy
import os
import re
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import suppress
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest
import torch
from attacks import Watch, huge_video, lying_video

from pvnas.data.video.decode import FrameReader, VideoError, claimed_size, decode_video
from pvnas.data.video.seek import read_frames


@pytest.fixture(scope="session")
def clips(shared_data: Path) -> Path:
    return shared_data / "clips"


def noise(frames: int = 12, height: int = 48, width: int = 64) -> np.ndarray:
    """Return smooth random frames (T, H, W, 3), each a grey of its own with a bright upper left quarter."""
    video = np.empty((frames, height, width, 3), np.uint8)
    video[:] = (20 + 10 * np.arange(frames) % 120)[:, None, None, None]
    video[:, : height // 2, : width // 2] = 240
    return video


def write(
    path: Path,
    video_THWC: np.ndarray,
    *,
    stamps: list[int] | None = None,
    rate: int = 30,
    codec: str = "libx264",
    container_format: str | None = None,
    title: str | None = None,
) -> Path:
    """Write frames with B-frames between them at the given stamps (in frames; the default is one after another)."""
    height, width = video_THWC.shape[1:3]
    with av.open(str(path), "w", format=container_format) as container:
        if title:
            container.metadata["title"] = title
        stream = container.add_stream(codec, rate=rate, options={"bf": "2", "g": "6", "threads": "1"})
        stream.width, stream.height, stream.pix_fmt = width, height, "yuv420p"
        for number, image in enumerate(video_THWC):
            frame = av.VideoFrame.from_ndarray(image, format="rgb24")
            frame.pts, frame.time_base = (stamps or range(10**6))[number], Fraction(1, rate)
            container.mux(stream.encode(frame))
        container.mux(stream.encode())
    return path


def frame_times(path: Path) -> tuple[np.ndarray, float]:
    """Return the (times_T, duration) by which the frames of a clip are chosen."""
    told = []

    def choose(times_T: np.ndarray, duration: float) -> np.ndarray:
        told.append((times_T, duration))
        return np.array([0])

    read_frames(path, choose, short_side=16)
    return told[0]


def kind_of(path: Path) -> str:
    """Return the kind of the VideoError that every way to read the file raises."""
    kinds = set()
    for read in (claimed_size, decode_video, frame_times):
        with pytest.raises(VideoError) as caught:
            read(path)
        kinds.add(caught.value.kind)
    (kind,) = kinds
    return kind


# True files


def test_true_files_give_every_frame_and_equal_times_with_and_without_decoding(clips: Path) -> None:
    rows = re.findall(r"^\| (\S.*?) \| \d+ \|.*?\| \d+/(\d+) \|", (clips / "README.md").read_text(), re.MULTILINE)
    expected = {name: int(frames) for name, frames in rows if name != "decord_corrupted.mp4"}
    assert len(expected) == 47
    found, clean = {}, {}
    for name in expected:
        video = decode_video(clips / name, short_side=16)
        times_T, duration = frame_times(clips / name)
        found[name] = len(video.frames_TCHW)
        clean[name] = (
            video.frames_bad == 0
            and min(video.frames_TCHW.shape[2:]) == 16
            and video.times_T[0] == 0
            and bool((np.diff(video.times_T) > 0).all())
            and np.array_equal(times_T, video.times_T)
            and duration == pytest.approx(video.duration)
        )
    assert found == expected
    assert [name for name, fine in clean.items() if not fine] == []


def test_a_corrupt_file_gives_what_decodes_and_counts_what_does_not(clips: Path) -> None:
    video = decode_video(clips / "decord_corrupted.mp4", short_side=16)
    assert 28 <= len(video.frames_TCHW) < 50
    assert video.frames_bad > 0
    again = decode_video(clips / "decord_corrupted.mp4", short_side=16)
    assert (video.frames_TCHW == again.frames_TCHW).all()


@pytest.mark.parametrize(
    ("name", "quarters", "shape"),
    [
        ("decord_video_0.mov", 0, (320, 568)),
        ("decord_video_90.mov", 3, (568, 320)),
        ("decord_video_180.mov", 2, (320, 568)),
        ("decord_video_270.mov", 1, (568, 320)),
    ],
)
def test_rotated_files_are_turned_upright(clips: Path, name: str, quarters: int, shape: tuple[int, int]) -> None:
    frames_TCHW = decode_video(clips / name).frames_TCHW
    assert frames_TCHW.shape == (3, 3, *shape)
    with av.open(str(clips / name)) as container:
        stored = [frame.to_ndarray(format="rgb24", interpolation="BILINEAR") for frame in container.decode(video=0)]
    turned = np.stack([np.rot90(image, quarters) for image in stored])
    assert np.array_equal(frames_TCHW.permute(0, 2, 3, 1).numpy(), turned)


def test_full_range_colour_is_not_washed_out(clips: Path) -> None:
    path = clips / "torchcodec_bt709_full_range.mp4"
    rgb_HWC = decode_video(path).frames_TCHW[0].permute(1, 2, 0).double().numpy()
    with av.open(str(path)) as container:
        frame = next(container.decode(video=0))
        planes, height, width = frame.to_ndarray().astype(float), frame.height, frame.width
    luma = planes[:height]
    # BT.709, full range: grey is luma itself, and the weights of the three colours sum up to it.
    assert np.abs(rgb_HWC @ (0.2126, 0.7152, 0.0722) - luma)[rgb_HWC.max(2) < 250].mean() < 1.5
    assert (rgb_HWC.min(), rgb_HWC.max()) == (0, 255)
    assert planes.shape[1] == width


def test_variable_rate_keeps_the_files_own_times(clips: Path) -> None:
    gaps = np.diff(decode_video(clips / "torchcodec_var_fps_video.mp4", short_side=16).times_T)
    assert len(np.unique(gaps.round(4))) > 1


# Made files


def test_frames_come_in_the_order_they_are_shown_in_with_their_times(tmp_path: Path) -> None:
    made = noise()
    video = decode_video(write(tmp_path / "a.mp4", made))
    greys = video.frames_TCHW[:, :, 30:, 40:].float().mean((1, 2, 3)).numpy()
    assert np.abs(greys - made[:, 40, 60, 0]).max() < 3
    assert np.allclose(video.times_T, np.arange(12) / 30)
    assert (video.duration, video.rate, video.frames_bad) == (pytest.approx(0.4), pytest.approx(30), 0)
    assert claimed_size(tmp_path / "a.mp4") == (12, 48, 64)


def test_stamps_at_uneven_distances_are_the_times(tmp_path: Path) -> None:
    stamps = [0, 1, 2, 5, 6, 20, 21, 22, 23, 40, 41, 45]
    video = decode_video(write(tmp_path / "a.mkv", noise(), stamps=stamps))
    assert np.allclose(video.times_T, np.array(stamps) / 30, atol=1.1e-3)  # Matroska counts in milliseconds
    assert np.array_equal(frame_times(tmp_path / "a.mkv")[0], video.times_T)


def test_frames_that_an_edit_list_hides_have_no_time(tmp_path: Path) -> None:
    write(tmp_path / "whole.mp4", noise(18))
    with av.open(str(tmp_path / "whole.mp4")) as source, av.open(str(tmp_path / "cut.mp4"), "w") as target:
        stream = target.add_stream_from_template(source.streams.video[0])
        for packet in source.demux(video=0):
            if packet.dts is not None:
                packet.pts, packet.dts = (packet.pts - 4 * 512, packet.dts - 4 * 512)  # 512 ticks to a frame
                packet.stream = stream
                target.mux(packet)
    video = decode_video(tmp_path / "cut.mp4")
    assert len(video.times_T) == 14
    assert np.array_equal(frame_times(tmp_path / "cut.mp4")[0], video.times_T)


def test_a_stream_without_stamps_is_counted(tmp_path: Path) -> None:
    video = decode_video(write(tmp_path / "a.h264", noise(), container_format="h264"))
    assert len(video.times_T) == 12
    assert np.allclose(np.diff(video.times_T), video.times_T[1])
    assert np.array_equal(frame_times(tmp_path / "a.h264")[0], video.times_T)


def test_frames_of_another_size_are_scaled_to_the_firsts(tmp_path: Path) -> None:
    first = write(tmp_path / "a.h264", noise(6), container_format="h264").read_bytes()
    second = write(tmp_path / "b.h264", noise(6, 96, 96), container_format="h264").read_bytes()
    (tmp_path / "c.h264").write_bytes(first + second)
    whole = decode_video(tmp_path / "c.h264").frames_TCHW
    assert whole.shape == (12, 3, 48, 64)
    assert torch.equal(read_frames(tmp_path / "c.h264", lambda times_T, duration: np.array([8, 9])), whole[[8, 9]])


def edited(source: Path, target: Path, edit: Callable[[list[av.Packet]], list[av.Packet]]) -> Path:
    """Write the packets of a video again, as `edit` returns them."""
    with av.open(str(source)) as container, av.open(str(target), "w") as output:
        stream = output.add_stream_from_template(container.streams.video[0])
        for packet in edit([packet for packet in container.demux(video=0) if packet.size]):
            packet.stream = stream
            output.mux(packet)
    return target


def test_packets_of_vp8_that_are_never_shown_have_no_time(tmp_path: Path) -> None:
    def hide(packets: list[av.Packet]) -> list[av.Packet]:
        raw = bytearray(bytes(packets[5]))
        raw[0] &= ~0x10  # the bit that says "show this frame": an encoder's alternate reference has it off
        hidden = av.Packet(bytes(raw))
        hidden.pts, hidden.dts, hidden.time_base = packets[5].pts, packets[5].dts, packets[5].time_base
        return [*packets[:5], hidden, *packets[6:]]

    path = edited(write(tmp_path / "a.webm", noise(), codec="libvpx"), tmp_path / "b.webm", hide)
    video = decode_video(path)
    assert len(video.times_T) == 11
    assert np.array_equal(frame_times(path)[0], video.times_T)


def test_frames_that_refer_to_what_is_cut_off_have_no_time(tmp_path: Path) -> None:
    def cut(packets: list[av.Packet]) -> list[av.Packet]:
        first = next(i for i, packet in enumerate(packets) if i and packet.is_keyframe)
        rest = packets[first:]
        assert min(packet.pts for packet in rest) < rest[0].pts
        for number, packet in enumerate(rest):
            packet.dts = rest[0].pts - 250 + 30 * number
        return rest

    with av.open(str(tmp_path / "a.mkv"), "w") as container:
        options = {"x265-params": "open-gop=1:keyint=12:min-keyint=12:log-level=none:pools=none:frame-threads=1"}
        stream = container.add_stream("libx265", rate=30, options=options)
        stream.width, stream.height, stream.pix_fmt = 64, 48, "yuv420p"
        texture = np.random.default_rng(0).integers(0, 255, (80, 120, 3), np.uint8)
        for number in range(40):  # what moves makes the encoder put frames that refer to both sides at the key frame
            image = np.ascontiguousarray(texture[number // 2 :, number:][:48, :64])
            container.mux(stream.encode(av.VideoFrame.from_ndarray(image, format="rgb24")))
        container.mux(stream.encode())
    path = edited(tmp_path / "a.mkv", tmp_path / "b.mkv", cut)
    video = decode_video(path)
    with av.open(str(path)) as container:
        assert len(video.times_T) < sum(1 for packet in container.demux(video=0) if packet.size)
    assert np.array_equal(frame_times(path)[0], video.times_T)


def test_a_stream_that_begins_later_does_not_end_the_video(tmp_path: Path) -> None:
    class Late:
        """A container that answers as PyAV does to the first packet of a stream that was not there before."""

        def __init__(self, container: av.container.InputContainer) -> None:
            self.container, self.begun, self.duration = container, False, container.duration

        def demux(self, stream: av.VideoStream) -> Iterator[av.Packet]:
            for number, packet in enumerate(self.container.demux(stream)):
                yield packet
                if number == 4 and not self.begun:
                    self.begun = True
                    raise IndexError("list index out of range")

    path = write(tmp_path / "a.mkv", noise())
    with av.open(str(path)) as container:
        reader = FrameReader(Late(container), container.streams.video[0])
        assert len(list(reader.frames())) == 12
        assert reader.bad == 0


@pytest.mark.parametrize(("height", "width"), [(48, 66), (90, 36), (50, 50)])
def test_the_short_side_is_what_is_asked_for(tmp_path: Path, height: int, width: int) -> None:
    path = write(tmp_path / "a.mp4", noise(3, height, width))
    found_height, found_width = decode_video(path, short_side=20).frames_TCHW.shape[2:]
    assert min(found_height, found_width) == 20
    assert found_width / found_height == pytest.approx(width / height, abs=0.06)


def test_a_video_of_one_frame_lasts_as_long_as_its_rate_says(tmp_path: Path) -> None:
    path = write(tmp_path / "a.mp4", noise(1))
    assert decode_video(path).duration == pytest.approx(1 / 30)
    assert decode_video(path).rate == pytest.approx(30)


def test_a_file_cut_in_the_middle_gives_its_beginning(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    whole = write(tmp_path / "a.mkv", rng.integers(0, 255, (30, 48, 64, 3), np.uint8))
    cut = tmp_path / "b.mkv"
    cut.write_bytes(whole.read_bytes()[: whole.stat().st_size * 6 // 10])
    begun, all_of_it = decode_video(cut), decode_video(whole)
    count = len(begun.frames_TCHW)
    assert 5 < count < 25
    assert (begun.frames_TCHW[: count - 3] == all_of_it.frames_TCHW[: count - 3]).all()


@pytest.mark.parametrize(
    "name",
    [
        *(b"caf\xe9.mp4", b"http:a|b.mp4", b"concat:a.mp4|b.mp4", b"subfile,,start,0,end,9,,:a.mp4", b"data:,a.mp4"),
        *(b"%03d.mp4", b"-i.mp4", "日本.mp4".encode()),
    ],
)
def test_any_name_is_only_a_name(tmp_path: Path, name: bytes) -> None:
    source = write(tmp_path / "a.mp4", noise(3))
    path = Path(os.fsdecode(os.fsencode(tmp_path) + b"/" + name))
    source.rename(path)
    assert len(decode_video(path).frames_TCHW) == 3


def test_a_title_in_an_old_encoding_is_no_fault(tmp_path: Path) -> None:
    path = write(tmp_path / "a.mp4", noise(3), title="TITLE-TITLE")
    raw = path.read_bytes()
    assert b"TITLE-TITLE" in raw
    path.write_bytes(raw.replace(b"TITLE-TITLE", b"caf\xe9 \xff\xfe titl"[:11]))
    assert len(decode_video(path).frames_TCHW) == 3


# Files that are none


def test_what_cannot_be_read_says_why_in_one_line(tmp_path: Path) -> None:
    (tmp_path / "empty.mp4").touch()
    (tmp_path / "noise.mp4").write_bytes(np.random.default_rng(0).bytes(20_000))
    (tmp_path / "text.mp4").write_text("hello\nworld\n")
    for name in ("empty.mp4", "noise.mp4", "text.mp4", "missing.mp4"):
        assert kind_of(tmp_path / name) == "unreadable", name
    with pytest.raises(VideoError) as caught:
        decode_video(tmp_path / "noise.mp4")
    assert caught.value.text
    assert "\n" not in str(caught.value)


def test_sound_alone_is_no_video(tmp_path: Path) -> None:
    with av.open(str(tmp_path / "a.mp4"), "w") as container:
        stream = container.add_stream("aac", rate=8000)
        frame = av.AudioFrame.from_ndarray(np.zeros((1, 2048), np.float32), format="fltp", layout="mono")
        frame.sample_rate = 8000
        container.mux(stream.encode(frame))
        container.mux(stream.encode())
    assert kind_of(tmp_path / "a.mp4") == "no-video"


@pytest.mark.parametrize("with_video", [False, True])
def test_the_cover_of_a_song_is_no_video(tmp_path: Path, with_video: bool) -> None:
    path = tmp_path / "a.mp4"
    with av.open(str(path), "w") as container:
        cover = container.add_stream("png", rate=1)
        cover.width, cover.height, cover.pix_fmt = 64, 48, "rgb24"
        cover.disposition = av.stream.Disposition.attached_pic
        other = container.add_stream("libx264" if with_video else "aac", rate=30 if with_video else 8000)
        if with_video:
            other.width, other.height, other.pix_fmt = 64, 48, "yuv420p"
        container.mux([*cover.encode(av.VideoFrame.from_ndarray(noise(1)[0], format="rgb24")), *cover.encode()])
        if with_video:
            for image in noise(5):
                container.mux(other.encode(av.VideoFrame.from_ndarray(image, format="rgb24")))
        else:
            sound = av.AudioFrame.from_ndarray(np.zeros((1, 2048), np.float32), format="fltp", layout="mono")
            sound.sample_rate = 8000
            container.mux(other.encode(sound))
        container.mux(other.encode())
    if with_video:
        assert len(decode_video(path).frames_TCHW) == 5
    else:
        assert kind_of(path) == "no-video"


def test_damage_of_any_kind_gives_frames_or_a_video_error(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    for ending in ("mp4", "mkv", "ts", "avi", "flv"):
        whole = write(tmp_path / f"a.{ending}", noise()).read_bytes()
        for number in range(24):
            raw = np.frombuffer(whole, np.uint8).copy()
            raw[rng.integers(0, len(raw), 1 + number)] ^= rng.integers(1, 256, dtype=np.uint8)
            path = tmp_path / f"b.{ending}"
            path.write_bytes(raw[: rng.integers(10, len(raw))] if number % 4 == 0 else raw)
            for read in (claimed_size, decode_video, frame_times):
                with suppress(VideoError):
                    assert read(path) is not None


def test_a_pipe_is_refused_and_does_not_hang(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "a.mp4")
    assert kind_of(tmp_path / "a.mp4") == "refused"
    assert kind_of(tmp_path) == "refused"


def test_errors_survive_the_way_out_of_a_worker_process() -> None:
    error = copy.copy(VideoError("empty", "no frame\ndecodes"))  # by __reduce__, as between processes
    assert (error.kind, error.text) == ("empty", "no frame decodes")


# Attacks


@pytest.mark.skipif(sys.platform != "linux", reason="inotify is Linux's")
def test_scripts_that_name_other_files_are_refused_and_nothing_else_is_opened(tmp_path: Path) -> None:
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    secret = write(elsewhere / "secret.mp4", noise(3))
    listener = socket.create_server(("127.0.0.1", 0))
    listener.setblocking(False)
    address = f"http://127.0.0.1:{listener.getsockname()[1]}/x.mp4"
    scripts = {
        "concat.mp4": f"ffconcat version 1.0\nfile elsewhere/secret.mp4\nfile '{secret}'\n",
        "concat_http.mp4": f"ffconcat version 1.0\nfile {address}\n",
        "list.m3u8": f"#EXTM3U\n#EXT-X-TARGETDURATION:1\n#EXTINF:1,\n{secret}\n#EXT-X-ENDLIST\n",
        "list_http.mp4": f"#EXTM3U\n#EXT-X-TARGETDURATION:1\n#EXTINF:1,\n{address}\n#EXT-X-ENDLIST\n",
        "subfile.mp4": f"#EXTM3U\n#EXTINF:1,\nsubfile,,start,0,end,99,,:{secret}\n",
        "manifest.mpd": f'<?xml version="1.0"?><MPD><BaseURL>{address}</BaseURL></MPD>',
        "session.sdp": "v=0\no=- 0 0 IN IP4 127.0.0.1\nc=IN IP4 127.0.0.1\nm=video 9 RTP/AVP 96\n",
    }
    watch = Watch(elsewhere)
    for name, text in scripts.items():
        (tmp_path / name).write_text(text)
        assert kind_of(tmp_path / name) == "refused", name
    assert not watch.opened()
    with pytest.raises(BlockingIOError):
        listener.accept()
    secret.read_bytes()
    assert watch.opened() == {secret}  # the watch itself works
    watch.close()
    listener.close()


def gif(width: int, height: int) -> bytes:
    """Return a picture of nearly no bytes that claims to be of this size."""
    size = width.to_bytes(2, "little") + height.to_bytes(2, "little")
    return b"GIF89a" + size + b"\x80\0\0\0\0\0\xff\xff\xff\x2c\0\0\0\0" + size + b"\0\x02\x02\x4c\x01\0\x3b"


def test_huge_pictures_in_small_files_take_no_memory(tmp_path: Path) -> None:
    paths = [huge_video(tmp_path / "huge.mp4")]
    paths.append(lying_video(paths[0], tmp_path / "lying.mp4"))
    for side in (64, 9000, 65535):
        paths.append(tmp_path / f"{side}.gif")
        paths[-1].write_bytes(gif(side, side))
    program = """
import resource, sys, av
from pvnas.data.video.decode import VideoError, decode_video
peak = lambda: resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
before = peak()
for path in sys.argv[1:]:
    try:
        decode_video(path, short_side=16)
        print("fine")
    except VideoError as error:
        print(error.kind)
print(peak() - before)
"""
    command = [sys.executable, "-c", program, *map(str, paths)]
    done = subprocess.run(command, capture_output=True, text=True, check=True, timeout=60)
    *kinds, mebibytes = done.stdout.split()
    assert kinds == ["refused", "refused", "fine", "empty", "empty"]
    assert float(mebibytes) < 100


def test_a_line_of_pixels_is_not_blown_up(tmp_path: Path) -> None:
    path = tmp_path / "a.gif"
    path.write_bytes(gif(1, 60_000))
    assert decode_video(path).frames_TCHW.shape == (1, 3, 60_000, 1)
    with pytest.raises(VideoError, match="refused: 1x60000 scaled to"):
        decode_video(path, short_side=256)
