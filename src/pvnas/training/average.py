"""The moving average of a network's weights over the steps of its training, which is tested in the network's place."""

from copy import deepcopy
from itertools import chain

from torch import Tensor, nn
from torch.optim.swa_utils import get_ema_multi_avg_fn


class MovingAverage:
    """The exponential moving average of weights and BN statistics, as a network of its own in evaluation mode.

    After step s (from 0) the average keeps the share min(decay, (1 + s) / (10 + s)) of itself, as in TensorFlow's
    ExponentialMovingAverage: of the initial weights nothing is left soon.
    """

    def __init__(self, network: nn.Module, decay: float) -> None:
        self.network, self.decay, self.steps = deepcopy(network).eval().requires_grad_(False), decay, 0
        # Listed once: to walk over the layers takes longer than the average itself.
        self._averages, self._values = _averaged(self.network), _averaged(network)

    def update(self) -> None:
        """Take in the network as its last step has left it."""
        decay = min(self.decay, (1 + self.steps) / (10 + self.steps))
        get_ema_multi_avg_fn(decay)(self._averages, self._values, self.steps)
        self.steps += 1


def _averaged(network: nn.Module) -> list[Tensor]:
    """Return weights and statistics, without the numbers of batches that BN counts and no momentum of ours asks for."""
    tensors = chain(network.parameters(), network.buffers())
    return [tensor.detach() for tensor in tensors if tensor.is_floating_point()]
