"""All three sets of kernels on the same tests, in the types in which they run.

Those in Triton run in its interpreter on a CPU, in float64; on a GPU they and the reference run there too.
"""

from importlib.util import find_spec
from types import SimpleNamespace

import pytest
import torch

from pvnas.fast.kernels import cpp, pytorch
from pvnas.fast.kernels.cpp_library import compiler, supported

GPU = torch.cuda.is_available()
CHOICES = ["pytorch float64", "pytorch float32", "pytorch bfloat16", "c++ float64", "c++ float32"]
CHOICES += [f"{name} {dtype} cuda" for name in ("pytorch", "triton") for dtype in ("float32", "bfloat16") if GPU]
CHOICES += [] if GPU else ["triton float64"]
BOUNDS = {torch.float64: 1e-10, torch.float32: 2e-5, torch.bfloat16: 1e-2}


@pytest.fixture(params=CHOICES)
def chosen(request):
    """A set of kernels, a type and a device."""
    name, dtype, *device = request.param.split()
    if name == "triton" and find_spec("triton") is None:
        pytest.skip("needs triton")
    if name == "c++" and (compiler() is None or not supported()):
        pytest.skip("needs Linux and a C++ compiler")
    return SimpleNamespace(name=name, dtype=getattr(torch, dtype), device="".join(device) or "cpu")


@pytest.fixture
def kernels(chosen):
    if chosen.name != "triton":
        return cpp if chosen.name == "c++" else pytorch
    from pvnas.fast.kernels import triton_set

    return triton_set


@pytest.fixture(autouse=True)
def fp32_as_it_is(monkeypatch):
    """PyTorch's convolutions on a GPU, too, which else round fp32 to TF32."""
    monkeypatch.setattr(torch.backends.cudnn, "allow_tf32", False)


@pytest.fixture
def make(chosen):
    """Random numbers of a shape, as pictures in channels-last memory where they have four dimensions."""
    draw = torch.Generator().manual_seed(0)

    def draw_numbers(*shape, shift=0.0, dtype=None):
        x = torch.randn(*shape, generator=draw, dtype=torch.float64) + shift
        x = x.to(chosen.device, dtype or chosen.dtype)
        return x.contiguous(memory_format=torch.channels_last) if x.dim() == 4 else x

    return draw_numbers


@pytest.fixture
def make_sums(make, chosen):
    """The same in the type of sums: statistics of norms, and mixing weights."""
    dtype = torch.float64 if chosen.dtype == torch.float64 else torch.float32
    return lambda *shape, **more: make(*shape, **more, dtype=dtype)


@pytest.fixture
def exact():
    """The same numbers in float64, which ask for their gradient."""
    return lambda x: x.detach().double().requires_grad_()


@pytest.fixture
def assert_close(chosen):
    """Compare with what was computed in float64; in half precision as a whole, of which single numbers are far off."""
    bound = BOUNDS[chosen.dtype]

    def compare(result, expected):
        result, expected = result.double(), expected.detach().double()
        assert result.shape == expected.shape
        if chosen.dtype == torch.bfloat16:
            assert (result - expected).norm() <= bound * expected.norm()
        else:
            torch.testing.assert_close(result, expected, rtol=bound, atol=bound * max(1, float(expected.abs().max())))

    return compare


@pytest.fixture
def as_tensor(kernels, chosen):
    """What ``depthwise`` or ``per_edge_grads`` returned, as a tensor: read by a convolution that changes nothing."""

    def read(pictures, edges, gradient=False):
        channels = pictures.shape[1] // edges
        same = torch.eye(channels, dtype=chosen.dtype, device=chosen.device)[..., None, None].repeat(edges, 1, 1, 1)
        return (kernels.channel_conv_input_grad if gradient else kernels.channel_conv)(pictures, same, edges)

    return read


@pytest.fixture
def assert_dense():
    """Check that pictures are dense in channels-last memory."""

    def check(*pictures):
        for x in pictures:
            assert x.is_contiguous(memory_format=torch.channels_last), (x.shape, x.stride())

    return check
