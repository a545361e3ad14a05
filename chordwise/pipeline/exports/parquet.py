"""Writes Parquet with pyarrow, an extra that is as large as all other dependencies together."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from decimal import Decimal
from typing import BinaryIO

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

    Raises:
        UsageError: A value does not fit the type of its column.
    """
    schema, count, output = _schema(table.columns), 0, _Output(sink)
    with parquet.ParquetWriter(output, schema, compression="zstd") as writer:
        try:
            for group in _groups(table, schema):
                writer.write_table(group, row_group_size=max(1, group.num_rows))
                count += group.num_rows
        except BaseException:
            output.abandon()
            raise
    return count


def arrow_table(columns: Sequence[Column], rows: Sequence[Row]) -> pa.Table:
    """Return rows as an Arrow table with the column types of Parquet."""
    return pa.Table.from_batches([_batch(columns, _schema(columns), rows)])


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
        waiting.append(_batch(table.columns, schema, rows))
        if sum(batch.nbytes for batch in waiting) >= _GROUP_BYTES:
            yield pa.Table.from_batches(waiting, schema)
            waiting = []
    yield pa.Table.from_batches(waiting, schema)


def _batch(columns: Sequence[Column], schema: pa.Schema, rows: Sequence[Row]) -> pa.RecordBatch:
    arrays = []
    for number, (column, field) in enumerate(zip(columns, schema, strict=True)):
        values = [_value(column, row[number]) for row in rows]
        try:
            arrays.append(pa.array(values, field.type))
        except (pa.ArrowException, OverflowError, ValueError) as error:
            raise UsageError(
                f"A value in {column.name} does not fit Parquet's type {field.type}.",
                'Cast the column to text with --sql "SELECT …", or use jsonl.',
            ) from error
    return pa.RecordBatch.from_arrays(arrays, schema=schema)


def _schema(columns: Sequence[Column]) -> pa.Schema:
    names = distinct([column.name for column in columns])
    return pa.schema([(name, _type(column)) for name, column in zip(names, columns, strict=True)])


_TYPES = {
    ColumnType.BOOLEAN: pa.bool_(),
    ColumnType.INTEGER: pa.int64(),
    ColumnType.FLOAT: pa.float64(),
    ColumnType.DECIMAL: pa.float64(),
    ColumnType.DATE: pa.date32(),
    ColumnType.TIMESTAMP: pa.timestamp("us", tz="UTC"),
}


def _type(column: Column) -> pa.DataType:
    if column.elements is not None:
        return pa.list_(_TYPES.get(column.elements, pa.string()))
    if _has_digits(column):
        return pa.decimal128(column.precision, column.scale)
    return _TYPES.get(column.kind, pa.string())


def _has_digits(column: Column) -> bool:
    """Return whether a decimal type of Parquet can hold every value of the column."""
    if column.kind is not ColumnType.DECIMAL or column.precision is None or column.scale is None:
        return False
    return column.precision <= _MAX_DIGITS and 0 <= column.scale <= column.precision


def _value(column: Column, value: object) -> object:
    if isinstance(value, list) and column.elements is not None:
        element = Column(name=column.name, kind=column.elements)
        return [_value(element, item) for item in value]
    if value is None:
        return None
    if column.kind is ColumnType.JSON:
        return json_values.encoded(value)
    if column.kind is ColumnType.TEXT:
        return table.text_of(value)
    return float(value) if isinstance(value, Decimal) and not _has_digits(column) else value
