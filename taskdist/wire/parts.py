"""Counts the parts of a message before it is parsed.

A parser makes an object of each part, so 4 MiB of the smallest parts become hundreds of megabytes.
This hops from one to the next over their lengths, looks at nothing else, and stops at the limit.
The format is "Encoding" of the Protocol Buffers documentation.
"""

from typing import Literal, Union

from google.protobuf.descriptor import Descriptor

Shape = dict[int, Union["Shape", Literal[True]]]
"""What the length-delimited fields of a message type hold, by number. A Shape: messages. True:
packed numbers, each byte of which may be a part. Anything else is one part, whatever it holds."""

_VARINT, _FIXED64, _LENGTH, _FIXED32 = 0, 1, 2, 5


def shape_of(descriptor: Descriptor) -> Shape:
    """The shape of a message type."""
    shape: Shape = {}
    for field in descriptor.fields:
        if field.message_type is not None:
            shape[field.number] = shape_of(field.message_type)
        elif field.is_packed:
            shape[field.number] = True
    return shape


def too_many_parts(data: bytes, shape: Shape, limit: int) -> bool:
    """Whether a message has more than `limit` parts, counting those of its sub-messages.

    Malformed bytes count as far as they can be read: to refuse them is the parser's part.
    """
    # No part is shorter than two bytes, its tag and a value, unless numbers are packed.
    if len(data) <= limit:
        return False
    return _count(data, 0, len(data), shape, limit) > limit


def _count(data: bytes, at: int, end: int, shape: Shape, limit: int) -> int:
    count = 0
    try:
        while at < end and count <= limit:
            tag = data[at]
            at += 1
            if tag > 0x7F:
                tag, at = _varint(data, at - 1)
            count += 1
            wire_type = tag & 7
            if wire_type == _LENGTH:
                length = data[at]
                at += 1
                if length > 0x7F:
                    length, at = _varint(data, at - 1)
                inside = shape.get(tag >> 3)
                if inside is True:
                    count += length
                elif inside is not None:
                    count += _count(data, at, at + length, inside, limit - count)
                at += length
            elif wire_type == _VARINT:
                while data[at] > 0x7F:
                    at += 1
                at += 1
            elif wire_type == _FIXED64:
                at += 8
            elif wire_type == _FIXED32:
                at += 4
            # Groups (3 and 4) are a tag each, around fields that are counted like any other.
    except IndexError:
        pass
    return count


def _varint(data: bytes, at: int) -> tuple[int, int]:
    value = shift = 0
    while True:
        byte = data[at]
        at += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            return value, at
        shift += 7
