"""Motion: of which two frames it is the difference, what the network sees of them, and that all readers agree on it."""

from __future__ import annotations

from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import Literal

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given
from hypothesis import strategies as st

from catalogs import read_catalog
from pvnas.config import AugmentConfig, ClipConfig, DataConfig, TestConfig
from pvnas.data.check import Limits
from pvnas.data.clips import loader, sampling  # by the modules: pytest would take their test_... for tests
from pvnas.data.clips.network_input import network_input, normalised
from pvnas.data.clips.view_frames import decode_views
from pvnas.data.dataset import VideoDataset
from pvnas.data.pack import open_pack, pack_videos
from pvnas.data.video.decode import channels_first, in_colours
from pvnas.training.results import strip

WHOLE = ClipConfig(input="motion", sampling="whole", frames=4)


def pairs(times: list[float], clip: ClipConfig) -> list[tuple[int, int]]:
    """Return (frame, later frame) of the clip that validation looks at."""
    times_T = np.array(times)
    duration = float(times_T[-1]) + (float(np.diff(times_T).mean()) if len(times) > 1 else 0.04)
    found = sampling.centre_indices(times_T, duration, clip)
    return list(zip(found[: clip.frames].tolist(), found[clip.frames :].tolist(), strict=True))


@pytest.mark.parametrize(
    ("rate", "apart"),  # 0.067 s are 0.335, 0.804, 1.005, 1.675, 2.01 and 4.02 frames
    [(5, 1), (12, 1), (15, 1), (25, 2), (30, 2), (60, 4)],
)
def test_the_later_frame_is_the_nearest_to_a_fifteenth_of_a_second_later(rate: int, apart: int) -> None:
    found = pairs([n / rate for n in range(10 * rate)], ClipConfig(input="motion"))
    assert [later - now for now, later in found] == [apart] * 8
    dense = sampling.centre_indices(np.arange(10 * rate) / rate, 10.0, ClipConfig())
    assert [now for now, _ in found] == dense.tolist()  # the frames are those without motion


def test_a_whole_video_is_seen_from_its_first_frame_to_its_last() -> None:
    thirteen = [n / 25 for n in range(13)]  # 0 to 0.48 s; the last pair begins at 0.413 s, which shows 0.40 s
    assert pairs(thirteen, WHOLE) == [(0, 2), (3, 5), (6, 8), (10, 12)]
    rgb = ClipConfig(sampling="whole", frames=4)
    assert sampling.centre_indices(np.array(thirteen), 0.52, rgb).tolist() == [0, 4, 8, 12]
    # Two views: the second is half a step (0.08 s) later, and ends with the last frame too.
    assert sampling.test_indices(np.array(thirteen), 0.52, rgb, 2, "slowfast").tolist() == [
        [0, 4, 8, 12],
        [2, 6, 10, 12],
    ]
    assert sampling.training_indices(np.array(thirteen), 0.52, rgb, []).tolist() == [0, 4, 8, 12]


def test_where_a_video_ends_too_soon_the_pair_moves_back_as_a_whole() -> None:
    clip = ClipConfig(input="motion", frames=4, window=4, window_rate=25.0)  # four frames in a row
    assert pairs([0.0, 0.04, 0.08, 0.12], clip) == [(0, 2), (1, 3), (1, 3), (1, 3)]
    assert pairs([0.0, 0.04], clip) == [(0, 1)] * 4  # the last frame is repeated, and the last motion with it
    assert pairs([0.0], clip) == [(0, 0)] * 4
    assert pairs([0.0, 0.04], WHOLE) == [(0, 1)] * 4
    assert pairs([0.0], WHOLE) == [(0, 0)] * 4


def test_of_frames_at_uneven_times_the_nearest_later_one_is_taken() -> None:
    times = [0.0, 0.01, 0.02, 0.06, 0.5, 1.0, 1.05]
    found = sampling._with_later(np.arange(7), np.array(times), ClipConfig(input="motion"))
    # 0.067, 0.077 and 0.087 s: 0.06 s; then the next frame; the last ones are 1.05 s, and 1.0 s before it.
    assert found.tolist() == [0, 1, 2, 3, 4, 5, 5, 3, 3, 3, 4, 5, 6, 6]


