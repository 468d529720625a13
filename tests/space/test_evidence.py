"""What places add to a score: all of it, and what a small change of the last cell's output does."""

import pytest
import torch

from pvnas.config import NetworkConfig
from pvnas.fast.inference import for_inference
from pvnas.space.evidence import evidence
from pvnas.space.genotype import random_genotype
from pvnas.space.network import PVNASNetwork


def network_of(head: str, stem: str = "stride2-time2") -> PVNASNetwork:
    torch.manual_seed(0)
    config = NetworkConfig(width=4, stem=stem, head=head)  # type: ignore[arg-type]
    network = PVNASNetwork(random_genotype(3), config, num_classes=5).double()
    with torch.no_grad():
        network(torch.randn(4, 3, 6, 20, 24, dtype=torch.float64))  # batch norms have seen something
        network.classifier.bias.normal_()
    return network.eval()


@pytest.mark.parametrize("head", ["normalised", "plain"])
@pytest.mark.parametrize("stem", ["stride2-time2", "stride2", "stride4-time"])
def test_over_all_places_it_adds_up_to_the_score(head: str, stem: str) -> None:
    network, classes_N = network_of(head, stem), torch.tensor([4, 0, 2])
    x = torch.randn(3, 3, 6, 20, 24, dtype=torch.float64)
    scores_NK, map_NTHW = evidence(network, x, classes_N)
    with torch.no_grad():
        torch.testing.assert_close(scores_NK, network(x), rtol=1e-9, atol=1e-9)
        assert map_NTHW.shape == (3, *network.forward_features(x).shape[2:])
    own_N = scores_NK[torch.arange(3), classes_N] - network.classifier.bias[classes_N].detach()
    torch.testing.assert_close(map_NTHW.sum((1, 2, 3)), own_N, rtol=0, atol=1e-9)


def test_it_points_to_the_place_that_makes_the_score() -> None:
    """By the plain head a place counts what a score loses without it."""
    network, x = network_of("plain"), torch.randn(1, 3, 6, 20, 24, dtype=torch.float64)
    _, map_NTHW = evidence(network, x, torch.tensor([1]))
    with torch.no_grad():
        y = network.forward_features(x)
        whole = network.forward_head(y)[0, 1]
        for place in ((0, 0, 0), (1, 1, 1), (2, 0, 1)):
            without = y.clone()
            without[(0, slice(None), *place)] = 0
            torch.testing.assert_close(whole - network.forward_head(without)[0, 1], map_NTHW[(0, *place)])


def test_a_network_made_ready_for_predictions_says_the_same() -> None:
    network = network_of("normalised").float()
    x = torch.randn(2, 3, 6, 20, 24)
    expected = evidence(network, x, torch.tensor([0, 3]))
    for found, wanted in zip(evidence(for_inference(network), x, torch.tensor([0, 3])), expected, strict=True):
        torch.testing.assert_close(found, wanted, rtol=1e-3, atol=1e-4)
