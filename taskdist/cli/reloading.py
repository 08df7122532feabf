"""`taskdist agent --reload`: the agent in a process of its own, begun anew when code changes."""

import asyncio
import signal
import sys
from collections.abc import AsyncIterator, Sequence
from typing import Any

import structlog

from taskdist.settings import SettingsError
from taskdist.signals import Signals

log = structlog.get_logger()


def check_installed() -> None:
    """Raises:
    SettingsError: what watches files is not installed.
    """
    try:
        import watchfiles  # noqa: F401 # to see whether it can be
    except ImportError:
        raise SettingsError(
            "--reload: watchfiles is not installed; pip install 'taskdist[reload]' brings it"
        ) from None


async def run(arguments: Sequence[str]) -> int:
    """Runs `taskdist` with these arguments, and again after each change of a .py file below the
    current directory: the one that runs is stopped well and finishes its work first. One that ends
    by itself with an error waits for a change, too.

    Returns:
        Its exit code, once a signal, or its own end with 0, has ended it.
    """
    import watchfiles

    signals = Signals()
    stop = asyncio.Event()
    only_code = watchfiles.PythonFilter()
    changes = _Changes(watchfiles.awatch(".", stop_event=stop, watch_filter=only_code))
    try:
        while True:
            code = await _run_once(arguments, signals, changes)
            if signals.asked.done() or code == 0:
                return code
            if not changes.came.is_set():
                log.error("agent ended; waiting for a change", code=code)
                await _first(changes.came.wait(), signals.asked)
                if signals.asked.done():
                    return code
            changes.came.clear()
    finally:
        stop.set()
        await changes.watching


class _Changes:
    def __init__(self, watching: AsyncIterator[Any]) -> None:
        self.came = asyncio.Event()
        self.watching = asyncio.ensure_future(self._watch(watching))

    async def _watch(self, watching: AsyncIterator[Any]) -> None:
        async for changed in watching:
            log.info("code changed", files=sorted(path for _, path in changed))
            self.came.set()


async def _run_once(arguments: Sequence[str], signals: Signals, changes: _Changes) -> int:
    """One agent, until it ends, or a change or a signal ends it; its exit code, -1 for a change."""
    # In a group of its own, so that Ctrl-C reaches it once: from here.
    agent = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "taskdist", *arguments, process_group=0
    )
    ended = asyncio.ensure_future(agent.wait())
    try:
        await _first(ended, changes.came.wait(), signals.asked)
        if not ended.done():
            agent.send_signal(signal.SIGTERM)
            await _first(ended, signals.asked_again)
            if not ended.done():
                agent.send_signal(signal.SIGTERM)
        code = await ended
    finally:
        if not ended.done():
            agent.kill()
    return code if signals.asked.done() or not changes.came.is_set() else -1


async def _first(*either: Any) -> None:
    """Waits for the first; those made for this are ended."""
    futures = [asyncio.ensure_future(one) for one in either]
    await asyncio.wait(futures, return_when=asyncio.FIRST_COMPLETED)
    for future, one in zip(futures, either, strict=True):
        if future is not one:
            future.cancel()
