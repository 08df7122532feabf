"""What the errors of a client say."""

import pytest

from taskdist.client.errors import InvalidInput, TaskFailed, WrongResult
from taskdist.client.inputs import check
from taskdist.kinds import Kind


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


def test_a_wrong_result_says_so_in_one_line() -> None:
    kind: Kind[bytes, list[int]] = Kind("count", bytes, list[int])
    with pytest.raises(
        WrongResult, match=r"^count returned list; allowed: list: 1: Input"
    ) as wrong:
        kind.encode_result([1, "two"])  # type: ignore[list-item] # as code without a type checker does
    assert len(str(wrong.value).splitlines()) == 1


def test_an_input_that_was_forgotten_is_called_empty() -> None:
    with pytest.raises(InvalidInput, match=r"^data: is empty; its kind takes JSON$"):
        check(b"", ['{"type": "object"}'])
