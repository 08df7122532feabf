"""`taskdist store` against a real distributor, and on files."""

import json
import os
from collections.abc import AsyncIterator, Iterator
from hashlib import sha256
from pathlib import Path

import apsw
import pytest

from taskdist.cli import store_verbs
from taskdist.client import Stub
from taskdist.core.errors import Unavailable
from taskdist.core.inspecting import BackupPart
from tests.cli.conftest import CommandLine
from tests.support.processes import Processes


@pytest.fixture
def backup(taskdist: CommandLine, tmp_path: Path) -> Path:
    """A backup of a store with a task or more."""
    taskdist("submit", "--queue", "kept")
    path = tmp_path / "backup.db"
    assert taskdist("store", "backup", str(path)).code == 0
    return path


def spoil(path: Path) -> None:
    """Damages the first two tasks of a store."""
    connection = apsw.Connection(os.fspath(path))
    connection.execute("UPDATE task SET data_bytes = 7 WHERE sequence < 3")
    connection.close()


def test_a_running_distributors_store_is_sound(taskdist: CommandLine) -> None:
    taskdist("submit", "--queue", "kept")
    ended = taskdist("store", "check")
    assert (ended.code, ended.err) == (0, "")
    assert ended.out.decode().startswith("sound: looked at ")
    told = json.loads(taskdist("store", "check", "--json").out)
    assert (told["sound"], told["fault_count"], told["faults"]) == (True, 0, [])
    assert told["tasks"] >= 1
    assert told.keys() == {
        "sound",
        "store_bytes",
        "tasks",
        "attempts",
        "fault_count",
        "faults",
    }


def test_a_backup_is_one_private_file_and_sound(taskdist: CommandLine, backup: Path) -> None:
    assert [path.name for path in backup.parent.iterdir()] == ["backup.db"]
    assert backup.stat().st_mode & 0o777 == 0o600
    ended = taskdist("store", "check", str(backup))
    assert (ended.code, ended.err) == (0, "")
    assert ended.out.decode().startswith("sound: ")
    assert [path.name for path in backup.parent.iterdir()] == ["backup.db"]


def test_what_backup_prints(taskdist: CommandLine, tmp_path: Path) -> None:
    path = tmp_path / "one.db"
    line = taskdist("store", "backup", str(path)).out.decode()
    content = path.read_bytes()
    facts = [str(path), str(len(content)), sha256(content).hexdigest()]
    assert line == "\t".join(facts) + "\n"
    told = json.loads(taskdist("store", "backup", str(path), "--force", "--json").out)
    content = path.read_bytes()
    assert told == {
        "file": str(path),
        "bytes": len(content),
        "sha256": sha256(content).hexdigest(),
    }


def test_faults_are_lines_and_exit_74(taskdist: CommandLine, backup: Path) -> None:
    taskdist("submit", "--queue", "kept")
    assert taskdist("store", "backup", str(backup), "--force").code == 0
    spoil(backup)
    ended = taskdist("store", "check", str(backup))
    assert (ended.code, ended.err) == (74, "")
    *faults, verdict = ended.out.decode().splitlines()
    assert len(faults) == 2
    assert all("yet 7 are counted" in fault for fault in faults)
    assert verdict.startswith("2 faults: looked at ")
    ended = taskdist("store", "check", str(backup), "--json")
    assert ended.code == 74
    told = json.loads(ended.out)
    assert (told["sound"], told["fault_count"], told["faults"]) == (False, 2, faults)


def test_a_file_that_cannot_be_read_as_a_store_is_74_too(
    taskdist: CommandLine, backup: Path
) -> None:
    with backup.open("r+b") as file:
        file.truncate(8_192)
    ended = taskdist("store", "check", str(backup))
    assert ended.code == 74
    assert len(ended.lines) == 1
    assert "cannot be read" in ended.lines[0]


