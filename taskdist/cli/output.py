"""What the command line prints: tables on a terminal, tab-separated lines when piped, or JSON."""

import base64
import json
import sys
from collections.abc import Iterable, Sequence
from datetime import UTC, datetime
from typing import Any

from taskdist.reports import PastAttempt, TaskReport


def table(headers: Sequence[str], rows: Iterable[Sequence[str]]) -> None:
    """Rows for people on a terminal; for programs otherwise: tab-separated, uncut, no headers."""
    if not sys.stdout.isatty():
        for row in rows:
            print("\t".join(cell.replace("\t", " ").replace("\n", " ") for cell in row))
        return
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    grid = Table(box=None, pad_edge=False, header_style="bold")
    for header in headers:
        # What is copied, or says how it stands, stays in one piece however narrow it gets.
        grid.add_column(header, no_wrap=header in ("ID", "STATE", "AGE", "ATTEMPT"))
    for row in rows:
        grid.add_row(*(Text(cell, overflow="fold") for cell in row))
    Console().print(grid)


def as_json(value: Any) -> None:
    """One JSON value on one line."""
    print(json.dumps(value, allow_nan=False))


def narrate(line: str) -> None:
    """A line for people, on stderr."""
    print(line, file=sys.stderr)


def task_dict(task: TaskReport) -> dict[str, Any]:
    """A task for JSON: `id`, and for the rest the contract's names."""
    return {
        "id": task.task_id,
        "state": str(task.state),
        "user_tier": task.user_tier,
        "est_processing_time": task.est_processing_time_s,
        "kind": task.kind,
        "queue": task.queue,
        "sequence": task.sequence,
        "retry_count": task.retry_count,
        "max_retries": task.max_retries,
        "lost_count": task.lost_count,
        "attempt": task.attempt,
        "submitted_at": _iso(task.submitted_at),
        "enqueued_at": _iso(task.enqueued_at),
        "finished_at": _iso(task.finished_at),
    }


def attempt_dict(attempt: PastAttempt) -> dict[str, Any]:
    """A past attempt for JSON."""
    return {
        "attempt": attempt.attempt,
        "agent_id": attempt.agent_id,
        "session": attempt.session,
        "lease_id": attempt.lease_id,
        "started_at": _iso(attempt.started_at),
        "ended_at": _iso(attempt.ended_at),
        "outcome": str(attempt.outcome),
        "error": attempt.error,
    }


def result_dict(result: bytes) -> dict[str, Any]:
    """A result for JSON: as JSON if it is some, else as text, else as base64."""
    try:
        text = result.decode("utf-8")
    except UnicodeDecodeError:
        return {"result_base64": base64.b64encode(result).decode("ascii")}
    try:
        value = json.loads(text)
        json.dumps(value, allow_nan=False)  # NaN and infinities are Python's, not JSON's
    except (ValueError, RecursionError):
        return {"result": text}
    return {"result": value}


def seconds(value: float) -> str:
    """A number of seconds without needless digits."""
    return f"{plain(value)}s"


def plain(value: float) -> str:
    """A number in full, to the microsecond, without needless digits."""
    return f"{value:.6f}".rstrip("0").rstrip(".")


def ago(when: datetime) -> str:
    """How long ago something was, roughly."""
    passed = max(0.0, (datetime.now(UTC) - when).total_seconds())
    for size, unit in ((86_400, "d"), (3_600, "h"), (60, "m")):
        if passed >= size:
            return f"{passed / size:.0f}{unit}"
    return f"{passed:.0f}s"


def last_line(error: str) -> str:
    """The line of an error or traceback that says what went wrong."""
    return error.strip().rsplit("\n", 1)[-1]


def _iso(when: datetime | None) -> str | None:
    return None if when is None else when.astimezone(UTC).isoformat().replace("+00:00", "Z")
