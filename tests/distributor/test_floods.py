"""P7: who sends very much of what costs nothing is cut, and nobody else waits meanwhile."""

import asyncio
import struct
import tracemalloc

import pytest
from h2.events import DataReceived
from structlog.testing import capture_logs

from taskdist.limits import CONNECTION_WINDOW_BYTES
from taskdist.settings import DistributorSettings
from taskdist.wire.messages import FetchTaskRequest
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

# Every sleep here is on the loop's virtual clock, and takes no time.
pytestmark = pytest.mark.virtual_time


LONG = bytes(16_000)


# --- calls that are cancelled -----------------------------------------------------------------


@pytest.mark.parametrize("hundreds", [1, 100])
async def test_cancelled_calls_leave_the_connection_working(hundreds: int) -> None:
    async with peer_of() as (peer, _, distributor):
        for _ in range(hundreds):
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


async def test_calls_that_are_taken_back_at_once_begin_nothing() -> None:
    """A call and its end arrive together: it gets no task, and what it took is given back."""
    async with peer_of() as (peer, _, _):
        await asyncio.sleep(0.001)
        before = asyncio.all_tasks()
        for _ in range(30):
            with peer.in_one_piece():
                for _ in range(40):  # All in one turn, each of three frames.
                    peer.http2.reset_stream(peer.call("SubmitTask", HALF_A_MESSAGE + LONG))
                peer.flush()
            for _ in range(4):
                await asyncio.sleep(0)
                assert asyncio.all_tasks() == before
        await asyncio.sleep(0.001)
        last = peer.call("Ping", EMPTY_MESSAGE, end=True)
        await asyncio.sleep(0.001)
        assert peer.status(last) == "0"
        assert 30 * 40 * len(LONG) > CONNECTION_WINDOW_BYTES


async def test_p7_cancelled_calls_end_their_connection_after_eleven_thousand() -> None:
    """With the limits as they are, and in no time: those who drop 10,000 at once are not cut."""
    async with peer_of() as (peer, client, _):
        sent = 0
        while not peer.was_told_to_go:
            with peer.in_one_piece():
                for _ in range(100):
                    peer.http2.reset_stream(peer.call("Ping", HALF_A_MESSAGE))
                peer.flush()
            sent += 100
            for _ in range(20):
                await asyncio.sleep(0)
        await asyncio.wait_for(peer.closed, 1)
        assert 10_000 < sent <= DistributorSettings.model_fields["resets_at_once_max"].default + 200
        await client.ping()


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


async def test_updates_of_a_window_that_nothing_has_used_end_the_connection() -> None:
    async with peer_of(limits(control_frames_per_second_max=50)) as (peer, client, _):
        peer.send(frame(WINDOW_UPDATE, b"\0\0\0\1") * 80)
        await asyncio.wait_for(peer.closed, 1)
        await client.ping()


async def test_updates_for_each_reply_are_no_flood() -> None:
    async with peer_of(limits(control_frames_per_second_max=10)) as (peer, _, _):
        for _ in range(100):
            call = peer.call("Ping", EMPTY_MESSAGE, end=True)
            await asyncio.sleep(0.001)
            assert peer.status(call) == "0"
            peer.send(frame(WINDOW_UPDATE, b"\0\0\0\x10") * 2)


async def test_updates_for_each_kib_of_a_large_reply_are_no_flood() -> None:
    """Of both windows, as nobody does it who knows what they cost."""
    async with peer_of(limits(control_frames_per_second_max=10)) as (peer, client, _):
        data = b"x" * 2**20
        await client.submit(user_tier="paid", est_processing_time_s=1, data=data)
        request = bytes(FetchTaskRequest(agent_id="a"))
        call = peer.call("FetchTask", struct.pack(">?I", False, len(request)) + request, end=True)
        read = 0
        for _ in range(100):
            await asyncio.sleep(0.001)
            if peer.status(call) is not None:
                break
            frames = [one.data for one in peer.events if isinstance(one, DataReceived)]
            for _ in range(sum(map(len, frames[read:])) // 1_024):
                peer.http2.increment_flow_control_window(1_024)
                peer.http2.increment_flow_control_window(1_024, call)
            read = len(frames)
            peer.flush()
        assert peer.status(call) == "0"
        await asyncio.sleep(0.001)
        assert not peer.closed.done()


async def test_small_pieces_for_a_call_that_is_over_end_the_connection() -> None:
    """Each is answered."""
    async with peer_of(limits(control_frames_per_second_max=50)) as (peer, client, _):
        call = peer.call("Ping", HALF_A_MESSAGE)
        peer.http2.reset_stream(call)
        peer.flush()
        await asyncio.sleep(0.001)
        peer.send(frame(DATA, b"x", stream_id=call) * 80)
        await asyncio.wait_for(peer.closed, 1)
        await client.ping()


async def test_what_was_on_its_way_when_a_call_ended_is_no_flood() -> None:
    async with peer_of(limits(control_frames_per_second_max=10)) as (peer, _, _):
        call = peer.call("Ping", HALF_A_MESSAGE)
        peer.http2.reset_stream(call)
        peer.flush()
        await asyncio.sleep(0.001)
        peer.send(frame(DATA, bytes(16_384), stream_id=call) * 64)
        last = peer.call("Ping", EMPTY_MESSAGE, end=True)
        await asyncio.sleep(0.001)
        assert peer.status(last) == "0"


async def test_a_connection_that_has_made_many_calls_remembers_few() -> None:
    """h2 keeps 65,536 of them: 8 MiB for each connection that lasts."""
    async with peer_of() as (peer, _, distributor):
        for _ in range(50):
            for _ in range(40):
                peer.call("Ping", EMPTY_MESSAGE, end=True)
            await asyncio.sleep(0.001)
        assert peer.replies() == 2_000
        (kept,) = [
            len(one.connection._connection._closed_streams)
            for one in distributor.server._protocols
            if one.connection.streams_started
        ]
        assert kept <= 1_024


async def test_others_are_served_while_one_sends_thousands_of_frames() -> None:
    async with peer_of() as (peer, client, _):
        await client.ping()
        # All of it is there before the honest call, and its answer comes before the last of it.
        piecemeal = peer.call("Ping", struct.pack(">?I", False, 20_001))
        peer.send(frame(DATA, b"x", stream_id=piecemeal) * 20_000)
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
