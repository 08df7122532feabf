"""What is wrong with a request is found all at once, each field named once."""

import math

import pytest

from taskdist.core.errors import InvalidFields, TooLarge
from taskdist.limits import SECOND_US
from taskdist.wire.checking import Faults

ID = "0190a6e2-7b1c-7c3e-9f52-3d1f4e8a9b00"


def test_nothing_is_wrong() -> None:
    faults = Faults()
    assert faults.name("kind", "a.B_9-") == "a.B_9-"
    assert faults.name("session", "", optional=True) == ""
    assert faults.names("queues", ["b", "a", "b"], 3) == ("b", "a")
    assert faults.task_id(ID.upper()) == ID
    assert faults.seconds("time", 60, 60 * SECOND_US) == 60 * SECOND_US
    assert faults.size("data", b"123", 3) == b"123"
    faults.done()


def test_every_bad_field_is_named_in_one_line() -> None:
    faults = Faults()
    faults.name("kind", "a b")
    faults.names("queues", ["ok", ""], 3)
    faults.task_id("1\n2")
    faults.seconds("time", math.nan, SECOND_US)
    faults.size("data", b"1234", 3)
    with pytest.raises(InvalidFields) as refusal:
        faults.done()
    assert type(refusal.value) is InvalidFields
    assert str(refusal.value) == (
        "kind: 'a b' is not allowed; allowed: 1 to 64 characters of A-Z a-z 0-9 . _ -; "
        "queues: '' is not allowed; allowed: 1 to 64 characters of A-Z a-z 0-9 . _ -; "
        "task_id: '1\\n2' is not allowed; allowed: a UUID, such as "
        "0190a6e2-7b1c-7c3e-9f52-3d1f4e8a9b00; "
        "time: nan is not allowed; allowed: 0 to 1 seconds; "
        "data: 4 bytes; allowed: at most 3"
    )


def test_only_sizes_are_bad() -> None:
    faults = Faults()
    faults.size("data", b"1234", 3)
    faults.size("result", b"1234", 3)
    with pytest.raises(TooLarge) as refusal:
        faults.done()
    assert [bad.field for bad in refusal.value.fields] == ["data", "result"]


def test_p7_a_long_value_is_shown_in_part() -> None:
    faults = Faults()
    faults.name("kind", "x" * 1_000_000)
    (bad,) = faults.bad
    assert len(bad.reason) < 200
    assert bad.reason.startswith("'xxx")


def test_p7_of_many_faults_of_a_field_one_is_told() -> None:
    faults = Faults()
    faults.names("queues", [" " * i for i in range(1_000)], 1_000)
    assert len(faults.bad) == 1


def test_p7_too_many_names_are_not_looked_at() -> None:
    faults = Faults()
    assert faults.names("queues", [" "] * 4, 3) == ()
    assert [bad.reason for bad in faults.bad] == ["4 of them; allowed: at most 3"]
