"""Remembering what was computed for objects that have no hash, such as JSON schemas."""

from __future__ import annotations

import functools
from collections.abc import Callable, Hashable
from typing import Concatenate, ParamSpec, TypeVar

First = TypeVar("First")
Rest = ParamSpec("Rest")
Returned = TypeVar("Returned")

_MAX_OBJECTS = 256


def memoized_by_identity(
    function: Callable[Concatenate[First, Rest], Returned],
) -> Callable[Concatenate[First, Rest], Returned]:
    """Return a function that computes once for each object that its first argument is.

    Further arguments must be hashable and positional. Neither the object nor what is returned may
    be changed. The last some hundred are remembered; safe to share between threads.
    """
    known: dict[Hashable, tuple[First, Returned]] = {}

    @functools.wraps(function)
    def memoized(first: First, /, *rest: Rest.args, **named: Rest.kwargs) -> Returned:
        key = (id(first), *rest)
        found = known.get(key)
        # An id is given again once its object is gone, so the object is kept.
        if found is not None and found[0] is first:
            return found[1]
        returned = function(first, *rest, **named)
        if len(known) >= _MAX_OBJECTS:
            known.clear()
        known[key] = (first, returned)
        return returned

    return memoized
