"""What a long list shows, as its address says: filters, order, and the row after which it goes on.

A list is read by keyset: its next page begins after the last row of this one, whatever was added
meanwhile, and costs as much as the first.
"""

from __future__ import annotations

import base64
import binascii
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TypeAlias
from urllib.parse import urlencode

from starlette.requests import Request

from chordwise.errors import UsageError

Key: TypeAlias = tuple[str | int | float | None, ...]
"""The values of a row in the columns of the order, a unique one at the end."""
PAGE_ROWS = 50
_DESCENDING = "-"


@dataclass(frozen=True, slots=True, kw_only=True)
class Listing:
    """`filters` are those that are set; `sort` is the column of the order.

    `after` is the key of the row that the page goes on after, empty on the first one.
    """

    path: str
    filters: Mapping[str, str]
    sort: str = ""
    is_descending: bool = False
    after: Key = ()

    def address(self, **filters: str) -> str:
        """Return the address of the first page with some filters changed; empty ones are none."""
        return self._address({**self.filters, **filters}, self._order())

    def sorted_by(self, column: str) -> str:
        """Return the address of the list in the order of a column, or in the opposite one."""
        is_turned = column == self.sort and not self.is_descending
        return self._address(self.filters, f"{_DESCENDING if is_turned else ''}{column}")

    def next_page(self, key: Key) -> str:
        """Return the address of the page after the row with this key."""
        cursor = base64.urlsafe_b64encode(json.dumps(key).encode()).decode()
        return self._address(self.filters, self._order(), after=cursor)

    def direction_of(self, column: str) -> str:
        """Return what `aria-sort` says of a column."""
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
    """Return what a request asks for; `sorts` are the columns, `-` before one turns the order.

    Raises:
        UsageError: There is no such order, or no such page.
    """
    asked = request.query_params
    order = asked.get("sort", default_sort)
    sort = order.removeprefix(_DESCENDING)
    if sort and sort not in sorts:
        hint = f"By: {', '.join(sorts)}." if sorts else ""
        raise UsageError(f"The list cannot be sorted by “{sort}”.", hint)
    return Listing(
        path=request.url.path,
        filters={name: asked[name].strip() for name in filters if asked.get(name, "").strip()},
        sort=sort,
        is_descending=order.startswith(_DESCENDING),
        after=_key(asked.get("after", "")),
    )


def _key(cursor: str) -> Key:
    if not cursor:
        return ()
    try:
        found = json.loads(base64.urlsafe_b64decode(cursor.encode()))
    except (ValueError, binascii.Error, RecursionError) as error:
        raise _no_page() from error
    if not isinstance(found, list):
        raise _no_page()
    key = tuple(each for each in found if each is None or isinstance(each, str | int | float))
    if len(key) != len(found):
        raise _no_page()
    return key


def _no_page() -> UsageError:
    return UsageError("There is no such page of the list.", "Begin with its first page.")
