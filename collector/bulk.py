"""Many rows in one statement of SQLite.

``executemany`` gives the interpreter lock up and asks for it again with every row; beside a busy
thread each row may wait for that thread's turn to end. A statement of many rows asks once.
"""

import sqlite3
from collections.abc import Sequence
from itertools import chain
from typing import Any

_MOST_ROWS = 256
"""Far below SQLite's limit of 32,766 parameters for the few columns there are."""


def insert_rows(
    connection: sqlite3.Connection,
    into: str,
    rows: Sequence[tuple[Any, ...]],
    *,
    on_conflict: str = "",
) -> int:
    """``INSERT INTO into VALUES …`` for all ``rows``; how many were inserted.

    ``into`` is a table, with its columns if not all. Raises sqlite3.Error.
    """
    num_inserted, start = 0, 0
    while start < len(rows):
        # Powers of two, so that few statements are prepared and kept.
        size = min(_MOST_ROWS, 1 << ((len(rows) - start).bit_length() - 1))
        chunk = rows[start : start + size]
        row = f"({', '.join('?' * len(chunk[0]))})"
        statement = f"INSERT INTO {into} VALUES {', '.join([row] * size)} {on_conflict}"
        done = connection.execute(statement, tuple(chain.from_iterable(chunk)))
        num_inserted += done.rowcount
        start += size
    return num_inserted
