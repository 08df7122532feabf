"""What a kind of task takes and gives: the types of its input and result, and their bytes.

Bytes are sent as they are, any other type as JSON, by pydantic. Both sides of a task share this:
who submits it encodes the input and decodes the result, the agent does the reverse.
"""

from collections.abc import Sequence
from dataclasses import is_dataclass
from functools import cached_property
from typing import Any, Generic, TypeVar

from pydantic import BaseModel, TypeAdapter, ValidationError

from taskdist.core.errors import BadField, InvalidFields

In = TypeVar("In")
Out = TypeVar("Out")

INPUT_FIELD = "data"
"""What an input is called in the contract; its fields are data.text, data.max_tokens, …"""


class InvalidInput(InvalidFields):
    """An input does not fit its kind. Each bad field is named."""


class WrongResult(Exception):
    """A result is of another type than its kind says. No retry would help."""


class Kind(Generic[In, Out]):
    """A kind of task.

    Args:
        name: what tasks say.
        input_type, output_type: `bytes`, or what pydantic can validate.
    """

    def __init__(self, name: str, input_type: Any, output_type: Any) -> None:
        self.name = name
        self.input_type = input_type
        self.output_type = output_type

    def encode_input(self, value: In) -> bytes:
        """An input as a task's data.

        Raises:
            InvalidInput: it is of another type, or its fields are bad.
        """
        if self.input_type is bytes:
            return _raw(value)
        try:
            return self._input.dump_json(self._input.validate_python(value))
        except ValidationError as error:
            raise InvalidInput(bad_fields(error)) from None

    def decode_input(self, data: bytes) -> In:
        """A task's data as an input.

        Raises:
            InvalidInput: it is no JSON, or its fields are bad.
        """
        if self.input_type is bytes:
            return data  # type: ignore[return-value]  # In is bytes, which the type checker cannot see
        try:
            return self._input.validate_json(data)
        except ValidationError as error:
            raise InvalidInput(bad_fields(error)) from None

    def encode_result(self, value: Out) -> bytes:
        """A result as it is kept. It must be of the type that was said; nothing is converted.

        Raises:
            WrongResult: it is of another type, or cannot be JSON.
        """
        if self.output_type is bytes and isinstance(value, bytes):
            return value
        try:
            if _is_a_class(self.output_type) and not isinstance(value, self.output_type):
                raise TypeError
            return self._output.dump_json(self._output.validate_python(value, strict=True))
        except (ValidationError, ValueError, TypeError) as error:
            expected = getattr(self.output_type, "__name__", self.output_type)
            why = f": {_reasons(error)}" if str(error) else ""
            raise WrongResult(
                f"{self.name} returned {type(value).__name__}; allowed: {expected}{why}"
            ) from None

    def decode_result(self, result: bytes) -> Out:
        """A result that was kept.

        Raises:
            WrongResult: another version of the handler made it, of another type.
        """
        if self.output_type is bytes:
            return result  # type: ignore[return-value]  # Out is bytes, which the type checker cannot see
        try:
            return self._output.validate_json(result)
        except ValidationError as error:
            expected = getattr(self.output_type, "__name__", self.output_type)
            raise WrongResult(
                f"a result of {self.name} is no {expected}: {_reasons(error)}"
            ) from None

    @cached_property
    def input_schema(self) -> dict[str, Any] | None:
        """The JSON Schema of the input; None when it is bytes."""
        return None if self.input_type is bytes else self._input.json_schema()

    @cached_property
    def _input(self) -> TypeAdapter[In]:
        return TypeAdapter(self.input_type)

    @cached_property
    def _output(self) -> TypeAdapter[Out]:
        return TypeAdapter(self.output_type)


def bad_fields(error: ValidationError) -> Sequence[BadField]:
    """What pydantic found, named as fields of the contract: data.max_tokens."""
    found = error.errors(include_url=False, include_context=False, include_input=False)
    return [
        BadField(".".join((INPUT_FIELD, *map(str, one["loc"]))), _lower(one["msg"]))
        for one in found
    ]


def _is_a_class(output_type: Any) -> bool:
    """Whether only its own instances will do: pydantic would make a model of any fitting dict."""
    return isinstance(output_type, type) and (
        output_type is bytes or issubclass(output_type, BaseModel) or is_dataclass(output_type)
    )


def _lower(text: str) -> str:
    return text[:1].lower() + text[1:]


def _raw(value: object) -> bytes:
    if not isinstance(value, bytes):
        raise InvalidInput([BadField(INPUT_FIELD, f"is {type(value).__name__}; allowed: bytes")])
    return value


def _reasons(error: Exception) -> str:
    """In one line; pydantic's own text has many, and a link at its end."""
    if not isinstance(error, ValidationError):
        return str(error)
    faults = ((".".join(map(str, one["loc"])), one["msg"]) for one in error.errors())
    return "; ".join(f"{place}: {what}" if place else what for place, what in faults)
