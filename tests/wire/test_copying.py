"""The codec reads and prints every message of the contract just as betterproto itself does."""

from datetime import UTC, datetime, timedelta
from typing import Any

import betterproto
import pytest
from google.protobuf.descriptor import Descriptor, FieldDescriptor
from grpclib.const import Status
from grpclib.exceptions import GRPCError
from hypothesis import given, settings
from hypothesis import strategies as st

from taskdist.limits import REQUEST_PARTS_MAX
from taskdist.wire import messages as wire
from taskdist.wire.codec import PACKAGE, Codec, descriptor_pool, fields, make
from tests.support.examples import examples

CODEC = Codec(REQUEST_PARTS_MAX)
POOL = descriptor_pool()
MESSAGES: list[type[Any]] = [
    cls
    for cls in vars(wire).values()
    if isinstance(cls, type) and issubclass(cls, betterproto.Message)
]

KIND = FieldDescriptor
SCALARS: dict[int, st.SearchStrategy[Any]] = {
    KIND.TYPE_STRING: st.text(max_size=8),
    KIND.TYPE_BYTES: st.binary(max_size=8),
    KIND.TYPE_BOOL: st.booleans(),
    KIND.TYPE_DOUBLE: st.floats(),
    KIND.TYPE_UINT32: st.integers(0, 2**32 - 1),
    KIND.TYPE_UINT64: st.integers(0, 2**64 - 1),
    KIND.TYPE_INT32: st.integers(-(2**31), 2**31 - 1),
}
TIMES = st.datetimes(
    min_value=datetime(1, 1, 2),  # noqa: DTZ001 # hypothesis wants it so
    max_value=datetime(9999, 12, 30),  # noqa: DTZ001 # likewise
    timezones=st.just(UTC),
)


def descriptor_of(cls: type[Any]) -> Descriptor:
    return POOL.FindMessageTypeByName(f"{PACKAGE}.{cls.__name__}")


def values_of(field: FieldDescriptor) -> st.SearchStrategy[Any]:
    if field.message_type is not None:
        if field.message_type.full_name == "google.protobuf.Timestamp":
            one: st.SearchStrategy[Any] = TIMES
        else:
            one = plain_messages(getattr(wire, field.message_type.name))
    elif field.enum_type is not None:
        enum = getattr(wire, field.enum_type.name)
        one = st.integers(0, 9).map(enum.try_value)  # some of them unknown
    else:
        one = SCALARS[field.type]
    return st.lists(one, max_size=3) if field.is_repeated else one


@st.composite
def plain_messages(draw: st.DrawFn, cls: type[Any]) -> Any:
    """Messages of this class, made by betterproto's own constructor; any field may be unset."""
    values: dict[str, Any] = {}
    chosen: set[str] = set()
    for field in descriptor_of(cls).fields:
        oneof = field.containing_oneof
        if oneof is not None and oneof.name in chosen:
            continue
        if draw(st.booleans()):
            values[field.name] = draw(values_of(field))
            if oneof is not None:
                chosen.add(oneof.name)
    return cls(**values)


@pytest.mark.parametrize("cls", MESSAGES, ids=lambda cls: cls.__name__)
def test_prints_and_reads_as_betterproto_does(cls: type[Any]) -> None:
    @settings(max_examples=examples(8), deadline=None)
    @given(plain_messages(cls), st.sampled_from([b"", b"\xf8\x3f\x07", b"\xfa\x3f\x02hi"]))
    def check(plain: Any, unknown: bytes) -> None:
        theirs = bytes(plain) + unknown  # fields 1023, which the contract does not have
        printed = CODEC.encode(plain, cls)
        assert cls.FromString(printed) == plain
        assert CODEC.decode(printed, cls) == plain
        read, own = CODEC.decode(theirs, cls), cls.FromString(theirs)
        assert read == own
        assert repr(read) == repr(CODEC.decode(CODEC.encode(read, cls), cls))
        assert sorted(CODEC.encode(read, cls)) == sorted(bytes(own))
        assert bytes(read) == bytes(own)

    check()


@pytest.mark.parametrize("cls", MESSAGES, ids=lambda cls: cls.__name__)
def test_make_and_fields_are_the_constructor_and_the_attributes(cls: type[Any]) -> None:
    @settings(max_examples=examples(8), deadline=None)
    @given(plain_messages(cls))
    def check(plain: Any) -> None:
        values = {
            name: value
            for name, value in plain.__dict__.items()
            if not name.startswith("_") and value is not betterproto.PLACEHOLDER
        }
        made = make(cls, **values)
        assert made == plain
        assert bytes(made) == bytes(plain)
        view = fields(made)
        for name, value in values.items():
            assert repr(getattr(view, name)) == repr(value)

    check()


def test_what_is_not_set_reads_as_its_default_and_as_none_where_presence_matters() -> None:
    for message in (make(wire.GetTaskResponse), wire.GetTaskResponse()):
        view: Any = fields(message)
        assert (view.result, view.error, list(view.attempts)) == (b"", "", [])
        assert view.task is None
    view = fields(make(wire.Task))
    assert (view.state, view.sequence, view.submitted_at) == (0, 0, None)
    view = fields(make(wire.SubmitTasksResult, refusal=make(wire.Refusal)))
    assert view.submitted is None
    assert view.refusal == wire.Refusal()
    assert fields(make(wire.SubmitTaskRequest)).max_retries is None


