"""P7: who sends very much of what costs nothing is cut, and nobody else waits meanwhile."""

import asyncio
import struct
import tracemalloc

import pytest
from structlog.testing import capture_logs

from tests.support.floods import FLOODS
from tests.support.peer import (
    DATA,
    EMPTY_MESSAGE,
    END_STREAM,
    HALF_A_MESSAGE,
    PADDED,
    UNKNOWN,
    WINDOW_UPDATE,
    frame,
    limits,
    peer_of,
)

pytestmark = pytest.mark.virtual_time


# --- calls that are cancelled -----------------------------------------------------------------


async def test_ten_thousand_cancelled_calls_leave_the_connection_working() -> None:
    async with peer_of() as (peer, _, distributor):
        for _ in range(100):
            for _ in range(100):
                # Both arrive together, so that the call is cancelled before its first step.
                stream_id = peer.call("SubmitTask", HALF_A_MESSAGE + b"x" * 90)
                peer.http2.reset_stream(stream_id)
            peer.flush()
            await asyncio.sleep(0.001)
        last = peer.call("Ping", EMPTY_MESSAGE, end=True)
        await asyncio.sleep(0.001)
        assert peer.status(last) == "0"
        of_peer = [one for one in distributor.server._protocols if one.connection.streams_started]
        assert not any(one.processor.streams for one in of_peer)
        # All of the window is there again: more than it in total was sent.
        assert peer.http2.outbound_flow_control_window > 15 * 2**20


# --- floods -----------------------------------------------------------------------------------


@pytest.mark.parametrize("name", FLOODS)
async def test_a_flood_ends_its_connection_and_no_other(name: str) -> None:
    few = limits(resets_per_second_max=50, resets_at_once_max=50, control_frames_per_second_max=50)
    async with peer_of(few) as (peer, client, _):
        with capture_logs() as lines:
            for _ in range(80):
                if not peer.was_told_to_go:
                    peer.send(FLOODS[name](peer))
                await asyncio.sleep(0)
            await asyncio.wait_for(peer.closed, 1)
        assert [line["event"] for line in lines].count("connection cut") == 1
        assert peer.was_told_to_go
        await client.ping()


async def test_a_flood_of_empty_data_ends_its_connection() -> None:
    async with peer_of(limits(control_frames_per_second_max=50)) as (peer, client, _):
        stream_id = peer.call("Ping")
        peer.send(frame(DATA, stream_id=stream_id) * 80)
        await asyncio.wait_for(peer.closed, 1)
        await client.ping()


@pytest.mark.parametrize("name", FLOODS)
async def test_a_few_of_them_do_no_harm(name: str) -> None:
    async with peer_of() as (peer, _, _):
        for _ in range(20):
            peer.send(FLOODS[name](peer))
        last = peer.call("Ping", EMPTY_MESSAGE, end=True)
        await asyncio.sleep(0.001)
        assert peer.status(last) == "0"


async def test_thousands_of_unknown_frames_at_once_are_no_error() -> None:
    """h2 calls itself once for each frame that it passes over."""
    async with peer_of(limits(control_frames_per_second_max=10_000)) as (peer, _, _):
        peer.send(frame(UNKNOWN, b"?") * 5_000)
        last = peer.call("Ping", EMPTY_MESSAGE, end=True)
        await asyncio.sleep(0.001)
        assert peer.status(last) == "0"


async def test_padding_makes_empty_data_no_better() -> None:
    async with peer_of(limits(control_frames_per_second_max=50)) as (peer, client, _):
        stream_id = peer.call("Ping")
        peer.send(frame(DATA, b"\0", flags=PADDED, stream_id=stream_id) * 80)
        await asyncio.wait_for(peer.closed, 1)
        await client.ping()


async def test_others_are_served_while_one_sends_thousands_of_frames() -> None:
    async with peer_of() as (peer, client, _):
        await client.ping()
        # All of it is there before the honest call, and its answer comes before the last of it.
        peer.send(frame(WINDOW_UPDATE, b"\0\0\0\1") * 20_000)
        last = peer.call("Ping", EMPTY_MESSAGE, end=True)
        await client.ping()
        assert peer.status(last) is None
        await asyncio.sleep(0.001)
        assert peer.status(last) == "0"


async def test_a_message_in_pieces_of_a_byte_costs_what_it_weighs() -> None:
    """Kept each by itself they take some 300 bytes a byte."""
    size = 16 * 1024
    async with peer_of() as (peer, _, _):
        stream_id = peer.call("Work", struct.pack(">?I", False, size))
        await asyncio.sleep(0.001)
        sent = frame(DATA, b"x", stream_id=stream_id) * (size - 1)
        tracemalloc.start()
        peer.send(sent)
        await asyncio.sleep(0.001)
        kept, _ = tracemalloc.get_traced_memory()
        tracemalloc.stop()
        assert kept < 50 * size
        assert peer.status(stream_id) is None  # It lacks a byte.


async def test_empty_data_within_a_message_does_not_end_it() -> None:
    async with peer_of() as (peer, _, _):
        stream_id = peer.call("Ping", EMPTY_MESSAGE[:2])
        peer.send(frame(DATA, stream_id=stream_id))
        await asyncio.sleep(0.001)
        peer.send(frame(DATA, EMPTY_MESSAGE[2:], flags=END_STREAM, stream_id=stream_id))
        await asyncio.sleep(0.001)
        assert peer.status(stream_id) == "0"


async def test_a_frame_that_is_too_long_is_refused_at_its_length() -> None:
    async with peer_of() as (peer, client, _):
        peer.send(b"\xff\xff\xff" + bytes(6))
        await asyncio.wait_for(peer.closed, 1)
        await client.ping()
