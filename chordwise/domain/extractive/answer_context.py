"""The context of an answer in this thread: a check that can end it, and an optional encoder."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar

Check = Callable[[], None]
Similarity = Callable[[str, str], float]
"""The cosine of two texts' vectors, from -1 to 1."""

_given: ContextVar[tuple[Check, Similarity | None]] = ContextVar(
    "given", default=(lambda: None, None)
)


@contextmanager
def answering(check: Check, similarity: Similarity | None) -> Iterator[None]:
    """Call `check` at every checkpoint inside the block; without `similarity`, compare by words."""
    token = _given.set((check, similarity))
    try:
        yield
    finally:
        _given.reset(token)


def checkpoint() -> None:
    """Call the check, which may end the answer; called for each sentence and each search."""
    _given.get()[0]()


def similarities(text: str, others: Sequence[str]) -> list[float]:
    """Return the similarity of a text to each of the others; empty without an encoder."""
    checkpoint()
    similarity = _given.get()[1]
    return [similarity(text, other) for other in others] if similarity else []
