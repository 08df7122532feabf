"""Orders two reports, and writes them: python submit.py FOLDER"""

import sys
from datetime import date, timedelta
from pathlib import Path

from tasks import Report, Sale, report_pdf

from taskdist import Client

FIRST_DAY = date(2026, 1, 1)


def report(title: str, count: int) -> Report:
    """A report of so many sales."""
    sales = [
        Sale(day=FIRST_DAY + timedelta(days=n), customer=f"Customer {n + 1}", amount=100 + n / 4)
        for n in range(count)
    ]
    return Report(title=title, sales=sales)


REPORTS = [report("Sales <& more> of a week", 7), report("Sales of a year", 365)]


def main(folder: Path) -> None:
    with Client() as client:  # of TASKDIST_SERVER, or of this machine
        # Who orders a report twice gets it once: the key says which it is.
        handles = [
            client.submit(report_pdf, one, time=len(one.sales) / 100, key=f"{one.title} 1")
            for one in REPORTS
        ]
        for n, handle in enumerate(handles):
            (folder / f"{n}.pdf").write_bytes(handle.result(timeout="1m"))


if __name__ == "__main__":
    main(Path(sys.argv[1]))
