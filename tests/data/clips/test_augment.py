"""Crops: boxes of peers' tests to the pixel, random boxes that stay inside, and one resize that looks right."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from pvnas.config import AugmentConfig, ClipConfig
from pvnas.data.clips import augment
from pvnas.data.clips.augment import (
    CropBox,
    centre_box,
    crop_batch,
    crop_of_epoch,
    crop_resize,
    frames_of_epoch,
    full_size,
    random_crop_box,
    smallest_size,
    spatial_view_box,
    validation_box,
)
from pvnas.data.clips.chances import MIDDLE, Chances
from pvnas.data.clips.network_input import network_input
from pvnas.runtime.random import generator


def ramp(height: int, width: int, frames: int = 2) -> Tensor:
    """Return frames (T, 3, H, W) whose channels are the row, the column and the frame's number."""
    rows, columns = torch.meshgrid(torch.arange(height), torch.arange(width), indexing="ij")
    return torch.stack([torch.stack([rows, columns, torch.full_like(rows, t)]) for t in range(frames)]).to(torch.uint8)


@pytest.mark.parametrize(
    ("height", "width", "corners"),
    [
        (256, 340, [(0, 0), (0, 42), (0, 84)]),
        (256, 341, [(0, 0), (0, 43), (0, 85)]),  # ceil: 42.5 is 43
        (455, 256, [(0, 0), (100, 0), (199, 0)]),
        (256, 256, [(0, 0), (0, 0), (0, 0)]),
    ],
)
def test_three_views_lie_along_the_longer_side(height: int, width: int, corners: list[tuple[int, int]]) -> None:
    boxes = [spatial_view_box(height, width, 256, 256, view, 3) for view in range(3)]
    assert boxes == [CropBox(top, left, 256) for top, left in corners]


def test_a_crop_smaller_than_the_short_side_is_centred_across() -> None:
    assert [spatial_view_box(64, 80, 56, 64, view, 3) for view in range(3)] == [
        CropBox(4, 0, 56),
        CropBox(4, 12, 56),
        CropBox(4, 24, 56),
    ]
    assert spatial_view_box(64, 64, 56, 64, 0, 3) == CropBox(4, 0, 56)


def test_one_view_is_the_centre() -> None:
    assert spatial_view_box(64, 80, 56, 64, 0, 1) == centre_box(64, 80, 56, 64) == CropBox(4, 12, 56)


def test_boxes_are_in_the_sources_pixels_whatever_its_size() -> None:
    assert centre_box(128, 170, 56, 64) == CropBox(8, 29, 112)
    assert centre_box(32, 32, 64, 64) == CropBox(0, 0, 32)
    assert validation_box(80, 100, AugmentConfig(short_side_min=60, short_side_max=80, crop=56)).side == 64


@given(
    height=st.integers(1, 300),
    width=st.integers(1, 300),
    crop=st.integers(8, 64),
    room=st.tuples(st.integers(0, 40), st.integers(0, 40)),
    view=st.integers(0, 2),
    seed=st.integers(0, 100),
)
def test_any_box_is_a_square_inside_the_source(
    height: int, width: int, crop: int, room: tuple[int, int], view: int, seed: int
) -> None:
    low = crop + room[0]
    augment = AugmentConfig(short_side_min=low, short_side_max=low + room[1], crop=crop)
    boxes = [
        random_crop_box(height, width, augment, generator(seed), may_flip=True),
        validation_box(height, width, augment),
        spatial_view_box(height, width, crop, low, view, 3),
    ]
    for box in boxes:
        assert 1 <= box.side <= min(height, width)
        assert 0 <= box.top <= height - box.side
        assert 0 <= box.left <= width - box.side


def test_random_boxes_fill_sizes_places_and_flips() -> None:
    augment = AugmentConfig(short_side_min=60, short_side_max=80, crop=56)
    boxes = [random_crop_box(80, 106, augment, generator(0, i), may_flip=True) for i in range(2000)]
    sides = {box.side for box in boxes}
    assert (min(sides), max(sides)) == (56, 75)  # 80 x 56/80 and 80 x 56/60
    of_one_size = [box for box in boxes if box.side == 60]
    assert {box.top for box in of_one_size} == set(range(80 - 60 + 1))
    assert (min(b.left for b in boxes), max(b.left for b in boxes)) == (0, 106 - 56)
    assert 0.45 < np.mean([box.flip for box in boxes]) < 0.55


def test_the_draw_of_a_box_does_not_depend_on_the_flip_being_on() -> None:
    augment = AugmentConfig(short_side_min=60, short_side_max=80, crop=56)
    for i in range(20):
        a, b = (random_crop_box(80, 106, augment, generator(0, i), may_flip=flip) for flip in (True, False))
        assert (a.top, a.left, a.side) == (b.top, b.left, b.side)
        assert not b.flip


