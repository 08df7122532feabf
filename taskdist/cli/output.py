"""What the command line prints: tables on a terminal, tab-separated lines when piped, or JSON."""

import base64
import json
import sys
from collections.abc import Iterable, Sequence
from datetime import UTC, datetime
from typing import Any

from taskdist.core.offers import KindReport
from taskdist.reports import (
    Dropped,
    Entry,
    LogLine,
    PastAttempt,
    Progress,
    RetryPause,
    TaskReport,
)

WIDE = 100
"""Columns of a terminal on which whole ids leave room for the rest."""

ID_ENDING_SHOWN = 12
"""Digits of an id on a narrower one: 48 random bits, which stand for the task wherever an id
does."""


def table(headers: Sequence[str], rows: Iterable[Sequence[str]]) -> None:
    """Rows for people on a terminal; for programs otherwise: tab-separated, uncut, no headers.

    On a narrow terminal ids are shown by their endings, which `show` and the others take as well.
    """
    if not sys.stdout.isatty():
        for row in rows:
            print("\t".join(cell.replace("\t", " ").replace("\n", " ") for cell in row))
        return
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    console = Console()
    is_narrow = console.width < WIDE
    grid = Table(box=None, pad_edge=False, header_style="bold")
    for header in headers:
        # What is copied, or says how it stands, stays in one piece however narrow it gets.
        grid.add_column(header, no_wrap=header in ("ID", "STATE", "AGE", "ATTEMPT"))
    for row in rows:
        cells = (
            cell[-ID_ENDING_SHOWN:] if is_narrow and header == "ID" else cell
            for header, cell in zip(headers, row, strict=True)
        )
        grid.add_row(*(Text(cell, overflow="fold") for cell in cells))
    console.print(grid)


def as_json(value: Any) -> None:
    """One JSON value on one line."""
    print(json_line(value))


def json_line(value: Any) -> str:
    """A JSON value as one line."""
    return json.dumps(value, allow_nan=False)


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
        "due_at": _iso(task.due_at),
        "deadline": _iso(task.deadline),
        "data_bytes": task.data_bytes,
        "backoff": None if task.backoff is None else _backoff_dict(task.backoff),
        "run_timeout_seconds": task.run_timeout_s or None,
        "lease_seconds": task.lease_s or None,
        "idempotency_key": task.idempotency_key or None,
    }


def _backoff_dict(pause: RetryPause) -> dict[str, Any]:
    return {
        "kind": str(pause.kind),
        "initial_seconds": pause.initial_s,
        "max_seconds": pause.max_s,
        "jitter_percent": pause.jitter_percent,
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


def kind_dict(report: KindReport) -> dict[str, Any]:
    """What is known of a kind, for JSON."""
    return {
        "kind": report.name or None,
        "queues": list(report.queues),
        "live_agents": report.live_agents,
        "input_schemas": [json.loads(schema) for schema in report.input_schemas],
    }


def progress_dict(progress: Progress) -> dict[str, Any]:
    """How far a run is, for JSON."""
    return {
        "attempt": progress.attempt,
        "fraction": progress.fraction,
        "text": progress.text,
        "at": _iso(progress.at),
    }


def entry_line(entry: Entry) -> str:
    """Something that a run said, as one line that does nothing to a terminal."""
    match entry:
        case Progress():
            done = "" if entry.fraction is None else f"{entry.fraction:.0%}"
            return f"{done} {_printable(entry.text)}".strip()
        case LogLine():
            return f"| {_printable(entry.text)}"
        case Dropped():
            return f"| ({entry.count} lines are missing)"


def _printable(text: str) -> str:
    words = " ".join(text.splitlines()).replace("\t", " ")
    return "".join(character if character.isprintable() else "\ufffd" for character in words)


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
    return _roughly(max(0.0, (datetime.now(UTC) - when).total_seconds()))


def _roughly(value_s: float) -> str:
    for size, unit in ((86_400, "d"), (3_600, "h"), (60, "m")):
        if value_s >= size:
            return f"{value_s / size:.0f}{unit}"
    return f"{value_s:.0f}s"


def until(when: datetime) -> str:
    """How long it is until something, roughly."""
    left_s = max(0.0, (when - datetime.now(UTC)).total_seconds())
    return _roughly(left_s)


def pause(backoff: RetryPause) -> str:
    """How long a failed task waits, in words."""
    words = f"{backoff.kind}, {seconds(backoff.initial_s)}"
    if backoff.max_s:
        words += f" to {seconds(backoff.max_s)}"
    if backoff.jitter_percent:
        words += f", up to {backoff.jitter_percent}% less by chance"
    return words


def _iso(when: datetime | None) -> str | None:
    return None if when is None else when.astimezone(UTC).isoformat().replace("+00:00", "Z")
