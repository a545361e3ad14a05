"""Tests of the state of a list in its address, and of the addresses of its other pages."""

from __future__ import annotations

from urllib.parse import parse_qs, urlsplit

import pytest
from starlette.requests import Request

from chordwise.errors import UsageError
from chordwise.web.lists import Listing, listing_of


def listing_at(query: str) -> Listing:
    scope = {
        "type": "http",
        "path": "/results",
        "query_string": query.encode(),
        "headers": [],
        "server": ("127.0.0.1", 80),
        "scheme": "http",
    }
    return listing_of(Request(scope), ("type", "label"), ("created", "confidence"), "-created")


def test_the_address_of_the_next_page_round_trips() -> None:
    first = listing_at("type=summary&label=&sort=confidence&unknown=1")
    key = (0.25, None, "Straße & Söhne", 7)

    second = listing_at(urlsplit(first.next_page(key)).query)

    assert first.filters == {"type": "summary"}
    assert first.after == ()
    assert (second.filters, second.sort, second.is_descending) == (
        first.filters,
        "confidence",
        False,
    )
    assert second.after == key


def test_a_changed_filter_or_order_leads_to_the_first_page() -> None:
    listing = listing_at("type=summary&sort=confidence&after=WzFd")

    assert listing.after == (1,)
    assert parse_qs(urlsplit(listing.address(label="a&b")).query) == {
        "type": ["summary"],
        "label": ["a&b"],
        "sort": ["confidence"],
    }
    assert listing.address(type="") == "/results?sort=confidence"
    assert listing.sorted_by("confidence").endswith("sort=-confidence")
    assert listing.sorted_by("created").endswith("sort=created")
    assert listing.direction_of("confidence") == "ascending"
    assert listing_at("").direction_of("created") == "descending"


@pytest.mark.parametrize(
    "query", ["sort=password", "sort=--created", "after=%20", "after=e30=", "after=W1tdXQ=="]
)
def test_an_invalid_address_is_rejected(query: str) -> None:
    with pytest.raises(UsageError):
        listing_at(query)
