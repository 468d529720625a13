"""Colours, stills, mixing and RandAugment on clips small enough to reckon by hand."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from pvnas.config import AugmentConfig
from pvnas.data.clips import rand_augment
from pvnas.data.clips.appearance import Colours, Still, drawn_colours, recoloured, with_stills
from pvnas.data.clips.augment import CropBox
from pvnas.data.clips.chances import MIDDLE, Chances
from pvnas.data.clips.mixup import mixed
from pvnas.runtime.random import generator


def clip_of(*colours: tuple[int, int, int], frames: int = 1) -> Tensor:
    """Return one clip (1, 3, T, 1, W) with a pixel of each colour."""
    row_3W = torch.tensor(colours, dtype=torch.uint8).T
    return row_3W[None, :, None, None, :].expand(1, 3, frames, 1, len(colours)).clone()


def colours_of(clip_1CTHW: Tensor) -> list[tuple[int, ...]]:
    return [tuple(pixel) for pixel in clip_1CTHW[0, :, 0, 0].T.tolist()]


# ---- colours


def test_brightness_multiplies_levels_and_stops_at_white() -> None:
    assert colours_of(recoloured(clip_of((100, 0, 40)), [Colours(brightness=1.5)])) == [(150, 0, 60)]
    assert colours_of(recoloured(clip_of((200, 100, 3)), [Colours(brightness=2.0)])) == [(255, 200, 6)]


def test_contrast_multiplies_distances_from_the_clips_mean_grey() -> None:
    dark_and_light = clip_of((50, 50, 50), (150, 150, 150))  # mean 100
    assert colours_of(recoloured(dark_and_light, [Colours(contrast=0.5)])) == [(75, 75, 75), (125, 125, 125)]
    assert colours_of(recoloured(dark_and_light, [Colours(contrast=2.0)])) == [(0, 0, 0), (200, 200, 200)]


def test_without_saturation_every_pixel_has_its_luma() -> None:
    found = colours_of(recoloured(clip_of((100, 0, 0), (0, 100, 0), (0, 0, 100)), [Colours(saturation=0.0)]))
    assert found == [(30, 30, 30), (59, 59, 59), (11, 11, 11)]
    half = colours_of(recoloured(clip_of((100, 0, 0)), [Colours(saturation=0.5)]))
    assert half == [(65, 15, 15)]  # half way to 29.9


@given(levels=st.lists(st.integers(0, 255), min_size=3, max_size=30), seed=st.integers(0, 100))
def test_colours_at_strength_1_change_nothing_and_any_others_stay_levels(levels: list[int], seed: int) -> None:
    x = torch.tensor(levels[: len(levels) // 3 * 3], dtype=torch.uint8).view(1, 3, 1, 1, -1)
    assert torch.equal(recoloured(x, [Colours()]), x)
    strong = AugmentConfig(brightness=1.0, contrast=1.0, saturation=1.0, grey=0.5)
    colours = drawn_colours(strong, Chances.drawn(generator(seed)))
    assert colours is not None
    assert all(0 <= factor <= 2 for factor in colours)
    assert recoloured(x, [colours]).dtype == torch.uint8


def test_each_setting_moves_its_own_factor_only() -> None:
    assert drawn_colours(AugmentConfig(), MIDDLE) is None
    chances = MIDDLE._replace(brightness=0.0, contrast=0.75, saturation=1.0, grey=0.3)
    assert drawn_colours(AugmentConfig(brightness=0.4), chances) == pytest.approx((0.6, 1.0, 1.0))
    assert drawn_colours(AugmentConfig(contrast=0.4), chances) == pytest.approx((1.0, 1.2, 1.0))
    assert drawn_colours(AugmentConfig(saturation=0.4), chances) == pytest.approx((1.0, 1.0, 1.4))
    assert drawn_colours(AugmentConfig(grey=0.31), chances) == pytest.approx((1.0, 1.0, 0.0))
    assert drawn_colours(AugmentConfig(grey=0.3), chances) == pytest.approx((1.0, 1.0, 1.0))


# ---- stills of other videos


def test_a_still_takes_its_share_of_every_frame() -> None:
    clips = torch.cat([clip_of((100, 100, 0), frames=2), clip_of((7, 8, 9), frames=2)]).expand(2, 3, 2, 1, 1)
    frame_1CHW = torch.tensor([200, 100, 50], dtype=torch.uint8).view(1, 3, 1, 1)
    found = with_stills(clips, [Still(frame_1CHW, CropBox(0, 0, 1), 0.25), None], 1)
    assert found[0, :, :, 0, 0].T.tolist() == [[125, 100, 12]] * 2
    assert torch.equal(found[1], clips[1])
    assert with_stills(clips, [None, None], 1) is clips


# ---- mixup and CutMix


def shard(clips: int = 4, size: int = 8) -> tuple[Tensor, Tensor]:
    """Return clips of one level each, 10, 20, 30 …, and labels 0, 1, 2 …"""
    levels = (10 * torch.arange(1, clips + 1)).to(torch.uint8).view(clips, 1, 1, 1, 1)
    return levels.expand(clips, 3, 2, size, size).clone(), torch.arange(clips)


def test_mixup_is_the_weighted_mean_of_two_clips_of_the_shard() -> None:
    clips, labels = shard()
    found, others, shares = mixed(clips, labels, AugmentConfig(mixup=1.0), seed=3)
    for n in range(4):
        expected = (1 - float(shares[n])) * 10 * (n + 1) + float(shares[n]) * 10 * (int(others[n]) + 1)
        assert found[n].unique().tolist() == [round(expected)]
    assert sorted(others.tolist()) == [0, 1, 2, 3]
    assert shares.dtype == torch.float32
    assert 0 <= float(shares.min()) <= float(shares.max()) <= 1


def test_cutmix_pastes_a_square_in_all_frames_and_counts_its_pixels() -> None:
    clips, labels = shard()
    seen = set()
    for seed in range(20):
        found, others, shares = mixed(clips, labels, AugmentConfig(cutmix=1.0), seed=seed)
        for n in range(4):
            if int(others[n]) == n:
                continue
            pasted_THW = found[n, 0] == 10 * (int(others[n]) + 1)
            assert torch.equal(pasted_THW[0], pasted_THW[1])
            assert float(pasted_THW.float().mean()) == pytest.approx(float(shares[n]))
            rows, columns = pasted_THW[0].any(1).sum(), pasted_THW[0].any(0).sum()
            assert rows == columns == round(8 * float(shares[n]) ** 0.5)
            seen.add(int(rows))
    assert len(seen) > 5


def test_of_both_half_the_shards_have_each_and_alpha_changes_no_other_draw() -> None:
    clips, labels = shard()
    both = AugmentConfig(mixup=8.0, cutmix=8.0)
    clips_of_each = [mixed(clips, labels, both, seed)[0] for seed in range(60)]
    kinds = [any(len(clip.unique()) > 1 for clip in clips) for clips in clips_of_each]  # mixup leaves one level
    assert 15 < sum(kinds) < 45
    for seed in range(5):
        weak, strong = (mixed(clips, labels, AugmentConfig(cutmix=alpha), seed)[1] for alpha in (0.2, 5.0))
        assert torch.equal(weak, strong)


# ---- RandAugment


def noise(frames: int = 2, size: int = 12) -> Tensor:
    return torch.randint(0, 256, (3, frames, size, size), dtype=torch.uint8, generator=generator(0))


def still(frames: int = 3, size: int = 12) -> Tensor:
    return noise(1, size).expand(3, frames, size, size).clone()


@pytest.mark.parametrize("operation", rand_augment.OPERATIONS)
@pytest.mark.parametrize("strength", [-1.0, 1.0, 0.3])
def test_every_operation_keeps_a_still_clip_still(operation: rand_augment.Operation, strength: float) -> None:
    found = operation(still(), strength)
    assert found.dtype == torch.uint8
    assert found.shape == (3, 3, 12, 12)
    assert (found == found[:, :1]).all()


def test_at_magnitude_0_all_but_the_histograms_leave_a_clip_as_it_is() -> None:
    x = noise()
    without_strength = {rand_augment.auto_contrast, rand_augment.equalise}
    for operation in set(rand_augment.OPERATIONS) - without_strength:
        assert torch.equal(operation(x, 0.0), x), operation.__name__


def test_operations_on_levels_by_hand() -> None:
    x = torch.tensor([10, 60, 110], dtype=torch.uint8).view(1, 1, 1, 3).expand(3, 1, 1, 3)

    def levels(clip: Tensor) -> list[int]:
        return clip[0].flatten().tolist()

    assert levels(rand_augment.auto_contrast(x, 1.0)) == [0, 128, 255]  # 127.5 to the even number
    assert levels(rand_augment.auto_contrast(x * 0 + 7, 1.0)) == [7, 7, 7]
    assert levels(rand_augment.solarise(x, 0.6)) == [10, 60, 145]  # from 102.4 on
    assert levels(rand_augment.posterise(x, 1.0)) == [0, 48, 96]  # 4 bits lost
    assert levels(rand_augment.brightness(x, -1.0)) == [1, 6, 11]
    assert levels(rand_augment.equalise(x, 1.0)) == [0, 128, 255]
    many = torch.tensor([5, 5, 5, 9], dtype=torch.uint8).view(1, 1, 1, 4).expand(3, 1, 1, 4)
    assert levels(rand_augment.equalise(many, 1.0)) == [0, 0, 0, 255]


def test_shifts_go_by_the_share_and_mirror_what_is_beyond() -> None:
    x = torch.arange(20, dtype=torch.uint8).view(1, 1, 1, 20).expand(3, 1, 20, 20)
    right = rand_augment.translate_x(x, 1.0)[0, 0, 0].tolist()  # 9 pixels of 20
    assert right == [*range(9, 20), *range(19, 10, -1)]
    down = rand_augment.translate_y(x.transpose(2, 3), -1.0)[0, 0, :, 0].tolist()
    assert down == [*range(8, -1, -1), *range(11)]


def test_drawn_operations_are_uniform_and_of_one_strength() -> None:
    drawn = rand_augment.drawn_operations(2000, 15.0, generator(1))
    counts = [sum(operation is each for operation, _ in drawn) for each in rand_augment.OPERATIONS]
    assert min(counts) > 100
    assert {strength for _, strength in drawn} == {0.5, -0.5}
    assert np.mean([strength > 0 for _, strength in drawn]) == pytest.approx(0.5, abs=0.05)
