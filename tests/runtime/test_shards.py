"""Sums over shards are taken in a fixed order."""

import pytest
import torch

from pvnas.runtime.tree_sum import TreeSum


@pytest.mark.parametrize("n", [1, 2, 3, 5, 8, 13])
def test_tree_sums_in_the_order_of_a_binary_tree(n):
    values = [torch.tensor([10.0 ** (k % 7)]) for k in range(n)]

    def expected(low, high):
        if high - low == 1:
            return values[low]
        half = 1 << ((high - low - 1).bit_length() - 1)
        return expected(low, low + half) + expected(low + half, high)

    tree = TreeSum()
    for value in values:
        tree.add([value])
    assert torch.equal(tree.total()[0], expected(0, n))
