"""How long work shows itself, on stderr: as a bar on a terminal, in plain lines otherwise."""

import sys
from time import monotonic
from typing import TYPE_CHECKING, Self

from taskdist.cli.output import narrate

if TYPE_CHECKING:
    from rich.progress import Progress

LINE_EVERY_S = 1.0
"""Plain lines of a count come no faster: a log of a million tasks stays readable."""


class Following:
    """One task on its way to its end.

    Args:
        told: what was said of it last.
    """

    def __init__(self, told: str) -> None:
        self._told = told
        self._progress = _bar(counts=False) if sys.stderr.isatty() else None
        if self._progress is None:
            narrate(told)
        else:
            self._bar = self._progress.add_task(told, total=None, note="")

    def __enter__(self) -> Self:
        if self._progress is not None:
            self._progress.start()
        return self

    def __exit__(self, *error: object) -> None:
        if self._progress is not None:
            self._progress.stop()
            narrate(self._told)

    def tell(self, line: str) -> None:
        """How it stands."""
        if self._progress is not None:
            self._progress.update(self._bar, description=line)
        elif line != self._told:
            narrate(line)
        self._told = line

    def progress(self, line: str, fraction: float | None) -> None:
        """What its run says of how far it is: how much of its work is done, 0 to 1, if known."""
        if self._progress is None:
            narrate(line)
        elif fraction is None:
            self._progress.update(self._bar, description=line)
        else:
            self._progress.update(self._bar, description=line, total=1, completed=fraction)

    def note(self, line: str) -> None:
        """A line that stays."""
        _keep(line, self._progress)


class Counting:
    """How many of so many are done.

    Args:
        verb: what is done to them: submitted.
        total: how many there are.
    """

    def __init__(self, verb: str, total: int) -> None:
        self._verb = verb
        self._total = total
        self._line = ""
        self._told = ""
        self._told_at = monotonic()
        self._progress = _bar(counts=True) if sys.stderr.isatty() else None
        if self._progress is not None:
            self._bar = self._progress.add_task(verb, total=total, note="")
        self.count(0)

    def __enter__(self) -> Self:
        if self._progress is not None:
            self._progress.start()
        return self

    def __exit__(self, *error: object) -> None:
        if self._progress is not None:
            self._progress.stop()
        if self._line != self._told:
            narrate(self._line)

    def count(self, done: int, note: str = "") -> None:
        """So many are done by now."""
        self._line = f"{self._verb} {done} of {self._total}" + (f", {note}" if note else "")
        if self._progress is not None:
            self._progress.update(self._bar, completed=done, note=note)
        elif monotonic() - self._told_at >= LINE_EVERY_S:
            narrate(self._line)
            self._told, self._told_at = self._line, monotonic()

    def note(self, line: str) -> None:
        """A line on stderr that stays."""
        _keep(line, self._progress)

    def give(self, *lines: str) -> None:
        """Lines on stdout, at once. Where that is the bar's terminal, above the bar."""
        text = "\n".join(lines)
        if self._progress is not None and sys.stdout.isatty():
            self.note(text)
        else:
            print(text, flush=True)


def _keep(line: str, progress: "Progress | None") -> None:
    """Above the bar, if there is one."""
    if progress is None:
        narrate(line)
    else:
        progress.console.print(line, markup=False, highlight=False, soft_wrap=True)


def _bar(*, counts: bool) -> "Progress":
    from rich.console import Console
    from rich.progress import (
        BarColumn,
        MofNCompleteColumn,
        Progress,
        TaskProgressColumn,
        TextColumn,
        TimeElapsedColumn,
    )

    done = MofNCompleteColumn() if counts else TaskProgressColumn()
    return Progress(
        TextColumn("{task.description}", markup=False),
        BarColumn(),
        done,
        TextColumn("{task.fields[note]}", markup=False),
        TimeElapsedColumn(),
        console=Console(stderr=True),
        transient=True,
        redirect_stdout=False,  # or what is piped would come out on stderr
        redirect_stderr=False,
    )
