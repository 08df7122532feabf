"""What a submitter says: the keywords of `Stub.submit` are the fields of a `Submission`."""

from dataclasses import MISSING, fields
from datetime import UTC, datetime
from typing import get_type_hints

from taskdist.client.saying import Said, submit_request
from taskdist.core.task import Backoff
from taskdist.reports import RetryPause, Submission
from taskdist.wire import messages as wire
from taskdist.wire.codec import Codec

NOON = datetime(2026, 7, 1, 12, tzinfo=UTC)


def test_the_keywords_are_the_fields_with_their_types() -> None:
    assert get_type_hints(Said) == get_type_hints(Submission)
    assert list(get_type_hints(Said)) == [field.name for field in fields(Submission)]


def test_the_keywords_that_are_required_have_no_default() -> None:
    required = {field.name for field in fields(Submission) if field.default is MISSING}
    assert Said.__required_keys__ == required
    assert {"user_tier", "est_processing_time_s"} == required


def test_all_that_is_said_is_on_the_wire() -> None:
    pause = RetryPause(Backoff.EXPONENTIAL, initial_s=0.5, max_s=8, jitter_percent=20)
    said = Submission(
        user_tier="paid",
        est_processing_time_s=1.5,
        data=b"in",
        kind="resize",
        queue="images",
        task_id="id",
        max_retries=0,
        backoff=pause,
        delay_s=1,
        not_before=NOON,
        deadline_s=2,
        deadline=NOON,
        run_timeout_s=3,
        lease_s=4,
        idempotency_key="k",
    )
    assert submit_request(said) == wire.SubmitTaskRequest(
        user_tier="paid",
        est_processing_time=1.5,
        data=b"in",
        kind="resize",
        queue="images",
        task_id="id",
        max_retries=0,
        backoff=wire.Backoff(
            kind=wire.BackoffKind["EXPONENTIAL"],
            initial_seconds=0.5,
            max_seconds=8,
            jitter_percent=20,
        ),
        timing=wire.Timing(
            delay_seconds=1,
            not_before=NOON,
            deadline_seconds=2,
            deadline=NOON,
            run_timeout_seconds=3,
            lease_seconds=4,
        ),
        idempotency_key="k",
    )


def test_what_is_not_said_is_not_on_the_wire() -> None:
    codec = Codec()
    request = submit_request(Submission("paid", 0))
    assert codec.encode(request, wire.SubmitTaskRequest) == b"\x0a\x04paid"
