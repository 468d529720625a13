"""Where and when a network has seen what it says: exactly, since its head is a mean over places and a linear layer.

What the normalised head divides by hangs on the whole clip; given that, each place of the last cell's output adds its
own part to a score. A class activation map (Zhou et al., 2016) that adds up to the score, not an estimate.
"""

import torch
from torch import Tensor, nn

from pvnas.space.network import HEAD_LENGTH, PVNASNetwork

EPSILON = 1e-5
"""Of layer norm."""


@torch.no_grad()
def evidence(network: PVNASNetwork, x_NCTHW: Tensor, classes_N: Tensor) -> tuple[Tensor, Tensor]:
    """Return the scores of clips before softmax (N, K), and what each place adds to that of one class (N, T', H', W').

    Over its places a clip's evidence adds up to the class's score without the classifier's bias. ``network``: in
    evaluation mode; T', H', W': of its last cell.
    """
    assert isinstance(network.classifier, nn.Linear)
    y_NCTHW = network.forward_features(x_NCTHW)
    weight_NC = network.classifier.weight[classes_N].to(y_NCTHW.dtype)
    if network.head == "normalised":
        variance_N1 = y_NCTHW.mean((2, 3, 4)).var(1, correction=0, keepdim=True)
        length = HEAD_LENGTH / network.num_features**0.5
        weight_NC = (weight_NC - weight_NC.mean(1, keepdim=True)) * torch.rsqrt(variance_N1 + EPSILON) * length
    map_NTHW = torch.einsum("nc,ncthw->nthw", weight_NC, y_NCTHW) / y_NCTHW[0, 0].numel()
    return network.forward_head(y_NCTHW), map_NTHW