@given(
    gaps=st.lists(st.floats(0.001, 2.0), min_size=0, max_size=60),
    sampling_of=st.sampled_from(["dense", "segment", "whole"]),
    short_videos=st.sampled_from(["clamp", "loop", "fit"]),
    motion_seconds=st.floats(0.001, 3.0),
    views=st.integers(1, 4),
)
def test_the_later_frame_is_a_later_one_that_exists(
    gaps: list[float],
    sampling_of: Literal["dense", "segment", "whole"],
    short_videos: Literal["clamp", "loop", "fit"],
    motion_seconds: float,
    views: int,
) -> None:
    clip = ClipConfig(input="both", sampling=sampling_of, short_videos=short_videos, motion_seconds=motion_seconds)
    times_T = np.concatenate([[0.0], np.cumsum(gaps)])
    found = sampling.test_indices(times_T, float(times_T[-1]) + 0.04, clip, views, "slowfast")
    assert found.shape == (views, 16)
    now, later = found[:, :8], found[:, 8:]
    assert now.min() >= 0
    assert later.max() < len(times_T)
    assert (later > now).all() or len(times_T) == 1
    # No frame after the first is nearer to the wanted instant, but where the video ends before it.
    wanted = times_T[now] + motion_seconds
    off = np.abs(times_T[later] - wanted)
    best = np.abs(np.where(times_T > times_T[now][..., None], times_T, np.inf) - wanted[..., None]).min(-1)
    assert ((off <= best + 1e-5) | (later == len(times_T) - 1)).all()


# What the network sees


def clip_of(frames: list[list[int]], clip: ClipConfig) -> torch.Tensor:
    """Return what the network sees of a clip of grey frames of two pixels, of its first channel: (T, 2)."""
    x_TW = torch.tensor(frames, dtype=torch.uint8)
    return network_input(x_TW[None, None, :, None].expand(1, 3, -1, 1, -1), clip)[0, 0, :, 0]


def test_motion_is_the_difference_divided_by_its_strength_in_the_clip() -> None:
    clip = ClipConfig(input="motion", frames=2)
    # Differences: 51, 0, 0, -51 grey levels of 255, or 0.2, 0, 0, -0.2; their root mean square is 0.2 / sqrt(2).
    found = clip_of([[10, 20], [30, 90], [61, 20], [30, 39]], clip)
    expected = 0.2 / (0.2 / 2**0.5 + 0.005)
    torch.testing.assert_close(found, torch.tensor([[expected, 0.0], [0.0, -expected]]))