def test_a_crop_without_scaling_is_a_copy_of_the_pixels() -> None:
    clip_CTHW = crop_resize(ramp(20, 30), CropBox(3, 5, 8), 8)
    assert clip_CTHW.shape == (3, 2, 8, 8)
    assert clip_CTHW.dtype == torch.uint8
    assert clip_CTHW[0, 0, :, 0].tolist() == list(range(3, 11))
    assert clip_CTHW[1, 0, 0].tolist() == list(range(5, 13))
    assert clip_CTHW[2, :, 0, 0].tolist() == [0, 1]


@pytest.mark.parametrize(("box", "size"), [(CropBox(3, 5, 16), 8), (CropBox(0, 9, 11), 24), (CropBox(2, 0, 17), 13)])
def test_a_scaled_crop_is_torchs_own_of_the_cut_out_pixels(box: CropBox, size: int) -> None:
    frames_TCHW = torch.randint(0, 256, (4, 3, 20, 30), dtype=torch.uint8, generator=generator(0))
    cut = frames_TCHW[:, :, box.top : box.top + box.side, box.left : box.left + box.side].clone()
    expected = torch.nn.functional.interpolate(cut, size=(size, size), mode="bilinear", antialias=True)
    assert torch.equal(crop_resize(frames_TCHW, box, size), expected.transpose(0, 1))


def test_a_flip_mirrors_left_to_right_only() -> None:
    plain, flipped = (crop_resize(ramp(20, 30), CropBox(3, 5, 16, flip), 8) for flip in (False, True))
    assert torch.equal(plain.flip(3), flipped)


def test_half_size_is_the_antialiased_mean_and_of_a_ramp_the_ramp() -> None:
    half = crop_resize(ramp(64, 64), CropBox(0, 0, 64), 32)
    expected = torch.arange(32) * 2 + 0.5
    inside = slice(2, -2)  # the filter is cut off at the borders
    assert (half[1, 0, 7, inside] - expected[inside]).abs().max() <= 1
    checkers = ((torch.arange(64)[:, None] + torch.arange(64)) % 2 * 255).to(torch.uint8).expand(1, 3, 64, 64)
    grey = crop_resize(checkers, CropBox(0, 0, 64), 16)
    assert (grey.int() - 128).abs().max() <= 4  # without antialiasing all black or all white


def test_uint8_differs_from_exact_arithmetic_by_rounding_only() -> None:
    frames_TCHW = torch.randint(0, 256, (4, 3, 80, 107), dtype=torch.uint8, generator=generator(0))
    for side in (40, 60, 71, 80):
        crop = frames_TCHW[:, :, :side, :side].double()
        exact = torch.nn.functional.interpolate(crop, size=(56, 56), mode="bilinear", antialias=True)
        assert (crop_resize(frames_TCHW, CropBox(0, 0, side), 56).transpose(0, 1) - exact).abs().max() < 1.01


def test_a_frame_is_resized_the_same_alone_and_among_others() -> None:
    frames_TCHW = torch.randint(0, 256, (8, 3, 80, 107), dtype=torch.uint8, generator=generator(0))
    together = crop_resize(frames_TCHW, CropBox(2, 3, 71, True), 56)
    for t in range(8):
        assert torch.equal(together[:, t : t + 1], crop_resize(frames_TCHW[t : t + 1], CropBox(2, 3, 71, True), 56))


def test_normalised_clips_are_floats_about_zero() -> None:
    clips_NCTHW = torch.tensor([0, 255], dtype=torch.uint8).view(2, 1, 1, 1, 1).expand(2, 3, 4, 5, 6)
    x_NCTHW = network_input(clips_NCTHW, ClipConfig())
    assert x_NCTHW.shape == clips_NCTHW.shape
    assert x_NCTHW.dtype == torch.float32
    assert x_NCTHW.is_contiguous(memory_format=torch.channels_last_3d)
    assert torch.allclose(x_NCTHW[0], torch.tensor(-2.0))
    assert torch.allclose(x_NCTHW[1], torch.tensor(0.55 / 0.225))
    assert int(clips_NCTHW[1, 0, 0, 0, 0]) == 255  # the input stays as it was


# Shapes other than an upright square


SHAPED = AugmentConfig(short_side_min=60, short_side_max=80, crop=56, aspect=2.0, rotate=20.0, shear=10.0)


def test_chances_of_one_half_and_settings_that_are_off_make_the_upright_square() -> None:
    plain = AugmentConfig(short_side_min=60, short_side_max=80, crop=56)
    for i in range(20):
        expected = random_crop_box(80, 106, plain, generator(0, i), may_flip=True)
        chances = Chances.drawn(generator(1, i))
        assert random_crop_box(80, 106, plain, generator(0, i), may_flip=True, chances=chances) == expected
        assert random_crop_box(80, 106, SHAPED, generator(0, i), may_flip=True) == expected


