"""A distributor that cannot start says why in one line and exits 2; 74 if its store is damaged.

A few of them are started at once, beside one that runs, and then looked at one by one.
"""

import os
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import apsw
import pytest

from taskdist.backends.schema import SCHEMA_VERSION
from taskdist.backends.store_file import PAGE_BYTES
from tests.support.processes import Processes

AT_ONCE = 4
"""More take longer than a test waits, on a machine that has much else to do."""


class Refused(NamedTuple):
    """Flags of `taskdist serve`, and what becomes of it. `{}` names come from `places`."""

    flags: str
    says: str
    code: int = 2


REFUSED = {
    "store of another distributor": Refused("--store sqlite:{taken_store}", "another distributor"),
    "port in use": Refused("--listen {taken_address}", "in use"),
    "no such directory": Refused("--store sqlite:{directory}/none/tasks.db", "none"),
    "somebody else's file": Refused("--store sqlite:{text}", "{text}"),
    "bad lease": Refused("--lease soon", "--lease: 'soon' is not a duration"),
    "bad TOML": Refused("--config {text}", "not a TOML file"),
    "beyond loopback": Refused("--listen 0.0.0.0:0", "--insecure"),
    "damaged store": Refused("--store sqlite:{damaged}", "{damaged}", code=74),
    "store cut short": Refused("--store sqlite:{cut}", "{cut}", code=74),
    "store cut to nothing": Refused("--store sqlite:{empty}", "its log", code=74),
    "newer store": Refused("--store sqlite:{newer}", "made by a newer taskdist"),
    "link to itself": Refused("--store sqlite:{circle}", "{circle}"),
    "directory": Refused("--store sqlite:{directory}", "cannot be opened"),
    "device": Refused("--store sqlite:/dev/null", "not a regular file"),
}


@pytest.fixture(scope="module")
def places(refusing: Processes) -> dict[str, str]:
    """What the flags refer to."""
    directory = refusing.directory
    text, damaged = directory / "notes.txt", directory / "damaged.db"
    text.write_text("These are notes, neither TOML nor a store.\n" * 100)
    taken = refusing.serve()
    taken_store = directory / "tasks.db"
    # A copy with a header that is ours, and nothing sound after it.
    damaged.write_bytes(taken_store.read_bytes()[:100] + b"\xff" * 100_000)
    cut, empty, newer = directory / "cut.db", directory / "empty.db", directory / "newer.db"
    for copy in (cut, empty, newer):
        Path(f"{copy}-wal").write_bytes(Path(f"{taken_store}-wal").read_bytes())
        copy.write_bytes(taken_store.read_bytes())
    for copy in (cut, newer):
        connection = apsw.Connection(str(copy))
        connection.pragma("user_version", SCHEMA_VERSION + (copy == newer))
        connection.close()  # It copies the log.
    circle = directory / "circle.db"
    circle.symlink_to(circle)
    os.truncate(cut, 2 * PAGE_BYTES + 100)
    os.truncate(empty, 0)
    return {
        "circle": str(circle),
        "cut": str(cut),
        "empty": str(empty),
        "newer": str(newer),
        "taken_store": str(taken_store),
        "taken_address": taken.address,
        "directory": str(directory),
        "text": str(text),
        "damaged": str(damaged),
    }


@pytest.fixture(scope="module")
def refusing(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Processes]:
    """Where all of them run."""
    with Processes(tmp_path_factory.mktemp("refused")) as started:
        yield started


@pytest.fixture(scope="module")
def ends(refusing: Processes, places: dict[str, str]) -> dict[str, tuple[int, list[str]]]:
    """The exit code and the lines on stderr of each."""
    names = list(REFUSED)
    ended: dict[str, tuple[int, list[str]]] = {}
    for start in range(0, len(names), AT_ONCE):
        spawned = {
            name: refusing.spawn(
                # A later flag wins over an earlier one.
                *("serve", "--listen", "127.0.0.1:0", "--store", "memory:"),
                *REFUSED[name].flags.format(**places).split(),
            )
            for name in names[start : start + AT_ONCE]
        }
        ended |= {name: (one.wait_end(), one.texts()) for name, one in spawned.items()}
    return ended


@pytest.mark.parametrize("name", REFUSED)
def test_it_says_why_in_one_line(
    name: str, ends: dict[str, tuple[int, list[str]]], places: dict[str, str]
) -> None:
    code, lines = ends[name]
    refused = REFUSED[name]
    assert code == refused.code
    assert len(lines) == 1, lines
    assert lines[0].startswith("taskdist: ")
    assert refused.says.format(**places) in lines[0]
