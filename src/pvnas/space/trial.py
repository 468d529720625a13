"""A trial of our own kernels before a search trusts them: small cells by them and by PyTorch's operations.

They are compiled by whatever compiler a machine has, for whatever processor it has. One that gives wrong numbers there
would make a search that runs, and finds nonsense.
"""

from __future__ import annotations

import re
import warnings
from collections.abc import Iterable, Iterator
from contextlib import nullcontext, suppress
from copy import deepcopy
from functools import cache

import torch
from torch import Tensor

from pvnas.space.genotype import EDGES, NODES, is_reduction
from pvnas.space.kernels import by_pytorch, kernels_for, leave_out
from pvnas.space.kernels.cpu import library
from pvnas.space.layout import CellPlace, parse_layout, place_cells
from pvnas.space.shared_cell import SharedCell

CLIPS, FRAMES, SIDES = 1, 3, (6, 7)
# Of a tensor's norm: how much further off than PyTorch's operations in the same precision, and what is let pass anyway.
TIMES, ANYWAY = 4.0, {torch.bfloat16: 0.05, torch.float16: 0.02, torch.float32: 1e-3}


@cache
def try_kernels(layout: str, width: int, device: torch.device, dtype: torch.dtype) -> bool:
    """Compare a cell of each category of a layout, forward and backward; leave the kernels out where they are wrong.

    Returns whether the cells compute by them from then on. A RuntimeWarning says what was wrong, with which cell. Those
    that were compiled for a CPU are tried once, and found right ever after.
    """
    if kernels_for(torch.empty(0, device=device, dtype=dtype)) is None:
        return False
    passed, line = library.trials(dtype) if device.type == "cpu" else None, f"{layout}, width {width}"
    if passed is not None and passed.exists() and line in passed.read_text(encoding="utf-8").splitlines():
        return True
    for place in _first_of_each(place_cells(parse_layout(layout), width)):
        wrong = _wrong(place, device, dtype)
        if wrong is not None:
            leave_out(device.type)
            message = f"our own kernels are wrong on this machine ({place.category}: {wrong})"
            warnings.warn(f"{message}: the search runs by PyTorch's operations, which is slower", RuntimeWarning, 2)
            return False
    if passed is not None:
        with suppress(OSError), passed.open("a", encoding="utf-8") as file:
            file.write(line + "\n")
    return True


def _first_of_each(places: Iterable[CellPlace]) -> Iterator[CellPlace]:
    seen = set()
    for place in places:
        if place.category not in seen:
            seen.add(place.category)
            yield place


def _wrong(place: CellPlace, device: torch.device, dtype: torch.dtype) -> str | None:
    """Return what a cell's kernels get wrong, None: nothing."""
    with torch.random.fork_rng([]):
        torch.manual_seed(0)
        cell = SharedCell(place)
        inputs = _inputs(cell, place)
        weights = torch.softmax(torch.randn(len(EDGES), len(cell.operations)), 1)
        height, width = (-(-side // 2) if is_reduction(place.category) else side for side in SIDES)
        gradient = torch.randn(CLIPS, NODES * place.channels, FRAMES, height, width)
    cell.moves_statistics = False
    cell = cell.to(device)
    given = [tensor.to(device) for tensor in (*inputs, weights, gradient)]
    rounded = [*(tensor.to(dtype) for tensor in given[:2]), given[2], given[3].to(dtype)]
    exact = _passes(deepcopy(cell).double(), [tensor.double() for tensor in rounded], by_kernels=False)
    off = _off(_passes(cell, rounded, by_kernels=True), exact)
    if all(by <= ANYWAY[dtype] for by in off.values()):
        return None
    rough = _off(_passes(cell, rounded, by_kernels=False), exact)
    for name, by in off.items():
        if not by <= TIMES * rough[name] + ANYWAY[dtype]:  # nor where it is not a number
            return f"the {name} is off by {by:.1%} of its norm"
    return None


def _inputs(cell: SharedCell, place: CellPlace) -> list[Tensor]:
    halved = (2 if place.reduced_before else 1, 1)
    channels = [entry.convolutions[0].in_channels for entry in cell.entries]
    return [
        torch.randn(CLIPS, c, FRAMES, *(side * factor for side in SIDES)).to(memory_format=torch.channels_last_3d)
        for c, factor in zip(channels, halved, strict=True)
    ]


def _passes(cell: SharedCell, given: list[Tensor], *, by_kernels: bool) -> dict[str, list[Tensor]]:
    """Return the output and the gradients for both inputs, the mixing weights and all parameters, edges taken together.

    In half precision a number may be on either side of a ReLU: of one edge's gradient that can be a large part.
    """
    x0, x1, weights = (tensor.detach().requires_grad_() for tensor in given[:3])
    names, parameters = zip(*cell.named_parameters(), strict=True)
    with nullcontext() if by_kernels else by_pytorch():
        y = cell(x0, x1, weights)
        gradients = torch.autograd.grad(y, [x0, x1, weights, *parameters], given[3])
    found = {"output": [y.detach()]}
    for name, gradient in zip(["input 0", "input 1", "alpha", *names], gradients, strict=True):
        found.setdefault("gradient of " + re.sub(r"^edges\.\d+\.", "", name), []).append(gradient)
    return found


def _off(found: dict[str, list[Tensor]], expected: dict[str, list[Tensor]]) -> dict[str, float]:
    return {name: float((_row(found[name]) - _row(x)).norm() / _row(x).norm()) for name, x in expected.items()}


def _row(tensors: list[Tensor]) -> Tensor:
    return torch.cat([tensor.double().flatten() for tensor in tensors])
