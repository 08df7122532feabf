"""SQLite's usual disk, with files whose writes and syncs are calls in Python, to die in."""

from pathlib import Path
from typing import TypeAlias

import apsw
from typing_extensions import Buffer

Flags: TypeAlias = list[int]


class File(apsw.VFSFile):
    """A file of the database."""

    ending = ""
    """Of its name: nothing is the database, `-wal` its log."""
    wrote_at = 0
    """Where it was written to last: a log begins with a header, which has a sync of its own."""

    def xWrite(self, data: Buffer, offset: int) -> None:  # noqa: N802 # SQLite's
        super().xWrite(data, offset)
        self.wrote_at = offset


class Disk(apsw.VFS):
    """From here on, what SQLite opens a database's files on.

    Args:
        path: of the database.
    """

    def __init__(self, path: Path) -> None:
        self._usual = apsw.vfs_names()[0]
        super().__init__("dying", base=self._usual, makedefault=True)
        self._path = str(path.resolve())

    def xOpen(  # noqa: N802 # SQLite's
        self, name: str | apsw.URIFilename | None, flags: Flags
    ) -> apsw.VFSFile:
        filename = name.filename() if isinstance(name, apsw.URIFilename) else name
        if filename is None or not filename.startswith(self._path):
            return apsw.VFSFile(self._usual, name, flags)
        file = File(self._usual, name, flags)
        file.ending = filename.removeprefix(self._path)
        return file
