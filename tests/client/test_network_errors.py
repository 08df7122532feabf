"""Whatever the network does to a call, the client says Unavailable, in one line, and calls again.

Over real sockets: what a peer may be, that is no distributor or one no more.
"""

import asyncio
import socket
import struct
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import ExitStack, asynccontextmanager

import pytest
from h2.config import H2Configuration
from h2.connection import H2Connection
from h2.errors import ErrorCodes
from h2.events import RequestReceived

from taskdist.client import Stub, connection
from taskdist.core.errors import Unavailable
from taskdist.limits import CALLS_PER_CHANNEL_MAX

Answer = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]

TIMEOUT_S = 0.5
"""Of a call that does not wait by design, and until a frozen peer is noticed by one that does."""


@pytest.fixture(autouse=True)
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    """A frozen peer is noticed sooner than in half a minute."""
    monkeypatch.setattr(connection, "CLIENT_KEEPALIVE_US", 200_000)
    monkeypatch.setattr(connection, "CLIENT_KEEPALIVE_TIMEOUT_US", 200_000)


@asynccontextmanager
async def listening(answer: Answer) -> AsyncIterator[str]:
    """A server that does this with each connection; its address."""
    tasks: set[asyncio.Task[None]] = set()

    async def connected(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        tasks.add(task)
        try:
            await answer(reader, writer)
        finally:
            writer.close()

    server = await asyncio.start_server(connected, "127.0.0.1", 0)
    host, port = server.sockets[0].getsockname()
    try:
        yield f"{host}:{port}"
    finally:
        server.close()
        if tasks:  # They end with the client's connections.
            await asyncio.wait(tasks)


async def unavailable(address: str, *, says: str = "") -> None:
    """Each way to call says so, twice; and no cancel of its task is left behind."""
    async with Stub(address, timeout_s=TIMEOUT_S, batching=False) as client:
        for _ in range(2):
            for call in (client.ping, lambda: watched(client), lambda: worked(client)):
                with pytest.raises(Unavailable) as refusal:
                    async with asyncio.timeout(5):
                        await call()
                assert says in str(refusal.value)
                assert len(str(refusal.value).splitlines()) == 1
                task = asyncio.current_task()
                assert task is not None
                assert not task.cancelling()


async def watched(client: Stub) -> None:
    async for _ in client.watch("0190a6e2-7b1c-7c3e-9f52-3d1f4e8a9b00"):
        pass


async def worked(client: Stub) -> None:
    async with client.work(agent_id="a", session="s", slots=1) as stream:
        await stream.receive()


# --- too much at once -------------------------------------------------------------------------


async def test_a_channel_has_so_many_calls_at_once_and_others_wait() -> None:
    """Above some number each call that ends would wake all that wait for its place."""
    at_once: list[int] = []

    def noted(http2: H2Connection, stream_id: int) -> None:
        at_once.append(http2.open_inbound_streams)
        if http2.open_inbound_streams == CALLS_PER_CHANNEL_MAX:
            for open_id in sorted(http2.streams):
                if http2.streams[open_id].open:
                    answers_grpc_status(http2, open_id)

    async with listening(speaks_http2(noted)) as address, Stub(address) as client:
        calls = [client.ping() for _ in range(CALLS_PER_CHANNEL_MAX * 2)]
        ends = await asyncio.gather(*calls, return_exceptions=True)
        assert all(isinstance(end, Unavailable) for end in ends)
        assert max(at_once) == CALLS_PER_CHANNEL_MAX


async def test_a_call_whose_turn_does_not_come_is_unavailable() -> None:
    """Watches are calls as well: who watches too many is told, and does not wait for ever."""
    async with (
        listening(speaks_http2(lambda http2, stream_id: None)) as address,
        Stub(address, timeout_s=TIMEOUT_S, batching=False) as client,
    ):
        watches = [asyncio.ensure_future(watched(client)) for _ in range(CALLS_PER_CHANNEL_MAX)]
        await asyncio.sleep(0)
        with pytest.raises(Unavailable, match="90 calls are under way"):
            await client.ping()
        for watch in watches:
            watch.cancel()
        await asyncio.wait(watches)
        with pytest.raises(Unavailable, match="no answer in time"):
            await client.ping()


async def test_a_connection_without_numbers_for_more_calls_is_replaced() -> None:
    """HTTP/2 has 2^30 of them; then grpclib would fail each call, for ever."""
    async with listening(speaks_http2(answers_grpc_status)) as address, Stub(address) as client:
        with pytest.raises(Unavailable):
            await client.ping()
        protocol = client._channel._protocol
        assert protocol is not None
        http2 = protocol.connection._connection
        http2.highest_outbound_stream_id = H2Connection.HIGHEST_ALLOWED_STREAM_ID - 2
        for _ in range(3):
            with pytest.raises(Unavailable, match="INTERNAL"):
                await client.ping()
        assert client._channel._protocol is not protocol


# --- nobody there -----------------------------------------------------------------------------


async def test_nobody_listens() -> None:
    with socket.socket() as bound:
        bound.bind(("127.0.0.1", 0))
        host, port = bound.getsockname()
        await unavailable(f"{host}:{port}", says="connection refused")


async def test_there_is_no_such_host() -> None:
    await unavailable("no-such-host.invalid:1")


async def test_nothing_answers(monkeypatch: pytest.MonkeyPatch) -> None:
    """As behind a cut cable: a kernel would try for two minutes, and ever more seldom."""
    monkeypatch.setattr(connection, "CONNECT_MAX_US", 200_000)
    with socket.create_server(("127.0.0.1", 0), backlog=0) as full, ExitStack() as waiting:
        host, port = full.getsockname()
        for _ in range(3):  # Nobody accepts them, and more than so many are not answered.
            one = waiting.enter_context(socket.socket())
            one.setblocking(False)
            one.connect_ex((host, port))
        await unavailable(f"{host}:{port}", says="no answer in time")


# --- somebody else is there -------------------------------------------------------------------


async def hang_up(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Accepts, and closes."""


async def reset(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Resets the connection, once something came."""
    await reader.read(100)
    sock = writer.get_extra_info("socket")
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))


