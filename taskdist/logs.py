"""Logs: one line per event worth one, on stderr; pretty on a terminal, JSON otherwise."""

import logging
import sys
from contextlib import suppress
from typing import Any, TextIO, cast

import structlog


def configure(level: str = "info") -> None:
    """Sets structlog up for this process, and sends what libraries log the same way.

    Args:
        level: the least that is logged: debug, info, warning or error.
    """
    pretty = sys.stderr.isatty()
    # People read the clock on their wall; programs want one that is the same everywhere.
    stamp = structlog.processors.TimeStamper(fmt="%H:%M:%S" if pretty else "iso", utc=not pretty)
    shared: list[Any] = [
        structlog.stdlib.add_log_level,
        stamp,
        structlog.processors.StackInfoRenderer(),
    ]
    renderer: list[Any] = (
        [_for_people()]
        if pretty
        else [structlog.processors.format_exc_info, structlog.processors.JSONRenderer()]
    )
    structlog.configure(
        processors=[*shared, *renderer],
        wrapper_class=structlog.make_filtering_bound_logger(level),
        logger_factory=structlog.PrintLoggerFactory(cast("TextIO", _Stream())),
        cache_logger_on_first_use=True,
    )
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            foreign_pre_chain=shared,
            processors=[structlog.stdlib.ProcessorFormatter.remove_processors_meta, *renderer],
        )
    )
    # Libraries say at INFO what is ordinary here: a call cancelled, a deadline reached.
    logging.basicConfig(handlers=[handler], level=logging.WARNING, force=True)


class _Stream:
    """stderr; a line that cannot be written is lost, and never the work that it tells of."""

    def write(self, text: str) -> None:
        with suppress(OSError, ValueError):  # a full disk, a reader that is gone, a closed stream
            sys.stderr.write(text)

    def flush(self) -> None:
        with suppress(OSError, ValueError):
            sys.stderr.flush()


def _for_people() -> structlog.dev.ConsoleRenderer:
    # A plain traceback: the other kind shows local variables, among them tasks' data.
    traceback = structlog.dev.plain_traceback
    return structlog.dev.ConsoleRenderer(
        pad_event_to=0, sort_keys=False, exception_formatter=traceback
    )
