"""What a turn of the loop has to say is one write; none of it is late, lost or out of order."""

import asyncio
from typing import Any

import pytest

from taskdist.client import Stub
from taskdist.client.connection import GatheringChannel
from taskdist.distributor.server import Distributor, bind
from taskdist.limits import DATA_BYTES_MAX
from taskdist.settings import DistributorSettings
from taskdist.wire.http2 import PARTS_MAX, GatheringTransport


class Wire(asyncio.Transport):
    """Notes what is written, and whether it is closed."""

    def __init__(self) -> None:
        super().__init__()
        self.writes: list[bytes] = []
        self.closed_after: int | None = None

    def write(self, data: Any) -> None:
        self.writes.append(bytes(data))

    def close(self) -> None:
        self.closed_after = len(self.writes)

    def get_write_buffer_size(self) -> int:
        return 0

    def is_closing(self) -> bool:
        return self.closed_after is not None


def parts(count: int) -> list[bytes]:
    return [b"%d;" % number for number in range(count)]


async def gathering() -> tuple[GatheringTransport, Wire]:
    wire = Wire()
    return GatheringTransport(wire), wire


async def test_what_a_turn_writes_is_one_write_at_the_next_turn() -> None:
    transport, wire = await gathering()
    for _ in range(2):
        wire.writes.clear()
        for part in parts(3):
            transport.write(part)
        assert wire.writes == []
        await asyncio.sleep(0)
        assert wire.writes == [b"0;1;2;"]
    await asyncio.sleep(0)
    assert len(wire.writes) == 1, "nothing is written twice"


@pytest.mark.parametrize("count", [1, PARTS_MAX - 1, PARTS_MAX, PARTS_MAX + 1, 3 * PARTS_MAX + 5])
async def test_a_message_of_many_parts_waits_for_no_more_than_a_turn(count: int) -> None:
    """And what is full goes at once, before the turn is over."""
    transport, wire = await gathering()
    for part in parts(count):
        transport.write(part)
    assert b"".join(wire.writes) == b"".join(parts(count - count % PARTS_MAX))
    await asyncio.sleep(0)
    assert b"".join(wire.writes) == b"".join(parts(count))


@pytest.mark.parametrize("count", [0, 1, PARTS_MAX, PARTS_MAX + 1])
async def test_what_is_written_just_before_the_close_is_written(count: int) -> None:
    transport, wire = await gathering()
    for part in parts(count):
        transport.write(part)
    transport.close()
    assert transport.is_closing()
    assert b"".join(wire.writes) == b"".join(parts(count))
    assert wire.closed_after == len(wire.writes), "all of it before the close"
    await asyncio.sleep(0)
    assert wire.closed_after == len(wire.writes), "and nothing after it"


async def test_over_a_socket_all_that_was_written_before_the_close_arrives() -> None:
    """Far more than the socket takes at once."""
    text = bytes(range(256)) * 8_192
    heard = asyncio.get_running_loop().create_future()

    async def accept(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        heard.set_result(await reader.read())
        writer.close()
        await writer.wait_closed()

    async with await asyncio.start_server(accept, "127.0.0.1", 0) as server:
        port = server.sockets[0].getsockname()[1]
        loop = asyncio.get_running_loop()
        socket, _ = await loop.create_connection(asyncio.Protocol, "127.0.0.1", port)
        transport = GatheringTransport(socket)
        for start in range(0, len(text), 16_384):
            transport.write(text[start : start + 16_384])
        transport.write(b"the end")
        transport.close()
        async with asyncio.timeout(20):
            assert await heard == text + b"the end"


async def test_a_large_task_goes_both_ways_while_small_calls_are_made() -> None:
    """The real client and the real distributor, over a socket."""
    settings = DistributorSettings(listen="127.0.0.1:0", store="memory:")
    distributor = Distributor(settings)
    await distributor.open()
    sock = bind(settings)
    await distributor.listen(sock)
    host, port = sock.getsockname()
    data = bytes(range(256)) * (DATA_BYTES_MAX // 256)
    async with Stub(f"{host}:{port}") as client, asyncio.timeout(20):
        assert isinstance(client._channel, GatheringChannel)
        submits = [
            client.submit(user_tier="paid", est_processing_time_s=seconds, data=data)
            for seconds in range(8)
        ]
        await asyncio.gather(*submits, *(client.ping() for _ in range(50)))
        fetches = [client.fetch(agent_id="agent-1") for _ in range(8)]
        works, _ = await asyncio.gather(
            asyncio.gather(*fetches), asyncio.gather(*(client.ping() for _ in range(50)))
        )
        assert [work is not None and work.data == data for work in works] == [True] * 8
    await distributor.stop(1)