async def speak_http1(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """A web server of an earlier time."""
    await reader.read(100)
    writer.write(b"HTTP/1.1 400 Bad Request\r\nContent-Length: 0\r\n\r\n")
    await say_nothing(reader, writer)


async def speak_nonsense(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Some other service."""
    writer.write(b"220 mail.example ESMTP\r\n" * 20)
    await say_nothing(reader, writer)


async def say_nothing(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Takes all, says nothing: frozen."""
    while await reader.read(65_536):
        pass


def speaks_http2(act: Callable[[H2Connection, int], None], *, close: bool = False) -> Answer:
    """A server of HTTP/2 that does this with each request."""

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        http2 = H2Connection(H2Configuration(client_side=False))
        http2.initiate_connection()
        while True:
            writer.write(http2.data_to_send())
            await writer.drain()
            data = await reader.read(65_536)
            if not data:
                return
            for event in http2.receive_data(data):
                if isinstance(event, RequestReceived):
                    assert event.stream_id is not None
                    act(http2, event.stream_id)
                    if close or act is goes_away:
                        writer.write(http2.data_to_send())
                        if not close:
                            await say_nothing(reader, writer)
                        return

    return answer


def goes_away(http2: H2Connection, stream_id: int) -> None:
    http2.close_connection(ErrorCodes.NO_ERROR)


def resets_the_call(http2: H2Connection, stream_id: int) -> None:
    http2.reset_stream(stream_id, ErrorCodes.REFUSED_STREAM)


def answers_as_a_web_server(http2: H2Connection, stream_id: int) -> None:
    http2.send_headers(stream_id, [(":status", "200"), ("content-type", "text/html")])
    http2.send_data(stream_id, b"<html></html>", end_stream=True)


def answers_502(http2: H2Connection, stream_id: int) -> None:
    """A proxy that lost what is behind it."""
    http2.send_headers(stream_id, [(":status", "502")], end_stream=True)


def answers_half(http2: H2Connection, stream_id: int) -> None:
    """Headers, part of a message, and the end of the connection."""
    http2.send_headers(stream_id, [(":status", "200"), ("content-type", "application/grpc")])
    http2.send_data(stream_id, struct.pack(">?I", False, 100) + b"half")


def ends_without_a_status(http2: H2Connection, stream_id: int) -> None:
    http2.send_headers(stream_id, [(":status", "200"), ("content-type", "application/grpc")])
    http2.send_data(stream_id, struct.pack(">?I", False, 100) + b"half", end_stream=True)


def sends_no_message_of_ours(http2: H2Connection, stream_id: int) -> None:
    http2.send_headers(stream_id, [(":status", "200"), ("content-type", "application/grpc")])
    http2.send_data(stream_id, struct.pack(">?I", False, 4) + b"\xff\xff\xff\xff")


def answers_grpc_status(http2: H2Connection, stream_id: int) -> None:
    """A status that is none of ours, as a proxy may make one."""
    headers = [(":status", "200"), ("content-type", "application/grpc"), ("grpc-status", "13")]
    http2.send_headers(stream_id, headers, end_stream=True)


def answers_no_status_that_there_is(http2: H2Connection, stream_id: int) -> None:
    headers = [(":status", "200"), ("content-type", "application/grpc"), ("grpc-status", "x99")]
    http2.send_headers(stream_id, headers, end_stream=True)


PEERS: dict[str, Answer] = {
    "hangs up": hang_up,
    "resets the connection": reset,
    "speaks HTTP/1": speak_http1,
    "speaks something else": speak_nonsense,
    "is frozen": say_nothing,
    "goes away": speaks_http2(goes_away),
    "goes away and closes": speaks_http2(goes_away, close=True),
    "resets the call": speaks_http2(resets_the_call),
    "is a web server": speaks_http2(answers_as_a_web_server),
    "is a proxy without a server": speaks_http2(answers_502),
    "closes within a message": speaks_http2(answers_half, close=True),
    "ends within a message": speaks_http2(ends_without_a_status),
    "sends no message of ours": speaks_http2(sends_no_message_of_ours),
    "answers a status that is none of ours": speaks_http2(answers_grpc_status),
    "answers a status that there is not": speaks_http2(answers_no_status_that_there_is),
}


@pytest.mark.parametrize("name", PEERS)
async def test_a_peer_that_is_no_distributor(name: str, caplog: pytest.LogCaptureFixture) -> None:
    async with listening(PEERS[name]) as address:
        await unavailable(address)
    assert not [record for record in caplog.records if record.exc_info]
