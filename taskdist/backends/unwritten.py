"""Rows that wait to be written, and how: many of them in one step of SQLite.

SQLite gives the interpreter up at each step, and gets it back when the event loop's thread lets go
of it. A step per row would wait for that as often as there are rows.
"""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import chain
from typing import Any, TypeVar

import apsw

T = TypeVar("T")

Row = tuple[Any, ...]

ROWS_PER_STEP = (128, 16, 1)
"""The most first. Few numbers, so that all statements stay prepared; 128 rows of 16 values are far
below the 32,766 values that SQLite allows."""


def in_steps(rows: Sequence[T]) -> Iterator[Sequence[T]]:
    """All of them in order, each time as many as a statement takes."""
    start = 0
    for count in ROWS_PER_STEP:
        while len(rows) - start >= count:
            yield rows[start : start + count]
            start += count


@dataclass(frozen=True, eq=False)
class Statement:
    """SQL that writes any number of rows. Two are the same only if they are one."""

    before: str
    row: str
    """What stands there once for each row."""
    after: str = ""

    @cached_property
    def texts(self) -> dict[int, str]:
        """The SQL for each of ROWS_PER_STEP."""
        return {n: self.before + ", ".join([self.row] * n) + self.after for n in ROWS_PER_STEP}


def insert(table: str, columns: Iterable[str], verb: str = "INSERT") -> Statement:
    """Adds rows with these columns."""
    names = tuple(columns)
    values = ", ".join("?" * len(names))
    return Statement(f"{verb} INTO {table} ({', '.join(names)}) VALUES ", f"({values})")


def update(table: str, columns: Iterable[str], key: str) -> Statement:
    """Sets these columns of the row whose `key` comes last."""
    names = tuple(columns)
    sets = ", ".join(f"{name} = new.column{place}" for place, name in enumerate(names, 1))
    values = ", ".join("?" * (len(names) + 1))
    which = f"WHERE {table}.{key} = new.column{len(names) + 1}"
    return Statement(f"UPDATE {table} SET {sets} FROM (VALUES ", f"({values})", f") AS new {which}")


def delete(table: str, key: str) -> Statement:
    """Removes the rows with these keys."""
    return Statement(f"DELETE FROM {table} WHERE {key} IN (", "?", ")")


class Unwritten:
    """Rows, by the statement that writes them. No order is kept between two statements."""

    def __init__(self) -> None:
        self._rows: dict[Statement, list[Row]] = {}

    def __bool__(self) -> bool:
        return bool(self._rows)

    def add(self, statement: Statement, row: Row) -> int:
        """Adds a row. Returns how many that is: one."""
        rows = self._rows.get(statement)
        if rows is None:
            self._rows[statement] = [row]
        else:
            rows.append(row)
        return 1

    def write(self, connection: apsw.Connection) -> None:
        """Writes them all, and forgets them."""
        for statement, rows in self._rows.items():
            for some in in_steps(rows):
                connection.execute(statement.texts[len(some)], tuple(chain.from_iterable(some)))
        self._rows.clear()

    def forget(self) -> None:
        """Drops them all."""
        self._rows.clear()
