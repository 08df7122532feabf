"""`scripts/bench`: measures figures, prints a table, writes them to a JSON file."""

import argparse
import json
import os
import platform
import statistics
import sys
import tempfile
from pathlib import Path

from scripts.benching.against import compare
from scripts.benching.figures import CURVES, FIGURES
from scripts.benching.measured import Failed, Figure
from scripts.benching.players import fsync_ms


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    known = FIGURES | CURVES
    named = f"of: {', '.join(FIGURES)}; all unless given; or, only when named: {', '.join(CURVES)}"
    parser.add_argument("figure", nargs="*", help=named)
    parser.add_argument("--runs", type=int, default=5, help="runs of each, of which the median")
    parser.add_argument("--json", type=Path, default=Path("bench.json"), help="where to write")
    parser.add_argument(
        "--against", metavar="REVISION", help="compare with this revision of git, in turns"
    )
    arguments = parser.parse_args()
    chosen = arguments.figure or list(FIGURES)
    if unknown := set(chosen) - set(known):
        parser.error(f"no such figure: {', '.join(unknown)}")
    machine = {
        "python": platform.python_version(),
        "cores": os.cpu_count(),
        "fsync_ms": round(fsync_ms(Path(tempfile.gettempdir())), 3),
    }
    print(
        f"Python {machine['python']}, {machine['cores']} cores, "
        f"fsync {machine['fsync_ms']} ms (median), {arguments.runs} runs of each"
    )
    rows: list[dict[str, object]] = []
    if arguments.against:
        rows = compare(arguments.against, chosen, arguments.runs)
        arguments.json.write_text(
            json.dumps({"machine": machine, "figures": rows}, indent=1) + "\n"
        )
        return 0
    print(f"{'figure':44} {'median':>10} {'min':>10} {'max':>10}  target")
    failed = False
    for name in chosen:
        try:
            runs = [known[name]() for _ in range(arguments.runs)]
        except Failed as reason:
            print(f"{name:44} REFUSED: {reason}")
            rows.append({"figure": name, "refused": str(reason)})
            failed = True
            continue
        for figures in zip(*runs, strict=True):
            rows.append(_row(figures))
    arguments.json.write_text(json.dumps({"machine": machine, "figures": rows}, indent=1) + "\n")
    return 1 if failed else 0


def _row(figures: tuple[Figure, ...]) -> dict[str, object]:
    values = [figure.value for figure in figures]
    median, first = statistics.median(values), figures[0]
    met = first.met(median)
    mark = "" if met is None else ("met" if met else "MISSED")
    print(
        f"{first.name:44} {median:10,.1f} {min(values):10,.1f} {max(values):10,.1f}  "
        f"{first.target} {mark}"
    )
    sys.stdout.flush()
    return {
        "figure": first.name,
        "median": median,
        "runs": values,
        "target": first.target,
        "met": met,
    }


if __name__ == "__main__":
    sys.exit(main())