@pytest.mark.parametrize(
    "first_crop, crop, sides",
    [
        (40, 72, [40] * 4 + [48] * 3 + [56] * 4 + [64] * 3 + [72] * 6),
        (64, 72, [64] * 14 + [72] * 6),
        (72, 72, [72] * 20),
        (80, 72, [72] * 20),
        (0, 72, [72] * 20),
    ],
)
def test_crops_grow_in_stages_of_eight_pixels(first_crop: int, crop: int, sides: list[int]) -> None:
    augment = AugmentConfig(72, 103, crop, first_crop=first_crop)
    assert [crop_of_epoch(augment, epoch, 20) for epoch in range(20)] == sides


@pytest.mark.parametrize(
    "first_frames, frames, counts",
    [
        (2, 16, [2] * 5 + [4] * 5 + [8] * 4 + [16] * 6),
        (8, 16, [8] * 14 + [16] * 6),
        (3, 16, [3] * 5 + [6] * 5 + [12] * 4 + [16] * 6),
        (16, 16, [16] * 20),
        (32, 16, [16] * 20),
        (0, 16, [16] * 20),
    ],
)
def test_frames_double_in_stages(first_frames: int, frames: int, counts: list[int]) -> None:
    augment = AugmentConfig(first_frames=first_frames)
    assert [frames_of_epoch(augment, frames, epoch, 20) for epoch in range(20)] == counts


def test_the_last_epoch_is_of_full_size() -> None:
    augment = AugmentConfig(72, 103, 72, first_crop=40, first_frames=8)
    assert [crop_of_epoch(augment, epoch, 2) for epoch in range(2)] == [40, 72]
    assert [frames_of_epoch(augment, 16, epoch, 2) for epoch in range(2)] == [8, 16]
    assert (crop_of_epoch(augment, 0, 1), frames_of_epoch(augment, 16, 0, 1)) == (72, 16)
    assert smallest_size(augment, 16) == (40, 8)
    assert smallest_size(full_size(augment), 16) == (72, 16)


def test_a_crop_of_another_aspect_has_the_squares_area() -> None:
    augment = AugmentConfig(short_side_min=64, short_side_max=64, crop=32, aspect=4.0)
    boxes = [
        random_crop_box(64, 128, augment, generator(0), may_flip=False, chances=MIDDLE._replace(aspect=u))
        for u in (0.0, 0.25, 0.5, 1.0)
    ]
    assert [(box.side, box.width) for box in boxes] == [(64, 16), (45, 23), (32, 32), (16, 64)]


@given(height=st.integers(1, 200), width=st.integers(1, 200), seed=st.integers(0, 200))
def test_any_shape_of_box_lies_inside_the_source(height: int, width: int, seed: int) -> None:
    chances = Chances.drawn(generator(1, seed))
    box = random_crop_box(height, width, SHAPED, generator(seed), may_flip=True, chances=chances)
    assert 0 <= box.top <= box.top + box.side <= height
    assert 0 <= box.left <= box.left + box.width <= width
    assert min(box.side, box.width) >= 1
    assert abs(box.angle) <= 20
    assert abs(box.shear) <= 10


def test_a_turn_by_90_degrees_moves_pixels_only() -> None:
    frames_TCHW = torch.randint(0, 256, (2, 3, 9, 12), dtype=torch.uint8, generator=generator(0))
    cut_CTHW = frames_TCHW[:, :, 2:8, 3:9].transpose(0, 1)
    for turns, angle in enumerate((0.0, 90.0, 180.0, 270.0)):
        found = crop_resize(frames_TCHW, CropBox(2, 3, 6, angle=angle), 6)
        assert torch.equal(found, torch.rot90(cut_CTHW, turns, (2, 3)))
    mirrored = crop_resize(frames_TCHW, CropBox(2, 3, 6, True, angle=90.0), 6)
    assert torch.equal(mirrored, torch.rot90(cut_CTHW, 1, (2, 3)).flip(3))


def test_a_slant_of_45_degrees_shifts_each_row_by_one_more_pixel() -> None:
    frames_TCHW = 2 * ramp(16, 40, frames=1)  # twice, so that half a pixel is a level
    slanted = crop_resize(frames_TCHW, CropBox(4, 12, 8, shear=45.0), 8)
    assert slanted[1, 0].tolist() == [[24 + 2 * column + 2 * row - 7 for column in range(8)] for row in range(8)]
    assert slanted[0, 0].tolist() == [[8 + 2 * row] * 8 for row in range(8)]


