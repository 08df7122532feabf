"""What the demo shows: the tasks and a narration, live on a terminal; plain lines otherwise."""

from dataclasses import dataclass
from typing import Any

from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.table import Table
from rich.text import Text

LINES_SHOWN = 8
"""Of the narration: with the tasks of one act it fits a terminal of 24 lines."""

_COLOURS = {
    "ready": "yellow",
    "running": "cyan",
    "succeeded": "green",
    "failed": "magenta",
    "dead": "red",
    "lost": "magenta",
}


@dataclass(slots=True)
class _Row:
    label: str
    state: str = "ready"
    agent: str = ""
    attempts: int = 0


class Screen:
    """Shows what happens. Statements stay on the screen; the rest passes by."""

    def __init__(self) -> None:
        self._console = Console(highlight=False)
        self._live = Live(console=self._console, refresh_per_second=12, transient=True)
        self._rows: dict[str, _Row] = {}
        self._lines: list[str] = []
        self._title = ""

    def __enter__(self) -> "Screen":
        if self._console.is_terminal:
            self._live.start()
        return self

    def __exit__(self, *error: object) -> None:
        self._live.stop()

    def act(self, title: str) -> None:
        """A new act begins, with an empty stage."""
        self._rows, self._lines, self._title = {}, [], title
        self._print(Text(f"\n{title}", style="bold"))
        self._refresh()

    def task(self, task_id: str, label: str) -> None:
        """A task was submitted."""
        self._rows[task_id] = _Row(label)
        self._refresh()

    def say(self, line: str) -> None:
        """Something happened."""
        self._lines.append(line)
        if not self._console.is_terminal:
            self._print(Text(f"    {line}"))
        self._refresh()

    def statement(self, text: str, *, holds: bool, detail: str) -> None:
        """What the act was to show, and whether the logs bear it out."""
        mark = (
            Text("  TRUE   ", style="bold green") if holds else Text("  FALSE  ", style="bold red")
        )
        self._print(mark + Text(text))
        self._print(Text(f"         {detail}", style="dim"))

    def event(self, event: dict[str, Any]) -> None:
        """A process logged something."""
        row = self._rows.get(event.get("task_id", ""))
        if row is None:
            return
        name, who = event["event"], event["who"]
        if name == "task started":
            row.state, row.agent, row.attempts = "running", who, event["attempt"]
            retry = f", retry {event['retry_count']}" if event["retry_count"] else ""
            self.say(f"{who} works on {row.label}{retry}")
        elif name == "task succeeded":
            row.state = "succeeded"
            self.say(f"{who} finished {row.label}")
        elif name == "task failed":
            row.state, row.agent = "failed", ""
            self.say(f"{who} failed {row.label}: {event['message']}")
        elif name == "task dead":
            row.state = "dead"
        elif name == "lease lost" and who == "distributor":
            row.state, row.agent = "lost", ""
            self.say(f"the lease of {row.label} ran out; it is offered again")

    def _print(self, what: RenderableType) -> None:
        self._console.print(what, soft_wrap=True)

    def _refresh(self) -> None:
        if self._console.is_terminal:
            self._live.update(Group(self._table(), *self._narration()))

    def _table(self) -> Table:
        table = Table(box=None, pad_edge=False, header_style="dim")
        for header in ("  TASK", "STATE", "AGENT", "ATTEMPT"):
            table.add_column(header, min_width=12)
        for row in self._rows.values():
            state = Text(row.state, style=_COLOURS[row.state])
            attempt = str(row.attempts) if row.attempts else ""
            table.add_row(f"  {row.label}", state, row.agent, attempt)
        return table

    def _narration(self) -> list[Text]:
        return [Text(f"    {line}", style="dim") for line in self._lines[-LINES_SHOWN:]]
