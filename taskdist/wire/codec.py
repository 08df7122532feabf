"""grpclib's codec for our messages, and the one place that touches how messages are made.

google.protobuf's C runtime (upb) parses and prints. Between its message and betterproto's dataclass
stand two functions per message type, written here from the descriptor set that reflection serves:
`read` copies a message of google's into a dataclass, `fill` the other way. The outcome is that of
betterproto's own codec, unknown fields included, many times faster and without its faults: it
checks no wire types, and takes seconds for a megabyte of tiny sub-messages.

All that knows betterproto's insides is in this file; tests/wire/test_copying.py has a test for
each such name. `fields` and `make` are how the rest of taskdist reads and builds messages.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from functools import cache
from importlib import resources
from typing import Any, TypeVar, cast

import betterproto
from google.protobuf.descriptor import Descriptor, FieldDescriptor
from google.protobuf.descriptor_pb2 import FileDescriptorSet
from google.protobuf.descriptor_pool import DescriptorPool
from google.protobuf.message import DecodeError
from google.protobuf.message_factory import GetMessageClass
from google.protobuf.unknown_fields import UnknownFieldSet
from grpclib.config import Configuration
from grpclib.const import Status
from grpclib.encoding.base import CodecBase
from grpclib.exceptions import GRPCError

from taskdist.limits import CONNECTION_WINDOW_BYTES, REQUEST_PARTS_MAX, STREAM_WINDOW_BYTES
from taskdist.wire import messages
from taskdist.wire.parts import Shape, shape_of, too_many_parts

M = TypeVar("M")

PACKAGE = "taskdist.v1"

UNSET = betterproto.PLACEHOLDER
"""What betterproto puts where a field was never set."""

_TIMESTAMP = "google.protobuf.Timestamp"
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)

# Past the dataclass's own look at each read and write of an attribute.
_get = object.__getattribute__
_set = object.__setattr__


# --- for the rest of taskdist -----------------------------------------------------------------


class _View:
    """A message's fields as plain attributes."""


def fields(message: M) -> M:
    """Something with the message's fields as attributes, for reading only.

    A sub-message or timestamp that is not set reads as None, and so does the arm of a oneof that is
    not chosen; anything else that is not set reads as its default.
    """
    cls = type(message)
    view = _View()
    view.__dict__ = (_copiers.get(cls) or _copier(cls)).show(_get(message, "__dict__"))
    return cast(M, view)  # It has the attributes that a reader wants.


def make(cls: type[M], **values: Any) -> M:
    """A message of this class with these fields.

    Raises:
        TypeError: it has no such field.
    """
    copier = _copiers.get(cls) or _copier(cls)
    inside = {**copier.unset, **values}
    if len(inside) != len(copier.unset):
        unknown = ", ".join(values.keys() - copier.unset.keys())
        raise TypeError(f"{cls.__name__} has no field {unknown}")
    if not values:
        inside["_serialized_on_wire"] = False
    if copier.groups:
        current = inside["_group_current"] = copier.no_arms.copy()
        for name in values:
            if name in copier.groups:
                current[copier.groups[name]] = name
    message = object.__new__(cls)
    _set(message, "__dict__", inside)
    return message


def descriptor_pool() -> DescriptorPool:
    """The descriptors of the contract, from the set that is generated with its messages."""
    pool = DescriptorPool()
    data = resources.files("taskdist.wire").joinpath("taskdist.binpb").read_bytes()
    for file in FileDescriptorSet.FromString(data).file:
        pool.Add(file)
    return pool


def windows(
    connection_bytes: int = CONNECTION_WINDOW_BYTES, stream_bytes: int = STREAM_WINDOW_BYTES
) -> Configuration:
    """Flow control windows for either side.

    With the defaults of HTTP/2 one stream that nobody reads blocks its whole connection.
    """
    return Configuration(
        http2_connection_window_size=connection_bytes, http2_stream_window_size=stream_bytes
    )


class Codec(CodecBase):
    """Prints and parses messages for grpclib. Those that are not the contract's do it themselves.

    Args:
        parts_max: how many parts a message that is read may have.
    """

    __content_subtype__ = "proto"

    def __init__(self, parts_max: int = REQUEST_PARTS_MAX) -> None:
        self._parts_max = parts_max

    def encode(self, message: Any, message_type: type[Any]) -> bytes:
        """The bytes of a message.

        Raises:
            TypeError: it is not of the type that the method promises.
        """
        if not isinstance(message, message_type):
            raise TypeError(f"expected {message_type.__name__}, not {type(message).__name__}")
        if not issubclass(message_type, betterproto.Message):
            return bytes(message.SerializeToString())
        copier = _copier(message_type)
        print_ = copier.google()
        copier.fill(message, print_)
        return bytes(print_.SerializeToString())

    def decode(self, data: bytes, message_type: type[M]) -> M:
        """The message in these bytes.

        Raises:
            GRPCError: INVALID_ARGUMENT, they are no such message; RESOURCE_EXHAUSTED, it has too
                many parts.
        """
        try:
            if not issubclass(message_type, betterproto.Message):
                message: M = cast(Any, message_type).FromString(data)
                return message
            copier = _copier(message_type)
            if too_many_parts(data, copier.shape, self._parts_max):
                text = f"a message of more than {self._parts_max} parts"
                raise GRPCError(Status.RESOURCE_EXHAUSTED, text)
            copied: M = copier.read(copier.google.FromString(data))
            return copied
        except (DecodeError, OverflowError) as error:  # the latter: a timestamp beyond year 9999
            reason = f"not a {message_type.__name__}: {type(error).__name__}"
            raise GRPCError(Status.INVALID_ARGUMENT, reason) from None


