"""Records with the compiler off: fields of one row read and written as Python's own numbers.

NumPy's records take a microsecond for a field, which is what a test without the compiler does nearly all the time; these take a
tenth of it. An integer is as wide as it needs to be, as in compiled code, where every field is loaded as int64.
"""

import functools
from collections.abc import Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray


class Rows(np.recarray[Any, Any]):
    """A one-dimensional record array whose single rows are of a class with a property for each field."""

    __getattribute__ = np.ndarray.__getattribute__

    def __getattr__(self, name: str) -> Any:
        """A field of all rows."""
        return super().__getattribute__(name)

    @functools.cached_property
    def columns(self) -> list[NDArray[Any]]:
        """All fields of all rows."""
        return [self[name].view(np.ndarray) for name in self.dtype.names or ()]

    @functools.cached_property
    def row_class(self) -> type["Row"]:
        """What a row is."""
        return _row_class(self.dtype)

    def __getitem__(self, index: Any) -> Any:
        """A row, or what record arrays say."""
        return self.row_class(self.columns, index) if isinstance(index, int | np.integer) else super().__getitem__(index)

    def __iter__(self) -> Iterator[Any]:
        """Row by row."""
        return (self[place] for place in range(len(self)))


class Row:
    """One row: its table's columns, and its number. Fields are properties of the sub-class, or asked for by name."""

    __slots__ = ("_columns", "_place")

    def __init__(self, columns: list[NDArray[Any]], place: int | np.integer[Any]) -> None:
        self._columns, self._place = columns, place

    def __getitem__(self, name: str) -> Any:
        """A field."""
        return getattr(self, name)

    def __setitem__(self, name: str, value: Any) -> None:
        """Write a field."""
        setattr(self, name, value)


@functools.cache
def _row_class(dtype: np.dtype[Any]) -> type[Row]:
    fields = {name: _field(column, dtype[name].shape != ()) for column, name in enumerate(dtype.names or ())}
    return type("RowOfFields", (Row,), {"__slots__": (), **fields})


def _field(column: int, is_array: bool) -> property:
    def read(row: Row) -> Any:
        """The field, as a number of Python's."""
        return row._columns[column].item(row._place)

    def read_array(row: Row) -> Any:
        """The field, which is an array."""
        return row._columns[column][row._place]

    def write(row: Row, value: Any) -> None:
        """Write the field, or one number into all of an array."""
        row._columns[column][row._place] = value

    return property(read_array if is_array else read, write)
