"""Inputs of kinds that are known by name alone: as JSON, checked against what agents announced.

The distributor never looks into a task's data. Who submits without the handler's types gets its
schemas from the agents instead, through the distributor, so that a mistake is found before it is
sent and not when an agent comes to it.
"""

import asyncio
import json
from collections.abc import Sequence
from contextlib import suppress
from typing import Any

from taskdist.client.options import QUEUE_DEFAULT
from taskdist.client.stub import Stub
from taskdist.core.errors import BadField, InvalidFields, Unsupported
from taskdist.kinds import INPUT_FIELD, InvalidInput, Kind

SCHEMAS_KEPT_S = 30.0
"""How long a client goes by what it was told of a kind. Agents change with deploys."""

SCHEMAS_KEPT_MAX = 1_000
"""(queue, kind) pairs remembered: as many as a distributor may have lanes."""


class Untyped(Kind[Any, bytes]):
    """A kind that is known by its name alone. Its results are bytes."""

    def __init__(self, name: str) -> None:
        super().__init__(name, bytes, bytes)

    def encode_input(self, value: Any) -> bytes:
        """Bytes as they are, anything else as JSON.

        Raises:
            InvalidInput: it cannot be JSON.
        """
        if not self.name:
            raise InvalidFields([BadField("kind", "is empty; allowed: a handler, or its name")])
        if isinstance(value, bytes):
            return value
        try:
            return json.dumps(value, allow_nan=False).encode()
        except (TypeError, ValueError, RecursionError) as error:
            raise InvalidInput([BadField(INPUT_FIELD, f"cannot be JSON: {error}")]) from None


class Schemas:
    """What the live agents of each kind have announced, asked for when it is needed."""

    def __init__(self) -> None:
        self._known: dict[tuple[str, str], tuple[float, Sequence[str]]] = {}

    async def of(self, calls: Stub, queue: str, kind: str) -> Sequence[str]:
        """The schemas of a kind's inputs in a queue, the newest first. None: nobody said.

        Args:
            calls: asks the distributor.
            queue: empty is the default one.
            kind: its name.

        Raises:
            Unavailable: the distributor cannot be reached.
        """
        now = asyncio.get_running_loop().time()
        known = self._known.get((queue, kind))
        if known is not None and now < known[0]:
            return known[1]
        schemas: list[str] = []
        try:
            async for found in calls.list_kinds(queue=queue or QUEUE_DEFAULT, kind=kind):
                schemas += found.input_schemas
        except (Unsupported, InvalidFields):
            # An older distributor; or a bad name, of which the submit is told with all else.
            return ()
        if len(self._known) >= SCHEMAS_KEPT_MAX:
            self._known.clear()
        self._known[queue, kind] = (now + SCHEMAS_KEPT_S, schemas)
        return schemas


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
    if not data:
        raise InvalidInput([BadField(INPUT_FIELD, "is empty; its kind takes JSON")])
    try:
        value = json.loads(data)
    except (ValueError, RecursionError) as error:
        raise InvalidInput([BadField(INPUT_FIELD, f"is no JSON: {error}")]) from None
    found = [bad for schema in schemas if (bad := _bad_fields(value, json.loads(schema)))]
    if len(found) == len(schemas):
        raise InvalidInput(found[0])


def _bad_fields(value: Any, schema: Any) -> list[BadField]:
    """What a schema says is wrong, as far as it can be read here.

    It is an agent's. Its patterns may be of another language (pydantic's are Rust's), and what it
    refers to is never fetched: what cannot be checked here the agent will check.
    """
    # A quarter of a second, for those who need it.
    from jsonschema import Draft202012Validator, ValidationError
    from referencing import Registry

    errors: list[ValidationError] = []
    with suppress(Exception):  # Of any kind: it is somebody else's schema that raises them.
        errors.extend(Draft202012Validator(schema, registry=Registry()).iter_errors(value))
    return [
        BadField(".".join((INPUT_FIELD, *map(str, error.absolute_path))), error.message)
        for error in errors
    ]
