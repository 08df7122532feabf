"""Histories: what each process of a campaign saw and did, as lines of JSON that outlive its death.

Each line is one write to the kernel, so that a SIGKILL loses none that was written; it may tear the
one that is being written, which is then the last, has no end, and was never said. Times are of the
machine's monotonic clock, the same one for all processes.
"""

import json
import os
import time
from collections.abc import Iterator
from hashlib import sha256
from pathlib import Path
from typing import Any, TypeAlias

Line: TypeAlias = dict[str, Any]
"""A line of history: `event` says what it tells of, `at` when, `who` whose it is."""


class Recorder:
    """Appends lines to one process's history. Threads may share it.

    Args:
        path: the file; made, or continued.
        who: whose history it is.
    """

    def __init__(self, path: Path, who: str) -> None:
        self._who = who
        self._file = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o644)

    def write(self, event: str, **fields: object) -> None:
        """Adds a line; on return it is the kernel's."""
        line = {"at": time.monotonic(), "who": self._who, "event": event, **fields}
        os.write(self._file, (json.dumps(line) + "\n").encode())

    def close(self) -> None:
        """Closes the file."""
        os.close(self._file)


def read(path: Path) -> Iterator[Line]:
    """The lines of one history, but for a last one that was torn."""
    with path.open() as file:
        for text in file:
            if text.endswith("\n"):
                yield json.loads(text)


def read_all(folder: Path) -> list[Line]:
    """The lines of all histories in this folder, by their time."""
    lines = [line for path in sorted(folder.glob("*.jsonl")) for line in read(path)]
    return sorted(lines, key=lambda line: float(line["at"]))


def digest(content: bytes) -> str:
    """Stands for bytes in a history."""
    return sha256(content).hexdigest()[:16]
