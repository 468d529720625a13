"""Learning-rate schedules, and PyTorch's optimisers on them: state as named tensors and JSON, and back, bit for bit."""

import math
from collections.abc import Mapping, Sequence
from typing import Any, TypeVar

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from pvnas.config import AlphaOptimizerConfig, BatchConfig, ScheduleConfig, WeightOptimizerConfig
from pvnas.errors import UserError

WARMUP_START = 0.01


def schedule_factor(schedule: ScheduleConfig, epoch: float, epochs: int) -> float:
    """Return the factor on the learning rate after ``epoch`` of ``epochs`` epochs (a fraction within an epoch).

    step: the paper's section 4.2.1, times step_factor every step_epochs. cosine: from 1 to final_factor over the epochs
    after the warm-up (Loshchilov and Hutter, 2017). constant: 1. The warm-up is linear (Goyal et al., 2017).
    """
    if epoch < schedule.warmup_epochs:
        return WARMUP_START + (1.0 - WARMUP_START) * epoch / schedule.warmup_epochs
    if schedule.kind == "step":
        return schedule.step_factor ** math.floor(epoch / schedule.step_epochs)
    if schedule.kind == "cosine":
        share = min(1.0, (epoch - schedule.warmup_epochs) / max(epochs - schedule.warmup_epochs, 1e-9))
        return schedule.final_factor + (1.0 - schedule.final_factor) * 0.5 * (1.0 + math.cos(math.pi * share))
    return 1.0


Kind = TypeVar("Kind", bound=Optimizer)


def without_compiler(kind: type[Kind]) -> type[Kind]:
    """Return the same optimiser without the wrappers that hide its methods from torch.compile.

    Their first call imports the compiler, which costs each process a second and some 75 MB and serves nothing here.
    """
    names = ("add_param_group", "zero_grad", "state_dict", "load_state_dict", "step")
    methods = {name: getattr(kind, name) for name in names}
    methods = {name: getattr(method, "__wrapped__", method) for name, method in methods.items()}
    return type(kind.__name__, (kind,), methods | {"step": torch.no_grad()(methods["step"])})


SGD, Adam = without_compiler(torch.optim.SGD), without_compiler(torch.optim.Adam)


class ScheduledOptimizer:
    """An optimiser of named parameters, in one group or more, with the schedule of their learning rates."""

    def __init__(
        self, optimizer: Optimizer, names: Sequence[str], schedule: ScheduleConfig, *, clip_gradient: float = 0.0
    ) -> None:
        """``names``: of the parameters of all groups, in their order; ``clip_gradient``: the largest norm of all
        gradients taken together; 0 leaves them alone.
        """
        self.optimizer, self.schedule, self.clip_gradient = optimizer, schedule, clip_gradient
        self.parameters: list[nn.Parameter] = [p for group in optimizer.param_groups for p in group["params"]]
        self._named = dict(zip(names, self.parameters, strict=True))
        self._peaks = [float(group["lr"]) for group in optimizer.param_groups]

    @property
    def lr(self) -> float:
        """The learning rate of the next step, of the first group."""
        return float(self.optimizer.param_groups[0]["lr"])

    def set_epoch(self, epoch: float, epochs: int) -> None:
        """Set the learning rates after ``epoch`` (a fraction within an epoch) of ``epochs`` epochs."""
        for group, peak in zip(self.optimizer.param_groups, self._peaks, strict=True):
            group["lr"] = peak * schedule_factor(self.schedule, epoch, epochs)

    def step(self, gradients: Sequence[Tensor]) -> None:
        """Make one step with these gradients, in the order of ``parameters``, and leave no gradient behind."""
        for parameter, gradient in zip(self.parameters, gradients, strict=True):
            parameter.grad = gradient
        if self.clip_gradient > 0:
            nn.utils.clip_grad_norm_(self.parameters, self.clip_gradient)
        self.optimizer.step()
        self.optimizer.zero_grad(set_to_none=True)

    def tensors(self) -> dict[str, Tensor]:
        """Return momentum buffers, Adam's moments and steps, by ``parameter's name/entry``.

        They are the optimiser's own, not copies: write or clone them before the next step.
        """
        # .get: reading the state's defaultdict with [] would add an empty entry.
        states = ((name, self.optimizer.state.get(parameter, {})) for name, parameter in self._named.items())
        return {f"{name}/{entry}": tensor.detach() for name, state in states for entry, tensor in state.items()}

    def settings(self) -> dict[str, Any]:
        """Return the rest of the state, the settings, as JSON data."""
        groups = self.optimizer.param_groups
        return {
            "groups": [
                {k: list(v) if isinstance(v, tuple) else v for k, v in g.items() if k != "params"} for g in groups
            ]
        }

    def restore(self, tensors: dict[str, Tensor], settings: dict[str, Any]) -> None:
        """Put back what was saved; the next step makes the same bits as if nothing had happened.

        The tensors are copied, in the parameters' device and memory format. Raises UserError when the state belongs to
        another set of parameters.
        """
        entries: dict[str, dict[str, Tensor]] = {}
        for full_name, tensor in tensors.items():
            name, _, entry = full_name.rpartition("/")
            parameter = self._named.get(name)
            if parameter is None or (tensor.dim() and tensor.shape != parameter.shape):
                raise _other_network(full_name)
            entries.setdefault(name, {})[entry] = _like(tensor, parameter)
        groups = self.optimizer.state_dict()["param_groups"]
        if len(settings["groups"]) != len(groups):
            raise _other_network(f"{len(settings['groups'])} groups of parameters")
        for group, saved in zip(groups, settings["groups"], strict=True):
            # The saved settings over the present ones: another version of torch may know more.
            group |= {k: tuple(v) if isinstance(v, list) else v for k, v in saved.items() if k in group}
        state = {index: entries[name] for index, name in enumerate(self._named) if name in entries}
        self.optimizer.load_state_dict({"state": state, "param_groups": groups})


