"""The texts of documents that this process is at, read once for all of their chunks."""

from __future__ import annotations

import uuid
from collections import OrderedDict
from datetime import timedelta
from threading import Lock

from chordwise.storage import documents
from chordwise.storage.database import Database

MAX_CHARACTERS = 2_000_000
"""Of all texts that are kept; the newest one is, whatever its size."""


class DocumentTexts:
    """Keeps the texts that were read last; safe to share between threads.

    A document's text never changes.
    """

    def __init__(self, database: Database) -> None:
        self._database = database
        self._texts: OrderedDict[uuid.UUID, str] = OrderedDict()
        self._reading: dict[uuid.UUID, Lock] = {}
        self._lock = Lock()

    def of(self, document_id: uuid.UUID, within: timedelta) -> str:
        """Return the text of a document.

        Raises:
            ServiceUnavailableError: The database stayed away for longer than `within`.
        """
        with self._lock:
            if document_id in self._texts:
                self._texts.move_to_end(document_id)
                return self._texts[document_id]
            reading = self._reading.setdefault(document_id, Lock())
        with reading:
            with self._lock:
                if document_id in self._texts:
                    return self._texts[document_id]
            for attempt in self._database.attempts(within):
                with attempt as session:
                    text = documents.text_of(session, document_id)
            self.keep(document_id, text)
        return text

    def keep(self, document_id: uuid.UUID, text: str) -> None:
        """Keep a text that was read."""
        with self._lock:
            self._texts[document_id] = text
            self._reading.pop(document_id, None)
            kept = sum(map(len, self._texts.values()))
            while kept > MAX_CHARACTERS and len(self._texts) > 1:
                _, dropped = self._texts.popitem(last=False)
                kept -= len(dropped)
