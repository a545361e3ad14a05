"""Lists of many rows: filters, order and keyset pagination in the address.

A page begins after the last row of the page before it. Rows that were added meanwhile do not shift
it, and each page costs as much as the first.
"""

from __future__ import annotations

import base64
import json
import uuid
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TypeAlias, TypeVar
from urllib.parse import urlencode

from starlette.requests import Request

from chordwise.domain.json_values import is_storable
from chordwise.errors import UsageError

Item = TypeVar("Item")
Key: TypeAlias = tuple[str | int | float | None, ...]
"""The values of a row in the columns of the order, ending with a unique one."""
PAGE_ROWS = 50
_DESCENDING = "-"


@dataclass(frozen=True, slots=True, kw_only=True)
class Listing:
    """The state of a list: `filters` holds those that are set, `sort` is the column of the order.

    `after` is the key of the row after which the page begins, empty on the first page.
    """

    path: str
    filters: Mapping[str, str]
    sort: str = ""
    is_descending: bool = False
    after: Key = ()

    def address(self, **filters: str) -> str:
        """Return the address of the first page with filters changed; an empty value removes one."""
        return self._address({**self.filters, **filters}, self._order())

    def sorted_by(self, column: str) -> str:
        """Return the address of the list by a column, reversed if it is the current one."""
        is_turned = column == self.sort and not self.is_descending
        return self._address(self.filters, f"{_DESCENDING if is_turned else ''}{column}")

    def next_page(self, key: Key) -> str:
        """Return the address of the page after the row with this key."""
        return self._address(self.filters, self._order(), after=cursor_of(key))

    def page_of(
        self, rows: Sequence[Item], limit: int, key: Callable[[Item], Key]
    ) -> tuple[Sequence[Item], str]:
        """Return at most `limit` rows and, if there are more, the address of the following ones."""
        page = rows[:limit]
        return page, self.next_page(key(page[-1])) if len(rows) > limit else ""

    @property
    def after_id(self) -> uuid.UUID | None:
        """The id after which the page of a list in the order of ids begins.

        Raises:
            UsageError: There is no such page.
        """
        return id_after(str(self.after[0])) if self.after else None

    def direction_of(self, column: str) -> str:
        """Return the value of `aria-sort` for a column."""
        if column != self.sort:
            return "none"
        return "descending" if self.is_descending else "ascending"

    def _order(self) -> str:
        return f"{_DESCENDING if self.is_descending else ''}{self.sort}"

    def _address(self, filters: Mapping[str, str], order: str, after: str = "") -> str:
        parts = {**filters, "sort": order, "after": after}
        query = urlencode({name: value for name, value in parts.items() if value})
        return f"{self.path}?{query}" if query else self.path


def listing_of(
    request: Request, filters: Sequence[str], sorts: Sequence[str] = (), default_sort: str = ""
) -> Listing:
    """Return the list that a request asks for; `sorts` are the columns, and a leading `-` reverses.

    Raises:
        UsageError: The column or the page does not exist.
    """
    query = request.query_params
    order = query.get("sort", default_sort)
    sort = order.removeprefix(_DESCENDING)
    if sort and sort not in sorts:
        hint = f"Columns: {', '.join(sorts)}." if sorts else ""
        raise UsageError(f"The list cannot be sorted by “{sort}”.", hint)
    return Listing(
        path=request.url.path,
        filters={name: query[name].strip() for name in filters if query.get(name, "").strip()},
        sort=sort,
        is_descending=order.startswith(_DESCENDING),
        after=key_of(query.get("after", "")),
    )


def cursor_of(key: Key) -> str:
    """Return the key of a row as it is written in an address."""
    return base64.urlsafe_b64encode(json.dumps(key).encode()).decode()


def key_of(cursor: str) -> Key:
    """Return the key in a cursor; empty without one.

    Raises:
        UsageError: It is not a cursor.
    """
    if not cursor:
        return ()
    try:
        values = json.loads(base64.urlsafe_b64decode(cursor.encode()))
    except (ValueError, RecursionError) as error:
        raise no_page() from error
    if not isinstance(values, list) or not is_storable(values):
        raise no_page()
    key = tuple(value for value in values if value is None or isinstance(value, str | int | float))
    if len(key) != len(values):
        raise no_page()
    return key


def id_after(written: str) -> uuid.UUID | None:
    """Return the id after which a page begins; `None` without one.

    Raises:
        UsageError: It is not an id.
    """
    try:
        return uuid.UUID(written) if written else None
    except ValueError as error:
        raise no_page() from error


def no_page() -> UsageError:
    """Return the error for a page that a list does not have."""
    return UsageError("There is no such page of the list.", "Open its first page.")
