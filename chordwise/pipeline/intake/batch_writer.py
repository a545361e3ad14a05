"""Storing what was read in batches, in a thread of its own, while more is being read."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Sequence
from threading import Condition, Thread
from types import TracebackType
from typing import Self

from chordwise.pipeline.intake.batches import MAX_BYTES, MAX_DOCUMENTS, Offered

FLUSH_SECONDS = 0.2
"""How long something that was read waits for a batch to become full."""


class BatchWriter:
    """Hands what it is given to `store`, in order and in batches; a context manager.

    A batch is stored when it is full, when its first thing has waited for a moment, and at the end
    of the block. What waits when an exception ends the block is dropped. One full batch waits
    while another one is stored, and beside a document that is larger than two batches nothing does.
    """

    def __init__(self, store: Callable[[Sequence[Offered]], object]) -> None:
        self._store = store
        self._changed = Condition()
        self._waiting: deque[Offered] = deque()
        self._waiting_bytes = 0
        self._stored_bytes = 0
        self._is_closing = False
        self._error: BaseException | None = None
        self._thread = Thread(target=self._run, name="storing", daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        with self._changed:
            if kind is not None:
                self._waiting.clear()
            self._is_closing = True
            self._changed.notify_all()
        self._thread.join()
        if kind is None and self._error is not None:
            raise self._error

    def put(self, offered: Offered) -> None:
        """Take one thing, and wait while too much is held.

        Raises:
            BaseException: What `store` has raised; nothing more is stored then.
        """
        with self._changed:
            self._waiting.append(offered)
            self._waiting_bytes += offered.byte_count
            if len(self._waiting) == 1 or self._is_full():
                self._changed.notify_all()
            self._changed.wait_for(lambda: self._error is not None or not self._is_too_much())
            if self._error is not None:
                raise self._error

    def _is_full(self) -> bool:
        return len(self._waiting) >= MAX_DOCUMENTS or self._waiting_bytes >= MAX_BYTES

    def _is_too_much(self) -> bool:
        return self._is_full() or self._stored_bytes > 2 * MAX_BYTES

    def _run(self) -> None:
        try:
            while batch := self._next():
                self._store(batch)
        except BaseException as error:  # noqa: BLE001 - raised again where more is put
            with self._changed:
                self._error = error
                self._waiting.clear()
                self._changed.notify_all()

    def _next(self) -> list[Offered]:
        """Return the next batch, when it is due; an empty one at the end."""
        with self._changed:
            self._stored_bytes = 0
            self._changed.notify_all()
            self._changed.wait_for(lambda: self._waiting or self._is_closing)
            self._changed.wait_for(lambda: self._is_full() or self._is_closing, FLUSH_SECONDS)
            batch: list[Offered] = []
            while self._waiting and len(batch) < MAX_DOCUMENTS and self._stored_bytes < MAX_BYTES:
                batch.append(self._waiting.popleft())
                self._stored_bytes += batch[-1].byte_count
            self._waiting_bytes -= self._stored_bytes
            return batch
