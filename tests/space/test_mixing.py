"""The forms of the mixing weights, and that the gradients come back in the order of alpha."""

import torch

from pvnas.space.genotype import EDGES, INPUTS, NODES
from pvnas.space.mixing import Mixing, MixingGradient, leaving, targets


def test_the_edges_of_a_node_are_neighbours_and_lead_to_the_last_nodes():
    weights_EO = torch.arange(len(EDGES) * 2.0).view(-1, 2)
    mixing = Mixing(weights_EO, 3)
    for source in range(INPUTS + NODES - 1):
        rows = [row for row, (_, leaves) in enumerate(EDGES) if leaves == source]
        assert torch.equal(mixing.weights_SO[leaving(source)], weights_EO[rows])
        assert torch.equal(mixing.scale(1, leaving(source)), weights_EO[rows, 1].repeat_interleave(3))
        assert [EDGES[row][0] - INPUTS for row in rows] == list(range(NODES))[targets(source)]


def test_gradients_come_back_edge_by_edge():
    weights_EO = torch.rand(len(EDGES), 3, dtype=torch.float64)
    given_EO, channels = torch.rand_like(weights_EO), 2
    gradient = MixingGradient(weights_EO, channels)
    for source in range(INPUTS + NODES - 1):
        rows = [row for row, (_, leaves) in enumerate(EDGES) if leaves == source]
        gradient.weights_SO[leaving(source), 0] = given_EO[rows, 0]
        for column in (1, 2):
            halves = (given_EO[rows, column] / channels).repeat_interleave(channels)
            gradient.add_scale(column, leaving(source), halves)
    torch.testing.assert_close(gradient.total(), given_EO)
