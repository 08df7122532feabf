"""What the errors of a client say."""

import pytest

from taskdist.client.errors import TaskFailed


@pytest.mark.parametrize(
    ("error", "why"),
    [
        ("no memory", "no memory"),
        (
            "Traceback (most recent call last):\n  File x\n    f()\nValueError: multi\nline\n",
            "ValueError: multi",
        ),
        (
            "Traceback:\n  File x\nasyncio.CancelledError\nTimeoutError: not done within 3 s\n",
            "TimeoutError: not done within 3 s",
        ),
        ("some output\ncp ended with exit code 3\n", "cp ended with exit code 3"),
    ],
)
def test_a_failure_says_in_a_line_what_went_wrong(error: str, why: str) -> None:
    assert str(TaskFailed("an-id", error)) == f"task an-id is dead: {why}"
