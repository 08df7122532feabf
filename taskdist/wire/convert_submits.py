"""Between the wire and the core, for those who submit: one task, or several.

As in `convert.py`, whatever is wrong with a request is found before anything is asked of a backend.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from pydantic import ValidationError

from taskdist.core import commands
from taskdist.core.commands import Placed
from taskdist.core.errors import Refused
from taskdist.core.task import Backoff, Task, task_like
from taskdist.limits import (
    BACKOFF_MAX_DEFAULT_US,
    BACKOFF_MIN_US,
    DATA_BYTES_MAX,
    DELAY_MAX_US,
    EST_PROCESSING_TIME_MAX_US,
    IDEMPOTENCY_KEY_LENGTH_MAX,
    LEASE_MAX_US,
    LEASE_MIN_US,
    MAX_RETRIES_DEFAULT,
    MAX_RETRIES_MAX,
    RUN_TIMEOUT_MAX_US,
    RUN_TIMEOUT_MIN_US,
    SUBMIT_TASKS_MAX,
)
from taskdist.wire import messages as wire
from taskdist.wire.checking import NAMES, Faults
from taskdist.wire.codec import fields, make
from taskdist.wire.convert import refusal, wire_state

_SUBMIT_ALLOWED = {
    "kind": NAMES,
    "queue": NAMES,
    "max_retries": f"0 to {MAX_RETRIES_MAX}",
}
"""What may stand in the fields that only the task's own validation looks at."""


_BACKOFFS = {
    wire.BackoffKind.UNSPECIFIED: Backoff.NONE,
    wire.BackoffKind.FIXED: Backoff.FIXED,
    wire.BackoffKind.EXPONENTIAL: Backoff.EXPONENTIAL,
}

# --- requests to commands ---------------------------------------------------------------------


def submit(message: wire.SubmitTaskRequest, tiers: Sequence[str], new_id: str) -> commands.Submit:
    """The task that a client submits; `new_id` is for one without an id.

    Raises:
        InvalidFields: every field that is bad.
        TooLarge: nothing but the size of data.
    """
    faults = Faults()
    command = _submit(message, tiers, new_id, faults)
    faults.done()
    return command


def submit_several(
    message: wire.SubmitTasksRequest, tiers: Sequence[str], new_id: Callable[[], str]
) -> tuple[commands.Several, dict[int, Refused]]:
    """The tasks that a client submits, and those that are refused already, by their place.

    Raises:
        InvalidFields, TooLarge: how many there are; and, of all or nothing, every bad field.
    """
    m = fields(message)
    faults = Faults()
    if not 1 <= len(m.tasks) <= SUBMIT_TASKS_MAX:
        faults.reject("tasks", f"{len(m.tasks)} of them; allowed: 1 to {SUBMIT_TASKS_MAX}")
        faults.done()
    atomic = m.atomic is not False
    submits: list[commands.Submit] = []
    refused: dict[int, Refused] = {}
    for place, task in enumerate(m.tasks):
        prefix = f"tasks[{place}]." if atomic else ""
        own = Faults(prefix)
        command = _submit(task, tiers, new_id(), own, prefix, position_wanted=m.positions)
        if atomic:
            faults.include(own)
        elif refusal := own.refusal():
            refused[place] = refusal
            continue
        submits.append(command)
    faults.done()
    return commands.Several(tuple(submits), atomic=atomic), refused


def _submit(
    message: wire.SubmitTaskRequest,
    tiers: Sequence[str],
    new_id: str,
    faults: Faults,
    prefix: str = "",
    *,
    position_wanted: bool = True,
) -> commands.Submit:
    """The task of a request; one without fields of its own, if `faults` are found in them."""
    m = fields(message)
    if m.user_tier not in tiers:
        faults.add("user_tier", m.user_tier, ", ".join(tiers))
    chosen_id = faults.task_id(m.task_id) if m.task_id else new_id
    est_us = faults.seconds(
        "est_processing_time", m.est_processing_time, EST_PROCESSING_TIME_MAX_US
    )
    max_retries = MAX_RETRIES_DEFAULT if m.max_retries is None else m.max_retries
    data = faults.size("data", m.data, DATA_BYTES_MAX)
    asked: dict[str, Any] = {}
    own: dict[str, Any] = {"id": chosen_id}
    alike: dict[str, Any] = {}
    # A view reads as None what is not set, which the message's own type does not know.
    pause: wire.Backoff | None = m.backoff
    timing: wire.Timing | None = m.timing
    # Most set none of these.
    if pause is not None:
        alike |= _backoff(pause, faults)
    if timing is not None:
        alike |= _limits(timing, faults)
        asked = _times(timing, faults)
        own["deadline_us"] = asked.pop("deadline_us", None)
    if m.idempotency_key:
        own["idempotency_key"] = _key(m.idempotency_key, faults)
    try:
        task = task_like(
            m.user_tier, est_us, m.kind or "simulate", m.queue or "default", max_retries, **alike
        ).evolve(**own)
    except ValidationError as error:
        for fault in error.errors():
            field = str(fault["loc"][0])
            if field in _SUBMIT_ALLOWED:
                faults.add(field, fault["input"], _SUBMIT_ALLOWED[field])
        task = Task(id=new_id, user_tier=tiers[0], est_processing_time_us=0)
    return commands.Submit(
        task,
        data,
        client_made_id=bool(m.task_id),
        position_wanted=position_wanted,
        prefix=prefix,
        **asked,
    )


