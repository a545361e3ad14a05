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

if TYPE_CHECKING:
    import pandas as pd
    import polars as pl
    import pyarrow as pa


@dataclass(frozen=True, slots=True, kw_only=True)
class Frame:
    """Columns by their names, and rows; numbers become floating-point numbers, ids texts."""

    names: Sequence[str]
    rows: Sequence[tuple[object, ...]]

    def columns(self) -> dict[str, list[object]]:
        """Return the values of each column."""
        return {
            name: [_plain(row[place]) for row in self.rows] for place, name in enumerate(self.names)
        }

    def to_arrow(self) -> pa.Table:
        """Return a table of Arrow."""
        return _required("pyarrow").table(self.columns())

    def to_pandas(self) -> pd.DataFrame:
        """Return a data frame of pandas, with dates as `datetime64`."""
        library, columns = _required("pandas"), self.columns()
        frame = library.DataFrame(columns, columns=list(self.names))
        for name, values in columns.items():
            days = [value for value in values if value is not None]
            if days and all(type(value) in (date, datetime) for value in days):
                frame[name] = library.to_datetime(frame[name], utc=isinstance(days[0], datetime))
        return cast("pd.DataFrame", frame)

    def to_polars(self) -> pl.DataFrame:
        """Return a data frame of Polars."""
        frame = _required("polars").DataFrame(self.columns(), strict=False)
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
