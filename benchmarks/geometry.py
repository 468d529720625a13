"""The published geometry: parameters and MACs of PV-NAS-L over random genotypes (median and range).

    PYTHONPATH=src python benchmarks/geometry.py [--samples 300]

Nothing is trained or allocated. The paper gives 19.65 M parameters and 22.14 GMACs for its own genotype of PV-NAS-L,
77.15 M and 82.11 G for PV-NAS-M, which it does not print.
"""

from __future__ import annotations

import argparse
import statistics

from pvnas.space.cost import network_cost
from pvnas.space.genotype import random_genotype


def main() -> None:
    """Print one line for parameters and one for MACs."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--samples", type=int, default=300)
    samples = parser.parse_args().samples
    costs = [network_cost(random_genotype(seed)) for seed in range(samples)]
    for name, values in (
        ("parameters, M", [cost.params / 1e6 for cost in costs]),
        ("MACs of a view of 8x224x224, G", [cost.macs / 1e9 for cost in costs]),
    ):
        median = statistics.median(values)
        print(f"{name}: median {median:.1f}, range {min(values):.1f} to {max(values):.1f} over {samples} genotypes")


if __name__ == "__main__":
    main()
