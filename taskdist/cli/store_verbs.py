"""What `taskdist store …` does, once `store.py` has read its arguments."""

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from hashlib import sha256
from pathlib import Path
from time import monotonic
from typing import BinaryIO

from taskdist.cli import exits, output
from taskdist.client import Stub
from taskdist.core.errors import Damaged, Unavailable
from taskdist.core.inspecting import BackupPart, Checked
from taskdist.distributor.store_copies import check_copy, refuse_place_in_use
from taskdist.settings import SettingsError

TELL_EVERY_S = 0.2
"""How often the line on a terminal changes."""


class Line:
    """One line on a terminal's stderr that says how far something is, over and over."""

    def __init__(self) -> None:
        self._is_seen = sys.stderr.isatty()
        self._next = 0.0

    def tell(self, text: str) -> None:
        """Shows this in its place, if it is time."""
        if self._is_seen and monotonic() >= self._next:
            self._next = monotonic() + TELL_EVERY_S
            print(f"\r\x1b[K{text}", end="", file=sys.stderr, flush=True)

    def wipe(self) -> None:
        """Leaves nothing of it."""
        if self._is_seen and self._next:
            print("\r\x1b[K", end="", file=sys.stderr, flush=True)


class _Finding:
    """What a check says, as it comes."""

    def __init__(self, *, json: bool) -> None:
        self._json = json
        self._line = Line()
        self._faults: list[str] = []
        self._last: Checked | None = None

    def hear(self, step: Checked) -> None:
        """Prints new faults at once, unless as JSON."""
        self._last = step
        self._faults += step.faults
        if step.faults and not self._json:
            self._line.wipe()
            for fault in step.faults:
                print(fault, flush=True)
        what = f"tasks: {step.tasks} of {step.tasks_in_all}" if step.tasks_in_all else "the file"
        self._line.tell(f"checking {what}")

    def end(self) -> int:
        """Prints what was looked at. Returns the exit code.

        Raises:
            Unavailable: the check was cut short.
        """
        self._line.wipe()
        last = self._last
        if last is None or not last.done:
            raise Unavailable("the check was cut short; nothing is known of the rest")
        if self._json:
            output.as_json(
                {
                    "sound": not last.fault_count,
                    "store_bytes": last.store_bytes,
                    "tasks": last.tasks,
                    "attempts": last.attempts,
                    "fault_count": last.fault_count,
                    "faults": self._faults,
                }
            )
        else:
            untold = last.fault_count - len(self._faults)
            if untold:
                print(f"… and {untold} more")
            verdict = f"{last.fault_count} faults" if last.fault_count else "sound"
            print(
                f"{verdict}: looked at {last.store_bytes} bytes, {last.tasks} tasks with data and "
                f"results, {last.attempts} attempts"
            )
        return exits.STORE_FAILED if last.fault_count else exits.OK


async def check(client: Stub, *, json: bool) -> int:
    """Checks the store of a running distributor. Returns the exit code."""
    finding = _Finding(json=json)
    async for step in client.check_store():
        finding.hear(step)
    return finding.end()


def check_file(path: Path, *, json: bool) -> int:
    """Checks a store that nobody uses. Returns the exit code."""
    finding = _Finding(json=json)
    for step in check_copy(path):
        finding.hear(step)
    return finding.end()


def require_place(path: Path, *, force: bool) -> None:
    """Makes sure that a backup may be written there.

    Raises:
        SettingsError: it exists, or cannot.
        StoreUnusable: a distributor holds it.
    """
    try:
        is_there = path.exists()
    except OSError as error:  # Its name is too long, or its folder is not to be looked into.
        raise SettingsError(f"FILE: {path} cannot be written: {error.strerror}") from None
    if is_there and not force:
        raise SettingsError(f"FILE: {path} exists; to replace it, add --force")
    refuse_place_in_use(path)


async def back_up(client: Stub, path: Path, *, force: bool, json: bool) -> None:
    """Writes a copy of the distributor's store to this file.

    Raises:
        SettingsError: it cannot be written.
        Damaged: what came is not what was sent.
        Unavailable: not all came.
    """
    line = Line()
    sum_ = sha256()
    size = 0
    with _whole_or_not(path, force=force) as file:
        last: BackupPart | None = None
        async for last in client.backup_store():
            size += len(last.chunk)
            sum_.update(last.chunk)
            file.write(last.chunk)
            what, done = ("receiving", size) if size else ("copying", last.copied_bytes)
            line.tell(f"{what}: {done} of {last.total_bytes} bytes")
        line.wipe()
        if last is None or not last.sha256:
            raise Unavailable("the backup was cut short")
        if last.sha256 != sum_.digest() or size != last.total_bytes:
            raise Damaged("the backup is not what the distributor sent")
    if json:
        output.as_json({"file": str(path), "bytes": size, "sha256": sum_.hexdigest()})
    else:
        output.table(("FILE", "BYTES", "SHA-256"), [(str(path), str(size), sum_.hexdigest())])


@contextmanager
def _whole_or_not(path: Path, *, force: bool) -> Iterator[BinaryIO]:
    """A file that gets its name, durably, if the block ends well; else it is removed."""
    unfinished = path.with_name(f"{path.name}.{os.getpid()}.part")
    try:
        opened = os.open(unfinished, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
        try:
            with os.fdopen(opened, "wb") as file:
                yield file
                file.flush()
                os.fsync(file.fileno())
            if force:
                unfinished.replace(path)
            else:
                os.link(unfinished, path)  # Refused if it is there by now.
        finally:
            with suppress(FileNotFoundError):
                unfinished.unlink()
        directory = os.open(path.parent, os.O_RDONLY)
        try:
            os.fsync(directory)
        finally:
            os.close(directory)
    except OSError as error:
        raise SettingsError(f"FILE: {path} cannot be written: {error.strerror}") from None
