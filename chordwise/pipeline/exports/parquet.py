"""Writes Parquet with pyarrow, an extra that is as large as all other dependencies together."""

from __future__ import annotations

import pickle
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import replace
from decimal import Decimal
from tempfile import TemporaryFile
from typing import IO, BinaryIO, TypeAlias

import pyarrow as pa
from pyarrow import parquet

from chordwise.domain import json_values
from chordwise.errors import UsageError
from chordwise.pipeline.exports import table
from chordwise.pipeline.exports.table import Column, ColumnType, Table, distinct
from chordwise.pipeline.runs.user_sql import Row

_GROUP_BYTES = 32 * 1024 * 1024
_MAX_DIGITS = 38


def write(sink: BinaryIO, table: Table) -> int:
    """Write a table in groups of rows that fit into memory; return the number of rows.

    A decimal column without declared precision gets the digits that its values need, for which the
    rows are read twice; if Parquet has no such decimal type, it becomes a floating-point column.

    Raises:
        UsageError: A value does not fit the type of its column.
    """
    with TemporaryFile() as file:
        return _write(sink, _with_measured_decimals(table, file))


def arrow_table(columns: Sequence[Column], rows: Sequence[Row]) -> pa.Table:
    """Return rows as an Arrow table with the column types of Parquet; arrays become lists."""
    values = ([row[number] for row in rows] for number in range(len(columns)))
    arrays = [_array(*each) for each in zip(columns, values, strict=True)]
    return pa.table(arrays, names=[column.name for column in columns])


def _array(column: Column, values: Sequence[object]) -> pa.Array:
    if column.elements is None:
        fitting = _fitting(column, _digits(column, values))
        return pa.array([_value(fitting, each) for each in values], _type(fitting))
    starts: list[int | None] = []
    elements: list[object] = []
    for value in values:
        starts.append(len(elements) if isinstance(value, list) else None)
        elements += value if isinstance(value, list) else []
    array = _array(Column(name=column.name, kind=column.elements), elements)
    return pa.ListArray.from_arrays(pa.array([*starts, len(elements)], pa.int32()), array)


def _write(sink: BinaryIO, table: Table) -> int:
    schema, count, output = _schema(table), 0, _Output(sink)
    with parquet.ParquetWriter(output, schema, compression="zstd") as writer:
        try:
            for group in _groups(table, schema):
                writer.write_table(group, row_group_size=max(1, group.num_rows))
                count += group.num_rows
        except BaseException:
            output.abandon()
            raise
    return count


_Digits: TypeAlias = tuple[int, int]
"""The number of digits of decimals before and after the decimal point."""


def _with_measured_decimals(table: Table, file: IO[bytes]) -> Table:
    """Return a table whose decimal columns all have digits; its rows are buffered in a file."""
    if all(
        column.kind is not ColumnType.DECIMAL or _has_digits(column) for column in table.columns
    ):
        return table
    digits: list[_Digits] = [(0, 0)] * len(table.columns)
    for rows in table.batches:
        pickle.dump(rows, file)
        for number, column in enumerate(table.columns):
            found = _digits(column, [row[number] for row in rows])
            digits[number] = _maximum([digits[number], found])
    file.seek(0)
    columns = [_fitting(*each) for each in zip(table.columns, digits, strict=True)]
    return Table(columns=columns, batches=_read_back(file))


def _read_back(file: IO[bytes]) -> Iterator[Sequence[Row]]:
    with suppress(EOFError):
        while True:
            yield pickle.load(file)  # noqa: S301 - written by `_with_measured_decimals`


def _digits(column: Column, values: Sequence[object]) -> _Digits:
    """Return the digits that the values of a decimal column without declared precision need."""
    if column.kind is not ColumnType.DECIMAL or _has_digits(column):
        return 0, 0
    return _maximum([_digits_of(value) for value in values if isinstance(value, Decimal)])


def _digits_of(value: Decimal) -> _Digits:
    _, digits, exponent = value.as_tuple()
    if not isinstance(exponent, int):
        return _MAX_DIGITS + 1, 0  # infinity or NaN
    return max(0, len(digits) + exponent), max(0, -exponent)


def _maximum(digits: Sequence[_Digits]) -> _Digits:
    return max((each for each, _ in digits), default=0), max(
        (each for _, each in digits), default=0
    )


def _fitting(column: Column, digits: _Digits) -> Column:
    """Return a column with precision and scale for its decimals, or a floating-point column."""
    if column.kind is not ColumnType.DECIMAL or _has_digits(column):
        return column
    if sum(digits) > _MAX_DIGITS:
        return replace(column, kind=ColumnType.FLOAT)
    return replace(column, precision=_MAX_DIGITS, scale=digits[1])


class _Output:
    """A file that can be abandoned: the library would complete it even after an error."""

    closed = False

    def __init__(self, sink: BinaryIO) -> None:
        self._sink = sink
        self._written = 0
        self._is_abandoned = False

    def abandon(self) -> None:
        self._is_abandoned = True

    def write(self, content: bytes) -> int:
        if not self._is_abandoned:
            self._sink.write(content)
        self._written += len(content)
        return len(content)

    def tell(self) -> int:
        return self._written

    def flush(self) -> None:
        self._sink.flush()

    def close(self) -> None:
        self.flush()


def _groups(table: Table, schema: pa.Schema) -> Iterator[pa.Table]:
    waiting: list[pa.RecordBatch] = []
    for rows in table.batches:
        waiting.append(_batch(table, schema, rows))
        if sum(batch.nbytes for batch in waiting) >= _GROUP_BYTES:
            yield pa.Table.from_batches(waiting, schema)
            waiting = []
    yield pa.Table.from_batches(waiting, schema)


def _batch(table: Table, schema: pa.Schema, rows: Sequence[Row]) -> pa.RecordBatch:
    arrays = []
    for number, (column, field) in enumerate(zip(table.columns, schema, strict=True)):
        values = [_value(column, row[number]) for row in rows]
        try:
            arrays.append(pa.array(values, field.type))
        except (pa.ArrowException, OverflowError, ValueError) as error:
            raise UsageError(
                f"A value in {column.name} does not fit Parquet's type {field.type}.",
                'Cast the column to text with --sql "SELECT …", or use jsonl.',
            ) from error
    return pa.RecordBatch.from_arrays(arrays, schema=schema)


def _schema(table: Table) -> pa.Schema:
    names = distinct(table.names)
    return pa.schema(
        [(name, _type(column)) for name, column in zip(names, table.columns, strict=True)]
    )


def _type(column: Column) -> pa.DataType:
    if _has_digits(column):
        return pa.decimal128(column.precision, column.scale)
    types = {
        ColumnType.BOOLEAN: pa.bool_(),
        ColumnType.INTEGER: pa.int64(),
        ColumnType.FLOAT: pa.float64(),
        ColumnType.DATE: pa.date32(),
        ColumnType.TIMESTAMP: pa.timestamp("us", tz="UTC"),
    }
    return types.get(column.kind, pa.string())


def _has_digits(column: Column) -> bool:
    """Return whether a decimal type of Parquet can hold every value of the column."""
    if column.kind is not ColumnType.DECIMAL or column.precision is None or column.scale is None:
        return False
    return column.precision <= _MAX_DIGITS and 0 <= column.scale <= column.precision


def _value(column: Column, value: object) -> object:
    if value is None:
        return None
    if column.kind is ColumnType.JSON:
        return json_values.encoded(value)
    if column.kind is ColumnType.TEXT:
        return table.text_of(value)
    return float(value) if isinstance(value, Decimal) and column.kind is ColumnType.FLOAT else value
