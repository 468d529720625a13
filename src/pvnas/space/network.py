"""The derived network: the cells of a genotype, stacked by a layout, with timm's model interface.

Legend: N clips, C channels, T frames, H and W pixels.
"""

from collections import deque
from collections.abc import Iterator, Sequence
from itertools import islice
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from pvnas.config import PV_NAS_L, NetworkConfig
from pvnas.errors import UserError
from pvnas.space.dense import side_by_side
from pvnas.space.genotype import INPUTS, NODES, Cell, Genotype, is_reduction
from pvnas.space.layers import FOLDED, FactorizedReduction, Layers, Rectified, to_channels_last
from pvnas.space.layout import CellSpec, cell_specs, parse_layout
from pvnas.space.operations import build_operation
from pvnas.space.stem import build_stem, cell_inputs, stem_stride

# Length of the features that a normalised head gives to the classifier. The last cell's sums are not normalised; on
# real video their squared length is in the thousands, and with dropout a linear layer on them diverges at usual rates.
HEAD_LENGTH = 4.0


def drop_path(x: Tensor, probability: float, training: bool) -> Tensor:
    """Zero whole samples of x (N, ...) with this probability and scale the others up to keep the mean."""
    if probability <= 0.0 or not training:
        return x
    return x * drop_path_scales(x, probability).view(-1, *[1] * (x.dim() - 1))


def drop_path_scales(x: Tensor, probability: float) -> Tensor:
    """Draw what ``drop_path`` multiplies each sample of x (N, ...) by, (N,) in its type: 0, or what keeps the mean."""
    mask_N = torch.empty(x.shape[0], dtype=x.dtype, device=x.device).bernoulli_(1.0 - probability)
    return mask_N.div_(1.0 - probability)


class DerivedCell(nn.Module):
    """Two (N, C, T, H, W) inputs to (N, 4 * width, T, H', W'): each node sums two operations.

    Its fast form for training, which gives the same numbers, is ``pvnas.fast.training_cell.FastTrainingCell``.
    """

    def __init__(self, cell: Cell, spec: CellSpec, layers: Layers) -> None:
        super().__init__()
        self.predecessors = [tuple(edge.predecessor for edge in node) for node in cell]
        self.names = [edge.operation for node in cell for edge in node]
        self.stride = 2 if is_reduction(spec.category) else 1  # of the edges that leave an input
        self.input0, self.input1 = cell_inputs(spec, layers, affine=True)
        self.operations = nn.ModuleList()  # two per node
        for predecessor, operation in (edge for node in cell for edge in node):
            stride = self.stride if predecessor < INPUTS else 1
            self.operations.append(build_operation(operation, spec.channels, stride, layers))
        self.shares_relu = layers is FOLDED  # the plain network stays as it is written
        self.drop_path_rate = 0.0

    def forward(self, x0: Tensor, x1: Tensor, rectified: bool = False) -> Tensor:
        """``rectified``: both inputs are through the ReLU that their first layers share."""
        states = [self.input0(x0, rectified), self.input1(x1, rectified)]
        behind_relu: dict[int, Tensor] = {}
        operations = iter(self.operations)
        for pair in self.predecessors:
            first, second = (self._operate(next(operations), states, node, behind_relu) for node in pair)
            states.append(first + second)
        return side_by_side(states[INPUTS:])

    def checkpointed(self, x0: Tensor, x1: Tensor, rectified: bool = False) -> Tensor:
        """Return what ``forward`` does and keep nothing of it: the backward pass makes it again."""
        y: Tensor = checkpoint(self, x0, x1, rectified, use_reentrant=False)
        return y

    def _operate(
        self, operation: nn.Module, states: list[Tensor], predecessor: int, behind_relu: dict[int, Tensor]
    ) -> Tensor:
        """Apply an operation to a node; those that begin with a ReLU share it, in ``behind_relu``."""
        if isinstance(operation, nn.Identity):  # the identity paths are kept, as in DARTS
            return states[predecessor]
        if self.shares_relu and isinstance(operation, (Rectified, FactorizedReduction)):
            if predecessor not in behind_relu:
                behind_relu[predecessor] = F.relu(states[predecessor])
            y = operation(behind_relu[predecessor], rectified=True)
        else:
            y = operation(states[predecessor])
        return drop_path(y, self.drop_path_rate, self.training)


