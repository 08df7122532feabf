"""P7: a peer may be slow, gone or broken; it is cut or refused, and nobody else suffers."""

import asyncio
import gc
import random
import struct
from typing import Any

import pytest
from grpclib.protocol import Connection
from h2.events import RemoteSettingsChanged
from hpack import Encoder
from structlog.testing import capture_logs

from taskdist.distributor.peers import PeerProtocol
from taskdist.limits import SECOND_US, STREAM_WINDOW_BYTES
from taskdist.wire.messages import WorkHello, WorkRequest
from tests.support.channel import connect, distributor_channel
from tests.support.peer import (
    DATA,
    EMPTY_MESSAGE,
    HALF_A_MESSAGE,
    HEADERS,
    RST_STREAM,
    SERVICE,
    SETTINGS,
    frame,
    limits,
    new_peer,
    peer_of,
)

# Every sleep here is on the loop's virtual clock, and takes no time.
pytestmark = pytest.mark.virtual_time

_HELLO = bytes(WorkRequest(hello=WorkHello(agent_id="deaf", session="s", slots=1)))
HELLO = struct.pack(">?I", False, len(_HELLO)) + _HELLO


async def test_a_connection_begins_with_one_word_about_its_settings() -> None:
    """Of windows and streams; each more would cost either side a frame and an answer."""
    async with peer_of(limits(streams_per_connection_max=7)) as (peer, client, _):
        await client.ping()
        told = [event for event in peer.events if isinstance(event, RemoteSettingsChanged)]
        assert len(told) == 1
        assert peer.http2.remote_settings.max_concurrent_streams == 7
        assert peer.http2.remote_settings.initial_window_size == STREAM_WINDOW_BYTES


# --- what is no request -----------------------------------------------------------------------


async def test_too_many_headers_end_the_connection() -> None:
    async with peer_of() as (peer, client, _):
        peer.call("Ping", more=[(f"x-{i}", "v" * 1_000) for i in range(40)])
        await asyncio.wait_for(peer.closed, 1)
        await client.ping()


@pytest.mark.parametrize("lacking", [":method", ":path"])
async def test_a_request_without_what_it_must_have(lacking: str) -> None:
    async with peer_of() as (peer, client, _):
        headers = [(":method", "POST"), (":scheme", "http"), (":path", SERVICE + "Ping")]
        headers = [(name, value) for name, value in headers if name != lacking]
        with capture_logs() as lines:
            peer.http2.send_headers(1, headers)
            peer.flush()
            await asyncio.wait_for(peer.closed, 1)
        assert [line["reason"] for line in lines] == ["a request without :method or :path"]
        await client.ping()


NAMES = [
    b":method",
    b":path",
    b":scheme",
    b"te",
    b"content-type",
    b"grpc-timeout",
    b"x-bin",
    b"\xff",
]
VALUES = [b"POST", (SERVICE + "Ping").encode(), b"http", b"trailers", b"application/grpc", b"1S"]
STRANGE = [b"", b"@@", b"\xff\x00", b"application/grpc+json", b"GET", b"99999999999H"]


def nonsense(chance: random.Random) -> bytes:
    """Frames of every sort, most of them well-formed, few of them sensible."""
    sent = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + frame(SETTINGS)
    for _ in range(chance.randint(1, 8)):
        stream_id = chance.choice([0, 1, 1, 1, 2, 3, 5, 2**31 - 1])
        headers = list(zip(NAMES, VALUES, strict=False)) if chance.random() < 0.6 else []
        headers += [
            (chance.choice(NAMES), chance.choice(VALUES + STRANGE))
            for _ in range(chance.randint(0, 4))
        ]
        sent += chance.choice(
            [
                frame(
                    chance.randint(0, 12),
                    chance.randbytes(chance.randint(0, 40)),
                    flags=chance.choice([0, 1, 4, 5, 8, 32, 255]),
                    stream_id=stream_id,
                ),
                frame(HEADERS, Encoder().encode(headers), flags=chance.choice([4, 5]), stream_id=1),
                frame(DATA, EMPTY_MESSAGE, flags=chance.choice([0, 1]), stream_id=stream_id),
                frame(RST_STREAM, bytes(4), stream_id=stream_id),
            ]
        )
    return sent


