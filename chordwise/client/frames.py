"""Answers as data frames of other libraries."""

from __future__ import annotations

import importlib
import uuid
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import date, datetime
from decimal import Decimal
from types import ModuleType
from typing import TYPE_CHECKING, cast

from chordwise.errors import ConfigurationError
from chordwise.pipeline.exports import parquet
from chordwise.pipeline.exports.table import Column
from chordwise.pipeline.runs.user_sql import Row

if TYPE_CHECKING:
    import pandas as pd
    import polars as pl
    import pyarrow as pa


@dataclass(frozen=True, slots=True, kw_only=True)
class Frame:
    """Columns and rows; ids become texts, and numbers floating-point numbers but for Arrow."""

    columns: Sequence[Column]
    rows: Sequence[Row]

    def values(self) -> dict[str, list[object]]:
        """Return the values of each column by its name."""
        return {
            column.name: [_plain(row[place]) for row in self.rows]
            for place, column in enumerate(self.columns)
        }

    def to_arrow(self) -> pa.Table:
        """Return a table of Arrow, with types that do not depend on which values are there."""
        _required("pyarrow")
        return parquet.arrow_table(self.columns, self.rows)

    def to_pandas(self) -> pd.DataFrame:
        """Return a data frame of pandas, with dates as `datetime64`."""
        library, columns = _required("pandas"), self.values()
        frame = library.DataFrame(columns, columns=list(columns))
        for name, values in columns.items():
            days = [value for value in values if value is not None]
            if days and all(type(value) in (date, datetime) for value in days):
                frame[name] = library.to_datetime(frame[name], utc=isinstance(days[0], datetime))
        return cast("pd.DataFrame", frame)

    def to_polars(self) -> pl.DataFrame:
        """Return a data frame of Polars."""
        frame = _required("polars").DataFrame(self.values(), strict=False)
        return cast("pl.DataFrame", frame)


def _plain(value: object) -> object:
    match value:
        case Decimal():
            return float(value)
        case uuid.UUID():
            return str(value)
        case list():
            return [_plain(each) for each in value]
        case _:
            return value


def _required(library: str) -> ModuleType:
    """Return a library that is no part of Chordwise.

    Raises:
        ConfigurationError: It is not installed.
    """
    try:
        return importlib.import_module(library)
    except ModuleNotFoundError as error:
        raise ConfigurationError(
            f"{library} is not installed.", f"pip install {library}"
        ) from error
