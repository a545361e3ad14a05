"""A provider of batches that a test controls: what it holds, answers, loses and refuses."""

from __future__ import annotations

import threading
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TypeAlias

from chordwise.domain import json_values
from chordwise.domain.json_values import JsonObject, JsonValue
from tests.peers.answering_server import user_message_of

ANSWERED, INVALID = "answered", "invalid"
EXPIRED, MISSING, GARBLED, OVERLONG = "expired", "missing", "garbled", "overlong"
Fate: TypeAlias = Callable[[str, int], str]
"""Says of a question, and how often it was asked before, what becomes of it; `400` is an error."""


@dataclass(slots=True, kw_only=True)
class FakeBatch:
    """What was handed in, and how far it is."""

    id: str
    lines: list[JsonObject]
    metadata: JsonObject = field(default_factory=dict)
    input_file_id: str = ""
    created_at: float = field(default_factory=time.time)
    is_cancelled: bool = False
    fates: list[str] | None = None
    refusal: str = ""


class BatchProvider:
    """Lets batches end once they are let go, and remembers what it was asked.

    `holds` keeps batches in progress; `fate` decides about each line. `loses_answer` breaks the
    connection off after a batch was created, `refuses` is the code with which the next is failed.
    `done_by_then` questions of a cancelled batch are answered all the same. A batch that `lags` has
    ended, and its files are not there yet. `is_forgetful` says that there is nothing to be found
    any more. `statuses` are the errors with which an operation of the port `BatchApi` is refused,
    and `retry_after` the seconds said with it. `asked` counts the operations.
    """

    def __init__(self) -> None:
        self.holds = False
        self.fate: Fate = lambda _question, _before: ANSWERED
        self.loses_answer = False
        self.refuses = ""
        self.is_forgetful = False
        self.done_by_then = 0
        self.lags = False
        self.statuses: dict[str, int] = {}
        self.retry_after = 0
        self.asked: Counter[str] = Counter()
        self.batches: list[FakeBatch] = []
        self.lines: list[str] = []
        self.guard = threading.RLock()

    def open_batch(self, lines: list[JsonObject], **known: JsonValue) -> FakeBatch:
        """Take a batch in, and write each of its questions down."""
        with self.guard:
            batch = FakeBatch(id=f"batch-{len(self.batches) + 1}", lines=lines)
            batch.metadata = json_values.as_object(known.get("metadata") or {})
            batch.input_file_id = json_values.text(known.get("input_file_id"))
            batch.refusal, self.refuses = self.refuses, ""
            self.batches.append(batch)
            return batch

    def settle(self, batch: FakeBatch) -> None:
        """Let an open batch end if nothing holds it; every line meets its fate once."""
        with self.guard:
            if batch.fates is not None or batch.refusal:
                return
            if self.holds and not batch.is_cancelled:
                return
            questions = [question_of(line) for line in batch.lines]
            batch.fates = [
                EXPIRED
                if batch.is_cancelled and place >= self.done_by_then
                else self.fate(each, self.lines.count(each))
                for place, each in enumerate(questions)
            ]
            self.lines += questions


def question_of(line: JsonObject) -> str:
    """Return what a line asks, in whichever form."""
    return user_message_of(json_values.as_object(line.get("body") or line.get("params")))
