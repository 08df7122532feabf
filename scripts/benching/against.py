"""`scripts/bench --against REVISION`: the same figures of an earlier revision and of this one.

Both are measured in turns, so that what else the machine does meets both alike, and each run of one
is compared with the run of the other beside it: the ratio is what to look at.
"""

import json
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

ROOT = Path(__file__).parents[2]


def compare(revision: str, figures: Sequence[str], runs: int) -> list[dict[str, object]]:
    """Prints a table; returns its rows.

    Raises:
        CalledProcessError: there is no such revision, or a measurement failed.
    """
    with _checked_out(revision) as earlier:
        pairs = [(_measure(earlier, figures), _measure(ROOT, figures)) for _ in range(runs)]
    print(f"{'figure':48} {revision[:10]:>10} {'this':>10} {'percent':>8}  of each pair")
    rows: list[dict[str, object]] = []
    for name in (name for name in pairs[0][0] if name in pairs[0][1]):
        before, after = ([pair[side][name] for pair in pairs] for side in (0, 1))
        ratios = [100 * new / old for old, new in zip(before, after, strict=True) if old]
        row = {
            "figure": name,
            "before": statistics.median(before),
            "after": statistics.median(after),
            "percent": statistics.median(ratios) if ratios else 0,
            "pairs": ratios,
        }
        rows.append(row)
        each = " ".join(f"{ratio:.0f}" for ratio in ratios)
        print(
            f"{name:48} {row['before']:10,.1f} {row['after']:10,.1f} {row['percent']:8.1f}  {each}"
        )
    return rows


@contextmanager
def _checked_out(revision: str) -> Iterator[Path]:
    """The files of this revision, in a folder that is gone afterwards."""
    with tempfile.TemporaryDirectory(prefix="taskdist-bench-") as folder:
        archive = subprocess.run(
            ["git", "archive", revision], cwd=ROOT, check=True, stdout=subprocess.PIPE
        )
        subprocess.run(["tar", "-x", "-C", folder], input=archive.stdout, check=True)
        yield Path(folder)


def _measure(root: Path, figures: Sequence[str]) -> dict[str, float]:
    """One run of these figures with the code in a folder; by name."""
    with tempfile.NamedTemporaryFile(prefix="taskdist-bench-") as written:
        command = ["-m", "scripts.benching", *figures, "--runs", "1", "--json", written.name]
        subprocess.run([sys.executable, *command], cwd=root, check=True, stdout=subprocess.DEVNULL)
        rows = json.loads(Path(written.name).read_text())["figures"]
    return {row["figure"]: row["median"] for row in rows if "median" in row}
