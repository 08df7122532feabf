"""The codec: messages to bytes and back, and bytes that are no message."""

from datetime import UTC, datetime
from typing import Any

import betterproto
import pytest
from google.protobuf.message_factory import GetMessageClass
from grpclib.const import Status
from grpclib.exceptions import GRPCError
from grpclib.health.v1.health_pb2 import HealthCheckRequest
from hypothesis import given, settings
from hypothesis import strategies as st

from taskdist.wire import messages as wire
from taskdist.wire.codec import Codec, descriptor_pool, fields, make

CODEC = Codec()
MOMENT = datetime(2026, 7, 1, 12, 0, 0, 123_456, tzinfo=UTC)

REPORT = wire.GetTaskResponse(
    task=wire.Task(
        task_id="an id",
        state=wire.TaskState["DEAD"],
        est_processing_time=2.5,
        sequence=2**64 - 1,
        submitted_at=MOMENT,
    ),
    result=b"\0\xff",
    error="ä\n",
    attempts=[wire.Attempt(attempt=1, outcome=wire.AttemptOutcome["FAILED"]), wire.Attempt()],
)

ALL = [
    value
    for value in vars(wire).values()
    if isinstance(value, type) and issubclass(value, betterproto.Message)
]
"""Every message of the contract."""


def test_a_message_comes_back_as_it_went() -> None:
    assert CODEC.decode(CODEC.encode(REPORT, wire.GetTaskResponse), wire.GetTaskResponse) == REPORT


@pytest.mark.parametrize("cls", [cls for cls in ALL if cls is not betterproto.Message])
def test_an_empty_message_is_no_bytes(cls: type[betterproto.Message]) -> None:
    assert CODEC.encode(cls(), cls) == b""
    assert CODEC.decode(b"", cls) == cls()


def test_what_is_unset_stays_unset() -> None:
    """Presence matters where a default is not zero."""
    request = CODEC.decode(b"", wire.SubmitTaskRequest)
    assert request.max_retries is None
    zero = CODEC.encode(wire.SubmitTaskRequest(max_retries=0), wire.SubmitTaskRequest)
    assert zero != b""
    assert CODEC.decode(zero, wire.SubmitTaskRequest).max_retries == 0
    said = CODEC.encode(wire.CompleteTaskRequest(retryable=False), wire.CompleteTaskRequest)
    assert CODEC.decode(said, wire.CompleteTaskRequest).retryable is False
    assert CODEC.decode(b"", wire.FetchTaskRequest).wait_seconds is None


def test_the_bytes_are_those_that_google_would_write() -> None:
    google = GetMessageClass(descriptor_pool().FindMessageTypeByName("taskdist.v1.GetTaskResponse"))
    data = CODEC.encode(REPORT, wire.GetTaskResponse)
    theirs: Any = google.FromString(data)
    assert theirs.SerializeToString() == data
    assert theirs.task.submitted_at.ToDatetime(UTC) == MOMENT
    assert theirs.task.sequence == 2**64 - 1


def test_googles_messages_pass_as_well() -> None:
    request = HealthCheckRequest(service="taskdist.v1.TaskDistributor")
    data = CODEC.encode(request, HealthCheckRequest)
    assert CODEC.decode(data, HealthCheckRequest) == request
    with pytest.raises(GRPCError):
        CODEC.decode(b"\xff", HealthCheckRequest)


def test_fields_and_make_are_the_messages_own() -> None:
    message = make(wire.PingRequest, message="hello")
    assert message == wire.PingRequest(message="hello")
    assert fields(message).message == "hello"


def test_a_message_of_another_type_is_a_mistake_of_ours() -> None:
    with pytest.raises(TypeError, match="expected PingResponse, not PingRequest"):
        CODEC.encode(wire.PingRequest(), wire.PingResponse)


@pytest.mark.parametrize(
    "data",
    [
        b"\xff",
        b"\x0a",
        b"\x0a\x05abc",
        b"\x0a\x02\xff\xfe",
        b"\x0a\xff\xff\xff\xff\x7f",
        b"\x0b",
        b"\x0f\x01",
        b"\0",
    ],
    ids=bytes.hex,
)
def test_malformed_bytes_are_an_invalid_argument_in_one_line(data: bytes) -> None:
    with pytest.raises(GRPCError) as caught:
        CODEC.decode(data, wire.SubmitTaskRequest)
    assert caught.value.status is Status.INVALID_ARGUMENT
    assert caught.value.message == "not a SubmitTaskRequest: DecodeError"
    assert caught.value.__suppress_context__, "no traceback of what the decoder ran into"


PIECES = st.one_of(
    st.binary(max_size=8),
    st.builds(
        lambda field, kind: bytes([field << 3 | kind]), st.integers(0, 15), st.integers(0, 7)
    ),
)


@settings(deadline=None)
@given(st.lists(PIECES, max_size=12).map(b"".join))
def test_p7_whatever_the_bytes_it_is_a_message_or_an_invalid_argument(data: bytes) -> None:
    for cls in (wire.SubmitTaskRequest, wire.GetTaskResponse, wire.ListTasksRequest):
        try:
            message = CODEC.decode(data, cls)
        except GRPCError as error:
            status = error.status
        else:
            printed = CODEC.encode(message, cls)
            assert CODEC.encode(CODEC.decode(printed, cls), cls) == printed
            continue
        assert status is Status.INVALID_ARGUMENT


def test_fields_of_a_later_version_are_passed_on() -> None:
    data = CODEC.encode(wire.PingRequest(message="hello"), wire.PingRequest)
    later = data + b"\xf2\x06\x03new"
    assert CODEC.encode(CODEC.decode(later, wire.PingRequest), wire.PingRequest) == later


def test_the_descriptors_are_the_contracts() -> None:
    service = descriptor_pool().FindServiceByName("taskdist.v1.TaskDistributor")
    served = {path.rpartition("/")[2] for path in wire.TaskDistributorBase().__mapping__()}
    assert {method.name for method in service.methods} == served
