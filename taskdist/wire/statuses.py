"""The one table between the expected errors and the statuses of gRPC, and both ways through it."""

from collections.abc import Sequence
from typing import Any

from google.protobuf.duration_pb2 import Duration
from google.rpc.error_details_pb2 import BadRequest, RetryInfo
from grpclib.const import Status
from grpclib.exceptions import GRPCError

from taskdist.core import errors
from taskdist.core.errors import BadField, InvalidFields, TooLarge

_RETRY_AFTER_S = 1
"""When to try again what was exhausted: waiting tasks and disks change in seconds."""

_TEXT_LENGTH_MAX = 2_000
"""Characters of a status's text. It travels in a header: clients take 8 KiB of these, and packing a
long one takes time that grows with its square. The details name the fields all the same."""

STATUSES: list[tuple[type[errors.Refused], Status]] = [
    (errors.TooLarge, Status.RESOURCE_EXHAUSTED),
    (errors.InvalidFields, Status.INVALID_ARGUMENT),
    (errors.TaskNotFound, Status.NOT_FOUND),
    (errors.PreconditionFailed, Status.FAILED_PRECONDITION),
    (errors.TaskIdTaken, Status.ALREADY_EXISTS),
    (errors.Exhausted, Status.RESOURCE_EXHAUSTED),
    (errors.Unavailable, Status.UNAVAILABLE),
    (errors.Damaged, Status.DATA_LOSS),
    (errors.Unsupported, Status.UNIMPLEMENTED),
]
"""The one table between the expected errors and the statuses of gRPC."""


def to_status(refusal: errors.Refused) -> GRPCError:
    """What a refusal is on the wire."""
    details: list[Any] = []
    if isinstance(refusal, InvalidFields):
        violations = [
            BadRequest.FieldViolation(field=bad.field, description=bad.reason)
            for bad in refusal.fields
        ]
        details.append(BadRequest(field_violations=violations))
    elif isinstance(refusal, errors.Exhausted):
        details.append(RetryInfo(retry_delay=Duration(seconds=_RETRY_AFTER_S)))
    status = next(status for kind, status in STATUSES if isinstance(refusal, kind))
    text = str(refusal)
    if len(text) > _TEXT_LENGTH_MAX:
        text = text[: _TEXT_LENGTH_MAX - 3] + "..."
    return GRPCError(status, text, details)


def from_status(error: GRPCError) -> errors.Refused | None:
    """What a status means; None if it is none of ours."""
    bad = [
        BadField(item.field, item.description)
        for detail in error.details or ()
        if isinstance(detail, BadRequest)
        for item in detail.field_violations
    ]
    return from_code(error.status.value, error.message or error.status.name, bad)


def from_code(code: int, text: str, bad_fields: Sequence[BadField] = ()) -> errors.Refused | None:
    """What a status means, by its number; None if it is none of ours."""
    if bad_fields and code == Status.RESOURCE_EXHAUSTED.value:
        return TooLarge(bad_fields)
    if code == Status.INVALID_ARGUMENT.value:
        return InvalidFields(bad_fields or [BadField("request", text)])
    for kind, status in STATUSES[2:]:
        if status.value == code:
            return kind(text)
    return None
