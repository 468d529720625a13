"""Products over channels against autograd through PyTorch's convolutions in groups."""

import pytest
import torch
import torch.nn.functional as F

from pvnas.fast.kernels.channel_conv.cpu import channel_conv_into, lay_out

FRAMES = 3
CPP = pytest.mark.parametrize("chosen", ["c++ float32", "c++ float64"], indirect=True)
ON_CPU = pytest.mark.parametrize(
    "chosen", ["c++ float32", "c++ float64", "pytorch float32", "pytorch bfloat16"], indirect=True
)


def convolve(x, kernel, groups, frames=FRAMES):
    n, (c, h, w) = len(x) // frames, x.shape[1:]
    x_NCTP = x.reshape(n, frames, c, h * w).transpose(1, 2)
    y_NCTP = F.conv2d(x_NCTP, kernel, None, 1, (kernel.shape[2] // 2, 0), 1, groups)
    return y_NCTP.transpose(1, 2).reshape(n * frames, -1, h, w)


@pytest.fixture
def check(kernels, make, exact, assert_close, assert_dense):
    """Compare all passes of one convolution."""

    def compare(a, b, edges, taps, shared, relu, clips=2, frames=FRAMES, size=(4, 5)):
        x, kernel = make(clips * frames, a if shared else edges * a, *size), make(edges * b, a, taps, 1)
        x64, kernel64 = exact(x), exact(kernel)
        read = x64.relu() if relu else x64
        y = convolve(read, kernel64, 1 if shared else edges, frames)
        result = kernels.channel_conv(x, kernel, edges, frames, relu)
        assert_close(result, y)
        grad = make(*y.shape)
        read_grad, kernel_grad = torch.autograd.grad(y, (read, kernel64), grad.double())
        x_grad = kernels.channel_conv_input_grad(grad, kernel, edges, frames, shared)
        assert_close(x_grad, read_grad)
        assert_dense(result, x_grad)
        assert_close(kernels.channel_conv_kernel_grad(grad, x, kernel, edges, frames, relu), kernel_grad)

    return compare


@pytest.mark.parametrize(
    "a, b, edges, taps, shared, relu",
    [
        (5, 5, 2, 1, False, False),
        (5, 5, 2, 3, False, True),
        (70, 66, 1, 1, False, True),
        (70, 66, 1, 3, False, False),
        (3, 8, 4, 1, True, False),
        (3, 8, 4, 3, True, True),
    ],
)
def test_equals_convolutions(check, a, b, edges, taps, shared, relu):
    check(a, b, edges, taps, shared, relu)


@ON_CPU
@pytest.mark.parametrize("taps", [1, 3])
@pytest.mark.parametrize("a, b", [(13, 17), (17, 33), (33, 5), (66, 13)])
@pytest.mark.parametrize("clips", [1, 7])
def test_channels_that_fill_no_whole_number_of_vectors(check, a, b, taps, clips):
    check(a, b, 2, taps, False, True, clips)


@ON_CPU
@pytest.mark.parametrize("frames", [1, 2, 4, 5, 7, 8, 16])
@pytest.mark.parametrize("edges, shared, size", [(1, False, (3, 3)), (2, True, (5, 11))])
def test_clips_of_any_length(check, frames, edges, shared, size):
    """Those in C++ take the frames in threes, fours or fives."""
    check(25, 40, edges, 3, shared, True, 2, frames, size)


@ON_CPU
@pytest.mark.parametrize("frames", [2, 4])
def test_over_time_behind_a_depthwise_convolution(kernels, frames, make, exact, assert_close):
    """As an operation that somebody registers may have it: what is read there is not in memory."""
    x, first, kernel = make(2 * frames, 26, 9, 10), make(26, 1, 3, 3), make(30, 26, 3, 1)
    read = F.conv2d(x.double().relu(), first.double(), None, 1, 1, 1, 26)
    kernel64 = exact(kernel)
    y, grad = convolve(read, kernel64, 1, frames), make(2 * frames, 30, 9, 10)
    assert_close(kernels.channel_conv(kernels.depthwise(x, first), kernel, 1, frames), y)
    (expected,) = torch.autograd.grad(y, kernel64, grad.double())
    given = kernels.channel_conv_kernel_grad(grad, kernels.depthwise(x, first), kernel, 1, frames)
    assert_close(given, expected)


@pytest.mark.parametrize("taps", [1, 3])
def test_edges_among_other_channels(kernels, taps, make, exact, assert_close):
    """As both halves of a reduction: an edge's channels lie ``step`` behind those of the edge before."""
    x, kernel = make(2 * FRAMES, 6, 4, 5), make(2 * 2, 3, taps, 1)
    y = convolve(x.double(), kernel.double(), 2)
    cell = make(2 * FRAMES, 16, 4, 5)
    expected = cell.double()
    expected[:, [3, 4, 8, 9]] = y
    kernels.channel_conv(x, kernel, 2, FRAMES, into=cell[:, 3:], step=5)
    assert_close(cell, expected)
    grad = cell[:, [3, 4, 8, 9]].contiguous(memory_format=torch.channels_last)
    result = kernels.channel_conv_input_grad(cell, kernel, 2, FRAMES, shared=taps == 1, first=3, step=5)
    assert_close(result, kernels.channel_conv_input_grad(grad, kernel, 2, FRAMES, shared=taps == 1))
    result = kernels.channel_conv_kernel_grad(cell, x, kernel, 2, FRAMES, first=3, step=5)
    assert_close(result, kernels.channel_conv_kernel_grad(grad, x, kernel, 2, FRAMES))


@CPP
@pytest.mark.parametrize("taps", [1, 3])
@pytest.mark.parametrize("c", [7, 13, 33])
def test_a_bias_and_what_is_added_to(c, taps, make, assert_close):
    x, kernel, bias = make(2 * FRAMES, 10, 4, 5), make(2 * c, 5, taps, 1), make(2 * c)
    cell = make(2 * FRAMES, 26 + 2 * c, 4, 5)
    before, y = cell.clone(), convolve(x.double(), kernel.double(), 2) + bias.double().view(-1, 1, 1)
    into = cell[:, 16 : 16 + 2 * c]
    assert channel_conv_into(x, kernel, 2, FRAMES, into=into, bias=bias) is into
    assert_close(into, y)
    channel_conv_into(x, kernel, 2, FRAMES, into=into, bias=bias, added=True)
    assert_close(into, 2 * y)
    assert torch.equal(cell[:, :16], before[:, :16])
    assert torch.equal(cell[:, 16 + 2 * c :], before[:, 16 + 2 * c :])


@CPP
@pytest.mark.parametrize("a, b, edges, taps", [(5, 7, 2, 1), (40, 70, 1, 3), (3, 33, 2, 3), (24, 33, 2, 3)])
def test_kernels_laid_out_before_give_the_same_bits(kernels, a, b, edges, taps, make):
    x, kernel = make(2 * FRAMES, edges * a, 4, 5), make(edges * b, a, taps, 1)
    expected, laid_out = kernels.channel_conv(x, kernel, edges, FRAMES), lay_out(kernel, edges, FRAMES)
    assert torch.equal(channel_conv_into(x, kernel * 0, edges, FRAMES, laid_out=laid_out), expected)


@CPP
def test_more_than_the_caches_hold_and_more_channels_than_they_take_at_once(kernels, make, assert_close):
    x, kernel = make(4 * FRAMES, 600, 20, 20), make(64, 600, 1, 1)
    assert x.nbytes // 600 * 64 > 2**20  # what is written past the caches
    assert_close(kernels.channel_conv(x, kernel, 1), F.conv2d(x.double(), kernel.double()))
    grad = make(4 * FRAMES, 64, 20, 20)
    result = kernels.channel_conv_input_grad(grad, kernel, 1)
    assert_close(result, F.conv_transpose2d(grad.double(), kernel.double()))


@pytest.mark.parametrize(
    "a, b, edges, frames, taps, side",
    [(5, 7, 2, 1, 1, 9), (9, 5, 1, 3, 3, 9), (130, 70, 1, 1, 1, 7), (5, 7, 2, 1, 1, 17), (3, 20, 2, 3, 3, 10)],
)
def test_product_with_its_statistics(kernels, a, b, edges, frames, taps, side, make, assert_close):
    x, kernel = make(2 * frames, edges * a, side, side - 1, shift=3.0), make(edges * b, a, taps, 1)
    y, (mean, variance, inverse_std) = kernels.channel_conv_statistics(x, kernel, edges, frames, True, eps=1e-3)
    assert_close(y, kernels.channel_conv(x, kernel, edges, frames, True))
    assert_close(mean, y.double().mean((0, 2, 3)))
    assert_close(variance, y.double().var((0, 2, 3), correction=0))
    assert_close(inverse_std, (variance.double() + 1e-3).rsqrt())


@pytest.mark.parametrize("a, taps", [(5, 1), (130, 1), (5, 3)])
def test_input_gradient_behind_relu(kernels, a, taps, make, assert_close):
    x, kernel, grad = make(6, a, 4, 5), make(7, a, taps, 1), make(6, 7, 4, 5)
    expected = kernels.channel_conv_input_grad(grad, kernel, 1, 3) * (x > 0)
    assert_close(kernels.channel_conv_input_grad(grad, kernel, 1, 3, behind_relu=x), expected)


@CPP
@pytest.mark.parametrize("n_to", [5, 20, 40])
@pytest.mark.parametrize("taps, frames", [(1, 1), (3, 2), (3, 8)])
def test_weights_are_laid_out_beside_zeros(make, n_to, taps, frames, monkeypatch):
    """Whole vectors of them are computed: beside memory as it was found, subnormal numbers took twice the time."""
    kernel = make(n_to, 32, taps, 1)
    monkeypatch.setattr(torch.Tensor, "new_empty", lambda like, size: like.new_full((size,), torch.nan))
    laid_out = lay_out(kernel, 1, frames)
    is_written = (~laid_out.isnan()).to(torch.int8)
    ends = torch.diff(is_written, prepend=torch.zeros(1), append=torch.zeros(1)).nonzero().flatten()
    lengths = ends[1::2] - ends[::2]
    assert not (lengths % 32).any(), "rows of a panel have numbers in all of their columns"
    assert lengths.sum() >= kernel.numel()