class PVNASNetwork(nn.Module):
    """A video-recognition network: (N, in_channels, T, H, W) clips, normalised, to (N, num_classes) scores.

    The interface is timm's: ``forward_features``, ``forward_head``, ``forward_intermediates``, ``get_classifier``,
    ``reset_classifier``, ``set_grad_checkpointing``, ``feature_info``, ``global_pool``, ``pretrained_cfg``.
    """

    def __init__(
        self,
        genotype: Genotype,
        config: NetworkConfig = PV_NAS_L,
        *,
        num_classes: int = 400,
        drop_rate: float = 0.0,
        drop_path_rate: float = 0.0,
        layers: Layers = FOLDED,
    ) -> None:
        super().__init__()
        categories = parse_layout(config.layout, config.repeat)
        missing = [category for category in dict.fromkeys(categories) if category not in genotype.cells]
        if missing:
            raise UserError(f"genotype: no cell {', '.join(missing)}, which the layout {config.layout!r} needs")
        specs = cell_specs(categories, config.width)
        self.stem = build_stem(config.stem, config.in_channels, config.width, layers)
        cells = [DerivedCell(genotype.cells[spec.category], spec, layers) for spec in specs]
        self.cells = nn.ModuleList(cells)
        self.num_features = NODES * specs[-1].channels
        self.in_channels = config.in_channels
        self.num_classes = num_classes
        self.head = config.head
        self.drop_rate = drop_rate
        self.global_pool = "avg"
        """``avg``, or nothing: then ``forward_head`` leaves time and space as they are, and there is no classifier."""
        self.pretrained_cfg: dict[str, Any] = {
            "num_classes": num_classes,
            "classifier": "classifier",
            "first_conv": "stem.0",
        }
        self.classifier = _classifier(self.num_features, num_classes)
        self.feature_info = _feature_info(specs, config.stem)
        self.grad_checkpointing = False
        self.shares_relu = layers is FOLDED
        self.set_drop_path(drop_path_rate)

    def set_drop_path(self, probability: float) -> None:
        """Set the probability with which an operation's output is dropped for a sample in training."""
        for module in self.modules():
            if isinstance(module, DerivedCell):
                module.drop_path_rate = probability

    def set_grad_checkpointing(self, enable: bool = True) -> None:
        """Keep only the cells' outputs for the backward pass and compute the rest again: less memory, more time."""
        self.grad_checkpointing = enable

    def forward_intermediates(
        self,
        x_NCTHW: Tensor,
        indices: int | Sequence[int] | None = None,
        norm: bool = False,
        stop_early: bool = False,
        output_fmt: str = "NCHW",
        intermediates_only: bool = False,
    ) -> Any:
        """Return the last output and a list of cells' outputs, as timm does; ``intermediates_only``: the list alone.

        ``indices``: which cells of ``feature_info``, or how many of the last ones; None: all. ``stop_early``: no cell
        behind them is computed, and the last output is theirs. ``norm`` changes nothing: no norm follows the cells.
        Channels come first, whatever dimensions follow. Raises ValueError.
        """
        if output_fmt not in ("NCHW", "NCTHW"):
            raise ValueError(f"output_fmt is {output_fmt!r}; channels come first: NCHW or NCTHW")
        wanted, found, y = self.feature_info.rows(indices), dict[int, Tensor](), x_NCTHW
        for number, y in enumerate(islice(self.outputs(to_channels_last(x_NCTHW)), 1, None)):
            if number in wanted:
                found[number] = y
            if stop_early and number == max(wanted):
                break
        intermediates = [found[number] for number in wanted]
        return intermediates if intermediates_only else (y, intermediates)

    def outputs(self, x: Tensor) -> Iterator[Tensor]:
        """Yield the stem's output, then every cell's, each (N, C, T, H', W') of clips in channels_last_3d memory."""
        y = self.stem(x)
        yield y
        before = last = self._input(y)
        for number, cell in enumerate(self.cells):
            through: Any = cell.checkpointed if self.grad_checkpointing and self.training else cell
            y = through(before, last, self.shares_relu)
            yield y
            if number + 1 < len(self.cells):
                before, last = last, self._input(y)

    def _input(self, y: Tensor) -> Tensor:
        """Return a cell's output as the two cells behind it read it: both begin with the same ReLU."""
        return F.relu(y) if self.shares_relu else y

    def forward_features(self, x_NCTHW: Tensor) -> Tensor:
        """Return the last cell's output (N, num_features, T, H', W')."""
        *_, last = deque(self.outputs(to_channels_last(x_NCTHW)), maxlen=1)
        return last

    def forward_head(self, x_NCTHW: Tensor, pre_logits: bool = False) -> Tensor:
        """Average over time and space, dropout, classifier: (N, num_classes), or the (N, num_features) before it."""
        return self.classify(x_NCTHW.mean((2, 3, 4)), pre_logits) if self.global_pool else x_NCTHW

    def classify(self, x_NC: Tensor, pre_logits: bool = False) -> Tensor:
        """Return what ``forward_head`` does of the averages over time and space."""
        if self.head == "normalised":
            x_NC = F.layer_norm(x_NC, x_NC.shape[1:]) * (HEAD_LENGTH / self.num_features**0.5)
        x_NC = F.dropout(x_NC, self.drop_rate, self.training)
        return x_NC if pre_logits else self.classifier(x_NC)

    def forward(self, x_NCTHW: Tensor) -> Tensor:
        return self.forward_head(self.forward_features(x_NCTHW))

    def get_classifier(self) -> nn.Module:
        """Return the last layer."""
        return self.classifier

    def reset_classifier(self, num_classes: int, global_pool: str | None = None) -> None:
        """Put a new classifier of ``num_classes`` classes in; 0 leaves none, so that features come out.

        ``global_pool``: another one, see there. Raises ValueError.
        """
        pool = self.global_pool if global_pool is None else global_pool
        if pool not in ("avg", "") or (num_classes and not pool):
            raise ValueError(f"global_pool is {pool!r} with {num_classes} classes; it is avg, or empty without classes")
        self.num_classes, self.global_pool = num_classes, pool
        self.classifier = _classifier(self.num_features, num_classes).to(next(self.parameters()).device)


