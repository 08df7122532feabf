"""Calling again until the distributor answers, for calls that may be repeated."""

import asyncio
import random
from collections.abc import Awaitable, Callable
from typing import TypeVar

from taskdist.core.errors import Refused, Unavailable

T = TypeVar("T")

PAUSE_S = 0.1
"""The first pause, at most."""

PAUSE_MAX_S = 5.0
"""The longest pause: so long after a distributor's return it is found, at the latest."""


class Pauses:
    """Pauses between tries: each up to twice as long as the one before, by chance, so that a
    thousand clients do not come back in the same instant."""

    def __init__(self) -> None:
        self.begin_anew()

    def begin_anew(self) -> None:
        """It has answered: the next pause is a short one."""
        self._longest_s = PAUSE_S

    async def rest(self) -> None:
        """The next pause."""
        await asyncio.sleep(random.uniform(0, self._longest_s))
        self._longest_s = min(2 * self._longest_s, PAUSE_MAX_S)


async def patiently(call: Callable[[], Awaitable[T]], server: str, timeout_s: float) -> T:
    """Calls until the distributor answers.

    Args:
        call: may be made again when its outcome is unknown.
        server: host:port, to be named.
        timeout_s: how long to try.

    Raises:
        Unavailable: it did not answer in time; why is in it.
        Refused: what the call raises.
    """
    pauses = Pauses()
    last: Refused = Unavailable(f"{server}: no answer within {timeout_s:g} s")
    try:
        async with asyncio.timeout(timeout_s):
            while True:
                try:
                    return await call()
                except Unavailable as reason:
                    last = reason
                await pauses.rest()
    except TimeoutError:
        raise last from None
