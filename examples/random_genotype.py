"""Draw genotypes, and choose one by what its network costs.

    python examples/random_genotype.py [MOST_GMACS]

The paper compares its search with random networks; what a genotype costs says nothing about how well it does.
"""

import sys

import pvnas


def main(most_gmacs: float = 20.0) -> pvnas.Genotype:
    for seed in range(100):
        genotype = pvnas.random_genotype(seed, min_convolutions=4)
        cost = pvnas.network_cost(genotype, width=64, clip=(8, 224, 224), classes=400)
        print(f"seed {seed}: {cost.params / 1e6:5.1f} M parameters, {cost.macs / 1e9:5.1f} GMACs a clip")
        if cost.macs <= most_gmacs * 1e9:
            break
    else:
        sys.exit(f"none of 100 genotypes costs {most_gmacs} GMACs or less")
    for category, cell in genotype.cells.items():
        print(category)
        for number, node in enumerate(cell, start=2):
            print(f"  x{number} = " + " + ".join(f"{operation}(x{input_})" for input_, operation in node))
    return genotype


if __name__ == "__main__":
    main(*map(float, sys.argv[1:]))
