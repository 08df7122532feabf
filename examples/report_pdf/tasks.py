"""A report as PDF: figures go in, pages come out."""

import io
from datetime import date
from xml.sax.saxutils import escape

from pydantic import BaseModel, Field
from reportlab.lib import colors
from reportlab.lib.pagesizes import A4
from reportlab.lib.styles import getSampleStyleSheet
from reportlab.platypus import Paragraph, SimpleDocTemplate, Spacer, Table

from taskdist import Context, Registry

tasks = Registry()


class Sale(BaseModel):
    """A line of the report."""

    day: date
    customer: str
    amount: float = Field(ge=0)


class Report(BaseModel):
    """What is reported."""

    title: str = Field(min_length=1)
    sales: list[Sale] = Field(min_length=1)


@tasks.handler(timeout="2m", max_retries=2)
def report_pdf(report: Report, ctx: Context) -> bytes:
    """The report with a table of its sales, as many pages as it takes.

    A plain function: it runs in a thread beside the agent's event loop.
    """
    style = getSampleStyleSheet()
    rows = [["Day", "Customer", "Amount"]]
    rows += [
        [f"{sale.day:%Y-%m-%d}", sale.customer, f"{sale.amount:,.2f}"] for sale in report.sales
    ]
    rows.append(["", "Total", f"{sum(sale.amount for sale in report.sales):,.2f}"])
    table = Table(rows, colWidths=[80, 280, 100], repeatRows=1)
    table.setStyle(
        [("LINEBELOW", (0, 0), (-1, 0), 1, colors.black), ("ALIGN", (2, 0), (2, -1), "RIGHT")]
    )
    ctx.progress(0.5, "laying out")
    out = io.BytesIO()
    document = SimpleDocTemplate(out, pagesize=A4, title=report.title, author="taskdist")
    document.build([Paragraph(escape(report.title), style["Title"]), Spacer(1, 12), table])
    return out.getvalue()
