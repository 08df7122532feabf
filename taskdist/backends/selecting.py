"""Rows as they come from SQLite: one whose text is not UTF-8 hides none of those behind it (P6).

SQLite keeps any bytes as text, and apsw raises where it meets such a row, then goes on with the
next. Such a row is given here as its first column, its number, and NULLs: whoever decodes it finds
that it is a bad one, and knows which.
"""

from collections.abc import Generator, Iterator, Sequence
from typing import Any

import apsw

Row = tuple[Any, ...]


def each(cursor: apsw.Cursor) -> Iterator[Row | None]:
    """Each row, or None for one whose text is none."""
    while True:
        try:
            yield next(cursor)
        except StopIteration:
            return
        except UnicodeDecodeError:
            yield None


def readable(
    connection: apsw.Connection, select: str, values: Sequence[Any] = ()
) -> Generator[Row, None, None]:
    """The rows of a SELECT whose first column is a number. Whoever has enough of them leaves the
    rest unread."""
    cursor = connection.execute(select, values)
    try:
        for number, row in enumerate(each(cursor)):
            yield row or _numbered(connection, select, values, number)
    finally:
        cursor.close(True)


def _numbered(connection: apsw.Connection, select: str, values: Sequence[Any], number: int) -> Row:
    columns = len(connection.execute(select, values).get_description())
    names = ", ".join(f"c{column}" for column in range(columns))
    first = "CASE typeof(c0) WHEN 'integer' THEN c0 END"
    query = f"WITH found ({names}) AS ({select}) SELECT {first} FROM found LIMIT 1 OFFSET {number}"
    return (connection.execute(query, values).get, *[None] * (columns - 1))
