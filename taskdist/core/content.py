"""What a submitter said, as a hash: two submits are the same when theirs are equal.

Everything that was set counts but the task_id and the idempotency key. Relative times count as the
durations that they were said as, so that a repeat a minute later is still the same.
"""

import hashlib
import struct

from taskdist.core.commands import Submit
from taskdist.core.task import Backoff

HASH_BYTES = 16
"""No two of any number of tasks share it by chance, and it takes little room in a row."""

_FURTHER = b"further"
"""Tells the hash of one with further fields apart from data that looks like them."""


def content_hash(asked: Submit) -> bytes:
    """16 bytes that two submits share when the submitter said the same in both."""
    task = asked.task
    head = "\0".join((task.user_tier, task.kind, task.queue)).encode()
    numbers = struct.pack(">QQ", task.est_processing_time_us, task.max_retries)
    # What is not said leaves no trace, so that a hash outlives fields that come later.
    text = numbers + head + b"\0"
    if _is_plain(asked):
        return hashlib.blake2b(text + asked.data, digest_size=HASH_BYTES).digest()
    text += "\0".join(f"{name}={said}" for name, said in _further(asked) if said).encode() + b"\0"
    return hashlib.blake2b(text + asked.data, digest_size=HASH_BYTES, person=_FURTHER).digest()


def _is_plain(asked: Submit) -> bool:
    """Whether it sets no further fields, as most do not."""
    task = asked.task
    return (
        task.backoff is Backoff.NONE
        and task.run_timeout_us is task.lease_us is task.deadline_us is None
        and not (
            task.backoff_us
            or task.backoff_max_us
            or task.backoff_jitter_percent
            or asked.delay_us
            or asked.not_before_us
            or asked.deadline_in_us
        )
    )


def _further(asked: Submit) -> tuple[tuple[str, object], ...]:
    task = asked.task
    return (
        ("backoff", task.backoff is not Backoff.NONE and task.backoff),
        ("backoff_us", task.backoff_us),
        ("backoff_max_us", task.backoff_max_us),
        ("backoff_jitter_percent", task.backoff_jitter_percent),
        ("run_timeout_us", task.run_timeout_us),
        ("lease_us", task.lease_us),
        ("delay_us", asked.delay_us),
        ("not_before_us", asked.not_before_us),
        ("deadline_in_us", asked.deadline_in_us),
        ("deadline_us", task.deadline_us),
    )
