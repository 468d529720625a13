"""Seconds and memory to open a list of many videos, interpreter and imports included.

    PYTHONPATH=src python benchmarks/catalog_scale.py [--entries 100000 240000]

Writes a list in the official form of Kinetics into a temporary folder and reads it in a process of its own.
Prints one line of JSON for each size.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import tempfile
from pathlib import Path

PROGRAM = """
import json, resource, sys, time
started = time.perf_counter()
from pvnas.config import DataConfig
from pvnas.data.listing import read_catalog
catalog = read_catalog(DataConfig(path=sys.argv[1], format="kinetics"), as_listed=True)
seconds = time.perf_counter() - started
peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
print(json.dumps({"entries": len(catalog.videos), "seconds": round(seconds, 2), "peak_mib": round(peak)}))
"""


def main() -> None:
    """Measure each size once."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--entries", type=int, nargs="+", default=[100_000, 240_000])
    for entries in parser.parse_args().entries:
        with tempfile.TemporaryDirectory() as folder, (Path(folder) / "kinetics-400_train.csv").open("w") as file:
            file.write("label,youtube_id,time_start,time_end,split,is_cc\n")
            for n in range(entries):
                file.write(f'"class number {n % 400}",id{n:09d},{n % 900},{n % 900 + 10},train,0\n')
            file.flush()
            subprocess.run([sys.executable, "-c", PROGRAM, folder], check=True)


if __name__ == "__main__":
    main()
