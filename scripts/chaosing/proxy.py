"""A TCP proxy that can be told to misbehave: to cut, stall, slow or half-close what goes through.

One `Link` is one listening port in front of the distributor, for one player. Orders hold for every
connection through it, now and later, until `heal`. Bytes are neither lost nor changed but at a cut.
"""

import asyncio
import socket
import struct
from collections.abc import Callable
from contextlib import suppress
from typing import Literal

Way = Literal["up", "down"]
"""up: to the distributor; down: from it."""

CHUNK_BYTES = 64 * 1024
SLOW_CHUNK_BYTES = 512
SLOW_PAUSE_S = 0.02
"""A slow link lets 25 KiB a second through, either way: a task with large data takes long."""

Told = Callable[[str, int], None]
"""Told that a connection `opened` or `closed`, and of its number."""


class Link:
    """One port in front of an upstream address.

    Args:
        upstream: host and port.
        told: is told of connections.
    """

    def __init__(self, upstream: tuple[str, int], told: Told = lambda what, number: None) -> None:
        self._upstream = upstream
        self._told = told
        self._pipes: dict[int, _Pair] = {}
        self._count = 0
        self._closed = False
        self._open: dict[Way, asyncio.Event] = {"up": asyncio.Event(), "down": asyncio.Event()}
        self.heal()
        self.cuts = 0
        """Connections that were cut so far."""

    async def listen(self) -> str:
        """Begins; its address."""
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", 0)
        host, port = self._server.sockets[0].getsockname()[:2]
        return f"{host}:{port}"

    async def close(self) -> None:
        """Cuts all, and listens no more."""
        self._server.close()
        self._closed = True
        for task in self.cut():
            with suppress(asyncio.CancelledError):
                await task

    # --- orders ---

    def heal(self) -> None:
        """From now on all goes through."""
        self._slow = False
        self._refusing = False
        self._budget: dict[Way, int | None] = {"up": None, "down": None}
        self._at_budget: Literal["cut", "stall"] = "cut"
        for way in self._open.values():
            way.set()

    def cut(self) -> list["asyncio.Task[None]"]:
        """Resets every connection, as a lost network does; what was on its way is gone."""
        pairs = list(self._pipes.values())
        for pair in pairs:
            self.cuts += 1
            pair.reset()
        return [pair.task for pair in pairs]

    def refuse(self) -> None:
        """Resets every connection, and those that come."""
        self._refusing = True
        self.cut()

    def stall(self, *ways: Way) -> None:
        """Lets nothing through this way; connections stay."""
        for way in ways:
            self._open[way].clear()

    def slow(self) -> None:
        """Lets little through."""
        self._slow = True

    def cut_after(self, count: int, way: Way) -> None:
        """Resets the connection through which so many more bytes will have gone this way."""
        self._at_budget = "cut"
        self._budget[way] = count

    def stall_after(self, count: int, way: Way) -> None:
        """Lets so many more bytes through this way, and then nothing."""
        self._at_budget = "stall"
        self._budget[way] = count

    def half_close(self, way: Way) -> None:
        """Ends this way of every connection; the other goes on."""
        for pair in list(self._pipes.values()):
            pair.end(way)

    # --- what goes through ---

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        if self._closed:  # It came in the same moment.
            writer.close()
            return
        self._count += 1
        number = self._count
        pair = _Pair(task, writer)
        self._pipes[number] = pair
        self._told("opened", number)
        try:
            if self._refusing:
                pair.reset()
            up_reader, up_writer = await asyncio.open_connection(*self._upstream)
            pair.writers["up"] = up_writer
            async with asyncio.TaskGroup() as group:
                group.create_task(self._pump(reader, pair, "up"))
                group.create_task(self._pump(up_reader, pair, "down"))
        except* OSError:
            pass  # One side is gone; so is the other, then.
        except* asyncio.CancelledError:
            pass  # It was cut.
        finally:
            pair.close()
            del self._pipes[number]
            self._told("closed", number)

    async def _pump(self, reader: asyncio.StreamReader, pair: "_Pair", way: Way) -> None:
        writer = pair.writers[way]
        while chunk := await reader.read(SLOW_CHUNK_BYTES if self._slow else CHUNK_BYTES):
            await self._open[way].wait()
            while chunk:
                budget = self._budget[way]
                part = chunk if budget is None else chunk[:budget]
                chunk = chunk[len(part) :]
                if not pair.is_ended(way):
                    writer.write(part)
                    await writer.drain()
                if budget is not None:
                    await self._spend(budget - len(part), pair, way)
            if self._slow:
                await asyncio.sleep(SLOW_PAUSE_S)
        pair.end(way)

    async def _spend(self, left: int, pair: "_Pair", way: Way) -> None:
        if left > 0:
            self._budget[way] = left
            return
        self._budget[way] = None
        if self._at_budget == "cut":
            self.cuts += 1
            pair.reset()
        else:
            self._open[way].clear()
        await self._open[way].wait()


class _Pair:
    """The two connections of one that goes through."""

    def __init__(self, task: "asyncio.Task[None]", down: asyncio.StreamWriter) -> None:
        self.task = task
        self.writers: dict[Way, asyncio.StreamWriter] = {"down": down}
        self._ended: set[Way] = set()

    def is_ended(self, way: Way) -> bool:
        return way in self._ended

    def end(self, way: Way) -> None:
        """Says that nothing more comes this way."""
        writer = self.writers.get(way)
        if writer is not None and way not in self._ended:
            self._ended.add(way)
            with suppress(OSError):
                writer.write_eof()

    def reset(self) -> None:
        """Both sides get a reset at once, not an end."""
        for writer in self.writers.values():
            with suppress(OSError):
                sock = writer.get_extra_info("socket")
                sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            writer.transport.abort()
        self.task.cancel()

    def close(self) -> None:
        """Both sides get what was read, and an end."""
        for writer in self.writers.values():
            writer.close()