def test_both_is_motion_then_colours_of_the_first_frames() -> None:
    clips = torch.randint(0, 256, (2, 3, 8, 5, 4), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    both, motion = (network_input(clips, ClipConfig(input=name, frames=4)) for name in ("both", "motion"))
    assert both.shape == (2, 6, 4, 5, 4)
    assert torch.equal(both[:, :3], motion)
    assert torch.equal(both[:, 3:], network_input(clips[:, :, :4], ClipConfig(frames=4)))
    assert torch.equal(both[:, 3:], normalised(clips[:, :, :4].float()))
    assert torch.equal(motion[:1], network_input(clips[:1], ClipConfig(input="motion", frames=4)))  # each clip alone


@given(seed=st.integers(0, 99), gain=st.floats(0.4, 1.0))
def test_a_still_video_has_no_motion_and_a_darker_one_nearly_the_same(seed: int, gain: float) -> None:
    clip, draw = ClipConfig(input="motion", frames=3), torch.Generator().manual_seed(seed)
    still = torch.randint(0, 256, (1, 3, 1, 6, 6), dtype=torch.uint8, generator=draw).expand(1, 3, 6, 6, 6)
    assert not network_input(still, clip).any()
    bright = torch.randint(0, 256, (1, 3, 6, 6, 6), dtype=torch.uint8, generator=draw)
    seen, darker = (network_input(x, clip) for x in (bright, (bright.float() * gain).round().to(torch.uint8)))
    # 0.005 beside a strength of 0.4 and of at least 0.16 is 2 %; the rest is rounding to whole grey levels.
    torch.testing.assert_close(seen, darker, atol=0.05, rtol=0.05)
    assert float(seen.square().mean().sqrt()) == pytest.approx(1.0, abs=0.02)


def drifting(right: int, down: int, frames: int = 2, ball: int = 2) -> torch.Tensor:
    """Return a clip (1, 3, 2 * frames, 48, 48) of a picture that drifts, and in it a square that goes further right."""
    draw = torch.Generator().manual_seed(0)
    noise = torch.rand(2, 80, 80, generator=draw)
    background, patch = F.avg_pool2d(noise[:, None], 7, 1, 3)[:, 0].mul(900).sub(325).clamp(0, 255)
    later = background.roll((down, right), (0, 1))
    pair = torch.stack([background, later])[:, 16:64, 16:64].clone()
    pair[0, 14:34, 14:34] = patch[:20, :20]
    pair[1, 14 + down : 34 + down, 14 + right + ball : 34 + right + ball] = patch[:20, :20]
    clip = pair.repeat_interleave(frames, 0).to(torch.uint8)
    return clip.expand(3, -1, -1, -1)[None]


def test_flow_is_where_things_go_beside_the_camera() -> None:
    clip = ClipConfig(input="flow", frames=2)
    seen = network_input(drifting(1, -1), clip)
    assert seen.shape == (1, 2, 2, 48, 48)
    assert seen.square().mean().sqrt() == pytest.approx(1, abs=0.1)
    border, square = seen[0, :, 0, 6:42, 38:44].flatten(1), seen[0, :, 0, 18:30, 18:30].flatten(1)
    torch.testing.assert_close(border.median(1).values, torch.zeros(2), atol=0.2, rtol=0)  # the drift is taken off
    assert square[0].median() > 1.5
    assert square[1].median() == pytest.approx(0, abs=0.4)
    torch.testing.assert_close(seen[:, :, 0], seen[:, :, 1])


def test_flow_and_colours_are_flow_then_colours_and_a_still_clip_has_no_flow() -> None:
    clips = drifting(0, 1)
    seen = network_input(clips, ClipConfig(input="flow+rgb", frames=2), torch.tensor([1.0]))
    torch.testing.assert_close(seen[:, :2], network_input(clips, ClipConfig(input="flow", frames=2)))
    torch.testing.assert_close(seen[:, 2:], normalised(clips[:, :, :2].float()))
    still = torch.cat([clips[:, :, :2], clips[:, :, :2]], 2)
    assert network_input(still, ClipConfig(input="flow", frames=2)).abs().max() < 1e-3


def test_the_page_shows_flow_to_the_right_as_red() -> None:
    clip = ClipConfig(input="flow", frames=2)
    frames_THWC = drifting(0, 0)[0].permute(1, 2, 3, 0).numpy()
    picture = strip(frames_THWC, clip)
    assert picture.shape == (96, 96, 3)
    red, green, blue = picture[48 + 18 : 48 + 30, 18:30].reshape(-1, 3).mean(0)
    assert red > 200
    assert green == pytest.approx(127.5, abs=20)
    assert blue == pytest.approx(127.5, abs=1)


def test_the_page_shows_the_frames_and_below_them_their_motion_around_mid_grey() -> None:
    frames = torch.tensor([[10, 20], [30, 90], [61, 20], [30, 39]], dtype=torch.uint8)
    frames_THWC = frames[:, None, :, None].expand(4, 1, 2, 3).numpy()
    # As above 0.2 / (0.2 / sqrt(2) + 0.005) = 1.3659 of 3, of half of 255, from 127.5: 58 up and 58 down.
    motion = [[186, 128], [128, 69]]
    expected = np.array([[10, 20, 30, 90], motion[0] + motion[1]])[..., None].repeat(3, axis=-1)
    assert strip(frames_THWC, ClipConfig(input="motion", frames=2)).tolist() == expected.tolist()
    assert strip(frames_THWC, ClipConfig(input="both", frames=2)).tolist() == expected.tolist()
    assert strip(frames_THWC[:2], ClipConfig(frames=2)).tolist() == expected[:1].tolist()
    many = np.arange(16, dtype=np.uint8)[:, None, None, None].repeat(3, axis=-1)
    assert strip(many, ClipConfig(frames=16))[0, :, 0].tolist() == [0, 2, 4, 6, 9, 11, 13, 15]
    assert strip(np.concatenate([many, many]), ClipConfig(input="flow", frames=16)).shape == (2, 8, 3)
    one_moves = np.zeros((2, 10, 10, 3), dtype=np.uint8)
    one_moves[1, 0, 0] = 255
    pictures = strip(one_moves, ClipConfig(input="motion", frames=1))[10:]
    assert pictures[0, 0].tolist() == [255] * 3  # ten times the strength: cut off
    assert np.unique(pictures[1:]).tolist() == [128]


# Who reads a clip does not matter

TEST = TestConfig(temporal_views=2, spatial_views=3, short_side=32, crop=24)


@pytest.mark.parametrize(
    "clip", [ClipConfig(input="motion", frames=4, window=24), replace(WHOLE, input="flow")], ids=["dense", "whole"]
)
def test_test_and_prediction_see_the_same_views_and_memory_workers_and_files_give_the_same(
    clip: ClipConfig, tiny_shapes: Path
) -> None:
    catalog = read_catalog(tiny_shapes).select("test").take(range(2))
    videos = VideoDataset(catalog, DataConfig(cache="ram"), 32, colours=clip.colours)
    views = [batch.clips_NCTHW for batch in loader.test_batches(videos, clip, TEST, 6, rows=None, workers=0)]
    assert [x.shape for x in views] == [(6, clip.colours, 8, 24, 24)] * 2
    named = [replace(video, path=str(catalog.root / video.path)) for video in catalog.videos]
    with closing(decode_views(named, clip, TEST, Limits(1, 60.0), 25.0)) as decoded:
        for item in filter(None, decoded):
            assert isinstance(item[1], np.ndarray)
            frames_TCHW = in_colours(channels_first(item[1]), clip.colours)
            assert torch.equal(loader.cropped_views(frames_TCHW, clip, TEST, mirrored=False), views[item[0]])
    assert videos.prepare_cache()
    for workers in (0, 1):
        again = [batch.clips_NCTHW for batch in loader.test_batches(videos, clip, TEST, 6, rows=None, workers=workers)]
        assert all(map(torch.equal, again, views))
    # Validation looks at the test's clip of the first view's frames, where that is the whole video.
    centre = next(loader.validation_batches(videos, clip, AugmentConfig(32, 32, 24), 2)).clips_NCTHW
    if clip.sampling == "whole":
        assert torch.equal(centre, torch.stack([x[1] for x in views]))
    assert bool((network_input(centre, clip).abs().amax((1, 2, 3, 4)) > 1).all())  # shapes move


def test_a_pack_gives_the_frames_that_the_files_give(tiny_shapes: Path, tmp_path: Path) -> None:
    catalog = read_catalog(tiny_shapes).select("test").take(range(2))
    pack_videos(catalog, tmp_path / "pack", short_side=32, quality=100)
    pack = open_pack(str(tmp_path / "pack"))
    row_of = {video.name: row for row, video in enumerate(pack.catalog.videos)}
    same = pack.catalog.take([row_of[video.name] for video in catalog.videos])
    files, packed = VideoDataset(catalog, DataConfig(), 32), VideoDataset(same, DataConfig(), 32, pack)
    for clip in (WHOLE, ClipConfig(input="both", frames=4, window=24)):
        of_files, of_pack = (
            next(loader.validation_batches(x, clip, AugmentConfig(32, 32, 24), 2)).clips_NCTHW for x in (files, packed)
        )
        difference = (of_files.float() - of_pack.float()).abs()
        assert float(difference.mean()) < 3  # JPEG
        seen, seen_packed = network_input(of_files, clip)[:, :3], network_input(of_pack, clip)[:, :3]
        assert float(torch.corrcoef(torch.stack([seen.flatten(), seen_packed.flatten()]))[0, 1]) > 0.9


def test_flow_alone_is_made_of_grey_levels_whoever_reads_them(tiny_shapes: Path, tmp_path: Path) -> None:
    rgb = torch.tensor([[10, 20, 31], [10, 20, 32], [255, 255, 255], [0, 0, 1]], dtype=torch.uint8)
    assert in_colours(rgb[:, :, None, None], 1).flatten().tolist() == [20, 21, 255, 0]
    assert in_colours(rgb[:, :, None, None], 3).flatten(1).tolist() == rgb.tolist()
    catalog = read_catalog(tiny_shapes).select("test").take([0])
    pack_videos(catalog, tmp_path / "pack", short_side=32)
    pack = open_pack(str(tmp_path / "pack"))
    for source in ((catalog, None), (pack.catalog, pack)):
        colour, grey = (VideoDataset(source[0], DataConfig(), 32, source[1], colours=n) for n in (3, 1))
        expected = in_colours(colour.whole(0).frames_TCHW, 1)
        assert torch.equal(grey.whole(0).frames_TCHW, expected)
        assert torch.equal(grey.frames(0, lambda times_T, _: np.array([3, 1])), expected[[3, 1]])
        assert 3 * grey.decoded_bytes(0) == colour.decoded_bytes(0)
        assert grey.prepare_cache()
        assert torch.equal(grey.frames(0, lambda times_T, _: np.array([3, 1])), expected[[3, 1]])
    flow = ClipConfig(input="flow", frames=4, sampling="whole")
    clips = [next(loader.validation_batches(x, flow, AugmentConfig(32, 32, 24), 1)) for x in (colour, grey)]
    seen, seen_grey = (network_input(batch.clips_NCTHW, flow) for batch in clips)
    assert float((seen - seen_grey).abs().mean()) < 0.05 * float(seen.abs().mean())  # levels are rounded before


# What is said of videos


def notes(videos: list[tuple[int, float]], clip: ClipConfig) -> list[str]:
    frames, seconds = zip(*videos, strict=True)
    return sampling.repetition_notes(np.array(frames), np.array(seconds), clip)


def test_of_videos_without_enough_frames_for_motion_it_is_said_what_is_seen() -> None:
    clip = ClipConfig(input="motion")
    assert notes([(300, 10.0)], clip) == []
    assert notes([(300, 10.0), (50, 10.0), (1, 10.0)], clip)[:2] == [
        "1 of 3 videos have a single frame: nothing moves in their clips",
        "1 of 3 videos have fewer than 14.9 frames a second: "
        "their motion is that between one frame and the next, up to 0.2 s instead of 0.067 s",
    ]
    assert "their clips repeat the last motion (clip.short_videos clamp;" in notes([(30, 1.0)], clip)[0]
    assert notes([(30, 1.0), (9, 0.36)], ClipConfig(input="both", sampling="whole")) == [
        "1 of 2 videos have fewer than 8 frames and 0.067 s: frames repeat in their clips"
    ]


@pytest.mark.parametrize(("frames", "rate"), [(8, 25), (9, 25), (10, 25), (8, 12), (9, 12), (10, 30), (9, 30)])
def test_a_note_on_few_frames_is_true_of_whole_clips(frames: int, rate: int) -> None:
    clip = ClipConfig(input="motion", sampling="whole")
    found = pairs([n / rate for n in range(frames)], clip)
    said = any("frames repeat" in line for line in notes([(frames, frames / rate)], clip))
    assert said == (len(set(found)) < 8)
