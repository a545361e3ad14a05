"""Comparing texts by meaning, where an encoder is at hand for the answer."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar

from chordwise.domain.checkpoints import checkpoint

Similarity = Callable[[str, str], float]
"""The cosine of two texts' vectors, from -1 to 1."""

_similarity: ContextVar[Similarity | None] = ContextVar("similarity", default=None)


@contextmanager
def compared(similarity: Similarity | None) -> Iterator[None]:
    """Compare texts of this thread by `similarity` inside the block; without one by words alone."""
    token = _similarity.set(similarity)
    try:
        yield
    finally:
        _similarity.reset(token)


def similarities(text: str, others: Sequence[str]) -> list[float]:
    """Return how similar a text is to each of the others; an empty list without an encoder."""
    similarity = _similarity.get()
    if similarity is None:
        return []
    found = []
    for other in others:
        checkpoint()
        found.append(similarity(text, other))
    return found
