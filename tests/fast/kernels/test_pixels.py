"""Every other pixel against slices."""

import pytest
import torch
import torch.nn.functional as F


@pytest.mark.parametrize("f, c, h, w", [(2, 5, 7, 6), (1, 66, 4, 5), (2, 17, 5, 8), (3, 3, 1, 1)])
def test_taken_and_put_back(kernels, f, c, h, w, make, assert_close, assert_dense):
    x = make(f, c + 3, h, w)[:, 1:-2]
    padded = F.pad(x.relu(), (0, w % 2, 0, h % 2))
    even, odd = kernels.pick_pixels(x, 0), kernels.pick_pixels(x, 1)
    assert torch.equal(even, x.relu()[:, :, ::2, ::2])
    assert torch.equal(odd, padded[:, :, 1::2, 1::2])
    expected = torch.zeros_like(padded)
    expected[:, :, ::2, ::2], before = even, make(f, c, h, w)
    into = before.clone()
    assert kernels.spread_pixels(even, None, x, into) is into
    assert_close(into, before.double() + expected[:, :, :h, :w].double())
    expected[:, :, 1::2, 1::2] = odd
    spread = kernels.spread_pixels(even, odd, x, None)
    assert torch.equal(spread, expected[:, :, :h, :w])
    assert_dense(even, odd, spread)