def _classifier(features: int, classes: int) -> nn.Module:
    return nn.Linear(features, classes) if classes else nn.Identity()


class FeatureInfo(list[dict[str, Any]]):
    """Channels (num_chs), spatial reduction and module of every cell's output, as timm lists them."""

    def channels(self, idx: int | Sequence[int] | None = None) -> Any:
        """Return the channels of one output, of some, or of all."""
        return self._of("num_chs", idx)

    def reduction(self, idx: int | Sequence[int] | None = None) -> Any:
        """Return by what height and width are divided."""
        return self._of("reduction", idx)

    def module_name(self, idx: int | Sequence[int] | None = None) -> Any:
        """Return the names of the cells."""
        return self._of("module", idx)

    def rows(self, indices: int | Sequence[int] | None) -> list[int]:
        """Return the numbers of cells that ``forward_intermediates`` is asked for. Raises ValueError for others."""
        n = len(self)
        if indices is None:
            return list(range(n))
        asked = list(range(n))[n - indices :] if isinstance(indices, int) and 0 < indices <= n else indices
        rows = [] if isinstance(asked, int) else [index + n if index < 0 else index for index in asked]
        if not rows or min(rows) < 0 or max(rows) >= n:
            raise ValueError(f"indices are {indices}; there are {n} cells")
        return rows

    def _of(self, name: str, idx: int | Sequence[int] | None) -> Any:
        if isinstance(idx, int):
            return self[idx][name]
        return [row[name] for row in (self if idx is None else [self[index] for index in idx])]


def _feature_info(specs: tuple[CellSpec, ...], stem: str) -> FeatureInfo:
    reduction, info = stem_stride(stem), FeatureInfo()
    for index, spec in enumerate(specs):
        reduction *= 2 if is_reduction(spec.category) else 1
        info.append({"num_chs": NODES * spec.channels, "reduction": reduction, "module": f"cells.{index}"})
    return info
