"""Reads what submit.py wrote, and says what it saw: python check.py FOLDER"""

import sys
from pathlib import Path

from pypdf import PdfReader
from submit import REPORTS


def main(folder: Path) -> None:
    counts = []
    for n, report in enumerate(REPORTS):
        pdf = PdfReader(folder / f"{n}.pdf")
        pages = [page.extract_text() for page in pdf.pages]
        assert report.title in pages[0], pages[0]
        assert all("Customer" in text for text in pages), "each page repeats the table's head"
        text = "\n".join(pages)
        for sale in report.sales:
            assert f"{sale.day:%Y-%m-%d}" in text, sale
            assert sale.customer in text, sale
        assert f"{sum(sale.amount for sale in report.sales):,.2f}" in pages[-1], pages[-1]
        counts.append(len(pages))
    assert counts[0] == 1, counts
    assert counts[1] > 5, counts
    print(f"reports of {counts[0]} and {counts[1]} pages, with every sale in them")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
