"""`scripts/chaos`: kills, stops and cuts real processes, and checks that all promises were kept."""

import argparse
import asyncio
import shutil
import signal
import sys
import tempfile
from pathlib import Path

from scripts.chaosing.campaign import LEASE_S, Campaign, Plan
from scripts.chaosing.checker import check
from scripts.chaosing.history import read_all
from scripts.chaosing.picture import draw
from scripts.chaosing.report import report


def main() -> int:
    parser = argparse.ArgumentParser(prog="scripts/chaos", description=__doc__)
    parser.add_argument("--seed", default="1", help="what faults and tasks are drawn from")
    parser.add_argument("--minutes", type=float, default=1, help="how long, without the drain")
    parser.add_argument("--rate", type=float, default=60, help="tasks a second, at most")
    parser.add_argument("--picture", type=Path, help="where to draw the throughput over time, SVG")
    parser.add_argument("--keep", action="store_true", help="keeps the histories in any case")
    parser.add_argument(
        "--check", type=Path, metavar="FOLDER", help="checks the histories of an earlier campaign"
    )
    arguments = parser.parse_args()
    if not 0 < arguments.minutes <= 24 * 60:
        parser.error(f"--minutes {arguments.minutes:g}; allowed: more than 0, at most 1440")
    if not 0 < arguments.rate <= 1_000:
        parser.error(f"--rate {arguments.rate:g}; allowed: more than 0, at most 1000")
    if arguments.check:
        if not list(arguments.check.glob("*.jsonl")):
            parser.error(f"--check {arguments.check}: there are no histories in it")
        return 1 if _judge(arguments.check, arguments.picture) else 0
    plan = Plan(arguments.seed, arguments.minutes * 60, arguments.rate)
    folder = Path(tempfile.mkdtemp(prefix="taskdist-chaos-"))
    violations, keep = 0, True
    try:
        print(f"seed {plan.seed}, {arguments.minutes:g} min, histories in {folder}", flush=True)
        cpu_s = asyncio.run(_run(Campaign(plan, folder)))
        print(f"{'processor time':24} {cpu_s:.0f} s of the players")
        violations = _judge(folder / "histories", arguments.picture)
        keep = arguments.keep or violations > 0
    except asyncio.CancelledError:
        print("cut short by a signal", file=sys.stderr)
        return 130
    finally:
        if keep:
            print(f"histories and store are kept in {folder}; --check {folder / 'histories'}")
        else:
            shutil.rmtree(folder)
    return 1 if violations else 0


async def _run(campaign: Campaign) -> float:
    """Runs it; a signal ends it and all its players, as a bug would."""
    running = asyncio.ensure_future(campaign.run())
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, running.cancel)
    return await running


def _judge(histories: Path, picture: Path | None) -> int:
    """Prints what the checker says; how many violations there are."""
    lines = read_all(histories)
    verdict = check(lines, LEASE_S)
    print(report(lines, verdict))
    if picture:
        draw(picture, lines, verdict)
    return len(verdict.violations)


if __name__ == "__main__":
    sys.exit(main())