@pytest.mark.parametrize("seed", range(5))
async def test_nonsense_is_no_error_of_ours(seed: int) -> None:
    """Whatever 200 connections send, nothing of them is left, and others are served."""
    chance = random.Random(seed)
    errors: list[dict[str, Any]] = []
    asyncio.get_running_loop().set_exception_handler(lambda _, context: errors.append(context))
    async with distributor_channel() as (client, distributor):
        for _ in range(200):
            peer = new_peer(distributor)
            peer.is_frozen = True
            sent = nonsense(chance)
            middle = chance.randrange(len(sent))
            peer.send(sent[:middle])
            peer.send(sent[middle:])
            await asyncio.sleep(0.001)
            peer.close()
        await client.ping()
        assert distributor.server._connections == {"": 1}
    assert errors == []


async def test_what_is_not_http2_is_cut_at_once() -> None:
    async with distributor_channel() as (client, distributor):
        peer = new_peer(distributor)
        peer.send(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n")
        await asyncio.wait_for(peer.closed, 1)
        await client.ping()


async def test_binary_metadata_that_is_none_does_no_harm() -> None:
    async with peer_of() as (peer, _, _):
        stream_id = peer.call("Ping", EMPTY_MESSAGE, end=True, more=[("x-bin", "a")])
        await asyncio.sleep(0.001)
        assert peer.status(stream_id) == "0"


# --- slow, gone, idle -------------------------------------------------------------------------


def now_s() -> float:
    return asyncio.get_running_loop().time()


async def test_what_a_connection_took_is_free_as_soon_as_it_is_closed() -> None:
    """Collections of what refers to itself are rare; clients may come and go by the thousand."""
    async with distributor_channel() as (client, distributor):
        gc.collect()  # what other tests have left
        gc.disable()
        try:
            for _ in range(20):
                async with connect(distributor) as another:
                    await another.ping()
                await asyncio.sleep(0.001)
            await client.ping()
            left = sum(isinstance(one, PeerProtocol | Connection) for one in gc.get_objects())
        finally:
            gc.enable()
        # The client's own and the open one's; a few that grpclib lets go with every tenth.
        assert left <= 12


async def test_one_that_never_speaks_is_cut() -> None:
    async with distributor_channel(limits(handshake_us=10 * SECOND_US)) as (_, distributor):
        peer = new_peer(distributor)
        peer.is_frozen = True
        await peer.closed
        assert now_s() == pytest.approx(10, abs=1)


async def test_a_frozen_peer_is_noticed_within_half_a_minute() -> None:
    async with peer_of() as (peer, _, _):
        await asyncio.sleep(0.001)
        peer.is_frozen = True
        async with asyncio.timeout(60):
            await peer.closed
        assert now_s() <= 30.1


async def test_one_that_answers_stays_although_it_has_no_calls() -> None:
    async with peer_of() as (peer, _, _):
        await asyncio.sleep(300)
        assert not peer.closed.done()


async def test_an_idle_connection_is_closed_in_the_end() -> None:
    async with peer_of(limits(idle_connection_us=60 * SECOND_US)) as (peer, _, _):
        peer.call("Ping", EMPTY_MESSAGE, end=True)
        await peer.closed
        assert peer.replies() == 1
        assert 60 <= now_s() <= 121


async def test_one_with_a_call_under_way_is_not_idle() -> None:
    async with peer_of(limits(idle_connection_us=60 * SECOND_US)) as (peer, _, _):
        peer.call("Work", HELLO)  # All but its first message may come any time.
        await asyncio.sleep(300)
        assert not peer.closed.done()


@pytest.mark.parametrize("method", ["SubmitTask", "Work"])
@pytest.mark.parametrize("sent", [b"", b"\0", HALF_A_MESSAGE])
async def test_a_message_has_to_come_whole_within_a_minute(method: str, sent: bytes) -> None:
    async with peer_of() as (peer, _, _):
        stream_id = peer.call(method, sent)
        await asyncio.sleep(59)
        assert peer.status(stream_id) is None
        await asyncio.sleep(2)
        assert peer.status(stream_id) == "4"


async def test_a_reply_has_to_be_read_within_a_minute() -> None:
    async with peer_of(window=0) as (peer, client, _):
        stream_id = peer.call("ListTasks", EMPTY_MESSAGE, end=True)
        await asyncio.sleep(61)
        assert peer.status(stream_id) == "4"
        await client.ping()


async def test_an_agent_that_does_not_read_its_leases_does_not_keep_them() -> None:
    async with peer_of(limits(lease_us=600 * SECOND_US), window=0) as (peer, client, _):
        stream_id = peer.call("Work", HELLO)
        task = await client.submit(user_tier="paid", est_processing_time_s=1)
        await asyncio.sleep(59)
        assert peer.status(stream_id) is None
        await asyncio.sleep(2)
        assert peer.status(stream_id) == "4"
        work = await client.fetch(agent_id="honest", session="t")
        assert work is not None
        assert work.task_id == task.task_id


async def test_one_that_never_reads_is_cut_although_it_says_that_it_is_there() -> None:
    async with peer_of() as (peer, client, distributor):
        await asyncio.sleep(0.001)
        (of_peer,) = [
            one for one in distributor.server._protocols if not one.connection.streams_started
        ]
        of_peer.pause_writing()  # The transport's buffer is full.
        await asyncio.sleep(30)
        of_peer.resume_writing()
        of_peer.pause_writing()
        await asyncio.sleep(59)
        assert not peer.closed.done()  # Its pings are answered.
        await asyncio.sleep(2)
        assert peer.closed.done()
        await client.ping()


@pytest.mark.parametrize(
    ("one", "other", "is_same"),
    [
        ("192.0.2.1", "192.0.2.1", True),
        ("192.0.2.1", "192.0.2.2", False),
        ("2001:db8:1:2::1", "2001:db8:1:2:ffff::1", True),
        ("2001:db8:1:2::1", "2001:db8:1:3::1", False),
        ("fe80::1%eth0", "fe80::2%eth0", True),
        ("::ffff:192.0.2.1", "::ffff:192.0.2.2", False),
        ("::ffff:192.0.2.1", "192.0.2.1", True),
    ],
)
async def test_an_ipv6_network_of_64_bits_counts_as_one_address(
    one: str, other: str, *, is_same: bool
) -> None:
    """Whoever has one of its addresses has them all. IPv4 within IPv6 is IPv4."""
    async with distributor_channel(limits(connections_per_address_max=2)) as (_, distributor):
        peers = [new_peer(distributor, address=address) for address in (one, one, other)]
        for peer in peers:
            peer.speak()
        await asyncio.sleep(0.001)
        assert [peer.closed.done() for peer in peers] == [False, False, is_same]
        for peer in peers:
            peer.close()
        await asyncio.sleep(0.001)
        assert not distributor.server._connections, "an address costs nothing once it is gone"


async def test_an_address_has_so_many_connections_and_no_more() -> None:
    async with peer_of(limits(connections_per_address_max=3)) as (peer, client, distributor):
        await client.ping()
        third, fourth = new_peer(distributor), new_peer(distributor)
        await asyncio.wait_for(fourth.closed, 1)
        assert not third.closed.done()
        third.send(b"nonsense that is longer than the preface")
        await asyncio.wait_for(third.closed, 1)
        async with connect(distributor) as another:
            await another.ping()  # Its place is free again.
        assert not peer.closed.done()