def _like(tensor: Tensor, parameter: Tensor) -> Tensor:
    """A copy; in the parameter's memory format where it has its shape, since the order of sums may hang on it."""
    if tensor.shape != parameter.shape:
        return tensor.clone()
    return torch.empty_like(parameter, dtype=tensor.dtype, requires_grad=False).copy_(tensor)


def _other_network(what: str) -> UserError:
    return UserError(f"the saved optimiser state ({what}) belongs to another network; name an empty run directory")


def weight_optimizer(
    parameters: Mapping[str, nn.Parameter],
    config: WeightOptimizerConfig,
    batch: BatchConfig,
    factors: Mapping[str, float] | None = None,
) -> ScheduledOptimizer:
    """Return SGD for a network's weights, at the rate of this global batch: linear in its clips (`0.1 per GPU`).

    With ``decay_on`` kernels in two groups: the kernels of convolutions and classifier, then biases and what batch
    norms scale and shift by, which do not decay. ``factors``: on the rate of parameters, by name (1 unless named), in
    groups of their own, the highest first.
    """
    lr, factors = config.lr * batch.clips / config.lr_clips, factors or {}
    groups, names = list[dict[str, Any]](), list[str]()
    for factor in sorted({factors.get(name, 1.0) for name in parameters}, reverse=True):
        of_factor = {name: p for name, p in parameters.items() if factors.get(name, 1.0) == factor}
        kernels = {name: p for name, p in of_factor.items() if config.decay_on == "all" or p.dim() > 1}
        vectors = {name: p for name, p in of_factor.items() if name not in kernels}
        groups.append({"params": list(kernels.values()), "lr": factor * lr})
        if vectors:
            groups.append({"params": list(vectors.values()), "lr": factor * lr, "weight_decay": 0.0})
        names += [*kernels, *vectors]
    sgd = SGD(groups, lr=lr, momentum=config.momentum, weight_decay=config.weight_decay, nesterov=config.nesterov)
    return ScheduledOptimizer(sgd, names, config.schedule, clip_gradient=config.clip_gradient)


def alpha_optimizer(parameters: Mapping[str, nn.Parameter], config: AlphaOptimizerConfig) -> ScheduledOptimizer:
    """Return Adam for the architecture parameters."""
    betas = (config.beta1, config.beta2)
    adam = Adam(parameters.values(), lr=config.lr, betas=betas, weight_decay=config.weight_decay)
    return ScheduledOptimizer(adam, list(parameters), config.schedule)
