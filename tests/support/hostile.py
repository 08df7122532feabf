"""What nobody honest would send: messages of the contract with every value that there can be, and
bytes that were messages once. Drawn from a source of chance, so that Hypothesis can give it."""

import math
from collections.abc import Callable, Sequence
from random import Random
from typing import Any

from google.protobuf.descriptor import Descriptor, FieldDescriptor
from google.protobuf.message_factory import GetMessageClass

from taskdist.wire.codec import PACKAGE, descriptor_pool

DEPTH_MAX = 3
FIELDS_OF_TEN = 4
"""How many of ten fields are set."""

TEXTS = ["", " ", "a", "paid", "default", "simulate", "agent-1", "s-1", "a\nb", "\0", "é" * 36]
TEXTS += ["x" * 64, "x" * 65, "x" * 3_000, "..", "%s", "1e9", "\u202e", "\U0001f4a9"]
DOUBLES = [0.0, -0.0, 1.0, 0.1, 1e-300, 1e300, -1.0, 60.0, 61.0, math.nan, math.inf, -math.inf]
DOUBLES += [3.2e7, 1e15, 5e-324, 253_402_300_800.0]
WHOLE = [0, 1, 2, 3, 100, 101, 1_000, 1_001, 10_001, 2**31 - 1, 2**31, 2**32 - 1, 2**53, 2**63 - 1]
WHOLE += [-1, -(2**31), -(2**63), 2**64 - 1]
_INTS = {
    FieldDescriptor.CPPTYPE_INT32: (-(2**31), 2**31 - 1),
    FieldDescriptor.CPPTYPE_INT64: (-(2**63), 2**63 - 1),
    FieldDescriptor.CPPTYPE_UINT32: (0, 2**32 - 1),
    FieldDescriptor.CPPTYPE_UINT64: (0, 2**64 - 1),
    FieldDescriptor.CPPTYPE_ENUM: (-(2**31), 2**31 - 1),
}


class Hostile:
    """Makes them.

    Args:
        chance: draws.
        known: ids, names and keys that mean something, to be among the texts.
    """

    def __init__(self, chance: Random, known: Sequence[str] = ()) -> None:
        self._chance = chance
        self._texts = [*TEXTS, *known, *known, *known]

    def request(self, name: str) -> bytes:
        """A message of this name, its fields as bad as may be, and sometimes its bytes as well."""
        data = self._message(descriptor_pool().FindMessageTypeByName(f"{PACKAGE}.{name}"), 0)
        for _ in range(self._chance.choice([0, 0, 0, 1, 3])):
            data = self.mutated(data)
        return data if self._chance.randrange(20) else self.noise()

    def noise(self) -> bytes:
        """Bytes that mean nothing."""
        return self._chance.randbytes(self._chance.choice([1, 2, 5, 20, 100, 3_000]))

    def mutated(self, data: bytes) -> bytes:
        """The same with a fault: cut, doubled, changed, lengthened."""
        at = self._chance.randrange(len(data) + 1)
        end = min(len(data), at + self._chance.choice([0, 1, 1, 2, 8, 64]))
        faults: list[Callable[[], bytes]] = [
            lambda: data[:at],
            lambda: data[:at] + data[end:],
            lambda: data[:end] + data[at:],
            lambda: data[:at] + self._chance.randbytes(max(1, end - at)) + data[end:],
            lambda: data[:at] + self._chance.choice([b"\xff" * 10, b"\0", b"\x80"]) + data[at:],
            lambda: data + data,
        ]
        return self._chance.choice(faults)()

    def _message(self, descriptor: Descriptor, depth: int) -> bytes:
        message = GetMessageClass(descriptor)()
        for field in descriptor.fields:
            if self._chance.randrange(10) >= FIELDS_OF_TEN:
                continue
            if field.is_repeated:
                for _ in range(self._chance.choice([1, 1, 2, 20])):
                    self._set(message, field, depth)
            else:
                self._set(message, field, depth)
        return bytes(message.SerializeToString())

    def _set(self, message: Any, field: FieldDescriptor, depth: int) -> None:
        if field.message_type is not None:
            if depth < DEPTH_MAX:
                part = self._message(field.message_type, depth + 1)
                into = getattr(message, field.name)
                (into.add() if field.is_repeated else into).MergeFromString(part)
        elif field.is_repeated:
            getattr(message, field.name).append(self._value(field))
        else:
            setattr(message, field.name, self._value(field))

    def _value(self, field: FieldDescriptor) -> Any:
        sort = field.cpp_type
        if sort in _INTS:
            low, high = _INTS[sort]
            if field.enum_type is not None and self._chance.randrange(3):
                return self._chance.choice([one.number for one in field.enum_type.values])
            return self._chance.choice([number for number in WHOLE if low <= number <= high])
        if sort in (FieldDescriptor.CPPTYPE_DOUBLE, FieldDescriptor.CPPTYPE_FLOAT):
            return self._chance.choice(DOUBLES)
        if sort == FieldDescriptor.CPPTYPE_BOOL:
            return self._chance.choice([False, True])
        text = self._chance.choice(self._texts)
        return text if field.type == FieldDescriptor.TYPE_STRING else text.encode()
