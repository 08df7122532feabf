"""What a client may do below the messages: half a call, a lie about a length, bytes that are none.

Each gets a status and costs nothing but its own call (P7).
"""

import asyncio
import struct

import pytest
from google.rpc.error_details_pb2 import BadRequest
from grpclib.client import Channel
from grpclib.const import Cardinality, Status
from grpclib.exceptions import GRPCError

from taskdist.client import Stub
from taskdist.distributor.server import Distributor
from taskdist.limits import MESSAGE_BYTES_MAX
from taskdist.wire import messages as wire
from tests.distributor.story import nothing_changes, submit, take
from tests.support.channel import MemoryChannel
from tests.support.peer import EMPTY_MESSAGE, peer_of

# Every sleep here is on the loop's virtual clock, and takes no time.
pytestmark = pytest.mark.virtual_time

METHODS = [path.rpartition("/")[2] for path in wire.TaskDistributorBase().__mapping__()]


def framed(data: bytes, *, length: int | None = None, compressed: bool = False) -> bytes:
    """A message with its prefix, which may lie."""
    return struct.pack(">?I", compressed, len(data) if length is None else length) + data


async def raw_call(
    channel: Channel, method: str, body: bytes, *, end: bool = True, service: str = ""
) -> GRPCError:
    """Sends these bytes as the body of a call; the error that comes back."""
    path = f"/{service or 'taskdist.v1.TaskDistributor'}/{method}"
    try:
        async with channel.request(
            path, Cardinality.STREAM_STREAM, wire.PingRequest, wire.PingResponse
        ) as stream:
            await stream.send_request(end=end and not body)
            if body:
                await stream._stream.send_data(body, end_stream=end)
            await stream.recv_initial_metadata()
    except GRPCError as error:
        return error
    raise AssertionError("it was accepted")


@pytest.fixture
async def channel(distributor: Distributor) -> Channel:
    return MemoryChannel(distributor.server)


@pytest.mark.parametrize("method", METHODS)
async def test_a_call_that_is_closed_without_a_message(
    client: Stub, channel: Channel, method: str, caplog: pytest.LogCaptureFixture
) -> None:
    await submit(client)
    async with nothing_changes(client), channel:
        error = await raw_call(channel, method, b"")
    assert error.status is Status.INVALID_ARGUMENT
    assert error.message == "the call was closed without a message"
    assert not caplog.records


@pytest.mark.parametrize(
    "body",
    [b"\0\0", framed(b"", length=10), framed(b"123456789", length=10)],
    ids=["in the prefix", "after the prefix", "in the message"],
)
async def test_a_call_that_is_closed_within_a_message(
    client: Stub, channel: Channel, body: bytes, caplog: pytest.LogCaptureFixture
) -> None:
    await submit(client)
    async with nothing_changes(client), channel:
        for method in METHODS:
            error = await raw_call(channel, method, body)
            assert error.status is Status.INVALID_ARGUMENT
            assert error.message == "the call was closed within a message"
    assert not caplog.records


@pytest.mark.parametrize("length", [MESSAGE_BYTES_MAX + 1, 2**32 - 1])
async def test_a_message_over_the_limit_is_refused_at_its_prefix(
    client: Stub, channel: Channel, length: int
) -> None:
    """Not a byte of it has been sent, nor will be."""
    await submit(client)
    async with nothing_changes(client), channel:
        error = await raw_call(channel, "SubmitTask", framed(b"", length=length), end=False)
    assert error.status is Status.RESOURCE_EXHAUSTED
    assert error.message == f"request: a message of {length} bytes; allowed: at most 4194304"
    (detail,) = error.details
    assert isinstance(detail, BadRequest), "not RetryInfo: it is of no use to send it again"


async def test_a_message_of_just_the_limit_is_read(client: Stub, channel: Channel) -> None:
    await submit(client)
    padding = b"\x1a" + b"\xf8\xff\xff\x01"  # the field data, this long:
    length = MESSAGE_BYTES_MAX - len(padding)
    assert length == 0x3FFFFB
    body = framed(b"\x1a\xfb\xff\xff\x01" + b"x" * length)
    async with nothing_changes(client), channel:
        error = await raw_call(channel, "SubmitTask", body)
    assert error.status is Status.INVALID_ARGUMENT
    (detail,) = error.details
    assert {bad.field for bad in detail.field_violations} == {"user_tier", "data"}


async def test_a_compressed_message_is_unimplemented(
    client: Stub, channel: Channel, caplog: pytest.LogCaptureFixture
) -> None:
    await submit(client)
    async with nothing_changes(client), channel:
        for method in METHODS:
            error = await raw_call(channel, method, framed(b"123", compressed=True))
            assert error.status is Status.UNIMPLEMENTED
            assert error.message == "compressed messages are not supported"
    assert not caplog.records


