"""Inputs of kinds that are known by name alone: as JSON, checked against what agents announced.

The distributor never looks into a task's data. Who submits without the handler's types gets its
schemas from the agents instead, through the distributor, so that a mistake is found before it is
sent and not when an agent comes to it.
"""

import json
from collections.abc import Sequence
from typing import Any

from taskdist.core.errors import BadField
from taskdist.kinds import INPUT_FIELD, InvalidInput, Kind

SCHEMAS_KEPT_S = 30.0
"""How long a client goes by what it was told of a kind. Agents change with deploys."""


class Untyped(Kind[Any, bytes]):
    """A kind that is known by its name alone. Its results are bytes."""

    def __init__(self, name: str) -> None:
        super().__init__(name, bytes, bytes)

    def encode_input(self, value: Any) -> bytes:
        """Bytes as they are, anything else as JSON.

        Raises:
            InvalidInput: it cannot be JSON.
        """
        if isinstance(value, bytes):
            return value
        try:
            return json.dumps(value, allow_nan=False).encode()
        except (TypeError, ValueError, RecursionError) as error:
            raise InvalidInput([BadField(INPUT_FIELD, f"cannot be JSON: {error}")]) from None


def check(data: bytes, schemas: Sequence[str]) -> None:
    """Checks data against what the live agents of its kind announced.

    Args:
        data: a task's.
        schemas: JSON Schemas, the newest first, an empty one for any bytes. In a deploy there are
            two: data must fit one of them.

    Raises:
        InvalidInput: it fits none; what the newest says is wrong with it, field by field.
    """
    if not schemas or "" in schemas:
        return
    try:
        value = json.loads(data)
    except (ValueError, RecursionError) as error:
        raise InvalidInput([BadField(INPUT_FIELD, f"is no JSON: {error}")]) from None
    found = [bad for schema in schemas if (bad := _bad_fields(value, json.loads(schema)))]
    if len(found) == len(schemas):
        raise InvalidInput(found[0])


def _bad_fields(value: Any, schema: Any) -> list[BadField]:
    from jsonschema import Draft202012Validator  # a quarter of a second, for those who need it

    errors = Draft202012Validator(schema).iter_errors(value)
    return [
        BadField(".".join((INPUT_FIELD, *map(str, error.absolute_path))), error.message)
        for error in errors
    ]
