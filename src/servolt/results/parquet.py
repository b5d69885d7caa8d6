"""Tables of numpy columns to Parquet files and back. Only this module imports duckdb, and only when it is needed."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from servolt.errors import StorageError

__all__ = ["Table", "read_table", "write_rows", "write_table"]

# A column is a numpy array; a masked array is one in which values may be unknown (null in the file).
Table = Mapping[str, Any]


def write_table(path: Path, table: Table) -> int:
    """Returns the number of rows. Raises StorageError."""
    import duckdb

    connection = duckdb.connect()
    try:
        connection.register("rows", {name: _plain(column) for name, column in table.items()})
        columns = ", ".join(f'"{name}"' for name in table)
        target = str(path).replace("'", "''")
        connection.execute(f"COPY (SELECT {columns} FROM rows) TO '{target}' (FORMAT parquet, COMPRESSION zstd)")
    except duckdb.Error as error:
        raise StorageError(
            f"{path.name} can't be written: {error}.", "Free space there, or name another folder."
        ) from error
    finally:
        connection.close()
    return len(next(iter(table.values())))


def read_table(path: Path) -> Table:
    """The columns as they were written, rows in the same order. Raises StorageError."""
    import duckdb

    connection = duckdb.connect()
    try:
        read: dict[str, Any] = connection.execute("SELECT * FROM read_parquet(?)", [str(path)]).fetchnumpy()
    except duckdb.Error as error:
        raise StorageError(f"{path} can't be read: {error}.", "The file is damaged: measure again.") from error
    finally:
        connection.close()
    return read


def _plain(column: Any) -> Any:
    """A masked array without a masked value reads back as a plain one; write them alike."""
    return column if np.ma.is_masked(column) else np.ma.getdata(column)


def write_rows(path: Path, rows: Sequence[Mapping[str, Any]]) -> None:
    """Rows of a command's result, whole or not at all. Raises StorageError."""
    path = path.resolve()  # a link stays a link
    if path.exists() and not path.is_file():
        raise StorageError(f"{path} is no file.", "Parquet needs a file that can be replaced: name another with -o.")
    names = list(rows[0]) if rows else ["empty"]
    partial = path.with_name(path.name + ".partial")
    write_table(partial, {name: _column([row.get(name) for row in rows]) for name in names})
    try:
        partial.replace(path)
    except OSError as error:
        raise StorageError(f"{path} can't be written: {error.strerror}.", "Name another file with -o.") from error


def _column(values: Sequence[Any]) -> Any:
    """Numbers as numbers, anything else as text; None is unknown in either."""
    unknown = [value is None for value in values]
    if all(isinstance(value, int | float) for value in values if value is not None):
        return np.ma.array([0 if value is None else value for value in values], mask=unknown)
    return np.array([None if value is None else str(value) for value in values], dtype=object)