@pytest.mark.parametrize(
    "data",
    [
        b"\xff" * 11,  # a number without an end
        b"\x0a\x05abc",  # a text that is shorter than it says
        b"\x0a\x02\xff\xfe",  # a text that is not UTF-8
        b"\x0b",  # a wire type that there is not
        b"\0" * 1_000,
    ],
)
async def test_malformed_bytes_are_an_invalid_argument_in_one_line(
    client: Stub, channel: Channel, data: bytes, caplog: pytest.LogCaptureFixture
) -> None:
    await submit(client)
    async with nothing_changes(client), channel:
        for method in METHODS:
            error = await raw_call(channel, method, framed(data))
            assert error.status is Status.INVALID_ARGUMENT
            assert error.message is not None
            assert error.message.startswith(f"not a {method}Request: ")
            assert "\n" not in error.message
    assert not caplog.records


@pytest.mark.parametrize("method", ["SubmitTask", "FetchTask", "CompleteTask", "CancelTask"])
async def test_fields_of_the_wrong_type_are_not_there(
    client: Stub, channel: Channel, method: str, caplog: pytest.LogCaptureFixture
) -> None:
    """As protobuf has it: they are unknown fields. What is required is then missing."""
    await submit(client)
    numbers = b"".join(bytes([field << 3, 1]) for field in range(1, 8))
    async with nothing_changes(client), channel:
        error = await raw_call(channel, method, framed(numbers))
    assert error.status is Status.INVALID_ARGUMENT
    assert {bad.field for bad in error.details[0].field_violations} <= {
        "user_tier",
        "agent_id",
        "task_id",
    }
    assert not caplog.records


async def test_p7_very_many_unknown_fields_cost_no_time(client: Stub, channel: Channel) -> None:
    """With betterproto's own decoder these take minutes, in which nobody is served. Here they are
    refused before they are parsed."""
    unknown = b"\xf8\x07\x01" * 1_000_000
    async with channel:
        error = await raw_call(channel, "CancelTask", framed(unknown))
    assert error.status is Status.RESOURCE_EXHAUSTED


@pytest.mark.parametrize("said", ["0n", "0S", "00000000H", "1n"])
async def test_a_call_whose_deadline_has_passed_is_not_begun(
    said: str, caplog: pytest.LogCaptureFixture
) -> None:
    async with peer_of() as (peer, client, _):
        task_id = await submit(client)
        async with nothing_changes(client):
            for method in METHODS:
                call = peer.call(method, EMPTY_MESSAGE, end=True, more=[("grpc-timeout", said)])
                await asyncio.sleep(0.1)
                assert peer.status(call) == str(Status.DEADLINE_EXCEEDED.value), method
        assert (await take(client)).task_id == task_id
    assert not [record for record in caplog.records if record.exc_info]


@pytest.mark.parametrize("said", ["9" * 400 + "H", "9" * 9 + "n", "1" * 5_000 + "S"])
async def test_a_deadline_of_more_digits_than_allowed_is_none(
    said: str, caplog: pytest.LogCaptureFixture
) -> None:
    async with peer_of() as (peer, _, _):
        call = peer.call("Ping", EMPTY_MESSAGE, end=True, more=[("grpc-timeout", said)])
        await asyncio.sleep(0.1)
        assert peer.status(call) == "0"
    assert not caplog.records


async def test_health_and_reflection_are_guarded_as_well(
    channel: Channel, caplog: pytest.LogCaptureFixture
) -> None:
    async with channel:
        for service, method in (
            ("grpc.health.v1.Health", "Check"),
            ("grpc.health.v1.Health", "Watch"),
            ("grpc.reflection.v1.ServerReflection", "ServerReflectionInfo"),
        ):
            error = await raw_call(channel, method, framed(b"\xff"), service=service)
            assert error.status is Status.INVALID_ARGUMENT
            too_long = framed(b"", length=MESSAGE_BYTES_MAX + 1)
            error = await raw_call(channel, method, too_long, service=service)
            assert error.status is Status.RESOURCE_EXHAUSTED
    assert not caplog.records


async def test_a_caller_that_goes_away_within_a_message_leaves_nothing(
    client: Stub, channel: Channel, caplog: pytest.LogCaptureFixture
) -> None:
    async with channel.request(
        "/taskdist.v1.TaskDistributor/SubmitTask",
        Cardinality.STREAM_STREAM,
        wire.PingRequest,
        wire.PingResponse,
    ) as stream:
        await stream.send_request()
        await stream._stream.send_data(framed(b"\x0a\x04pa", length=6))
        await asyncio.sleep(1)
        channel.close()
    await asyncio.sleep(1)
    await submit(client)
    assert (await take(client)).sequence == 1
    assert not [record for record in caplog.records if record.exc_info]


async def test_other_calls_of_the_connection_go_on(client: Stub, channel: Channel) -> None:
    """What one call does wrong is no other call's trouble."""
    async with (
        channel,
        channel.request(
            "/taskdist.v1.TaskDistributor/FetchTask",
            Cardinality.UNARY_UNARY,
            wire.FetchTaskRequest,
            wire.FetchTaskResponse,
        ) as poll,
    ):
        await poll.send_message(wire.FetchTaskRequest(agent_id="agent-1", wait_seconds=30))
        for body in (
            b"",
            b"\0",
            framed(b"\xff"),
            framed(b"", length=2**31),
            framed(b"", compressed=True),
        ):
            await raw_call(channel, "SubmitTask", body)
        task_id = await submit(client)
        work = await poll.recv_message()
    assert work is not None
    assert work.task_id == task_id
