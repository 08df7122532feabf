"""P7: a peer may be slow, gone, broken or hostile; it is cut or refused, and nobody else suffers.

The peer here speaks raw HTTP/2 to a whole distributor in memory, on a virtual clock.
"""

import asyncio
import random
import struct
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from typing import Any

import pytest
from h2.config import H2Configuration
from h2.connection import H2Connection
from h2.events import ConnectionTerminated, DataReceived, Event, ResponseReceived, TrailersReceived
from h2.settings import SettingCodes
from hpack import Encoder
from structlog.testing import capture_logs

from taskdist.client import Client
from taskdist.distributor.server import Distributor
from taskdist.settings import SECOND_US, DistributorSettings
from taskdist.wire.messages import WorkHello, WorkRequest
from tests.support.channel import connect, distributor_channel, join

pytestmark = pytest.mark.virtual_time

SERVICE = "/taskdist.v1.TaskDistributor/"
EMPTY_MESSAGE = struct.pack(">?I", False, 0)
HALF_A_MESSAGE = struct.pack(">?I", False, 100) + b"half"

RST_STREAM, PRIORITY, UNKNOWN = 3, 2, 0xBE
"""Types of frames (RFC 9113, section 6)."""


def frame(sort: int, payload: bytes = b"", *, flags: int = 0, stream_id: int = 0) -> bytes:
    """One frame, whether it makes sense or not."""
    head = struct.pack(">HBBBI", len(payload) >> 8, len(payload) & 0xFF, sort, flags, stream_id)
    return head + payload


class Peer(asyncio.Protocol):
    """One end of a connection, at the mercy of the test."""

    def __init__(self, *, window: int | None = None) -> None:
        self.http2 = H2Connection(
            H2Configuration(validate_outbound_headers=False, header_encoding="utf-8")
        )
        self.events: list[Event] = []
        self.closed = asyncio.get_running_loop().create_future()
        self.is_frozen = False
        self._window = window

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport

    def data_received(self, data: bytes) -> None:
        if not self.is_frozen:
            self.events += self.http2.receive_data(data)
            self.flush()

    def connection_lost(self, exc: Exception | None) -> None:
        self.closed.set_result(None)

    def close(self) -> None:
        self._transport.close()

    def speak(self) -> None:
        """Says that it speaks HTTP/2."""
        self.http2.initiate_connection()
        if self._window is not None:
            self.http2.update_settings({SettingCodes.INITIAL_WINDOW_SIZE: self._window})
        self.flush()

    def flush(self) -> None:
        self.send(self.http2.data_to_send())

    def send(self, data: bytes) -> None:
        self._transport.write(data)

    def call(
        self,
        method: str,
        data: bytes = b"",
        *,
        end: bool = False,
        more: Sequence[tuple[str, str]] = (),
    ) -> int:
        """Begins a call. Returns its stream's number."""
        stream_id = self.http2.get_next_available_stream_id()
        headers = [(":method", "POST"), (":scheme", "http"), (":path", SERVICE + method)]
        headers += [(":authority", "x"), ("te", "trailers"), ("content-type", "application/grpc")]
        self.http2.send_headers(stream_id, [*headers, *more])
        if data:
            self.http2.send_data(stream_id, data, end_stream=end)
        self.flush()
        return stream_id

    def status(self, stream_id: int) -> str | None:
        """How the call ended, if it has."""
        for event in self.events:
            if isinstance(event, ResponseReceived | TrailersReceived):
                said = {str(name): str(value) for name, value in event.headers or ()}
                if event.stream_id == stream_id and "grpc-status" in said:
                    return said["grpc-status"]
        return None

    @property
    def was_told_to_go(self) -> bool:
        return any(isinstance(event, ConnectionTerminated) for event in self.events)

    def replies(self) -> int:
        return sum(isinstance(event, DataReceived) for event in self.events)


@asynccontextmanager
async def peer_of(
    settings: DistributorSettings | None = None, *, window: int | None = None
) -> AsyncIterator[tuple[Peer, Client, Distributor]]:
    """A peer that speaks HTTP/2, an honest client on a connection of its own, the distributor."""
    async with distributor_channel(settings) as (client, distributor):
        peer = new_peer(distributor, window=window)
        peer.speak()
        yield peer, client, distributor


def new_peer(distributor: Distributor, *, window: int | None = None) -> Peer:
    peer = Peer(window=window)
    join(peer, distributor.server._protocol_factory())
    return peer


def limits(**values: object) -> DistributorSettings:
    return DistributorSettings.model_validate({"store": "memory:", **values})


# --- calls that are cancelled -----------------------------------------------------------------


async def test_ten_thousand_cancelled_calls_leave_the_connection_working() -> None:
    async with peer_of(limits(resets_per_second_max=1_000_000)) as (peer, _, distributor):
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


def reset_a_call(peer: Peer) -> bytes:
    peer.http2.reset_stream(peer.call("Ping", HALF_A_MESSAGE))
    return peer.http2.data_to_send()


def make_it_reset(peer: Peer) -> bytes:
    """A window over HTTP/2's limit is a stream's error, and the distributor resets it."""
    return frame(8, b"\x7f\xff\xff\xff", stream_id=peer.call("Ping", HALF_A_MESSAGE))


FLOODS: dict[str, Callable[[Peer], bytes]] = {
    "resets": reset_a_call,
    "made resets": make_it_reset,
    "pings": lambda peer: frame(6, b"12345678"),
    "settings": lambda peer: frame(4),
    "priorities": lambda peer: frame(PRIORITY, bytes(5), stream_id=7),
    "unknown frames": lambda peer: frame(UNKNOWN),
}


@pytest.mark.parametrize("name", FLOODS)
async def test_a_flood_ends_its_connection_and_no_other(name: str) -> None:
    few = limits(resets_per_second_max=50, control_frames_per_second_max=50)
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
        peer.send(frame(0, stream_id=stream_id) * 80)
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
    sent = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + frame(4)
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
                frame(1, Encoder().encode(headers), flags=chance.choice([4, 5]), stream_id=1),
                frame(0, EMPTY_MESSAGE, flags=chance.choice([0, 1]), stream_id=stream_id),
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


# --- slow, gone, idle -------------------------------------------------------------------------


def now_s() -> float:
    return asyncio.get_running_loop().time()


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
        peer.call("Work")  # its first message may take its time, and so may all others
        await asyncio.sleep(50)
        assert not peer.closed.done()


@pytest.mark.parametrize("sent", [b"", b"\0", HALF_A_MESSAGE])
async def test_a_message_has_to_come_whole_within_a_minute(sent: bytes) -> None:
    async with peer_of() as (peer, _, _):
        stream_id = peer.call("SubmitTask", sent)
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
        hello = bytes(WorkRequest(hello=WorkHello(agent_id="deaf", session="s", slots=1)))
        stream_id = peer.call("Work", struct.pack(">?I", False, len(hello)) + hello)
        task = await client.submit(user_tier="paid", est_processing_time_s=1)
        await asyncio.sleep(59)
        assert peer.status(stream_id) is None
        await asyncio.sleep(2)
        assert peer.status(stream_id) == "4"
        work = await client.fetch(agent_id="honest", session="t")
        assert work is not None
        assert work.task_id == task.task_id


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
