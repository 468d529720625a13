"""Fast cells of derived networks against the plain ones, whole networks at a time: by PyTorch, C++ and Triton."""

import copy

import pytest
import torch
import torch.nn.functional as F
from test_inference import with_every_operation
from torch import nn

from pvnas.config import NetworkConfig
from pvnas.fast import training_cell
from pvnas.fast.accelerate import accelerate_training
from pvnas.fast.inference import folded, for_inference
from pvnas.fast.kernels import cpp_library
from pvnas.fast.training_cell import FastTrainingCell, with_plain_cells
from pvnas.space.genotype import Genotype
from pvnas.space.layers import PLAIN, BatchNorm, Rectified
from pvnas.space.network import DerivedCell, PVNASNetwork
from pvnas.space.operations import register_operation, unregister_operation

GPU = torch.cuda.is_available()
NO_COMPILER = pytest.mark.skipif(
    cpp_library.compiler() is None or not cpp_library.supported(), reason="needs Linux and a C++ compiler"
)
CPU = pytest.param("c++", marks=NO_COMPILER)
TRITON = pytest.param("triton", marks=pytest.mark.skipif(not GPU, reason="needs a GPU"))
EACH = pytest.mark.parametrize("kind", [pytest.param("pytorch"), CPU, TRITON], indirect=True)
COMPILED = pytest.mark.parametrize("kind", [CPU, TRITON], indirect=True)


@pytest.fixture
def kind(request, monkeypatch, kernel_set):
    """Which kernels fast cells compute by."""
    kernels = kernel_set(request.param)
    monkeypatch.setattr(training_cell, "fast_kernels_for", lambda x: kernels)
    return request.param


def pair(kind, genotype, *, dtype=torch.float64, drop_path=0.0, **config):
    """A plain network whose norms scale and shift, by numbers below zero, too, and the same with fast cells."""
    torch.manual_seed(0)
    config = NetworkConfig(**{"width": 5, "stem": "stride2", **config})
    plain = PVNASNetwork(genotype, config, num_classes=5, drop_path_rate=drop_path)
    with torch.no_grad():
        for norm in (layer for layer in plain.modules() if isinstance(layer, BatchNorm)):
            norm.weight.uniform_(-2.0, 2.0)
            norm.bias.normal_()
    plain = plain.to("cuda" if kind == "triton" else "cpu", torch.float32 if kind == "triton" else dtype)
    fast = accelerate_training(copy.deepcopy(plain))
    assert all(isinstance(cell, FastTrainingCell) for cell in fast.cells)
    return plain, fast


def clips_for(network, batch, frames, size):
    parameter = next(network.parameters())
    draw = torch.Generator().manual_seed(1)
    x = torch.randn(batch, 3, frames, *size, generator=draw, dtype=torch.float64)
    return x.to(parameter.device, parameter.dtype).requires_grad_()


def passed(network, x):
    """Scores, gradients for the clips and all parameters, and all running statistics."""
    torch.manual_seed(5)  # of drop-path
    scores = network(x)
    loss = F.cross_entropy(scores, torch.arange(len(x), device=x.device))
    grads = torch.autograd.grad(loss, [x, *network.parameters()])
    return [scores, *grads, *(b for b in network.buffers() if b.is_floating_point())]


def assert_equal(found, expected):
    for a, b in zip(found, expected, strict=True):
        # of the largest number of a tensor; in fp32 maxima may choose another pixel
        bound = 1e-9 if b.dtype == torch.float64 else 2e-3
        assert (a - b).abs().max() <= bound * b.abs().max() + 1e-12


@EACH
@pytest.mark.parametrize("drop_path", [0.0, 0.4])
@pytest.mark.parametrize("first", range(7))
def test_every_operation_at_both_strides(kind, first, drop_path):
    plain, fast = pair(kind, with_every_operation(first), drop_path=drop_path)
    x = clips_for(plain, 3, 2, (21, 26))
    assert_equal(passed(fast, x), passed(plain, x))


@COMPILED
@pytest.mark.parametrize("width, size, stem, frames", [(3, (18, 18), "stride2", 1), (17, (29, 28), "stride4-time", 4)])
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
def test_widths_sizes_and_types(kind, width, size, stem, frames, dtype):
    plain, fast = pair(kind, with_every_operation(4), dtype=dtype, drop_path=0.2, width=width, stem=stem)
    x = clips_for(plain, 4, frames, size)
    assert_equal(passed(fast, x), passed(plain, x))


@pytest.mark.parametrize("kind", ["pytorch"], indirect=True)
def test_half_precision(kind):
    plain, fast = pair(kind, with_every_operation(0))
    x = clips_for(plain, 4, 2, (20, 20))
    cells = [network.cells[0] for network in (plain, fast)]
    y = plain.stem(x).detach()
    expected = cells[0](y, y).detach()
    found = cells[1].bfloat16()(y.bfloat16(), y.bfloat16())
    assert found.dtype == torch.bfloat16
    assert (found.double() - expected).norm() <= 0.05 * expected.norm()


@EACH
def test_evaluation_mode_has_gradients_and_moves_nothing(kind):
    plain, fast = pair(kind, with_every_operation(2), drop_path=0.3)
    x = clips_for(plain, 3, 2, (20, 21))
    for network in (plain, fast):
        passed(network, x)
        network.eval()
    assert_equal(passed(fast, x), passed(plain, x))


