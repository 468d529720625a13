"""The forms of the mixing weights, and that the gradients come back in the order of alpha."""

import torch

from pvnas.fast.mixing import MixingGrad, MixingWeights, edges_leaving, nodes_reached
from pvnas.space.genotype import EDGES, INPUTS, NODES


def test_the_edges_of_a_node_are_neighbours_and_lead_to_the_last_nodes():
    weights_EO = torch.arange(len(EDGES) * 3.0).view(-1, 3)
    weights = MixingWeights(weights_EO)
    for node in range(INPUTS + NODES - 1):
        rows = [row for row, (_, leaves) in enumerate(EDGES) if leaves == node]
        assert torch.equal(weights.of(edges_leaving(node), (2, 0)), weights_EO[rows][:, [2, 0]])
        assert [EDGES[row][0] - INPUTS for row in rows] == list(range(NODES))[nodes_reached(node)]


def test_gradients_come_back_edge_by_edge():
    weights_EO = torch.rand(len(EDGES), 3, dtype=torch.float64)
    given_EO = torch.rand_like(weights_EO)
    grad = MixingGrad(weights_EO)
    for node in range(INPUTS + NODES - 1):
        rows = [row for row, (_, leaves) in enumerate(EDGES) if leaves == node]
        grad.set(edges_leaving(node), (2, 0), given_EO[rows][:, [2, 0]])
        grad.set(edges_leaving(node), (1,), given_EO[rows][:, [1]])
    torch.testing.assert_close(grad.total(), given_EO)
