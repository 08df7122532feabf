"""Points in time, as the wire has them."""

from datetime import datetime, timedelta

from taskdist.wire.checking import EPOCH


def timestamp(us: int) -> datetime:
    """The wire's word for a point in time."""
    return EPOCH + timedelta(microseconds=us)