# --- copying ----------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class _Copier:
    """What is known of one message type."""

    google: Any
    """google's class."""
    read: Callable[[Any], Any]
    """Makes a dataclass of google's message."""
    fill: Callable[[Any, Any], None]
    """Writes a dataclass into google's message, which is empty."""
    show: Callable[[dict[str, Any]], dict[str, Any]]
    """The fields in the inside of a dataclass, as they read."""
    unset: dict[str, Any]
    """The inside of a dataclass of which nothing is set, but that it says to be set."""
    groups: dict[str, str]
    """Of each arm of a oneof, the oneof."""
    no_arms: dict[str, str | None]
    """Of each oneof, that none of its arms is chosen."""
    shape: Shape


@cache
def _pool() -> DescriptorPool:
    return descriptor_pool()


_copiers: dict[type[Any], _Copier] = {}
"""Each is made when it is first needed."""


def _copier(cls: type[Any]) -> _Copier:
    copier = _copiers.get(cls)
    if copier is None:
        copier = _copiers[cls] = _make_copier(cls)
    return copier


def _make_copier(cls: type[Any]) -> _Copier:
    descriptor = _pool().FindMessageTypeByName(f"{PACKAGE}.{cls.__name__}")
    google = GetMessageClass(descriptor)
    names: dict[str, Any] = {
        "UNSET": UNSET,
        "EPOCH": _EPOCH,
        "get": _get,
        "set": _set,
        "new": object.__new__,
        "cls": cls,
        "datetime_of": _datetime_of,
        "fill_timestamp": _fill_timestamp,
        "keep_unknown": _keep_unknown,
        "UnknownFieldSet": UnknownFieldSet,
    }
    for field in descriptor.fields:
        names[f"blank_{field.name}"] = _blank(field)
        if field.enum_type is not None:
            names[f"enum_{field.name}"] = getattr(messages, field.enum_type.name)
        elif _is_message(field):
            assert field.message_type is not None
            inner = _copier(getattr(messages, field.message_type.name))
            names[f"read_{field.name}"] = inner.read
            names[f"fill_{field.name}"] = inner.fill
    exec("\n".join([*_reader(descriptor), *_filler(descriptor), *_shower(descriptor)]), names)
    groups = {field.name: group.name for field, group in _arms(descriptor)}
    unset = {f.name: None if _is_optional(f) else UNSET for f in descriptor.fields}
    inside = {"_serialized_on_wire": True, "_unknown_fields": b"", "_group_current": {}}
    return _Copier(
        google=google,
        read=names["read"],
        fill=names["fill"],
        show=names["show"],
        unset=unset | inside,
        groups=groups,
        no_arms=dict.fromkeys(groups.values()),
        shape=shape_of(descriptor),
    )


def _reader(descriptor: Descriptor) -> Iterator[str]:
    """The lines of `read`."""
    groups = sorted({group.name for _, group in _arms(descriptor)})
    yield "def read(p):"
    yield "    m = new(cls)"
    for group in groups:
        yield f"    group_{group} = p.WhichOneof({group!r})"
    yield "    set(m, '__dict__', {"
    for field in descriptor.fields:
        yield f"        {field.name!r}: {_value_read(field)},"
    yield "        '_serialized_on_wire': True,"
    yield "        '_unknown_fields': b'',"
    yield f"        '_group_current': {{{', '.join(f'{g!r}: group_{g}' for g in groups)}}},"
    yield "    })"
    yield "    unknown = UnknownFieldSet(p)"
    yield "    if len(unknown):"
    yield "        keep_unknown(m, unknown)"
    yield "    return m"


def _value_read(field: FieldDescriptor) -> str:
    name = field.name
    if field.is_repeated:
        if field.enum_type is not None:
            return f"[enum_{name}.try_value(v) for v in p.{name}]"
        return f"[read_{name}(v) for v in p.{name}]" if _is_message(field) else f"list(p.{name})"
    value = f"p.{name}"
    if field.enum_type is not None:
        value = f"enum_{name}.try_value(p.{name})"
    elif _is_timestamp(field):
        value = f"datetime_of(p.{name})"
    elif _is_message(field):
        value = f"read_{name}(p.{name})"
    if _is_optional(field):
        return f"{value} if p.HasField({name!r}) else None"
    if field.containing_oneof is not None:
        return f"{value} if group_{field.containing_oneof.name} == {name!r} else UNSET"
    if field.message_type is not None:
        return f"{value} if p.HasField({name!r}) else UNSET"
    return value


