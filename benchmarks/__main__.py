"""``python -m benchmarks [NAME ...]`` measures subjects, prints the figures and writes `.benchmarks/results.json`."""

from __future__ import annotations

import argparse
import importlib
import pkgutil
from pathlib import Path

from benchmarks import subjects
from benchmarks.bench import Bench
from benchmarks.environments import DIRECTORY


def main() -> None:
    names = [module.name for module in pkgutil.iter_modules(subjects.__path__)]
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument("names", nargs="*", metavar="NAME", help=f"of {', '.join(names)} (default: all)")
    parser.add_argument("--repeat", type=int, default=3, help="measurements of each way (default 3)")
    parser.add_argument(
        "--scale", type=float, default=1.0, help="share of the rows; figures of a small share mean little"
    )
    parser.add_argument("--slower", type=float, default=1.0, help="how many times slower the machine is (default 1)")
    parser.add_argument("--no-peers", dest="peers", action="store_false", help="do not measure other runners")
    parser.add_argument("--json", type=Path, default=DIRECTORY / "results.json", help="where figures are written")
    options = parser.parse_args()
    unknown = set(options.names) - set(names)
    if unknown:
        parser.error(f"no such subject: {', '.join(sorted(unknown))}; there are {', '.join(names)}")
    bench = Bench(options.repeat, options.scale, options.peers, options.slower)
    for name in options.names or names:
        importlib.import_module(f"benchmarks.subjects.{name}").measure(bench)
        # Written after each subject, so that an error in the next one loses nothing.
        bench.report.write(options.json, options.repeat, options.slower)
    bench.report.print()
    print(f"\nAll figures: {options.json}")


if __name__ == "__main__":
    main()
