"""JSON Lines: an object for each row, and nothing lost."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from typing import BinaryIO

from chordwise.domain import json_forms
from chordwise.pipeline.exports.table import Table


def write(sink: BinaryIO, table: Table) -> int:
    """Write a table as UTF-8; return how many rows those were."""
    names, count = distinct(table.names), 0
    for rows in table.batches:
        objects = (dict(zip(names, row, strict=True)) for row in rows)
        sink.write("".join(f"{json_forms.encoded(each)}\n" for each in objects).encode())
        count += len(rows)
    return count


def distinct(columns: Sequence[str]) -> list[str]:
    """Return the names of columns, repeated ones numbered, so that an object can hold all."""
    names: list[str] = []
    for column in columns:
        candidates = itertools.chain([column], (f"{column}_{n}" for n in itertools.count(2)))
        names.append(next(name for name in candidates if name not in names))
    return names
