"""How many examples a property is tried on: more of them in `scripts/test --deep`."""

from hypothesis import settings

DEEP = "deep"
DEEP_TIMES = 25


def is_deep() -> bool:
    """Whether this is a deep run."""
    return settings.get_current_profile_name() == DEEP


def examples(ordinary: int) -> int:
    """So many in the ordinary run, and as many times more in a deep one."""
    return ordinary * DEEP_TIMES if is_deep() else ordinary
