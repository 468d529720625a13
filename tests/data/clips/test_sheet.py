"""The sheet of augmented clips: what validation sees above what training may see, the same whenever it is drawn."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from catalogs import read_catalog
from pvnas.cli import main
from pvnas.config import AugmentConfig, ClipConfig, DataConfig, RunConfig
from pvnas.data.clips.loader import validation_batches
from pvnas.data.clips.network_input import motion_pictures
from pvnas.data.clips.sheet import GAP, LEAST_WIDTH, TEXT_HEIGHT, write_sheet
from pvnas.data.dataset import VideoDataset
from pvnas.errors import UserError

CONFIG = RunConfig(clip=ClipConfig(frames=4, window=24, input="both"))
STAGE = replace(
    CONFIG.train,
    augment=AugmentConfig(short_side_min=24, short_side_max=32, crop=24, rotate=20.0, cutmix=1.0, drop_rgb=0.5),
)


@pytest.fixture
def videos(tiny_shapes: Path) -> VideoDataset:
    return VideoDataset(read_catalog(tiny_shapes).select("train"), DataConfig(), 32)


def test_a_sheet_has_the_plain_clip_above_the_random_ones_of_each_video(videos: VideoDataset, tmp_path: Path) -> None:
    for name in ("a.png", "b.png"):
        write_sheet(tmp_path / name, videos, CONFIG, STAGE, clips=2)
    assert (tmp_path / "a.png").read_bytes() == (tmp_path / "b.png").read_bytes()
    pixels = np.asarray(Image.open(tmp_path / "a.png"))
    width, height = LEAST_WIDTH, 3 * (TEXT_HEIGHT + 2 * 24 + GAP) + 2 * GAP
    assert pixels.shape == (2 * height, 2 * (width + 4 * GAP), 3)
    (first,) = validation_batches(videos.select([0]), CONFIG.clip, STAGE.augment, 1)
    for t in range(4):
        left = t * (24 + GAP // 2)
        shown = pixels[TEXT_HEIGHT : TEXT_HEIGHT + 24, left : left + 24]
        assert (shown == first.clips_NCTHW[0, :, t].permute(1, 2, 0).numpy()).all()
        below = pixels[TEXT_HEIGHT + 24 : TEXT_HEIGHT + 48, left : left + 24]
        moved = motion_pictures(first.clips_NCTHW, CONFIG.clip)[0, :, t]
        assert (below == moved.permute(1, 2, 0).numpy()).all()


def test_without_training_videos_there_is_no_sheet(videos: VideoDataset, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="no training videos"):
        write_sheet(tmp_path / "a.png", videos.select([]), CONFIG, STAGE)


def test_data_show_draws_the_sheet_of_the_options(
    tiny_shapes: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["data", "show", str(tiny_shapes), "--preset", "tiny", "--clips", "1"]
    for name, options in {"plain.png": [], "grey.png": ["--search.augment.grey", "1", "--stage", "search"]}.items():
        assert main([*words, "--out", str(tmp_path / name), *options]) == 0
        assert capsys.readouterr().out.strip() == str(tmp_path / name)
    assert (tmp_path / "plain.png").read_bytes() != (tmp_path / "grey.png").read_bytes()
    assert main([*words, "--out", str(tmp_path / "sheet.jpg")]) == 2
    assert "name a file that ends in .png" in capsys.readouterr().err
