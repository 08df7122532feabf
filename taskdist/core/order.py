"""The order of dispatch: one pure function makes a sort key; every backend sorts the same bytes.

The policy `strict` is four rules, each a field of the key, most significant first: new before
retry; tier by rank; shorter expected time first; older first. The sequence ends the key: it breaks
ties, and says which row the key belongs to. Nothing but this file knows what is in a key.
"""

import struct
from collections.abc import Sequence
from typing import NamedTuple

from taskdist.core.task import Task

_STRICT = struct.Struct(">BBQQQ")
"""Big-endian, so that the order of the bytes is the order of the numbers."""

RANK_UNLISTED = 255
"""A tier that the distributor no longer lists comes after all that it does."""

Lane = tuple[str, str]
"""A (queue, kind) pair."""


class Ranked(NamedTuple):
    """What the order looks at, of a task or of its row."""

    retry_count: int
    user_tier: str
    est_processing_time_us: int
    enqueued_at_us: int
    sequence: int


def strict_key(ranked: Ranked | Task, tiers: Sequence[str]) -> bytes:
    """The key of the policy `strict`: 26 bytes. The smallest is next.

    Args:
        ranked: the task.
        tiers: the tiers in the order of their rank.
    """
    try:
        rank = tiers.index(ranked.user_tier)
    except ValueError:
        rank = RANK_UNLISTED
    return _STRICT.pack(
        ranked.retry_count > 0,
        rank,
        ranked.est_processing_time_us,
        ranked.enqueued_at_us,
        ranked.sequence,
    )


def sequence_of(key: bytes) -> int:
    """The sequence that ends a key of any policy."""
    return int.from_bytes(key[-8:], "big")
