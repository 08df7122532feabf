"""Logs: one line per event worth one, on stderr; pretty on a terminal, JSON otherwise."""

import logging
import sys
from typing import Any

import structlog


def configure(level: str = "info") -> None:
    """Sets structlog up for this process, and sends what libraries log the same way.

    Args:
        level: the least that is logged: debug, info, warning or error.
    """
    pretty = sys.stderr.isatty()
    shared: list[Any] = [
        structlog.stdlib.add_log_level,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
        structlog.processors.StackInfoRenderer(),
    ]
    renderer: list[Any] = (
        [structlog.dev.ConsoleRenderer()]
        if pretty
        else [structlog.processors.format_exc_info, structlog.processors.JSONRenderer()]
    )
    structlog.configure(
        processors=[*shared, *renderer],
        wrapper_class=structlog.make_filtering_bound_logger(level),
        logger_factory=structlog.PrintLoggerFactory(sys.stderr),
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
