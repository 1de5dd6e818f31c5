"""Many rows in one statement: all of them, in order, conflicts left out and counted."""

import sqlite3

import pytest

from collector.bulk import insert_rows


@pytest.mark.parametrize("num_rows", [0, 1, 2, 255, 256, 257, 1_023])
def test_all_rows_go_in(num_rows: int) -> None:
    connection = sqlite3.connect(":memory:", isolation_level=None)
    connection.execute("CREATE TABLE t (a INTEGER PRIMARY KEY, b TEXT, c TEXT DEFAULT 'x')")
    rows = [(i, f"row {i}") for i in range(num_rows)]
    assert insert_rows(connection, "t (a, b)", rows) == num_rows
    assert connection.execute("SELECT a, b FROM t ORDER BY a").fetchall() == rows
    connection.close()


def test_conflicts_are_left_out_and_not_counted() -> None:
    connection = sqlite3.connect(":memory:", isolation_level=None)
    connection.execute("CREATE TABLE t (a INTEGER PRIMARY KEY)")
    keep = "ON CONFLICT DO NOTHING"
    assert insert_rows(connection, "t", [(i,) for i in range(0, 300, 3)], on_conflict=keep) == 100
    assert insert_rows(connection, "t", [(i,) for i in range(300)], on_conflict=keep) == 200
    with pytest.raises(sqlite3.IntegrityError):
        insert_rows(connection, "t", [(1,)])
    connection.close()
