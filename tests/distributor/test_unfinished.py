"""P7: long messages without an end, and replies that nobody reads, take a bounded memory in all."""

import asyncio
import struct

import pytest

from taskdist.client import Stub
from taskdist.core.errors import Exhausted
from taskdist.limits import MESSAGE_BYTES_MAX, MIB
from taskdist.wire.messages import GetTaskRequest
from tests.distributor.story import submit, succeed, take
from tests.support.peer import EMPTY_MESSAGE, Peer, limits, peer_of

# Every sleep here is on the loop's virtual clock, and takes no time.
pytestmark = pytest.mark.virtual_time

FEW = limits(unfinished_bytes_max=MESSAGE_BYTES_MAX)
CLAIMED = MIB
FRAME = bytes(16_000)
EXHAUSTED, OK = "8", "0"
"""Statuses of gRPC, as they stand in a header."""


async def begin_long(peer: Peer) -> int:
    """A submit that lacks its end; its call."""
    await asyncio.sleep(1)  # The distributor has said how large its windows are.
    call = peer.call("SubmitTask", struct.pack(">?I", False, CLAIMED))
    for _ in range(CLAIMED // len(FRAME)):
        peer.http2.send_data(call, FRAME)
    peer.flush()
    await asyncio.sleep(1)
    return call


def statuses(peer: Peer, calls: list[int]) -> list[str | None]:
    return [peer.status(call) for call in calls]


async def test_p7_requests_without_an_end() -> None:
    async with peer_of(FEW) as (peer, client, _):
        calls = [await begin_long(peer) for _ in range(6)]
        assert statuses(peer, calls) == [None] * 4 + [EXHAUSTED] * 2
        await client.ping()
        await submit(client, data=bytes(10_000))
        with pytest.raises(Exhausted, match="unfinished messages"):
            await submit(client, data=bytes(MIB))
        peer.http2.reset_stream(calls[0])
        peer.flush()
        await asyncio.sleep(1)
        await submit(client, data=bytes(MIB))
        peer.close()
        await asyncio.sleep(1)
        await asyncio.gather(*(submit(client, data=bytes(MIB)) for _ in range(3)))


async def test_p7_what_is_only_claimed_costs_nobody_anything() -> None:
    async with peer_of(FEW) as (peer, client, _):
        claim = struct.pack(">?I", False, MESSAGE_BYTES_MAX)
        calls = [peer.call("SubmitTask", claim) for _ in range(90)]
        await asyncio.sleep(1)
        assert statuses(peer, calls) == [None] * 90
        await submit(client, data=bytes(MIB))


async def test_p7_replies_that_nobody_reads() -> None:
    async with peer_of(FEW, window=0) as (peer, client, _):
        task_id = await finished(client, bytes(MIB - 1_000))
        request = bytes(GetTaskRequest(task_id=task_id))
        asked = struct.pack(">?I", False, len(request)) + request
        calls = [peer.call("GetTask", asked, end=True) for _ in range(6)]
        await asyncio.sleep(1)
        assert statuses(peer, calls) == [None] * 4 + [EXHAUSTED] * 2
        ping = peer.call("Ping", EMPTY_MESSAGE, end=True)
        peer.http2.increment_flow_control_window(100, ping)
        for call in calls[:4]:
            peer.http2.increment_flow_control_window(MIB, call)
        peer.http2.increment_flow_control_window(4 * MIB)
        peer.flush()
        await asyncio.sleep(1)
        assert statuses(peer, [*calls[:4], ping]) == [OK] * 5
        assert (await client.get(task_id)).result == bytes(MIB - 1_000)


async def finished(client: Stub, result: bytes) -> str:
    """A task with this result."""
    task_id = await submit(client)
    await succeed(client, await take(client), result=result)
    return task_id
