"""What a format's reader returns, before the text is normalised."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class Extracted:
    """The text of one file as its reader found it.

    `encoding` is Python's name of the text encoding, `None` for formats that have their own.
    `pages` counts pages where the format has them; `pages_unread` those that are damaged.
    """

    text: str
    media_type: str
    title: str = ""
    encoding: str | None = None
    pages: int | None = None
    pages_unread: int = 0
