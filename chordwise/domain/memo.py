"""Memoization for objects that are not hashable, such as JSON schemas."""

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
    """Cache the result of a function by the identity of its first argument; thread-safe.

    Further arguments must be hashable. Neither the object nor the result may be changed.
    """
    known: dict[Hashable, tuple[First, Returned]] = {}

    @functools.wraps(function)
    def memoized(first: First, /, *rest: Rest.args, **keywords: Rest.kwargs) -> Returned:
        key = (id(first), *rest, *keywords.values())
        entry = known.get(key)
        # The id of a deleted object can be reused, so the object is kept and compared.
        if entry is not None and entry[0] is first:
            return entry[1]
        returned = function(first, *rest, **keywords)
        if len(known) >= _MAX_OBJECTS:
            known.clear()
        known[key] = (first, returned)
        return returned

    return memoized
