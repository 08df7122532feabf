"""SIGTERM and SIGINT as futures: the first asks to stop well, the second to stop at once."""

import asyncio
import signal


class Signals:
    """Catches both signals on the running loop, for the rest of the process's life."""

    def __init__(self) -> None:
        loop = asyncio.get_running_loop()
        self.asked: asyncio.Future[signal.Signals] = loop.create_future()
        """Done with the first signal."""
        self.asked_again: asyncio.Future[signal.Signals] = loop.create_future()
        """Done with the second."""
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, self._caught, number)

    def _caught(self, number: signal.Signals) -> None:
        for future in (self.asked, self.asked_again):
            if not future.done():
                future.set_result(number)
                return
