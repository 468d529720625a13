"""Videos kept decoded are decoded once for all processes of a host, and are the same in each."""

from __future__ import annotations

from pathlib import Path

from processes import joined

PROGRAM = """
    import hashlib
    from pvnas.config import DataConfig
    from pvnas.data.dataset import VideoDataset, open_videos
    from pvnas.data.memory_cache import SharedFrames, keep_decoded

    data = DataConfig(path={path!r}, cache={cache!r}, cache_gib={gib})
    learning, test = (open_videos(data, 0).dataset(split, 32, {colours}) for split in ("train", "test"))
    whole, decoded = VideoDataset.whole, []
    VideoDataset.whole = lambda self, index: decoded.append(index) or whole(self, index)
    with joined_world(config) as world:
        if {alone} and rank:
            SharedFrames.of = lambda described: open("/no/such/file")  # as in a container of its own
        try:
            kept = keep_decoded([learning, test], world=world)
        except UserError as error:
            print(str(error)[:40], error.said_elsewhere)
            sys.exit()
        print(kept, len(decoded))
        VideoDataset.whole = whole
        total = hashlib.sha256()
        for videos in (learning, test):
            for index in range(len(videos)):
                video = videos.whole(index)
                total.update(video.frames_TCHW.contiguous().numpy().tobytes() + video.times_T.tobytes())
                total.update(repr((tuple(video.frames_TCHW.shape), video.duration)).encode())
        print(total.hexdigest())
"""


def outputs(
    videos: Path, *, cache: str = "ram", gib: float = 4, colours: int = 3, alone: bool = False
) -> list[list[str]]:
    ended = joined(PROGRAM.format(path=str(videos), cache=cache, gib=gib, colours=colours, alone=alone))
    assert [process.returncode for process in ended] == [0, 0], ended
    return [process.stdout.splitlines() for process in ended]


def test_one_process_decodes_and_both_have_the_same(tiny_shapes: Path) -> None:
    for colours in (3, 1):
        (first, bits), (second, same_bits) = outputs(tiny_shapes, colours=colours)
        assert (first, second) == ("True 40", "True 0")
        files = outputs(tiny_shapes, cache="none", colours=colours)
        assert files == [["False 0", bits]] * 2
        assert same_bits == bits


def test_out_of_reach_each_decodes_its_own_and_without_room_neither(tiny_shapes: Path) -> None:
    (first, bits), (second, same_bits) = outputs(tiny_shapes, alone=True)
    assert (first, second) == ("True 40", "True 40")
    assert same_bits == bits
    assert [kept for kept, _ in outputs(tiny_shapes, cache="auto", gib=1e-6)] == ["False 0"] * 2