def _filler(descriptor: Descriptor) -> Iterator[str]:
    """The lines of `fill`. A field that is its default is not written, unless it has presence."""
    yield "def fill(m, p):"
    yield "    d = get(m, '__dict__')"
    for field in descriptor.fields:
        name = field.name
        yield f"    v = d[{name!r}]"
        if field.is_repeated:
            yield "    if v and v is not UNSET:"
            if _is_message(field):
                yield f"        for x in v: fill_{name}(x, p.{name}.add())"
            else:
                yield f"        p.{name}.extend(v)"
        elif _is_optional(field):
            yield "    if v is not None and v is not UNSET:"
            yield f"        p.{name} = v"
        elif field.containing_oneof is not None:
            yield f"    if d['_group_current'].get({field.containing_oneof.name!r}) == {name!r}:"
            yield f"        {_write(field)}"
        elif _is_timestamp(field):
            yield "    if v is not None and v is not UNSET and v != EPOCH:"
            yield f"        {_write(field)}"
        elif _is_message(field):
            yield "    if v is not None and v is not UNSET:"
            yield "      if get(v, '_serialized_on_wire') or v:"
            yield f"        {_write(field)}"
        else:
            yield "    if v and v is not UNSET:"
            yield f"        {_write(field)}"
    yield "    if d['_unknown_fields']:"
    yield "        p.MergeFromString(d['_unknown_fields'])"


def _shower(descriptor: Descriptor) -> Iterator[str]:
    """The lines of `show`."""
    yield "def show(d):"
    yield "    return {"
    for field in descriptor.fields:
        name = field.name
        yield f"        {name!r}: v if (v := d[{name!r}]) is not UNSET else blank_{name},"
    yield "    }"


def _write(field: FieldDescriptor) -> str:
    name = field.name
    if _is_timestamp(field):
        return f"fill_timestamp(p.{name}, v)"
    if _is_message(field):
        return f"p.{name}.SetInParent(); fill_{name}(v, p.{name})"
    return f"p.{name} = v"


def _is_timestamp(field: FieldDescriptor) -> bool:
    return field.message_type is not None and field.message_type.full_name == _TIMESTAMP


def _is_message(field: FieldDescriptor) -> bool:
    return field.message_type is not None and not _is_timestamp(field)


def _is_optional(field: FieldDescriptor) -> bool:
    return field.containing_oneof is not None and field.containing_oneof.name == f"_{field.name}"


def _arms(descriptor: Descriptor) -> Iterator[tuple[FieldDescriptor, Any]]:
    """The fields that are arms of a oneof, which `optional` ones are in disguise but not here."""
    for field in descriptor.fields:
        if field.containing_oneof is not None and not _is_optional(field):
            yield field, field.containing_oneof


def _blank(field: FieldDescriptor) -> Any:
    if field.is_repeated:
        return ()
    if field.message_type is not None or field.containing_oneof is not None:
        return None
    if field.enum_type is not None:
        return getattr(messages, field.enum_type.name).try_value(0)
    return field.default_value


def _datetime_of(timestamp: Any) -> datetime:
    """Whole microseconds, as betterproto has it.

    Raises:
        OverflowError: it is before year 1 or after year 9999.
    """
    return _EPOCH + timedelta(seconds=timestamp.seconds, microseconds=timestamp.nanos // 1_000)


def _fill_timestamp(timestamp: Any, when: datetime) -> None:
    seconds, us = divmod((when - _EPOCH) // timedelta(microseconds=1), 1_000_000)
    timestamp.SetInParent()
    timestamp.seconds = seconds
    timestamp.nanos = us * 1_000


def _keep_unknown(message: Any, unknown: Any) -> None:
    """Keeps fields of a newer contract, so that who passes the message on passes them on too."""
    _get(message, "__dict__")["_unknown_fields"] = b"".join(map(_unknown_bytes, unknown))


def _unknown_bytes(entry: Any) -> bytes:
    tag = betterproto.encode_varint(entry.field_number << 3 | entry.wire_type)
    if entry.wire_type == betterproto.WIRE_VARINT:
        return tag + betterproto.encode_varint(entry.data)
    if entry.wire_type == betterproto.WIRE_FIXED_64:
        return tag + int(entry.data).to_bytes(8, "little")
    if entry.wire_type == betterproto.WIRE_FIXED_32:
        return tag + int(entry.data).to_bytes(4, "little")
    if entry.wire_type == betterproto.WIRE_LEN_DELIM:
        return tag + betterproto.encode_varint(len(entry.data)) + bytes(entry.data)
    group_end = betterproto.encode_varint(entry.field_number << 3 | 4)
    return tag + b"".join(map(_unknown_bytes, entry.data)) + group_end
