"""How Python's interpreter is set in processes that run long and make very many small values."""

import asyncio
import gc
import sys
from collections.abc import Callable, Coroutine
from typing import Any, TypeVar

from taskdist.settings import EventLoop, SettingsError

T = TypeVar("T")

GARBAGE_NEW_MAX = 50_000
"""New containers before the collector looks for cycles. A task's run makes a hundred, none of them
in a cycle; with Python's 700 the collector takes a twentieth of a busy process's time."""

GARBAGE_OLD_ROUNDS = 50
"""Looks at the young before one at those that survived."""

THREAD_SWITCH_S = 0.0005
"""How long one thread may keep the interpreter from another: a fast disk's sync. With Python's 5 ms
a commit would wait for the event loop longer than for the disk."""


def run(main: Coroutine[Any, Any, T], event_loop: EventLoop) -> T:
    """Runs a process's coroutine to its end, with the interpreter tuned for it.

    Raises:
        SettingsError: this event loop is not installed.
    """
    _tune()
    factory: Callable[[], asyncio.AbstractEventLoop] | None = None
    if event_loop == "uvloop":
        try:
            import uvloop
        except ImportError:
            main.close()
            raise SettingsError(
                "event_loop: uvloop is not installed; pip install 'taskdist[fast]' brings it"
            ) from None
        factory = uvloop.new_event_loop
    with asyncio.Runner(loop_factory=factory) as runner:
        return runner.run(main)


def _tune() -> None:
    gc.freeze()  # Modules live for ever: not to be looked at again, nor once more before this.
    gc.set_threshold(GARBAGE_NEW_MAX, GARBAGE_OLD_ROUNDS, GARBAGE_OLD_ROUNDS)
    sys.setswitchinterval(THREAD_SWITCH_S)
