"""What is kept decoded fits into the room there is: every video counts, all splits together, no header is believed."""

import io
import shutil
import signal
import subprocess
import sys
import textwrap

import numpy as np
import pytest
from films import film

from pvnas.config import DataConfig
from pvnas.data import cache_room
from pvnas.data.cache_room import room_for
from pvnas.data.catalog import Catalog, Video
from pvnas.data.dataset import Shape, VideoDataset
from pvnas.data.memory_cache import keep_decoded
from pvnas.data.shapes import draw_video, encode
from pvnas.errors import UserError
from pvnas.runtime.progress import Progress

GIB = 1 << 30
SHORT, LONG = 8 * 3 * 28 * 28, 2000 * 3 * 28 * 28  # bytes of a decoded video


@pytest.fixture(scope="module")
def catalog(tmp_path_factory: pytest.TempPathFactory) -> Catalog:
    """Return 40 short videos and, where no sample of them would look, one that is 250 times as long."""
    root = tmp_path_factory.mktemp("tail")
    encode(root / "00.mp4", draw_video("grow", np.random.default_rng(0), frames=8))
    for number in range(1, 41):
        shutil.copy(root / "00.mp4", root / f"{number:02d}.mp4")
    film(root / "20.mp4", repeats=2000, size=(28, 28))
    return Catalog.of(root, ("a",), [Video(f"{number:02d}.mp4", 0, "train") for number in range(41)])


def dataset(catalog: Catalog, gib: float, cache: str = "auto", **shapes: Shape) -> VideoDataset:
    known = {f"{name[1:]}.mp4": shape for name, shape in shapes.items()}
    return VideoDataset(catalog, DataConfig(path="d", cache=cache, cache_gib=gib), 28, shapes=known)


def test_every_video_counts(catalog: Catalog) -> None:
    assert dataset(catalog, 1.0).estimated_bytes() == 40 * SHORT + LONG
    assert not dataset(catalog, (40 * SHORT + LONG // 2) / GIB).prepare_cache()
    assert dataset(catalog, (40 * SHORT + 4 * LONG) / GIB).prepare_cache()


def test_what_a_check_has_found_is_believed_and_what_is_decoded_is_counted(catalog: Catalog) -> None:
    assert dataset(catalog, 1.0, v20=Shape(4000, 56, 28)).estimated_bytes() == 40 * SHORT + 4 * LONG
    lying = dataset(catalog, (40 * SHORT + LONG // 2) / GIB, v20=Shape(8, 28, 28))
    said = io.StringIO()
    assert not lying.prepare_cache(progress=Progress(said))
    assert lying.cached is None
    assert said.getvalue().splitlines()[-1] == (
        "decoded, the videos take more than the 3.0 MiB that data.cache_gib allows: they are not kept in memory; "
        "a pack is faster: pvnas data pack d PACK"
    )


def test_all_splits_share_the_room_and_a_line_says_what_is_kept(catalog: Catalog) -> None:
    few = catalog.take(range(15))
    alone, together = (20 * SHORT) / GIB, (48 * SHORT) / GIB
    for gib, kept in ((alone, False), (together, True)):
        parts = [dataset(few, gib) for _ in range(3)]
        said = io.StringIO()
        assert keep_decoded(parts, progress=Progress(said)) is kept
        last = said.getvalue().splitlines()[-1]
        assert last == "827 KiB of videos are kept in memory" if kept else "data.cache_gib allows" in last
        assert [part.cached is not None for part in parts] == [kept] * 3
    assert dataset(few, alone).prepare_cache()


def test_the_room_is_what_the_system_leaves_beside_the_networks(monkeypatch: pytest.MonkeyPatch) -> None:
    free = [8.0 * GIB, "the machine has free"]
    monkeypatch.setattr(cache_room, "free_memory", lambda: tuple(free))
    assert str(room_for(DataConfig(cache_gib=4.0))) == "4.0 GiB that data.cache_gib allows"
    assert str(room_for(DataConfig(cache_gib=40.0))) == "6.0 GiB that the machine has free beside the networks"
    free[0] = 3.0 * GIB
    assert room_for(DataConfig()).bytes == 2 * GIB
    free[0] = 0.5 * GIB
    assert room_for(DataConfig()).bytes == 0
    assert room_for(DataConfig(cache="ram")).bytes == 0.5 * GIB


def test_ram_that_cannot_be_is_said_before_anything_is_decoded(
    catalog: Catalog, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(cache_room, "free_memory", lambda: (LONG / 2, "the machine has free"))
    monkeypatch.setattr(VideoDataset, "whole", lambda *_: pytest.fail("decoded"))
    with pytest.raises(UserError) as refused:
        dataset(catalog, 4.0, "ram").prepare_cache()
    assert str(refused.value) == (
        "data.cache ram: decoded videos take more than the 2.2 MiB that the machine has free: --data.cache none; "
        "a pack is faster: pvnas data pack d PACK"
    )


def test_a_stop_request_ends_the_filling_even_where_a_file_hangs(catalog: Catalog) -> None:
    program = """
        import sys, threading
        from pathlib import Path
        from pvnas.config import DataConfig
        from pvnas.data.catalog import Catalog, Video
        from pvnas.data.dataset import VideoDataset
        from pvnas.runtime.signals import Interrupted, StopRequest

        def whole(dataset, index):
            print("decoding", flush=True)
            threading.Event().wait()

        VideoDataset.whole = whole
        catalog = Catalog.of(Path(sys.argv[1]), ("a",), [Video("00.mp4", 0, "train")])
        with StopRequest():
            try:
                VideoDataset(catalog, DataConfig(), 28).prepare_cache()
            except Interrupted as interrupted:
                sys.exit(interrupted.exit_code)
    """
    command = [sys.executable, "-c", textwrap.dedent(program), str(catalog.root)]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    assert process.stdout is not None
    assert process.stdout.readline() == "decoding\n"
    process.send_signal(signal.SIGTERM)
    _, errors = process.communicate(timeout=60)
    assert process.returncode == 75, errors