def _backoff(message: wire.Backoff, faults: Faults) -> dict[str, Any]:
    m = fields(message)
    own = Faults("backoff.")
    kind = _BACKOFFS.get(m.kind)
    if kind is None:
        own.add("kind", int(m.kind), "FIXED, EXPONENTIAL, or nothing")
    initial_us = longest_us = 0
    if kind in (Backoff.FIXED, Backoff.EXPONENTIAL):
        initial_us = own.seconds("initial_seconds", m.initial_seconds, DELAY_MAX_US, BACKOFF_MIN_US)
    elif m.initial_seconds:
        own.add("initial_seconds", m.initial_seconds, "nothing without a kind")
    if kind is Backoff.EXPONENTIAL:
        longest_us = max(BACKOFF_MAX_DEFAULT_US, initial_us)
        if m.max_seconds is not None:
            longest_us = own.seconds("max_seconds", m.max_seconds, DELAY_MAX_US, initial_us)
    elif m.max_seconds is not None:
        own.add("max_seconds", m.max_seconds, "nothing unless the kind is EXPONENTIAL")
    if m.jitter_percent > 100:
        own.add("jitter_percent", m.jitter_percent, "0 to 100")
    elif m.jitter_percent and kind is Backoff.NONE:
        own.add("jitter_percent", m.jitter_percent, "nothing without a kind")
    faults.include(own)
    return {
        "backoff": kind or Backoff.NONE,
        "backoff_us": initial_us,
        "backoff_max_us": longest_us,
        "backoff_jitter_percent": min(m.jitter_percent, 100),
    }


def _limits(message: wire.Timing, faults: Faults) -> dict[str, Any]:
    m = fields(message)
    own = Faults("timing.")
    limits: dict[str, Any] = {}
    if m.run_timeout_seconds is not None:
        limits["run_timeout_us"] = own.seconds(
            "run_timeout_seconds", m.run_timeout_seconds, RUN_TIMEOUT_MAX_US, RUN_TIMEOUT_MIN_US
        )
    if m.lease_seconds is not None:
        limits["lease_us"] = own.seconds(
            "lease_seconds", m.lease_seconds, LEASE_MAX_US, LEASE_MIN_US
        )
    faults.include(own)
    return limits


def _times(message: wire.Timing, faults: Faults) -> dict[str, int]:
    m = fields(message)
    own = Faults("timing.")
    if m.delay_seconds and m.not_before is not None:
        own.reject("not_before", "stands beside delay_seconds; allowed: one of them")
    if m.deadline_seconds and m.deadline is not None:
        own.reject("deadline", "stands beside deadline_seconds; allowed: one of them")
    times = {
        "delay_us": own.seconds("delay_seconds", m.delay_seconds, DELAY_MAX_US),
        "deadline_in_us": own.seconds("deadline_seconds", m.deadline_seconds, DELAY_MAX_US),
    }
    if m.not_before is not None:
        times["not_before_us"] = own.time("not_before", m.not_before)
    if m.deadline is not None:
        times["deadline_us"] = own.time("deadline", m.deadline)
    faults.include(own)
    return times


def _key(key: str, faults: Faults) -> str:
    if len(key) > IDEMPOTENCY_KEY_LENGTH_MAX or not key.isprintable():
        faults.add(
            "idempotency_key", key, f"1 to {IDEMPOTENCY_KEY_LENGTH_MAX} printable characters"
        )
    return key


# --- answers to responses ---------------------------------------------------------------------


def submitted(placed: Placed) -> wire.SubmitTaskResponse:
    """What was submitted, and where it stands."""
    return make(
        wire.SubmitTaskResponse,
        task_id=placed.task.id,
        status=wire_state(placed.task.state),
        queue_position=placed.position,
    )


def submitted_several(
    answers: Sequence[Placed | Refused], refused: Mapping[int, Refused]
) -> wire.SubmitTasksResponse:
    """What became of each task, in the order of the request."""
    rest = iter(answers)
    count = len(answers) + len(refused)
    results = [refused[place] if place in refused else next(rest) for place in range(count)]
    return make(wire.SubmitTasksResponse, results=[_result(result) for result in results])


def _result(result: Placed | Refused) -> wire.SubmitTasksResult:
    if isinstance(result, Refused):
        return make(wire.SubmitTasksResult, refusal=refusal(result))
    return make(wire.SubmitTasksResult, submitted=submitted(result))
