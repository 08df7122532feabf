"""The proxy of the kill campaign: it harms what it is told to, and nothing else."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable

import pytest

from scripts.chaosing.proxy import Link

Streams = tuple[asyncio.StreamReader, asyncio.StreamWriter]
Connect = Callable[[], Awaitable[Streams]]

PATIENCE_S = 20.0
SILENCE_S = 0.05
"""How long nothing has to come for a test to believe that nothing does."""


@pytest.fixture
async def upstream() -> AsyncIterator[asyncio.Server]:
    """Says back what it hears, and `bye` at the end."""

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while chunk := await reader.read(1024):
                writer.write(chunk)
            writer.write(b"bye")
        except OSError:
            pass  # It was cut off.
        writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    yield server
    server.close()


@pytest.fixture
async def link(upstream: asyncio.Server) -> AsyncIterator[Link]:
    link = Link(upstream.sockets[0].getsockname()[:2])
    async with asyncio.timeout(PATIENCE_S):
        yield link
        await link.close()


@pytest.fixture
async def connect(link: Link) -> AsyncIterator[Connect]:
    """Connects through the link."""
    host, port = (await link.listen()).split(":")
    writers: list[asyncio.StreamWriter] = []

    async def connect() -> Streams:
        reader, writer = await asyncio.open_connection(host, int(port))
        writers.append(writer)
        return reader, writer

    yield connect
    for writer in writers:
        writer.close()


async def is_silent(reader: asyncio.StreamReader) -> bool:
    """Whether nothing comes."""
    coming = asyncio.ensure_future(reader.read(1))
    await asyncio.wait({coming}, timeout=SILENCE_S)
    silent = not coming.done()
    coming.cancel()
    await asyncio.wait({coming})
    return silent


async def until_reset(reader: asyncio.StreamReader) -> bytes:
    """All that comes before the connection is reset."""
    got = b""
    while True:
        try:
            chunk = await reader.read(100)
        except ConnectionResetError:
            return got
        assert chunk, "it was ended, not reset"
        got += chunk


async def test_everything_goes_through_unchanged(connect: Connect) -> None:
    """P7: bytes of both directions, and the end."""
    reader, writer = await connect()
    said = bytes(range(256)) * 4_000
    writer.write(said)
    writer.write_eof()
    assert await reader.read(-1) == said + b"bye"


async def test_a_cut_resets_the_connection(connect: Connect, link: Link) -> None:
    """P7: not an end, which might be taken for a goodbye."""
    reader, writer = await connect()
    writer.write(b"hello")
    assert await reader.readexactly(5) == b"hello"
    link.cut()
    with pytest.raises(ConnectionResetError):
        await reader.read(1)
    assert link.cuts == 1
    reader, writer = await connect()
    writer.write(b"again")
    assert await reader.readexactly(5) == b"again"


@pytest.mark.parametrize("way", ["up", "down"])
async def test_a_cut_in_mid_message_lets_so_many_bytes_through(
    connect: Connect, link: Link, way: str
) -> None:
    """P7: counted this way, whichever connection they go through."""
    reader, writer = await connect()
    link.cut_after(7, "up" if way == "up" else "down")
    writer.write(b"0123456789")
    got = await until_reset(reader)
    assert b"0123456".startswith(got), "what had come back already may be lost, nothing added"


async def test_a_stall_holds_bytes_back_until_it_is_healed(connect: Connect, link: Link) -> None:
    """P7: none is lost."""
    reader, writer = await connect()
    link.stall("down")
    writer.write(b"hello")
    assert await is_silent(reader)
    link.heal()
    assert await reader.readexactly(5) == b"hello"


async def test_a_stall_in_mid_message_holds_the_rest_back(connect: Connect, link: Link) -> None:
    """P7: in the middle of a frame."""
    reader, writer = await connect()
    link.stall_after(3, "down")
    writer.write(b"hello")
    assert await reader.readexactly(3) == b"hel"
    assert await is_silent(reader)
    link.heal()
    assert await reader.readexactly(2) == b"lo"


async def test_a_slow_link_loses_nothing(connect: Connect, link: Link) -> None:
    """P7: it only takes its time."""
    reader, writer = await connect()
    link.slow()
    said = bytes(range(256)) * 8
    writer.write(said)
    assert await reader.readexactly(len(said)) == said


async def test_a_half_closed_connection_goes_on_the_other_way(connect: Connect, link: Link) -> None:
    """P7: upstream hears an end, and still answers."""
    reader, writer = await connect()
    writer.write(b"hello")
    assert await reader.readexactly(5) == b"hello"
    link.half_close("up")
    assert await reader.read(-1) == b"bye"


async def test_a_refusing_link_resets_who_comes(connect: Connect, link: Link) -> None:
    """P7: until it is healed."""
    link.refuse()
    reader, writer = await connect()
    with pytest.raises(ConnectionResetError):
        await reader.read(1)
    link.heal()
    reader, writer = await connect()
    writer.write(b"hello")
    assert await reader.readexactly(5) == b"hello"
