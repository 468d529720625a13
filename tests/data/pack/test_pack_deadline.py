"""A video that takes too long is left out of a pack, with what to type; a stop request ends packing with exit 75."""

import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from films import film

from pvnas.data.catalog import Catalog, Video
from pvnas.data.pack import pack_videos
from pvnas.data.processes import allowed_seconds
from pvnas.data.shapes import draw_video, encode
from pvnas.errors import UserError

NAMES = ("a.mp4", "b.mp4", "c.mp4")


@pytest.fixture(scope="module")
def films(tmp_path_factory: pytest.TempPathFactory) -> Catalog:
    """Return a film that takes seconds to decode between two short videos."""
    root = tmp_path_factory.mktemp("films") / "videos"
    root.mkdir()
    for name in ("a.mp4", "c.mp4"):
        encode(root / name, draw_video("grow", np.random.default_rng(0), frames=8))
    film(root / "b.mp4", repeats=300, size=(3840, 2160))  # many times its deadline on any machine
    return Catalog.of(root, ("x",), [Video(name, 0, "train") for name in NAMES])


def test_a_video_that_takes_too_long_is_left_out_with_what_to_type(films: Catalog, tmp_path: Path) -> None:
    with pytest.raises(UserError) as refused:
        pack_videos(films, tmp_path, short_side=32, deadline=0.2)
    assert "1 of 3 videos cannot be read" in str(refused.value)
    allowed = allowed_seconds(0.2, (films.root / "b.mp4").stat().st_size, 300 / 30)
    assert f"'b.mp4' (timeout: decoding it takes more than {allowed:.3g} s)" in str(refused.value)
    assert "give them more time (--deadline 1), mend them, or allow more (--max-bad-share 0.334)" in str(refused.value)
    # With the same deadline nothing is decoded again; with a longer one the tar file is written anew.
    record = next((tmp_path / "unfinished").glob("train-*.json"))
    before = record.stat().st_mtime_ns
    with pytest.raises(UserError):
        pack_videos(films, tmp_path, short_side=32, deadline=0.2)
    assert record.stat().st_mtime_ns == before
    info = pack_videos(films, tmp_path, short_side=32, deadline=60.0)
    assert (sum(info.counts.values()), info.left_out) == (3, ())


@pytest.mark.parametrize("workers, number", [(0, signal.SIGTERM), (1, signal.SIGINT)])
def test_a_stop_request_ends_packing_at_once_and_says_the_same_command(
    films: Catalog, tmp_path: Path, number: signal.Signals, workers: int
) -> None:
    command = [sys.executable, "-m", "pvnas", "data", "pack", str(films.root.parent), str(tmp_path / "out")]
    process = subprocess.Popen([*command, "--workers", str(workers)], stderr=subprocess.PIPE, text=True)
    assert process.stderr is not None
    while not list((tmp_path / "out").glob("**/*.tar")):  # it writes beside its name until it is finished
        assert process.poll() is None
    process.send_signal(number)
    _, errors = process.communicate(timeout=60)
    assert process.returncode == 75, errors
    assert "to go on from here type the same command: pvnas data pack" in errors