def test_beyond_the_source_a_turned_crop_goes_on_as_its_mirror() -> None:
    frames_TCHW = torch.randint(0, 256, (1, 3, 8, 8), dtype=torch.uint8, generator=generator(0))
    beyond = crop_resize(frames_TCHW, CropBox(-3, 0, 8, angle=180.0), 8)[:, 0]
    source = frames_TCHW[0]
    assert torch.equal(beyond.flip(1, 2), torch.cat([source[:, :3].flip(1), source[:, :5]], dim=1))


def test_a_small_turn_of_a_large_box_is_antialiased() -> None:
    checkers = ((torch.arange(96)[:, None] + torch.arange(96)) % 2 * 255).to(torch.uint8).expand(1, 3, 96, 96)
    grey = crop_resize(checkers, CropBox(12, 12, 72, angle=3.0), 18)
    assert (grey.float() - 127.5).std() < 25  # one sample for each pixel: 90


@given(seed=st.integers(0, 50))
def test_a_still_video_stays_still_in_any_box(seed: int) -> None:
    frame_CHW = torch.randint(0, 256, (3, 80, 106), dtype=torch.uint8, generator=generator(0))
    chances = Chances.drawn(generator(1, seed))
    box = random_crop_box(80, 106, SHAPED, generator(seed), may_flip=True, chances=chances)
    clip_CTHW = crop_resize(frame_CHW.expand(3, -1, -1, -1), box, 24)
    assert (clip_CTHW == clip_CTHW[:, :1]).all()


# What a GPU does, on the CPU: the same crops by matrices


def smooth(height: int, width: int, seed: int) -> Tensor:
    """Return (3, 3, H, W) smooth random frames: on noise, rounding twice differs by more."""
    coarse = torch.rand((3, 3, 5, 7), generator=torch.Generator().manual_seed(seed)) * 255
    return torch.nn.functional.interpolate(coarse, (height, width), mode="bicubic").clamp(0, 255).to(torch.uint8)


def test_crops_by_matrices_are_those_of_torchs_resize() -> None:
    clips = [smooth(40, 60, 0), smooth(60, 40, 1), smooth(40, 60, 2), smooth(33, 33, 3)]
    boxes = [CropBox(3, 20, 33, True), CropBox(10, 0, 40), CropBox(0, 5, 17), CropBox(2, 3, 28, True)]
    clips += [smooth(40, 60, seed) for seed in range(4, 9)]
    boxes += [CropBox(3, 5, 30, True, 50), CropBox(1, 2, 35, False, 20), CropBox(4, 6, 30, angle=12.0)]
    boxes += [CropBox(0, 0, 40, True, angle=-7.0, shear=5.0), CropBox(6, 9, 20, columns=44, shear=9.0)]
    for size in (28, 16, 40):
        expected = crop_batch(clips, boxes, size)
        found = augment._crop_at_once(clips, boxes, size)
        assert found.shape == expected.shape == (9, 3, 3, size, size)
        assert found.dtype == torch.uint8
        assert int((found.int() - expected.int()).abs().max()) <= 1


@given(length=st.integers(1, 90), data=st.data(), size=st.integers(1, 60))
def test_rows_of_resize_matrices_are_weights_inside_the_box(length: int, data: st.DataObject, size: int) -> None:
    side = data.draw(st.integers(1, length))
    start = data.draw(st.integers(0, length - side))
    (matrix_SL,) = augment.resize_matrices(length, [start], [side], size)
    assert torch.allclose(matrix_SL.sum(1), torch.ones(size), atol=1e-5)
    assert (matrix_SL >= 0).all()
    assert not matrix_SL[:, :start].any()
    assert not matrix_SL[:, start + side :].any()


def test_a_batch_lies_channels_last_and_holds_each_crop() -> None:
    clips, boxes = [ramp(20, 30), ramp(30, 20)], [CropBox(3, 5, 16, True), CropBox(0, 0, 12)]
    batch_NCTHW = crop_batch(clips, boxes, 8)
    assert batch_NCTHW.is_contiguous(memory_format=torch.channels_last_3d)
    for number in range(2):
        assert torch.equal(batch_NCTHW[number], crop_resize(clips[number], boxes[number], 8))


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_crops_on_a_gpu_are_those_of_the_cpu() -> None:
    clips = [smooth(40, 60, 0), smooth(60, 40, 1), smooth(40, 60, 2)]
    boxes = [CropBox(3, 20, 33, True), CropBox(10, 0, 40), CropBox(0, 5, 17)]
    found = crop_batch([clip.cuda() for clip in clips], boxes, 28)
    assert found.is_cuda
    assert int((found.cpu().int() - crop_batch(clips, boxes, 28).int()).abs().max()) <= 1
