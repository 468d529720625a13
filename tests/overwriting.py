"""What stands in for recorded functions where there is no GPU."""

from torch.utils._pytree import tree_leaves


class Overwriting:
    """As recorded functions do, does what it did at first, and gives the same tensors again with other numbers."""

    def __init__(self):
        self.given, self.functions = {}, {}

    def call(self, name, function, tensors):
        found = self.functions.setdefault(name, function)(*tensors)
        for old, new in zip(tree_leaves(self.given.setdefault(name, found)), tree_leaves(found), strict=True):
            old.copy_(new)
        return self.given[name]
