"""Checkpoints between the steps of an answer, at which a time limit can end it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar

Check = Callable[[], None]

_check: ContextVar[Check] = ContextVar("check", default=lambda: None)


@contextmanager
def checked(check: Check) -> Iterator[None]:
    """Call `check` at every checkpoint of this thread inside the block; what it raises ends it."""
    token = _check.set(check)
    try:
        yield
    finally:
        _check.reset(token)


def checkpoint() -> None:
    """Stop here if the answer has to end; called once for each sentence and each search."""
    _check.get()()
