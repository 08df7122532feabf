"""The one table between the expected errors and the statuses of gRPC."""

from collections.abc import Iterator

import pytest
from google.rpc.error_details_pb2 import BadRequest, RetryInfo
from grpclib.const import Status
from grpclib.exceptions import GRPCError

from taskdist.core import errors
from taskdist.core.errors import BadField, InvalidFields, Refused, TooLarge
from taskdist.wire.statuses import STATUSES, from_status, to_status

DESIGN = {
    "InvalidFields": Status.INVALID_ARGUMENT,
    "TooLarge": Status.RESOURCE_EXHAUSTED,
    "TaskNotFound": Status.NOT_FOUND,
    "PreconditionFailed": Status.FAILED_PRECONDITION,
    "LeaseNotHeld": Status.FAILED_PRECONDITION,
    "TransitionRefused": Status.FAILED_PRECONDITION,
    "TaskIdTaken": Status.ALREADY_EXISTS,
    "Exhausted": Status.RESOURCE_EXHAUSTED,
    "StoreFull": Status.RESOURCE_EXHAUSTED,
    "Unavailable": Status.UNAVAILABLE,
    "Damaged": Status.DATA_LOSS,
    "Unsupported": Status.UNIMPLEMENTED,
}
"""Design §7."""

BAD = [BadField("kind", "too long"), BadField("data", "too large")]


def refusals(cls: type[Refused] = Refused) -> Iterator[type[Refused]]:
    """Every expected error, those of the core."""
    for child in cls.__subclasses__():
        if child.__module__ == errors.__name__:
            yield child
        yield from refusals(child)


def an_example(cls: type[Refused]) -> Refused:
    if issubclass(cls, InvalidFields):
        return cls(BAD)
    if issubclass(cls, errors.StoreFull):
        return cls()
    return cls("one line for people")


def test_the_design_names_every_expected_error() -> None:
    assert {cls.__name__ for cls in refusals()} == set(DESIGN)


@pytest.mark.parametrize("cls", list(refusals()), ids=lambda cls: cls.__name__)
def test_every_expected_error_has_its_status_and_comes_back(cls: type[Refused]) -> None:
    refusal = an_example(cls)
    on_the_wire = to_status(refusal)
    assert on_the_wire.status is DESIGN[cls.__name__]
    assert on_the_wire.message == str(refusal)

    back = from_status(on_the_wire)
    assert back is not None
    assert isinstance(refusal, type(back)), "the same, or what it is a kind of"
    assert type(back) is not Refused
    assert str(back) == str(refusal)


def test_the_table_has_no_line_that_another_hides() -> None:
    kinds = [kind for kind, _ in STATUSES]
    for place, kind in enumerate(kinds):
        assert not any(issubclass(kind, before) for before in kinds[:place])


@pytest.mark.parametrize("cls", [InvalidFields, TooLarge])
def test_bad_fields_travel_in_the_details(cls: type[InvalidFields]) -> None:
    on_the_wire = to_status(cls(BAD))
    (detail,) = on_the_wire.details
    assert isinstance(detail, BadRequest)
    violations = [(item.field, item.description) for item in detail.field_violations]
    assert violations == [tuple(bad) for bad in BAD]
    back = from_status(on_the_wire)
    assert type(back) is cls
    assert back.fields == tuple(BAD)


@pytest.mark.parametrize("cls", [errors.Exhausted, errors.StoreFull])
def test_what_is_exhausted_says_when_to_try_again(cls: type[Refused]) -> None:
    (detail,) = to_status(an_example(cls)).details
    assert isinstance(detail, RetryInfo)
    assert detail.retry_delay.seconds >= 1


@pytest.mark.parametrize("cls", [errors.TaskNotFound, errors.LeaseNotHeld, errors.Unavailable])
def test_the_others_say_all_in_their_text(cls: type[Refused]) -> None:
    assert not to_status(an_example(cls)).details


def test_p7_a_text_that_would_break_a_header_is_cut() -> None:
    on_the_wire = to_status(errors.LeaseNotHeld("x" * 1_000_000))
    assert on_the_wire.message is not None
    assert len(on_the_wire.message) == 2_000
    assert on_the_wire.message.endswith("x...")


# --- what other servers and the network say ------------------------------------------------------


def test_an_invalid_argument_without_details_is_about_the_request() -> None:
    back = from_status(GRPCError(Status.INVALID_ARGUMENT, "not a PingRequest: DecodeError"))
    assert type(back) is InvalidFields
    assert back.fields == (BadField("request", "not a PingRequest: DecodeError"),)


def test_a_status_without_a_text_has_its_name_for_one() -> None:
    assert str(from_status(GRPCError(Status.UNAVAILABLE))) == "UNAVAILABLE"


@pytest.mark.parametrize("status", [Status.UNKNOWN, Status.INTERNAL])
def test_what_is_not_expected_is_none_of_ours(status: Status) -> None:
    assert from_status(GRPCError(status, "Internal Server Error")) is None
