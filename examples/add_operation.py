"""Add a candidate operation of your own to the search, from outside the package.

    python examples/add_operation.py                                # what the search space is then
    python examples/add_operation.py run my_videos --preset laptop  # any command of pvnas, with the operation

A genotype that has the operation can be read only where it is registered: register it in whatever program reads it.
"""

import sys

import pvnas
from pvnas.cli import main as pvnas_command
from pvnas.space.operations import operations_of


@pvnas.register_operation("avg_pool_1x5x5", has_parameters=False, label="avg pool 5×5")
def wide_average_pool(channels, stride, layers, *, affine):
    """1x5x5 average pooling, which leaves padding out of its count."""
    return layers.avg_pool((1, 5, 5), (1, stride, stride), (0, 2, 2), count_include_pad=False)


def main(arguments: list[str]) -> int:
    if arguments:
        return pvnas_command(arguments)
    for category in ("S-NC", "T-NC"):
        print(f"{category}: {', '.join(operations_of(category))}")
    genotypes = map(pvnas.random_genotype, range(100))
    genotype = next(g for g in genotypes if any(edge.operation == "avg_pool_1x5x5" for _, _, edge in g.edges()))
    cost = pvnas.network_cost(genotype, width=64, clip=(8, 224, 224), classes=400)
    print(f"a network that has it: {cost.params / 1e6:.1f} M parameters, {cost.macs / 1e9:.1f} GMACs a clip")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
