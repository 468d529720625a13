"""PyTorch's optimisers without its compiler, and their state as named tensors and JSON, and back, bit for bit."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, TypeVar

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from pvnas.config import AlphaOptimizerConfig, BatchConfig, ScheduleConfig, WeightOptimizerConfig
from pvnas.errors import UserError
from pvnas.runtime.schedule import scaled_lr, schedule_factor

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


class ScheduledOptimizer:
    """An optimiser of named parameters with the schedule of its learning rate; its state is a checkpoint's."""

    def __init__(
        self, optimizer: Optimizer, names: Sequence[str], schedule: ScheduleConfig, *, clip_gradient: float = 0.0
    ) -> None:
        """``clip_gradient``: the largest norm of all gradients taken together; 0 leaves them alone."""
        self.optimizer, self.names, self.schedule, self.clip_gradient = optimizer, names, schedule, clip_gradient
        self.parameters: list[nn.Parameter] = optimizer.param_groups[0]["params"]
        self._peak = self.lr

    @property
    def lr(self) -> float:
        """The learning rate of the next step."""
        rate: float = self.optimizer.param_groups[0]["lr"]
        return rate

    def set_epoch(self, epoch: float, epochs: int) -> None:
        """Set the learning rate after ``epoch`` (a fraction within an epoch) of ``epochs`` epochs."""
        self.optimizer.param_groups[0]["lr"] = self._peak * schedule_factor(self.schedule, epoch, epochs)

    def step(self, gradients: Sequence[Tensor]) -> None:
        """Make one step with these gradients, in the order of ``parameters``, and leave no gradient behind."""
        for parameter, gradient in zip(self.parameters, gradients, strict=True):
            parameter.grad = gradient
        if self.clip_gradient > 0:
            nn.utils.clip_grad_norm_(self.parameters, self.clip_gradient)
        self.optimizer.step()
        self.optimizer.zero_grad(set_to_none=True)

    def state(self) -> tuple[dict[str, Tensor], dict[str, Any]]:
        """Return the state as optimizer_tensors does."""
        return optimizer_tensors(self.optimizer, self.names)

    def restore(self, tensors: dict[str, Tensor], state: dict[str, Any]) -> None:
        """Put back what state() returned."""
        restore_optimizer(self.optimizer, self.names, tensors, state)


def weight_optimizer(
    parameters: Mapping[str, nn.Parameter], config: WeightOptimizerConfig, batch: BatchConfig
) -> ScheduledOptimizer:
    """Return SGD for a network's weights, at the rate of this global batch."""
    sgd = SGD(
        parameters.values(),
        lr=scaled_lr(config, batch),
        momentum=config.momentum,
        weight_decay=config.weight_decay,
        nesterov=config.nesterov,
    )
    return ScheduledOptimizer(sgd, list(parameters), config.schedule, clip_gradient=config.clip_gradient)


def alpha_optimizer(parameters: Mapping[str, nn.Parameter], config: AlphaOptimizerConfig) -> ScheduledOptimizer:
    """Return Adam for the architecture parameters."""
    betas = (config.beta1, config.beta2)
    adam = Adam(parameters.values(), lr=config.lr, betas=betas, weight_decay=config.weight_decay)
    return ScheduledOptimizer(adam, list(parameters), config.schedule)


def optimizer_tensors(optimizer: Optimizer, names: Sequence[str]) -> tuple[dict[str, Tensor], dict[str, Any]]:
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
    optimizer: Optimizer, names: Sequence[str], tensors: dict[str, Tensor], state: dict[str, Any]
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