def test_a_file_is_replaced_only_by_force(taskdist: CommandLine, tmp_path: Path) -> None:
    path = tmp_path / "taken.db"
    path.write_bytes(b"dear to somebody")
    ended = taskdist("store", "backup", str(path))
    assert (ended.code, ended.lines) == (
        2,
        [f"taskdist: FILE: {path} exists; to replace it, add --force"],
    )
    assert path.read_bytes() == b"dear to somebody"
    assert taskdist("store", "backup", str(path), "--force").code == 0
    assert taskdist("store", "check", str(path)).code == 0


def test_nowhere_to_write_is_a_users_mistake(taskdist: CommandLine, tmp_path: Path) -> None:
    ended = taskdist("store", "backup", str(tmp_path / "no" / "where.db"))
    assert ended.code == 2
    assert "cannot be written: No such file or directory" in ended.lines[0]
    ended = taskdist("store", "backup", "9" * 400)
    assert (ended.code, len(ended.lines)) == (2, 1)
    assert "cannot be written: File name too long" in ended.lines[0]


@pytest.fixture
def other(tmp_path: Path) -> Iterator[tuple[str, Path]]:
    """Another distributor, and the file of its store."""
    directory = tmp_path / "other"
    directory.mkdir()
    with Processes(directory) as processes:
        yield processes.serve().address, directory / "tasks.db"


def test_the_store_of_a_distributor_is_neither_read_nor_replaced(
    taskdist: CommandLine, other: tuple[str, Path]
) -> None:
    _, path = other
    for arguments in (["check", str(path)], ["backup", str(path), "--force"]):
        ended = taskdist("store", *arguments)
        assert ended.code == 2
        assert "in use by a distributor (process " in ended.lines[0]


def test_a_store_in_memory_is_refused(taskdist: CommandLine, tmp_path: Path) -> None:
    with Processes(tmp_path) as processes:
        address = processes.serve(store="memory:").address
        for arguments in (["check"], ["backup", str(tmp_path / "b.db")]):
            ended = taskdist("store", *arguments, "--server", address)
            assert ended.code == 9
            assert "in memory" in ended.lines[0]
    assert not list(tmp_path.glob("b.db*"))


@pytest.mark.parametrize(
    ("parts", "code", "says"),
    [
        ([BackupPart(8, 8, b"12345678")], 8, "cut short"),
        ([BackupPart(8, 8, b"1234"), BackupPart(8, 8, sha256=b"?")], 74, "not what"),
        ([], 8, "cut short"),
    ],
)
def test_a_backup_that_is_not_whole_leaves_no_file(
    parts: list[BackupPart],
    code: int,
    says: str,
    taskdist: CommandLine,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    async def backup_store(client: Stub) -> AsyncIterator[BackupPart]:
        for part in parts:
            yield part

    monkeypatch.setattr(Stub, "backup_store", backup_store)
    ended = taskdist("store", "backup", str(tmp_path / "b.db"))
    assert (ended.code, ended.out) == (code, b"")
    assert says in ended.lines[0]
    assert list(tmp_path.iterdir()) == []


def test_a_lost_connection_leaves_no_file(
    taskdist: CommandLine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def backup_store(client: Stub) -> AsyncIterator[BackupPart]:
        yield BackupPart(8, 8, b"1234")
        raise Unavailable("the connection was lost")

    monkeypatch.setattr(Stub, "backup_store", backup_store)
    assert taskdist("store", "backup", str(tmp_path / "b.db")).code == 8
    assert list(tmp_path.iterdir()) == []


def test_a_terminal_sees_how_far_it_is(capsys: pytest.CaptureFixture[str]) -> None:
    line = store_verbs.Line()
    line._is_seen = True
    line.tell("copying: 1 of 2 bytes")
    line.tell("copying: 2 of 2 bytes")  # too soon
    line.wipe()
    assert capsys.readouterr().err == "\r\x1b[Kcopying: 1 of 2 bytes\r\x1b[K"
