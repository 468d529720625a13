"""PyTorch's optimisers without its compiler, and their state as named tensors and JSON, and back, bit for bit."""

from __future__ import annotations

from typing import Any, TypeVar

import torch
from torch import Tensor
from torch.optim import Optimizer

from pvnas.errors import UserError

_PLAIN = (bool, int, float, str, type(None))


Kind = TypeVar("Kind", bound=Optimizer)


def without_compiler(kind: type[Kind]) -> type[Kind]:
    """Return the same optimiser without the wrappers that hide its methods from torch.compile.

    Their first call imports the compiler, which costs each process a second and some 75 MB and serves nothing here.
    """
    names = ("add_param_group", "zero_grad", "state_dict", "load_state_dict")
    methods = {name: _unwrapped(getattr(Optimizer, name)) for name in names}
    return type(kind.__name__, (kind,), methods | {"step": torch.no_grad()(_unwrapped(kind.step))})


def _unwrapped(method: Any) -> Any:
    return getattr(method, "__wrapped__", method)


SGD, Adam = without_compiler(torch.optim.SGD), without_compiler(torch.optim.Adam)


def optimizer_tensors(optimizer: Optimizer, names: list[str]) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Return the state as (tensors by ``name/entry``, JSON data): momentum buffers, Adam's moments and steps, settings.

    ``names`` are the parameters' in the order of the optimiser's groups. The tensors are the optimiser's own, not
    copies: write or clone them before the next step.
    """
    tensors: dict[str, Tensor] = {}
    values: dict[str, dict[str, Any]] = {}
    for name, parameter in zip(names, _parameters(optimizer), strict=True):
        # .get: reading the state's defaultdict with [] would add an empty entry.
        for entry, value in optimizer.state.get(parameter, {}).items():
            if isinstance(value, Tensor):
                tensors[f"{name}/{entry}"] = value.detach()
            else:
                values.setdefault(name, {})[entry] = _plain(value)
    groups = [{k: _plain(v) for k, v in g.items() if k != "params"} for g in optimizer.param_groups]
    return tensors, {"groups": groups, "values": values}


def restore_optimizer(
    optimizer: Optimizer, names: list[str], tensors: dict[str, Tensor], state: dict[str, Any]
) -> None:
    """Put back what optimizer_tensors returned; the next step makes the same bits as if nothing had happened.

    The tensors are copied, in the parameters' device and memory format. Raises UserError when the state belongs to
    another set of parameters.
    """
    parameters = _parameters(optimizer)
    known, unknown = dict(zip(names, parameters, strict=True)), []
    entries: dict[str, dict[str, Any]] = {name: dict(v) for name, v in state["values"].items() if name in known}
    for full_name, tensor in tensors.items():
        name, _, entry = full_name.rpartition("/")
        if name not in known or (tensor.dim() and tensor.shape != known[name].shape):
            unknown.append(full_name)
        else:
            entries.setdefault(name, {})[entry] = _like(tensor, known[name])
    if unknown or len(state["groups"]) != len(optimizer.param_groups):
        what = unknown[0] if unknown else f"{len(state['groups'])} groups of parameters"
        raise UserError(f"the saved optimiser state ({what}) belongs to another network; name an empty run directory")
    saved = {index: entries[name] for index, name in enumerate(names) if name in entries}
    optimizer.load_state_dict({"state": saved, "param_groups": _groups(optimizer, state["groups"])})


def _parameters(optimizer: Optimizer) -> list[Tensor]:
    return [parameter for group in optimizer.param_groups for parameter in group["params"]]


def _groups(optimizer: Optimizer, saved: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """The saved settings over the present ones (another version of torch may know more), parameters as indices."""
    groups = []
    for ours, theirs in zip(optimizer.state_dict()["param_groups"], saved, strict=True):
        settings = {k: tuple(v) if isinstance(v, list) else v for k, v in theirs.items() if k in ours}
        groups.append({**ours, **settings})
    return groups


def _like(tensor: Tensor, parameter: Tensor) -> Tensor:
    """A copy; in the parameter's memory format where it has its shape, since the order of sums may hang on it."""
    if tensor.shape != parameter.shape:
        return tensor.clone()
    return torch.empty_like(parameter, dtype=tensor.dtype, requires_grad=False).copy_(tensor)


def _plain(value: Any) -> Any:
    if isinstance(value, Tensor):
        return value.item()
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    if isinstance(value, _PLAIN):
        return value
    raise TypeError(f"the optimiser keeps a {type(value).__name__}, which JSON cannot hold")