@EACH
def test_checkpointing_changes_no_bit_and_moves_statistics_once(kind):
    _, fast = pair(kind, with_every_operation(5), drop_path=0.3)
    checkpointed = copy.deepcopy(fast)
    checkpointed.set_grad_checkpointing()
    x = clips_for(fast, 3, 2, (20, 21))
    for a, b in zip(passed(checkpointed, x), passed(fast, x), strict=True):
        assert torch.equal(a, b)


@COMPILED
@pytest.mark.parametrize("memory", [torch.contiguous_format, torch.channels_last_3d])
@pytest.mark.parametrize("category", [0, 1])
def test_cells_alone_whatever_the_memory_and_what_asks_for_gradients(kind, memory, category):
    plain, fast = (network.cells[category] for network in pair(kind, with_every_operation(3), layout="T-NC T-RC"))
    like = next(plain.parameters())
    widths = [next(part.parameters()).shape[1] for part in (plain.input0, plain.input1)]
    draw = torch.Generator().manual_seed(2)
    inputs = [torch.randn(2, c, 3, 9, 8, generator=draw, dtype=torch.float64).to(like) for c in widths]
    inputs = [x.contiguous(memory_format=memory) for x in inputs]
    for asks in (True, False):
        found = []
        for cell in (fast, plain):
            xs = [x.clone().requires_grad_(asks) for x in inputs]
            y = cell(*xs)
            wanted = [*(xs if asks else []), *cell.parameters()]
            found.append([y, *torch.autograd.grad((y * y.detach().cos()).sum(), wanted)])
        assert_equal(*found)


@COMPILED
def test_a_second_backward_pass_is_refused(kind):
    _, fast = pair(kind, with_every_operation(0))
    loss = fast(clips_for(fast, 2, 2, (16, 16))).sum()
    loss.backward(retain_graph=True)
    with pytest.raises(RuntimeError, match="compute the forward pass again"):
        loss.backward()


@COMPILED
def test_some_norms_frozen(kind):
    plain, fast = pair(kind, with_every_operation(1))
    for network in (plain, fast):
        network.cells[0].operations.eval()
    x = clips_for(plain, 3, 2, (16, 16))
    assert_equal(passed(fast, x), passed(plain, x))


@pytest.mark.parametrize("kind", [CPU], indirect=True)
def test_the_number_of_threads_changes_no_bit(kind):
    _, fast = pair(kind, with_every_operation(5), dtype=torch.float32, width=8)
    cell, before, found = fast.cells[0], torch.get_num_threads(), []
    x = torch.randn(2, 8, 4, 14, 14)
    for threads in (1, 2, 3):
        torch.set_num_threads(threads)
        try:
            y = cell(x, x)
            found.append([y, *torch.autograd.grad(y.square().sum(), list(cell.parameters()))])
        finally:
            torch.set_num_threads(before)
    for a, b, c in zip(*found, strict=True):
        assert torch.equal(a, b)
        assert torch.equal(a, c)


def test_names_copies_and_the_way_back():
    plain, fast = pair("c++", with_every_operation(0), drop_path=0.2)
    assert list(fast.state_dict()) == list(plain.state_dict())
    assert [name for name, _ in fast.named_parameters()] == [name for name, _ in plain.named_parameters()]
    fast.set_drop_path(0.4)
    back = with_plain_cells(copy.deepcopy(fast))
    assert all(type(cell) is DerivedCell for cell in back.cells)
    assert back.shares_relu
    assert {cell.drop_path_rate for cell in back.cells} == {0.4}
    assert list(back.state_dict()) == list(plain.state_dict())
    layered = PVNASNetwork(with_every_operation(0), NetworkConfig(width=4), num_classes=2, layers=PLAIN)
    assert not any(isinstance(cell, FastTrainingCell) for cell in accelerate_training(layered).cells)


@torch.no_grad()
def test_predictions_and_exports_of_a_network_with_fast_cells():
    plain, fast = pair("c++", with_every_operation(1))
    x = clips_for(plain, 2, 2, (20, 20)).detach()
    expected = plain.eval()(x)
    for made in (fast.eval(), folded(fast), for_inference(fast), torch.export.export(fast, (x,)).module()):
        torch.testing.assert_close(made(x), expected, rtol=1e-9, atol=1e-9)


def test_in_half_precision_on_a_cpu_the_plain_cells_run():
    plain, fast = pair("c++", with_every_operation(1), dtype=torch.float32)
    x = clips_for(plain, 2, 2, (16, 16))
    with torch.autocast("cpu", torch.bfloat16):
        assert torch.equal(fast(x), plain(x))


@EACH
@pytest.mark.parametrize("checkpointed", [False, True])
def test_operations_without_kernels(kind, checkpointed):
    @register_operation("conv_1x5x5")
    def convolution(channels, stride, layers, *, affine):
        conv = layers.conv(channels, channels, (1, 5, 5), stride=(1, stride, stride), padding=(0, 2, 2), bias=False)
        return Rectified(nn.ReLU(), conv, layers.norm(channels, affine=affine), nn.Dropout(0.3))

    try:
        text = with_every_operation(4).to_json().replace("dil_sep_conv_1x3x3", "conv_1x5x5")
        plain, fast = pair(kind, Genotype.from_json(text), layout="S-NC S-RC", drop_path=0.3)
        fast.set_grad_checkpointing(checkpointed)
        plain.set_grad_checkpointing(checkpointed)
        x = clips_for(plain, 3, 2, (20, 21))
        assert_equal(passed(fast, x), passed(plain, x))
    finally:
        unregister_operation("conv_1x5x5")
