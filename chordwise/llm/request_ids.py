"""Ids that come back with answers, and which of them say that it is another request's answer."""

from __future__ import annotations

import uuid
from collections.abc import Collection


class RequestIds:
    """Judges the ids in answers by what each host has sent before; safe to share between threads.

    Some gateways write ids of their own where others send ours back: those say nothing.
    """

    def __init__(self) -> None:
        self._echoing: set[str] = set()

    def is_anothers(self, host: str, ours: str, theirs: Collection[str]) -> bool:
        """Tell whether an answer with these ids, if any, belongs to another request than ours.

        It does where they could be ids that we gave: they have the form of ours, or the host is
        known to send ours back.
        """
        if ours.lower() in {each.lower() for each in theirs}:
            self._echoing.add(host)
            return False
        return any(host in self._echoing or _form(each) == _form(ours) for each in theirs)


def _form(id_: str) -> int | None:
    """Return the version of a UUID; `None` for whatever else, and for those without a version."""
    try:
        return uuid.UUID(id_).version
    except ValueError:
        return None
