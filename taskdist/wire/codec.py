"""grpclib's codec for our messages, and the one place that touches how messages are made.

`fields` and `make` are how the rest of taskdist reads and builds messages. The bytes of a message
come from its own class: betterproto's for the contract, google's for health and reflection.
"""

from functools import cache
from importlib import resources
from typing import Any, TypeVar

from google.protobuf.descriptor_pb2 import FileDescriptorSet
from google.protobuf.descriptor_pool import DescriptorPool
from google.protobuf.message import Message
from google.protobuf.message_factory import GetMessageClass
from grpclib.const import Status
from grpclib.encoding.base import CodecBase
from grpclib.exceptions import GRPCError

M = TypeVar("M")


def fields(message: M) -> M:
    """Something with the message's fields as attributes, for reading."""
    return message


def make(cls: type[M], **values: Any) -> M:
    """A message of this class with these fields."""
    return cls(**values)


class Codec(CodecBase):
    """Prints and parses messages for grpclib."""

    __content_subtype__ = "proto"

    def encode(self, message: Any, message_type: type[Any]) -> bytes:
        """The bytes of a message.

        Raises:
            TypeError: it is not of the type that the method promises.
        """
        if not isinstance(message, message_type):
            raise TypeError(f"expected {message_type.__name__}, not {type(message).__name__}")
        return bytes(message.SerializeToString())

    def decode(self, data: bytes, message_type: type[M]) -> M:
        """The message in these bytes.

        Raises:
            GRPCError: INVALID_ARGUMENT, they are no such message.
        """
        try:
            strict = _strict_class(message_type.__name__)
            if strict:
                message = strict.FromString(data)
                message.DiscardUnknownFields()
                data = message.SerializeToString()
            return message_type.FromString(data)  # type: ignore[attr-defined, no-any-return]
        except Exception as error:  # betterproto raises whatever its reading of the bytes runs into
            reason = f"not a {message_type.__name__}: {type(error).__name__}"
            raise GRPCError(Status.INVALID_ARGUMENT, reason) from None


@cache
def _strict_class(name: str) -> type[Message] | None:
    """google's class for a message of the contract; None for one that is google's already.

    All bytes go through it first: betterproto takes a value of a wrong type or cut short for good,
    and unknown fields cost it time that grows with their square.
    """
    try:
        return GetMessageClass(_pool().FindMessageTypeByName(f"taskdist.v1.{name}"))
    except KeyError:
        return None


@cache
def _pool() -> DescriptorPool:
    return descriptor_pool()


def descriptor_pool() -> DescriptorPool:
    """The descriptors of the contract, for reflection: from the set that is generated with it."""
    pool = DescriptorPool()
    data = resources.files("taskdist.wire").joinpath("taskdist.binpb").read_bytes()
    for file in FileDescriptorSet.FromString(data).file:
        pool.Add(file)
    return pool
