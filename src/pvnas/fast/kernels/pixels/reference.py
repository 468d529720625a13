"""Every other pixel in PyTorch."""

import torch
import torch.nn.functional as F
from torch import Tensor

from pvnas.fast.kernels.tensors import dense


def pick_pixels(x: Tensor, offset: int) -> Tensor:
    h, w = (size % 2 * offset for size in x.shape[2:])
    return dense(F.pad(x[:, :, offset::2, offset::2].relu(), (0, w, 0, h)))


def spread_pixels(even: Tensor, odd: Tensor | None, x: Tensor, into: Tensor | None) -> Tensor:
    x_grad = dense(torch.zeros_like(x)) if into is None else into
    for pixels, offset in ((even, 0), (odd, 1)):
        if pixels is not None:
            to = x_grad[:, :, offset::2, offset::2]
            to += pixels[:, :, : to.shape[2], : to.shape[3]]
    return x_grad
