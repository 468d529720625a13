"""Every other pixel against slices."""

import pytest
import torch
import torch.nn.functional as F


@pytest.mark.parametrize("f, c, h, w", [(2, 5, 7, 6), (1, 66, 4, 5), (3, 3, 1, 1)])
def test_taken_and_put_back(kernels, f, c, h, w, make, assert_close):
    x = make(f, c, h, w)
    padded = F.pad(x.relu(), (0, w % 2, 0, h % 2))
    even, odd = kernels.every_other(x, 0), kernels.every_other(x, 1)
    assert_close(even, x.relu()[:, :, ::2, ::2])
    assert_close(odd, padded[:, :, 1::2, 1::2])
    expected = torch.zeros_like(padded)
    expected[:, :, ::2, ::2], before = even, make(f, c, h, w)
    assert_close(kernels.spread(even, None, x, before.clone()), before + expected[:, :, :h, :w])
    expected[:, :, 1::2, 1::2] = odd
    assert_close(kernels.spread(even, odd, x, None), expected[:, :, :h, :w])
