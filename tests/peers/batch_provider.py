"""A provider of batches whose behavior a test controls."""

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
"""The outcome of a question by its number of earlier submissions; `400` is an error."""


@dataclass(slots=True, kw_only=True)
class FakeBatch:
    """A submitted batch and its progress."""

    id: str
    lines: list[JsonObject]
    metadata: JsonObject = field(default_factory=dict)
    input_file_id: str = ""
    created_at: float = field(default_factory=time.time)
    is_cancelled: bool = False
    fates: list[str] | None = None
    refusal: str = ""


class BatchProvider:
    """Ends batches unless it holds them, and records what it was asked.

    `holds` keeps batches in progress; `fate` determines the outcome of each line. `loses_answer`
    closes the connection after a batch was created; `refuses` is the error code of the next batch.
    Up to `answered_before_cancellation` questions of a cancelled batch are answered. If the
    provider `lags`, a batch has ended, but its files do not exist yet; if it `is_forgetful`, it
    knows no batch any more. `statuses` are the HTTP errors of operations of `BatchApi`, with
    `retry_after` in seconds. `asked` counts the operations.
    """

    def __init__(self) -> None:
        self.holds = False
        self.fate: Fate = lambda _question, _before: ANSWERED
        self.loses_answer = False
        self.refuses = ""
        self.is_forgetful = False
        self.answered_before_cancellation = 0
        self.lags = False
        self.statuses: dict[str, int] = {}
        self.retry_after = 0
        self.asked: Counter[str] = Counter()
        self.batches: list[FakeBatch] = []
        self.lines: list[str] = []
        self.guard = threading.RLock()

    def open_batch(self, lines: list[JsonObject], **known: JsonValue) -> FakeBatch:
        """Accept a batch and record it."""
        with self.guard:
            batch = FakeBatch(id=f"batch-{len(self.batches) + 1}", lines=lines)
            batch.metadata = json_values.as_object(known.get("metadata") or {})
            batch.input_file_id = json_values.text(known.get("input_file_id"))
            batch.refusal, self.refuses = self.refuses, ""
            self.batches.append(batch)
            return batch

    def settle(self, batch: FakeBatch) -> None:
        """End a batch if nothing holds it; the outcome of every line is determined once."""
        with self.guard:
            if batch.fates is not None or batch.refusal:
                return
            if self.holds and not batch.is_cancelled:
                return
            questions = [question_of(line) for line in batch.lines]
            batch.fates = [
                EXPIRED
                if batch.is_cancelled and place >= self.answered_before_cancellation
                else self.fate(question, self.lines.count(question))
                for place, question in enumerate(questions)
            ]
            self.lines += questions


def question_of(line: JsonObject) -> str:
    """Return the question of a line, in OpenAI's or Anthropic's format."""
    return user_message_of(json_values.as_object(line.get("body") or line.get("params")))
