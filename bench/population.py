"""How fast the simulated population is made and how much memory that takes; one JSON line.

Usage: ``python -m bench.population [PERSONS] [SEED]``. Peak memory stands beside what it was after a tenth of the work.
"""

from __future__ import annotations

import json
import os
import platform
import resource
import sys
import time
from pathlib import Path

from adapters.simulator.population import generate


def cpu_model() -> str:
    """Return the processor's name as the kernel tells it, or its architecture where it does not."""
    cpuinfo = Path("/proc/cpuinfo")
    lines = cpuinfo.read_text(encoding="utf-8").splitlines() if cpuinfo.exists() else []
    return next((line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")), platform.machine())


def peak_mib() -> float:
    """Return this process's highest resident memory so far, in MiB."""
    unit = 1 if sys.platform == "darwin" else 1024
    return round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit / 2**20, 1)


def main(persons: int = 100_000, seed: int = 1) -> None:
    started = time.perf_counter()
    made = households = 0
    early = 0.0
    for household in generate(persons, seed):
        households += 1
        made += len(household.members)
        if not early and made >= persons // 10:
            early = peak_mib()
    seconds = time.perf_counter() - started
    figures = {
        "benchmark": "population",
        "persons": made,
        "households": households,
        "seconds": round(seconds, 2),
        "persons_per_second": round(made / seconds),
        "peak_rss_mib": peak_mib(),
        "peak_rss_mib_after_a_tenth": early,
        "machine": {"cpu": cpu_model(), "cores": os.cpu_count(), "python": platform.python_version()},
    }
    print(json.dumps(figures))


if __name__ == "__main__":
    main(*(int(argument) for argument in sys.argv[1:3]))
