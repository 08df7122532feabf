"""Histories outlive the death of who writes them."""

from pathlib import Path

import pytest

from scripts.chaosing.history import Recorder, read, read_all


def test_lines_of_all_histories_come_by_their_time(tmp_path: Path) -> None:
    """Two processes' lines, in one order."""
    one, other = (Recorder(tmp_path / f"{who}.jsonl", who) for who in ("one", "other"))
    for number in range(3):
        one.write("said", number=number)
        other.write("said", number=number)
    one.close()
    other.close()
    told = [(line["who"], line["number"]) for line in read_all(tmp_path)]
    assert told == [(who, number) for number in range(3) for who in ("one", "other")]


def test_a_line_that_a_kill_tore_was_never_said(tmp_path: Path) -> None:
    """What is in the kernel counts; the rest of the history stays."""
    path = tmp_path / "killed.jsonl"
    record = Recorder(path, "killed")
    record.write("said", number=1)
    record.write("said", number=2)
    record.close()
    path.write_bytes(path.read_bytes()[:-20])
    assert [line["number"] for line in read(path)] == [1]


def test_a_line_torn_in_the_middle_is_an_error(tmp_path: Path) -> None:
    """No kill does that."""
    path = tmp_path / "broken.jsonl"
    path.write_text('{"at": 1, "wh\n{"at": 2}\n')
    with pytest.raises(ValueError, match="control character"):
        list(read(path))