def test_an_unknown_field_is_a_mistake_of_ours() -> None:
    with pytest.raises(TypeError, match="SubmitTaskRequest has no field tier"):
        make(wire.SubmitTaskRequest, tier="paid")


@pytest.mark.parametrize(
    "data",
    [
        b"\xff",
        b"\x0a\x05ab",
        b"\x0a\x01\xff",
        b"\x11\x00",
        b"\x0b",
        b"\x0a\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\x01",
    ],
    ids=["tag", "cut", "utf8", "fixed", "group", "length"],
)
def test_malformed_bytes_are_refused_in_one_line(data: bytes) -> None:
    """P7."""
    with pytest.raises(GRPCError) as refused:
        CODEC.decode(data, wire.SubmitTaskRequest)
    assert refused.value.status is Status.INVALID_ARGUMENT
    assert "\n" not in str(refused.value.message)


def test_a_timestamp_beyond_the_calendar_is_refused() -> None:
    """P7."""
    beyond = b"\x6a\x08\x08" + b"\xff\xff\xff\xff\xff\x7f\x00"[:7]
    with pytest.raises(GRPCError) as refused:
        CODEC.decode(beyond, wire.Task)
    assert refused.value.status is Status.INVALID_ARGUMENT


@pytest.mark.parametrize("part", [b"\x08\x00", b"\x0a\x00", b"\xf8\x3f\x00"])
def test_too_many_parts_are_refused_before_they_are_parsed(part: bytes) -> None:
    """P7: 4 MiB of the smallest parts would become 320 MiB of objects."""
    data = part * (4 * 1024 * 1024 // len(part))
    inside = b"\x0a" + betterproto.encode_varint(len(data)) + data
    for message in (data, inside):
        with pytest.raises(GRPCError) as refused:
            CODEC.decode(message, wire.SubmitTasksRequest)
        assert refused.value.status is Status.RESOURCE_EXHAUSTED


def test_packed_numbers_count_too() -> None:
    """P7."""
    numbers = b"\x02" * (REQUEST_PARTS_MAX + 1)
    data = b"\x0a" + betterproto.encode_varint(len(numbers)) + numbers
    with pytest.raises(GRPCError):
        CODEC.decode(data, wire.ListTasksRequest)


def test_large_data_is_one_part() -> None:
    message = make(wire.SubmitTaskRequest, data=b"\x08\x00" * 500_000)
    assert (
        CODEC.decode(CODEC.encode(message, wire.SubmitTaskRequest), wire.SubmitTaskRequest)
        == message
    )


class TestBetterproto:
    """What the codec knows of betterproto's insides: one of these fails when the pin moves."""

    def test_placeholder(self) -> None:
        assert wire.Task().__dict__["task_id"] is betterproto.PLACEHOLDER

    def test_the_inside_of_a_message(self) -> None:
        inside = wire.SubmitTasksResult(refusal=wire.Refusal()).__dict__
        assert set(inside) - {"submitted", "refusal"} == {
            "_serialized_on_wire",
            "_unknown_fields",
            "_group_current",
        }
        assert inside["_group_current"] == {"outcome": "refusal"}
        assert inside["_unknown_fields"] == b""
        assert inside["_serialized_on_wire"] is True
        assert wire.Task().__dict__["_serialized_on_wire"] is False

    def test_optional_fields_are_none_and_of_no_group(self) -> None:
        inside = wire.SubmitTaskRequest().__dict__
        assert inside["max_retries"] is None
        assert inside["_group_current"] == {}

    def test_enums_take_unknown_numbers(self) -> None:
        assert wire.TaskState.try_value(2) is wire.TaskState.READY
        assert wire.TaskState.try_value(77).name is None

    def test_varints_and_wire_types(self) -> None:
        assert betterproto.encode_varint(300) == b"\xac\x02"
        types = (betterproto.WIRE_VARINT, betterproto.WIRE_FIXED_64)
        assert types == (0, 1)
        assert (betterproto.WIRE_LEN_DELIM, betterproto.WIRE_FIXED_32) == (2, 5)

    def test_unknown_fields_are_printed_again(self) -> None:
        assert bytes(wire.PingRequest.FromString(b"\xf8\x3f\x07")) == b"\xf8\x3f\x07"

    def test_timestamps_are_whole_microseconds(self) -> None:
        when = datetime(2026, 1, 2, 3, 4, 5, 678901, tzinfo=UTC)
        assert wire.Task.FromString(bytes(wire.Task(submitted_at=when))).submitted_at == when
        before = datetime(1969, 12, 31, 23, 59, 59, tzinfo=UTC) + timedelta(microseconds=1)
        message = make(wire.Task, submitted_at=before)
        assert CODEC.decode(CODEC.encode(message, wire.Task), wire.Task).submitted_at == before
